//! Directories and split files: what does not belong together is refused by name.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use tercel_formats::checkpoint::{Packaging, shards};
use tercel_formats::gguf::Writer;
use tercel_formats::{Checkpoint, DType, Gguf, Storage};

/// A safetensors file of zeros.
fn file(tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
    let sizes = tensors
        .iter()
        .map(|(_, dtype, shape)| dtype.bitsize() / 8 * shape.iter().product::<usize>());
    let data: Vec<Vec<u8>> = sizes.map(|size| vec![0; size]).collect();
    let view = |(tensor, data): (&(&str, Dtype, &[usize]), &'static [u8])| {
        (
            tensor.0.to_owned(),
            TensorView::new(tensor.1, tensor.2.to_vec(), data).unwrap(),
        )
    };
    let leaked = data.into_iter().map(|bytes| &*bytes.leak());
    serialize(tensors.iter().zip(leaked).map(view), None).unwrap()
}

fn read(config: &Value, files: &[(&str, &[u8])], index: Option<&Value>) -> Result<String, String> {
    let (config, index) = (config.to_string(), index.map(Value::to_string));
    let index = index.as_ref().map(String::as_bytes);
    Checkpoint::from_hugging_face(config.as_bytes(), files, index)
        .map(|checkpoint| {
            let tensors = checkpoint.tensors().iter();
            let shown = tensors.map(|t| format!("{} {:?} {}", t.name, t.shape, t.storage.kind()));
            shown.collect::<Vec<_>>().join("; ")
        })
        .map_err(|error| error.to_string())
}

#[test]
fn shards_and_their_index_must_agree() {
    let a = file(&[("a", Dtype::F32, &[2, 3])]);
    let b = file(&[("b", Dtype::BF16, &[4])]);
    let files: [(&str, &[u8]); 2] = [("1.safetensors", &a), ("2.safetensors", &b)];
    let index = |map: Value| json!({ "weight_map": map });
    let good = index(json!({"a": "1.safetensors", "b": "2.safetensors"}));
    let config = json!({});
    assert_eq!(
        shards(good.to_string().as_bytes()).unwrap(),
        ["1.safetensors", "2.safetensors"]
    );
    assert_eq!(
        read(&config, &files, Some(&good)).unwrap(),
        "a [2, 3] F32; b [4] BF16"
    );
    assert_eq!(
        read(&config, &files, None).unwrap(),
        "a [2, 3] F32; b [4] BF16"
    );
    let more = index(json!({"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}));
    let swapped = index(json!({"a": "2.safetensors", "b": "2.safetensors"}));
    let twice: [(&str, &[u8]); 2] = [("1.safetensors", &a), ("2.safetensors", &a)];
    for (files, index, problem) in [
        (
            &files,
            Some(&more),
            "2.safetensors has no tensor `c`, which the index says is in it",
        ),
        (
            &files,
            Some(&swapped),
            "1.safetensors has a tensor `a`, which the index does not say is in it",
        ),
        (&twice, None, "there are two tensors `a`"),
    ] {
        assert_eq!(read(&config, files, index).unwrap_err(), problem);
    }
}

#[test]
fn names_in_an_index_stay_beside_it() {
    for name in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        ".safetensors",
        "model.bin",
        "",
    ] {
        let index = json!({"weight_map": {"a": name}}).to_string();
        let error = shards(index.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("which is no safetensors file"), "{error}");
    }
    for index in [
        "",
        "[]",
        "{}",
        "{\"weight_map\": 3}",
        "{\"weight_map\": {}}",
    ] {
        let error = shards(index.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("model.safetensors.index.json: "),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_checkpoint_says_so() {
    let good = file(&[("a", Dtype::F32, &[2])]);
    let cut = &good[..good.len() - 1];
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for (config, bytes, problem) in [
        (
            json!([]),
            good.as_slice(),
            "config.json: holds no configuration",
        ),
        (
            json!({}),
            cut,
            "model.safetensors: is no valid safetensors file",
        ),
        (
            json!({}),
            &[],
            "model.safetensors: is no valid safetensors file",
        ),
        (
            json!({}),
            pointer.as_slice(),
            "model.safetensors: is a pointer to a large file",
        ),
        (
            json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
            &good,
            "the weights are quantized by `gptq`, which is not supported",
        ),
        (
            json!({"text_config": {"quantization_config": {"quant_method": "awq"}}}),
            &good,
            "the weights are quantized by `awq`, which is not supported",
        ),
    ] {
        let error = read(&config, &[("model.safetensors", bytes)], None).unwrap_err();
        assert!(error.starts_with(problem), "{error}");
    }
    let codes = file(&[("model.layers.0.q.qweight", Dtype::I32, &[8, 4])]);
    let error = read(&json!({}), &[("model.safetensors", &codes)], None).unwrap_err();
    assert!(
        error.contains("gptq or awq") && error.contains("model.layers.0.q.qweight"),
        "{error}"
    );
}

#[test]
fn affine_tensors_are_put_together_or_refused() {
    let of = |bits: u32, group: usize| json!({"quantization": {"bits": bits, "group_size": group}});
    let words = |cols: usize| -> Vec<u8> {
        file(&[
            ("q.weight", Dtype::U32, &[8, cols]),
            ("q.scales", Dtype::F16, &[8, 2]),
            ("q.biases", Dtype::F16, &[8, 2]),
            ("q.bias", Dtype::F16, &[8]),
        ])
    };
    let good = words(8);
    let read = |config: &Value, bytes: &[u8]| read(config, &[("m.safetensors", bytes)], None);
    assert_eq!(
        read(&of(4, 32), &good).unwrap(),
        "q.weight [8, 64] affine 4-bit, groups of 32; q.bias [8] F16"
    );
    let mut own = of(8, 64);
    own["quantization"]["q"] = json!({"bits": 4, "group_size": 32});
    assert!(
        read(&own, &good)
            .unwrap()
            .contains("affine 4-bit, groups of 32")
    );

    let no_scales = file(&[
        ("q.weight", Dtype::U32, &[8, 8]),
        ("q.biases", Dtype::F16, &[8, 2]),
    ]);
    let no_biases = file(&[
        ("q.weight", Dtype::U32, &[8, 8]),
        ("q.scales", Dtype::F16, &[8, 2]),
    ]);
    let alone = file(&[
        ("q.scales", Dtype::F16, &[8, 2]),
        ("q.biases", Dtype::F16, &[8, 2]),
    ]);
    let whole = file(&[
        ("q.scales", Dtype::I32, &[8, 2]),
        ("q.biases", Dtype::I32, &[8, 2]),
        ("q.weight", Dtype::U32, &[8, 8]),
    ]);
    let mut fp4 = of(4, 32);
    fp4["quantization"]["mode"] = json!("mxfp4");
    for (config, bytes, problem) in [
        (
            of(4, 32),
            &no_scales,
            "expected a tensor `q.scales` beside it, which is missing",
        ),
        (
            of(4, 32),
            &no_biases,
            "expected a tensor `q.biases` beside it, which is missing",
        ),
        (
            of(4, 32),
            &alone,
            "the weight that it belongs to is missing",
        ),
        (of(4, 32), &whole, "scales of type I32"),
        (
            of(8, 32),
            &good,
            "codes [8, 8] and scales [8, 2] do not make 8 bits in groups of 32",
        ),
        (of(7, 32), &good, "7 bits in groups of 32 are not supported"),
        (of(4, 48), &good, "4 bits in groups of 48 are not supported"),
        (
            json!({"quantization": {}}),
            &good,
            "does not say the bits and group_size of `q`",
        ),
        (
            fp4,
            &good,
            "quantized by `mxfp4`, which is not supported (tensor `q`)",
        ),
    ] {
        let error = read(&config, bytes).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn parts_of_a_split_file_are_one_model() {
    let part = |number: u16, count: u16, tensor: &str, all: i32| -> Vec<u8> {
        let mut writer = Writer::new();
        writer.set("general.architecture", "llama").unwrap();
        writer.set("split.no", number).unwrap();
        writer.set("split.count", count).unwrap();
        writer.set("split.tensors.count", all).unwrap();
        writer
            .tensor(tensor, DType::F32, &[3, 2], vec![0; 24])
            .unwrap();
        let mut out = Vec::new();
        writer.write_to(&mut out).unwrap();
        out
    };
    let (first, second) = (part(0, 2, "a", 2), part(1, 2, "b", 2));
    let join = |files: &[&[u8]]| {
        let parts = files
            .iter()
            .map(|file| Gguf::parse(file).unwrap())
            .collect();
        Checkpoint::from_gguf(parts)
            .map_err(|error| error.to_string())
            .map(|checkpoint| {
                assert_eq!(checkpoint.packaging(), Packaging::Gguf);
                assert!(matches!(
                    checkpoint.tensor("b").unwrap().storage,
                    Storage::Plain { .. }
                ));
                checkpoint
                    .tensors()
                    .iter()
                    .map(|tensor| tensor.shape.clone())
                    .collect::<Vec<_>>()
            })
    };
    assert_eq!(join(&[&first, &second]).unwrap(), [[2, 3], [2, 3]]);
    let (same, short) = (part(1, 2, "a", 2), part(0, 2, "a", 3));
    for (files, problem) in [
        (
            &[first.as_slice()][..],
            "2 files make this model, 1 are here",
        ),
        (&[&second, &first], "part 1 says it is part 2"),
        (&[&first, &same], "there are two tensors `a`"),
        (
            &[&short, &second],
            "the parts have 2 tensors, 3 make this model",
        ),
        (&[], "there are no files"),
    ] {
        assert_eq!(join(files).unwrap_err(), problem);
    }
}
