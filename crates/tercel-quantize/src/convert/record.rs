//! `manifest.json`: where a converted model came from.

use serde::Serialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::{Meter, Precision, Source};
use crate::error::ConvertError;

/// Bytes that are hashed between two reports.
const STEP_BYTES: usize = 8 << 20;

/// A file of the source.
#[derive(Serialize)]
pub(super) struct Hashed<'s> {
    name: &'s str,
    bytes: u64,
    sha256: String,
}

#[derive(Serialize)]
struct Manifest<'s> {
    model_name: &'s str,
    /// That of the one file; of several, that of their list as `sha256sum` prints it.
    checkpoint_hash: String,
    source_files: &'s [Hashed<'s>],
    converter_version: &'static str,
    precision: Precision,
    rope_settings: Json,
    runtime_target: &'static str,
}

/// Hashes the files of weights.
pub(super) fn hashes<'s>(
    source: &'s Source<'_, '_>,
    meter: &mut Meter<'_>,
) -> Result<Vec<Hashed<'s>>, ConvertError> {
    let mut hashed = Vec::with_capacity(source.weights.len());
    for (name, file) in &source.weights {
        let mut digest = Sha256::new();
        for part in file.chunks(STEP_BYTES) {
            digest.update(part);
            meter.step(part.len() as u64, part)?;
        }
        hashed.push(Hashed {
            name,
            bytes: file.len() as u64,
            sha256: hexadecimal(&digest.finalize()),
        });
    }
    Ok(hashed)
}

/// The file, given the configuration of the result.
pub(super) fn manifest(
    source: &Source<'_, '_>,
    files: &[Hashed<'_>],
    precision: Precision,
    config: &Json,
) -> Vec<u8> {
    let hash = match files {
        [one] => one.sha256.clone(),
        several => {
            let line = |file: &Hashed<'_>| format!("{}  {}\n", file.sha256, file.name);
            let list: String = several.iter().map(line).collect();
            hexadecimal(&Sha256::digest(list.as_bytes()))
        }
    };
    let manifest = Manifest {
        model_name: source.name,
        checkpoint_hash: format!("sha256:{hash}"),
        source_files: files,
        converter_version: concat!("tercel ", env!("CARGO_PKG_VERSION")),
        precision,
        rope_settings: rope_settings(config),
        runtime_target: "tercel, transformers",
    };
    let json = serde_json::to_value(manifest).unwrap_or_default();
    pretty(&json)
}

/// JSON for people.
pub(super) fn pretty(json: &Json) -> Vec<u8> {
    format!("{json:#}\n").into_bytes()
}

/// The fields of the configuration that say how positions become angles.
fn rope_settings(config: &Json) -> Json {
    let text = config.get("text_config").unwrap_or(config);
    let fields = text.as_object().into_iter().flatten();
    let of_rope = fields.filter(|(name, _)| {
        name.contains("rope")
            || matches!(
                name.as_str(),
                "partial_rotary_factor" | "max_position_embeddings"
            )
    });
    of_rope
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Serialize for Precision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
