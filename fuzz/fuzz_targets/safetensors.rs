//! Reads a directory of safetensors, and plans the model that it claims to be.
//!
//! The input is `config.json`, the index and one file of weights, with a byte 0xFF after each of
//! the first two (which no UTF-8 text holds); no index where there is nothing between. A file that
//! begins as JSON is the header alone, and gets its length and zeros for data: the numbers of a
//! model are not what is looked for here.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::shards;
use tercel_nn::{KvType, Options, Runner, Target};

/// The file's name, as indexes have it.
const FILE: &str = "model.safetensors";

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == 0xFF);
    let (Some(config), Some(index), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let completed = completed(file);
    let file = completed.as_deref().unwrap_or(file);
    let index = (!index.is_empty()).then_some(index);
    if let Some(names) = index.and_then(|index| shards(index).ok()) {
        assert!(names.iter().all(|name| !name.contains(['/', '\\'])));
    }
    let checkpoint = match Checkpoint::from_hugging_face(config, &[(FILE, file)], index) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert_eq!(error.to_string().lines().count(), 1),
    };
    let inside = file.as_ptr_range();
    for tensor in checkpoint.tensors() {
        for part in tensor.storage.parts().into_iter().filter(|p| !p.is_empty()) {
            let data = part.as_ptr_range();
            assert!(inside.start <= data.start && data.end <= inside.end);
        }
    }
    if let Err(error) = Runner::describe(&checkpoint) {
        assert_eq!(error.to_string().lines().count(), 1);
    }
    for weights in [
        Target::AsStored,
        Target::Exact,
        Target::Quantize(tercel_formats::DType::Q4_K),
    ] {
        // An error is fine; what comes out must be a sum, not a wrapped one.
        if let Ok(memory) = Runner::estimate(&checkpoint, &options(weights)) {
            assert!(memory.total() >= memory.weights_bytes);
        }
    }
});

/// A header as a file, where its data are few.
fn completed(header: &[u8]) -> Option<Vec<u8>> {
    const MOST: u64 = 1 << 20;
    if !header.starts_with(b"{") {
        return None;
    }
    let tensors: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(header).ok()?;
    let ends = tensors
        .values()
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let len = ends.max().filter(|len| *len <= MOST)?;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + len as usize, 0);
    Some(file)
}

fn options(weights: Target) -> Options {
    Options {
        max_context: 512,
        max_sequences: 2,
        max_batch_tokens: 64,
        max_outputs: 4,
        weights,
        kv_type: KvType::F16,
        threads: 1,
        ..Options::default()
    }
}
