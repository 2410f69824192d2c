//! What quantizing on load takes at its peak, measured by the system in a process of its own.
//!
//! `TERCEL_TEST_MEGABYTES=500` makes the checkpoint larger than the 200 MB that it has otherwise.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use serde_json::{Map, json};
use tercel::Engine;

/// Where the checkpoint lies, for the process that loads it.
const CHILD: &str = "TERCEL_TEST_MEMORY_OF";
/// What it says of itself.
const ANSWER: &str = "peak and weights: ";

const HIDDEN: usize = 1024;
const FEED_FORWARD: usize = 2816;
const VOCAB: usize = 16_384;
/// Bytes of half floats.
const LAYER_BYTES: usize = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FEED_FORWARD);
const TABLE_BYTES: usize = 2 * VOCAB * HIDDEN;

#[test]
fn the_peak_is_little_more_than_the_larger_of_source_and_result() {
    let megabytes: usize =
        std::env::var("TERCEL_TEST_MEGABYTES").map_or(200, |megabytes| megabytes.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let layers = ((megabytes << 20) - 2 * TABLE_BYTES).div_ceil(LAYER_BYTES);
    let source = write_checkpoint(place.path(), layers);
    assert!(source >= megabytes << 20);

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let answer = said.lines().find_map(|line| line.split_once(ANSWER));
    let (_, answer) = answer.unwrap_or_else(|| panic!("{child:?}"));
    let mut numbers = answer
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    let (peak, weights): (usize, usize) = (numbers.next().unwrap(), numbers.next().unwrap());
    println!(
        "source {} MB, result {} MB, peak {} MB",
        source >> 20,
        weights >> 20,
        peak >> 20
    );
    assert!(weights < source / 3, "{weights} of {source}: not quantized");
    let larger = source.max(weights);
    assert!(peak * 10 < larger * 13, "{peak} is over 1.3 x {larger}");
    // Of the source, what has been read is let go of.
    assert!(
        peak < weights + source / 2,
        "{peak} with a source of {source}"
    );
}

/// No test of its own: what the other one runs.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let engine = Engine::builder(path.to_str().unwrap())
        .quantize("q4_k")
        .max_context(64)
        .threads(2)
        .offline(true)
        .load()
        .unwrap();
    let weights = engine.info().memory.weights_bytes;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: usize = peak
        .and_then(|peak| peak.trim().strip_suffix(" kB"))
        .and_then(|peak| peak.parse().ok())
        .unwrap();
    println!("\n{ANSWER}{} {weights}", kilobytes * 1024);
}

/// A llama of random half floats; gives the bytes of its weights.
fn write_checkpoint(directory: &Path, layers: usize) -> usize {
    let config = json!({
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": false,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../test-data/checkpoints/qwen2-padded/tokenizer.json");
    fs::copy(tokenizer, directory.join("tokenizer.json")).unwrap();

    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN])];
    for i in 0..layers {
        let square = vec![HIDDEN, HIDDEN];
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", square.clone()),
            ("self_attn.k_proj", square.clone()),
            ("self_attn.v_proj", square.clone()),
            ("self_attn.o_proj", square),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.gate_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.up_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FEED_FORWARD]),
        ] {
            tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    tensors.push(("lm_head.weight".to_owned(), vec![VOCAB, HIDDEN]));

    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = File::create(directory.join("model.safetensors")).unwrap();
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let mut state = 1u32;
    for _ in 0..end / 2 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Any sign and mantissa, between 2^-7 and 2^-3.
        let bits = (state >> 16) & 0x83FF | (8 + (state >> 30)) << 10;
        file.write_all(&(bits as u16).to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
    end
}
