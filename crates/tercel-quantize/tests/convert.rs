//! Conversions of small models with known answers, from every packaging.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::{Folder, as_gguf, parse, with_field};
use safetensors::SafeTensors;
use serde_json::Value as Json;
use tercel_formats::Checkpoint;
use tercel_formats::gguf::OwnedValue;
use tercel_nn::{Chunk, KvType, Runner, Target, Wanted};
use tercel_quantize::{ConvertError, Converted, Options, Precision, Progress, Source, convert};

/// One of each family, and what is particular to some: biases, stretched positions, experts of a
/// layer in one tensor, as many key as value heads.
const AS_GGUF: &[&str] = &[
    "gemma3",
    "gemma3-untied",
    "llama",
    "llama-bias",
    "llama-linear",
    "llama-rope3",
    "mistral-window",
    "qwen2",
    "qwen3",
    "qwen3_5",
    "qwen3_5-equal",
    "qwen3_moe",
];

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn to(precision: Precision) -> Options {
    let mut options = Options::default();
    options.precision = precision;
    options
}

fn source<'s, 'a>(
    checkpoint: &'s Checkpoint<'a>,
    beside: Vec<(&'s str, &'s [u8])>,
) -> Source<'s, 'a> {
    Source {
        name: "tiny",
        checkpoint,
        weights: vec![("tiny.bin".to_owned(), b"weights")],
        beside,
    }
}

/// Converts into `output` and reads the result back.
fn converted(checkpoint: &Checkpoint<'_>, output: &Path, options: Options) -> (Converted, Folder) {
    let done = convert(&source(checkpoint, Vec::new()), output, options, &mut go_on).unwrap();
    (done, Folder::at(output))
}

fn logits(checkpoint: &Checkpoint<'_>, tokens: &[u32]) -> Vec<f32> {
    let options = tercel_nn::Options {
        max_context: 128,
        max_sequences: 1,
        max_batch_tokens: 128,
        max_outputs: 128,
        weights: Target::Exact,
        kv_type: KvType::F32,
        ..tercel_nn::Options::default()
    };
    let mut runner =
        Runner::load(checkpoint, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let sequence = runner.add_sequence().unwrap();
    let wanted = Wanted::All;
    let chunk = Chunk {
        sequence,
        tokens,
        wanted,
    };
    let logits = runner.forward(&[chunk]).unwrap();
    (0..logits.rows())
        .flat_map(|row| logits.row(row).to_vec())
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn what_converters_to_gguf_did_is_undone() {
    for name in AS_GGUF {
        let folder = Folder::open(name);
        let file = as_gguf(&folder);
        let place = tempfile::tempdir().unwrap();
        let (done, back) = converted(&parse(&file), &place.path().join("out"), to(Precision::F32));
        assert_eq!(done.shards, 1, "{name}");

        // Every tensor is that of the directory which the file was made of.
        let (ours, theirs) = (&back.files[0].1, &folder.files[0].1);
        let ours = SafeTensors::deserialize(ours).unwrap();
        let theirs = SafeTensors::deserialize(theirs).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (tensor, theirs) in theirs.iter() {
            let ours = ours.tensor(tensor).unwrap();
            assert_eq!(ours.shape(), theirs.shape(), "{name}: {tensor}");
            let floats = |bytes: &[u8]| -> Vec<f32> {
                let four = bytes.chunks_exact(4);
                four.map(|four| f32::from_le_bytes(four.try_into().unwrap()))
                    .collect()
            };
            let (ours, theirs) = (floats(ours.data()), floats(theirs.data()));
            // What was changed and changed back is rounded on the way.
            let rounded = tensor.contains("norm") || tensor.ends_with("A_log");
            let most = if rounded { 1e-6 } else { 0.0 };
            assert!(
                largest_difference(&ours, &theirs) <= most,
                "{name}: {tensor}"
            );
        }

        // And the configuration says as much as that of the directory.
        let found = logits(&back.checkpoint(), &folder.input_ids);
        let error = largest_difference(&found, &folder.logits);
        assert!(error < 2e-3, "{name}: {error}");
        let config: Json = serde_json::from_slice(&back.config).unwrap();
        let expected: Json = serde_json::from_slice(&folder.config).unwrap();
        for field in ["model_type", "architectures", "vocab_size", "head_dim"] {
            if !expected[field].is_null() {
                assert_eq!(config[field], expected[field], "{name}: {field}");
            }
        }
    }
}

#[test]
fn directories_become_floats_that_compute_the_same() {
    for folder in Folder::all() {
        let checkpoint = folder.checkpoint();
        let place = tempfile::tempdir().unwrap();
        let (_, back) = converted(&checkpoint, &place.path().join("out"), to(Precision::F32));
        let config: Json = serde_json::from_slice(&back.config).unwrap();
        assert!(config.get("quantization").is_none(), "{}", folder.name);
        let result = back.checkpoint();
        assert_eq!(
            result.packaging(),
            tercel_formats::checkpoint::Packaging::HuggingFace,
            "{}",
            folder.name
        );
        let [ours, theirs] =
            [&result, &checkpoint].map(|checkpoint| logits(checkpoint, &folder.input_ids));
        let difference = largest_difference(&ours, &theirs);
        assert!(difference < 1e-5, "{}: {difference}", folder.name);
    }
}

#[test]
fn matrices_get_the_precision_and_vectors_keep_theirs() {
    let folder = Folder::open("gemma3");
    let file = as_gguf(&folder);
    for (precision, name) in [(Precision::F16, "F16"), (Precision::Bf16, "BF16")] {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("out");
        let (done, back) = converted(&parse(&file), &output, to(precision));
        let tensors = SafeTensors::deserialize(&back.files[0].1).unwrap();
        assert_eq!(tensors.len(), done.tensors);
        for (tensor, view) in tensors.iter() {
            let expected = if view.shape().len() == 1 { "F32" } else { name };
            assert_eq!(format!("{:?}", view.dtype()), expected, "{tensor}");
        }
        let on_disk: u64 = fs::read_dir(&output)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        let header = on_disk - done.bytes;
        assert!(header < 20_000, "{header} bytes are not counted");
        let manifest: Json =
            serde_json::from_slice(&fs::read(output.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["precision"], precision.name());
        assert_eq!(manifest["model_name"], "tiny");
        assert_eq!(
            manifest["checkpoint_hash"],
            "sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
        );
        assert_eq!(manifest["rope_settings"]["rope_theta"], 1_000_000.0);
    }
}

#[test]
fn large_results_are_spread_over_files_with_an_index() {
    let folder = Folder::open("llama");
    let checkpoint = folder.checkpoint();
    let place = tempfile::tempdir().unwrap();
    let mut options = to(Precision::F32);
    options.max_shard_bytes = 100_000;
    let (done, back) = converted(&checkpoint, &place.path().join("out"), options);
    assert!(done.shards > 2, "{}", done.shards);
    assert_eq!(back.files.len(), done.shards);
    let [ours, theirs] =
        [&back.checkpoint(), &checkpoint].map(|checkpoint| logits(checkpoint, &folder.input_ids));
    assert_eq!(ours, theirs);
}

#[test]
fn what_stands_beside_the_weights_is_kept() {
    let folder = Folder::open("qwen2-padded");
    let checkpoint = folder.checkpoint();
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("deep/er/out");
    let beside: Vec<(&str, &[u8])> = vec![
        ("config.json", &folder.config),
        ("tokenizer.json", b"{}"),
        ("model.safetensors.index.json", b"{}"),
    ];
    convert(
        &source(&checkpoint, beside),
        &output,
        Options::default(),
        &mut go_on,
    )
    .unwrap();
    assert_eq!(fs::read(output.join("tokenizer.json")).unwrap(), b"{}");
    assert!(!output.join("model.safetensors.index.json").exists());
    let config: Json =
        serde_json::from_slice(&fs::read(output.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["dtype"], "float16");
}

#[test]
fn nothing_is_left_of_a_conversion_that_fails() {
    let folder = Folder::open("llama");
    let checkpoint = folder.checkpoint();
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("out");
    let run = |progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>| {
        let source = source(&checkpoint, Vec::new());
        convert(&source, &output, Options::default(), progress)
    };
    let entries = || fs::read_dir(place.path()).unwrap().count();

    let mut share = 0.0;
    let error = run(&mut |progress| {
        assert!(progress.share >= share && progress.share <= 1.0);
        share = progress.share;
        match share > 0.5 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .unwrap_err();
    assert!(matches!(error, ConvertError::Cancelled), "{error}");
    assert_eq!(entries(), 0);

    fs::create_dir(&output).unwrap();
    let error = run(&mut go_on).unwrap_err();
    assert_eq!(error.kind(), "output_exists");
    assert_eq!((entries(), fs::read_dir(&output).unwrap().count()), (1, 0));
}

#[test]
fn what_cannot_be_carried_over_is_named() {
    let change =
        |key: &str, value: OwnedValue| with_field(&as_gguf(&Folder::open("llama")), key, value);
    let refused = |file: &[u8]| {
        let place = tempfile::tempdir().unwrap();
        let checkpoint = parse(file);
        let source = source(&checkpoint, Vec::new());
        let error = convert(
            &source,
            &place.path().join("out"),
            Options::default(),
            &mut go_on,
        );
        error.unwrap_err().to_string()
    };
    let message = refused(&change("llama.rope.dimension_count", 8u32.into()));
    assert!(message.contains("a rotation of 8 of 16"), "{message}");
    let message = refused(&change("tokenizer.ggml.model", "unheard-of".into()));
    assert!(message.contains("`unheard-of`"), "{message}");

    // Divisors that follow from no parameters of ours.
    let file = as_gguf(&Folder::open("llama-rope3"));
    let mut file = file;
    let at = common::position_of(&file, "rope_freqs.weight");
    file[at..at + 4].copy_from_slice(&1.5f32.to_le_bytes());
    let message = refused(&file);
    assert!(message.contains("rope_freqs.weight"), "{message}");
}

#[test]
fn numbers_that_half_floats_cannot_hold_are_named() {
    let mut folder = Folder::open("llama");
    let header = u64::from_le_bytes(folder.files[0].1[..8].try_into().unwrap()) as usize;
    let parsed = SafeTensors::deserialize(&folder.files[0].1).unwrap();
    let data = parsed.tensor("model.embed_tokens.weight").unwrap().data();
    let at = data.as_ptr() as usize - folder.files[0].1.as_ptr() as usize;
    assert!(at > header);
    folder.files[0].1[at..at + 4].copy_from_slice(&1e6f32.to_le_bytes());
    let checkpoint = folder.checkpoint();
    let place = tempfile::tempdir().unwrap();
    let run = |precision: Precision| {
        let output = place.path().join(precision.name());
        convert(
            &source(&checkpoint, Vec::new()),
            &output,
            to(precision),
            &mut go_on,
        )
    };
    let error = run(Precision::F16).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `model.embed_tokens.weight` holds 1000000, which f16 cannot hold"
    );
    assert!(error.hint().unwrap().contains("bf16"));
    run(Precision::Bf16).unwrap();
}
