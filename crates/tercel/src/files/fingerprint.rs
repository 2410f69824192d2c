//! What tells one model from another, without reading all of it.

use sha2::{Digest, Sha256};
use tercel_formats::Checkpoint;
use tercel_formats::gguf::{Array, Value};

use super::ModelFiles;

/// First elements of a list, and tensors, that are looked into.
const SAMPLES: usize = 512;
/// Bytes of a tensor that are looked at.
const SAMPLE_BYTES: usize = 64;
/// Bytes of a text or small file that are looked at, at its start and at its end.
const TEXT_BYTES: usize = 64 << 10;

impl ModelFiles {
    /// The identity of the model as it is loaded, as SHA-256 in hexadecimal: of its configuration,
    /// the names, shapes, types and sizes of its tensors, and samples of their data. Of long lists
    /// the start counts. `how` names what loading makes of the weights.
    ///
    /// Other files of the same content give the same, wherever they lie. It takes a few
    /// milliseconds, and no proof: two models that differ in a few weights alone may share it.
    pub(crate) fn fingerprint(&self, checkpoint: &Checkpoint<'_>, how: &str) -> String {
        let mut hash = Fields(Sha256::new());
        hash.text("tercel model 1");
        hash.text(how);
        hash.text(&format!("{:?}", checkpoint.packaging()));
        if let Some(metadata) = checkpoint.gguf_metadata() {
            for (key, value) in metadata.iter() {
                hash.text(key);
                hash.value(value);
            }
        }
        for (name, bytes) in self.beside() {
            hash.text(name);
            hash.ends(bytes, TEXT_BYTES);
        }
        let tensors = checkpoint.tensors();
        let step = tensors.len().div_ceil(SAMPLES).max(1);
        for (at, tensor) in tensors.iter().enumerate() {
            hash.text(&tensor.name);
            hash.text(&tensor.storage.kind());
            for dim in &tensor.shape {
                hash.number(*dim);
            }
            for part in tensor.storage.parts() {
                hash.number(part.len());
                let middle = part.len() / 2;
                let sample = &part[middle..part.len().min(middle + SAMPLE_BYTES)];
                if at % step == 0 {
                    hash.bytes(sample);
                }
            }
        }
        hexadecimal(&hash.0.finalize())
    }
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn hash_of_text(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash of fields, each with its length, so that no two lists of fields look the same.
struct Fields(Sha256);

impl Fields {
    fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.ends(text.as_bytes(), TEXT_BYTES);
    }

    /// The length, and the first and last `most` bytes.
    fn ends(&mut self, bytes: &[u8], most: usize) {
        self.number(bytes.len());
        if bytes.len() <= 2 * most {
            self.0.update(bytes);
        } else {
            self.0.update(&bytes[..most]);
            self.0.update(&bytes[bytes.len() - most..]);
        }
    }

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Str(text) => self.text(text),
            Value::Array(array) => self.array(array),
            // The bits of a float are in its text.
            scalar => self.text(&format!("{scalar:?}")),
        }
    }

    fn array(&mut self, array: &Array<'_>) {
        self.text(&array.kind().to_string());
        self.number(array.len());
        // To step over strings is to read them all.
        for value in array.iter().take(SAMPLES) {
            self.value(&value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tercel_formats::DType;
    use tercel_formats::gguf::{OwnedValue, Writer};

    use super::*;

    fn fingerprint(path: &Path, how: &str) -> String {
        let files = ModelFiles::open(path).expect("a model");
        files.fingerprint(&files.checkpoint().expect("valid"), how)
    }

    fn file(metadata: &[(&str, OwnedValue)], name: &str, weights: &[u8; 400]) -> String {
        let mut writer = Writer::new();
        for (key, value) in metadata {
            writer.set(key, value.clone()).expect("a valid entry");
        }
        writer
            .tensor(name, DType::F32, &[10, 10], weights)
            .expect("a valid tensor");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("model.gguf");
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).expect("written");
        std::fs::write(&path, bytes).expect("written");
        fingerprint(&path, "")
    }

    #[test]
    fn models_differ_in_what_makes_them_and_not_in_where_they_lie() {
        let weights = [0; 400];
        let mut other = weights;
        other[210] = 1;
        let entry = |n: u32| [("llama.block_count", OwnedValue::from(n))];
        let list = |n: i32| {
            [(
                "ids",
                OwnedValue::from((0..2000).map(|i| i * n).collect::<Vec<_>>()),
            )]
        };
        let first = file(&entry(1), "a", &weights);
        assert_eq!((first.len(), &first), (64, &file(&entry(1), "a", &weights)));
        let all = [
            first,
            file(&entry(2), "a", &weights),
            file(&entry(1), "b", &weights),
            file(&entry(1), "a", &other),
            file(&list(1), "a", &weights),
            file(&list(2), "a", &weights),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "model {at}");
        }
    }

    #[test]
    fn a_directory_has_one_that_depends_on_what_loading_makes_of_it() {
        let checkpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-data/checkpoints");
        let llama = checkpoints.join("llama");
        assert_eq!(fingerprint(&llama, "q4_k"), fingerprint(&llama, "q4_k"));
        assert_ne!(fingerprint(&llama, "q4_k"), fingerprint(&llama, ""));
        assert_ne!(
            fingerprint(&checkpoints.join("qwen3"), ""),
            fingerprint(&llama, "")
        );
    }
}
