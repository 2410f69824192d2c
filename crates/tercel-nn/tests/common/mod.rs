//! Tiny checkpoints with known answers: as Hugging Face directories, and as the GGUF files that
//! llama.cpp's converter would make of them.

#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking")]

pub(crate) mod gguf;

use std::path::PathBuf;

use safetensors::SafeTensors;
use tercel_formats::Checkpoint;

/// A folder of `test-data/checkpoints`.
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) config: Vec<u8>,
    /// Name and bytes of each file of weights.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) index: Option<Vec<u8>>,
    pub(crate) input_ids: Vec<u32>,
    /// `(input_ids, vocab)`
    pub(crate) logits: Vec<f32>,
    pub(crate) greedy_ids: Vec<u32>,
}

impl Folder {
    pub(crate) fn open(name: &str) -> Self {
        let folder = checkpoints().join(name);
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
        let reference = read("reference.safetensors");
        let reference = SafeTensors::deserialize(&reference).unwrap();
        let ids = |tensor| numbers(&reference, tensor, u32::from_le_bytes);
        let index = std::fs::read(folder.join("model.safetensors.index.json")).ok();
        let names = match &index {
            Some(index) => tercel_formats::checkpoint::shards(index).unwrap(),
            None => vec!["model.safetensors".to_owned()],
        };
        Self {
            name: name.to_owned(),
            config: read("config.json"),
            files: names
                .into_iter()
                .map(|name| (name.clone(), read(&name)))
                .collect(),
            index,
            input_ids: ids("input_ids"),
            logits: numbers(&reference, "logits", f32::from_le_bytes),
            greedy_ids: ids("greedy_ids"),
        }
    }

    /// Every folder there is.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let entries = std::fs::read_dir(checkpoints())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let folders = entries.filter(|path| path.is_dir());
        let mut names: Vec<_> = folders
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names.into_iter().map(|name| Self::open(&name))
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint<'_> {
        let files: Vec<(&str, &[u8])> = self
            .files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        Checkpoint::from_hugging_face(&self.config, &files, self.index.as_deref()).unwrap()
    }
}

fn checkpoints() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/checkpoints")
}

pub(crate) fn numbers<T>(
    file: &SafeTensors<'_>,
    name: &str,
    number: impl Fn([u8; 4]) -> T,
) -> Vec<T> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes
        .chunks_exact(4)
        .map(|chunk| number(chunk.try_into().unwrap()))
        .collect()
}
