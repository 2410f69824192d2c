//! What the writer writes, the reader reads; and what the reader would refuse, the writer does.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use tercel_formats::gguf::{GgufError, OwnedArray, OwnedValue, Writer};
use tercel_formats::{DType, Gguf};

/// The contents of a file.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    entries: Vec<(String, OwnedValue)>,
    tensors: Vec<(String, DType, Vec<usize>, Vec<u8>)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn reading_gives_what_was_written(model in models()) {
        let file = written(&writer_of(&model));
        let parsed = Gguf::parse(&file).expect("written by the writer");
        prop_assert_eq!(model_of(&parsed), model);
        prop_assert!(written(&Writer::from(&parsed)) == file);
    }
}

#[test]
fn numbers_keep_their_bits() {
    let mut writer = Writer::new();
    writer
        .set("nan", f32::from_bits(0x7fa0_1234))
        .expect("valid");
    writer
        .set("nans", vec![f64::from_bits(0xfff0_0000_0000_0001), -0.0])
        .expect("valid");
    let file = written(&writer);
    assert!(
        file.windows(4)
            .any(|bytes| bytes == 0x7fa0_1234_u32.to_le_bytes())
    );
    let parsed = Gguf::parse(&file).expect("written by the writer");
    assert!(written(&Writer::from(&parsed)) == file);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    type Attempt = fn(&mut Writer<'_>) -> Result<(), GgufError>;
    let cases: [(Attempt, &str); 15] = [
        (|w| w.set("", 1_u32), "`metadata[1].key` is empty"),
        (|w| w.set("there", 1_u32), "the key `there` appears twice"),
        (
            |w| w.set(&"k".repeat(65_536), 1_u32),
            "`metadata[1].key` is 65536, the limit is 65535",
        ),
        (
            |w| w.set("text", "x".repeat((64 << 20) + 1)),
            "`text` is 67108865, the limit is 67108864",
        ),
        (
            |w| w.set("bytes", vec![0_u8; (16 << 20) + 1]),
            "`bytes length` is 16777217, the limit is 16777216",
        ),
        (
            |w| w.set("deep", nested(5)),
            "`deep[0][0][0][0] nesting depth` is 5, the limit is 4",
        ),
        (
            |w| w.set("general.alignment", 48_u32),
            "`general.alignment` is 48, a u32 power of two up to 1048576 is needed",
        ),
        (
            |w| w.set("general.alignment", 64_u64),
            "`general.alignment` is u64, a u32 power of two up to 1048576 is needed",
        ),
        (
            |w| w.tensor("", DType::F32, &[1], &[0; 4]),
            "`tensors[1].name` is empty",
        ),
        (
            |w| w.tensor(&"n".repeat(65), DType::F32, &[1], &[0; 4]),
            "`tensors[1].name` is 65, the limit is 64",
        ),
        (
            |w| w.tensor("there", DType::F32, &[1], &[0; 4]),
            "the tensor `there` appears twice",
        ),
        (
            |w| w.tensor("t", DType::F32, &[1; 5], &[0; 4]),
            "tensor `t` has 5 dimensions, 1 to 4 are possible",
        ),
        (
            |w| w.tensor("t", DType::F32, &[1, 0], &[]),
            "tensor `t` has the shape [1, 0], no dimension may be zero",
        ),
        (
            |w| w.tensor("t", DType::Q4_K, &[32, 8], &[0; 144]),
            "tensor `t` has rows of 32 elements, Q4_K needs a multiple of 256",
        ),
        (
            |w| w.tensor("t", DType::Q8_0, &[64], &[0; 67]),
            "tensor `t` got 67 bytes, its shape and type need 68",
        ),
    ];
    let mut writer = Writer::new();
    writer.set("there", true).expect("valid");
    writer
        .tensor("there", DType::I8, &[1], &[1])
        .expect("valid");
    let before = written(&writer);
    for (attempt, message) in cases {
        assert_eq!(
            attempt(&mut writer).expect_err(message).to_string(),
            message
        );
    }
    assert!(written(&writer) == before, "refused entries leave no trace");
    assert!(Gguf::parse(&before).is_ok());
}

#[test]
fn limits_of_the_writer_are_readable() {
    let mut writer = Writer::new();
    writer.set("deep", nested(4)).expect("valid");
    writer.set(&"k".repeat(65_535), "").expect("valid");
    writer.set("general.alignment", 1_u32 << 20).expect("valid");
    writer
        .tensor(&"n".repeat(64), DType::I8, &[1, 1, 1, 2], &[1, 2])
        .expect("valid");
    let file = written(&writer);
    assert_eq!(file.len(), 2 << 20);
    let parsed = Gguf::parse(&file).expect("written by the writer");
    assert_eq!(parsed.alignment(), 1 << 20);
    assert_eq!(parsed.tensors()[0].data, [1, 2]);
}

#[test]
fn counts_are_limited() {
    let mut writer = Writer::new();
    for index in 0..16_384 {
        writer.set(&format!("key.{index}"), index).expect("valid");
    }
    let error = writer.set("one.more", 0).expect_err("too many").to_string();
    assert_eq!(error, "`metadata count` is 16385, the limit is 16384");
    for index in 0..32_768 {
        writer
            .tensor(&format!("tensor.{index}"), DType::I8, &[1], &[0])
            .expect("valid");
    }
    let error = writer
        .tensor("one.more", DType::I8, &[1], &[0])
        .expect_err("too many")
        .to_string();
    assert_eq!(error, "`tensor count` is 32769, the limit is 32768");
    assert!(Gguf::parse(&written(&writer)).is_ok());
}

fn writer_of(model: &Model) -> Writer<'_> {
    let mut writer = Writer::new();
    for (key, value) in &model.entries {
        writer.set(key, value.clone()).expect("within the limits");
    }
    for (name, dtype, shape, data) in &model.tensors {
        writer
            .tensor(name, *dtype, shape, data)
            .expect("within the limits");
    }
    writer
}

fn model_of(file: &Gguf<'_>) -> Model {
    let entries = file
        .metadata()
        .iter()
        .map(|(key, &value)| (key.to_owned(), value.into()))
        .collect();
    let tensors = file
        .tensors()
        .iter()
        .map(|t| {
            (
                t.name.to_owned(),
                t.dtype,
                t.shape.clone(),
                t.data.to_owned(),
            )
        })
        .collect();
    Model { entries, tensors }
}

fn written(writer: &Writer<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    writer.write_to(&mut file).expect("memory takes all bytes");
    file
}

/// An array of `depth` levels.
fn nested(depth: usize) -> OwnedArray {
    (1..depth).fold(OwnedArray::U8(vec![7]), |inner, _| {
        OwnedArray::Array(vec![inner])
    })
}

fn models() -> impl Strategy<Value = Model> {
    let entries = btree_map("\\PC{1,24}", values(), 0..12);
    let tensors = btree_map("\\PC{1,16}", tensors(), 0..6);
    (entries, tensors, prop::option::of(0..12_u32)).prop_map(|(entries, tensors, alignment)| {
        let alignment =
            alignment.map(|power| ("general.alignment".to_owned(), (1_u32 << power).into()));
        let tensors = tensors
            .into_iter()
            .map(|(name, (d, s, data))| (name, d, s, data));
        Model {
            entries: entries.into_iter().chain(alignment).collect(),
            tensors: tensors.collect(),
        }
    })
}

fn tensors() -> impl Strategy<Value = (DType, Vec<usize>, Vec<u8>)> {
    const DTYPES: &[DType] = &[
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I8,
        DType::F64,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q8_0,
        DType::Q4_K,
        DType::Q6_K,
        DType::MXFP4,
    ];
    (select(DTYPES), vec(1..4_usize, 1..5), any::<u8>()).prop_map(|(dtype, mut shape, first)| {
        shape[0] *= dtype.block_len();
        let len = dtype
            .bytes_for(shape.iter().product())
            .expect("whole blocks");
        (
            dtype,
            shape,
            (0..len).map(|at| first.wrapping_add(at as u8)).collect(),
        )
    })
}

fn values() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        any::<u8>().prop_map(OwnedValue::U8),
        any::<i8>().prop_map(OwnedValue::I8),
        any::<u16>().prop_map(OwnedValue::U16),
        any::<i16>().prop_map(OwnedValue::I16),
        any::<u32>().prop_map(OwnedValue::U32),
        any::<i32>().prop_map(OwnedValue::I32),
        floats().prop_map(OwnedValue::F32),
        any::<bool>().prop_map(OwnedValue::Bool),
        any::<String>().prop_map(OwnedValue::Str),
        any::<u64>().prop_map(OwnedValue::U64),
        any::<i64>().prop_map(OwnedValue::I64),
        doubles().prop_map(OwnedValue::F64),
        arrays().prop_map(OwnedValue::Array),
    ]
}

fn arrays() -> impl Strategy<Value = OwnedArray> {
    let flat = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(OwnedArray::U8),
        vec(any::<i8>(), 0..9).prop_map(OwnedArray::I8),
        vec(any::<u16>(), 0..9).prop_map(OwnedArray::U16),
        vec(any::<i16>(), 0..9).prop_map(OwnedArray::I16),
        vec(any::<u32>(), 0..9).prop_map(OwnedArray::U32),
        vec(any::<i32>(), 0..9).prop_map(OwnedArray::I32),
        vec(floats(), 0..9).prop_map(OwnedArray::F32),
        vec(any::<bool>(), 0..9).prop_map(OwnedArray::Bool),
        vec(any::<String>(), 0..9).prop_map(OwnedArray::Str),
        vec(any::<u64>(), 0..9).prop_map(OwnedArray::U64),
        vec(any::<i64>(), 0..9).prop_map(OwnedArray::I64),
        vec(doubles(), 0..9).prop_map(OwnedArray::F64),
    ];
    flat.prop_recursive(3, 16, 4, |inner| {
        vec(inner, 0..4).prop_map(OwnedArray::Array)
    })
}

/// Numbers that equal themselves.
fn floats() -> impl Strategy<Value = f32> {
    use prop::num::f32::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE
}

fn doubles() -> impl Strategy<Value = f64> {
    use prop::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE
}
