//! Reads a file that the `gguf` Python package wrote and compares every value with the ones in
//! the script that made it, `test-data/gguf/make_fixture.py`.

use tercel_formats::gguf::{Array, GgufError, OwnedArray, Value, Writer};
use tercel_formats::{DType, Gguf};

const FIXTURE: &[u8] = include_bytes!("../../../test-data/gguf/fixture.gguf");

fn fixture() -> Gguf<'static> {
    Gguf::parse(FIXTURE).expect("the fixture is valid")
}

#[test]
fn header() {
    let file = fixture();
    assert_eq!(file.version(), 3);
    assert_eq!(file.alignment(), 64);
    assert_eq!(file.metadata().len(), 28);
    assert_eq!(file.tensors().len(), 17);
}

#[test]
fn scalars() {
    let expected = [
        ("general.architecture", Value::Str("fixture")),
        ("general.alignment", Value::U32(64)),
        ("value.u8", Value::U8(200)),
        ("value.i8", Value::I8(-100)),
        ("value.u16", Value::U16(60_000)),
        ("value.i16", Value::I16(-30_000)),
        ("value.u32", Value::U32(4_000_000_000)),
        ("value.i32", Value::I32(-2_000_000_000)),
        ("value.f32", Value::F32(0.1)),
        ("value.bool.true", Value::Bool(true)),
        ("value.bool.false", Value::Bool(false)),
        (
            "value.string",
            Value::Str("gr\u{fc}\u{df} dich, \u{4e16}\u{754c} \u{1f30d}\n"),
        ),
        ("value.u64", Value::U64(u64::MAX)),
        ("value.i64", Value::I64(i64::MIN)),
        ("value.f64", Value::F64(1e300)),
    ];
    let file = fixture();
    let found: Vec<_> = file
        .metadata()
        .iter()
        .map(|(key, value)| (key, *value))
        .collect();
    assert_eq!(found[..expected.len()], expected);
    for (key, value) in expected {
        assert_eq!(file.metadata().get(key), Some(&value), "{key}");
    }
}

#[test]
fn arrays() {
    let texts = |items: &[&str]| OwnedArray::Str(items.iter().map(|&s| s.to_owned()).collect());
    let expected = [
        ("array.u8", OwnedArray::U8(vec![0, 1, 255])),
        ("array.i8", OwnedArray::I8(vec![-128, 127])),
        ("array.u16", OwnedArray::U16(vec![65_535])),
        ("array.i16", OwnedArray::I16(vec![-32_768, 3])),
        ("array.u32", OwnedArray::U32(vec![1, u32::MAX])),
        ("array.i32", OwnedArray::I32(vec![i32::MIN, 7, i32::MAX])),
        ("array.f32", OwnedArray::F32(vec![0.5, -1.25, 3e38])),
        ("array.bool", OwnedArray::Bool(vec![true, false, true])),
        ("array.string", texts(&["<s>", "", "\u{2581}the", "\u{e9}"])),
        ("array.u64", OwnedArray::U64(vec![1 << 63])),
        ("array.i64", OwnedArray::I64(vec![-1, 1])),
        ("array.f64", OwnedArray::F64(vec![0.1, -2.5])),
        (
            "array.nested",
            OwnedArray::Array(vec![
                OwnedArray::I32(vec![1, 2]),
                texts(&["a", "b", "c"]),
                OwnedArray::Array(vec![OwnedArray::F32(vec![1.5])]),
            ]),
        ),
    ];
    let file = fixture();
    let found: Vec<_> = file
        .metadata()
        .iter()
        .skip(15)
        .map(|(key, _)| key)
        .collect();
    assert_eq!(found, expected.each_ref().map(|(key, _)| *key));
    for (key, value) in expected {
        let array = array(&file, key);
        assert_eq!(array.kind(), value.kind(), "{key}");
        assert_eq!(array.len(), value.len(), "{key}");
        assert_eq!(OwnedArray::from(array), value, "{key}");
    }
}

#[test]
fn typed_getters() -> Result<(), GgufError> {
    let file = fixture();
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.architecture")?, Some("fixture"));
    assert_eq!(metadata.bool("value.bool.true")?, Some(true));
    assert_eq!(metadata.u32("value.u8")?, Some(200));
    assert_eq!(metadata.u32("value.u16")?, Some(60_000));
    assert_eq!(metadata.u32("value.u32")?, Some(4_000_000_000));
    assert_eq!(metadata.f32("value.f32")?, Some(0.1));
    assert_eq!(metadata.f32s("array.f32")?, Some(vec![0.5, -1.25, 3e38]));
    assert_eq!(metadata.f32s("array.f64")?, Some(vec![0.1, -2.5]));
    assert_eq!(metadata.i32s("array.u8")?, Some(vec![0, 1, 255]));
    assert_eq!(
        metadata.i32s("array.i32")?,
        Some(vec![i32::MIN, 7, i32::MAX])
    );
    assert_eq!(metadata.i32s("array.i64")?, Some(vec![-1, 1]));
    let strings = metadata.strings("array.string")?.expect("present");
    assert_eq!(strings.len(), 4);
    assert!(strings.iter().eq(["<s>", "", "\u{2581}the", "\u{e9}"]));
    assert_eq!(metadata.u32("absent")?, None);
    assert_eq!(
        metadata.strings("absent")?.map(|strings| strings.len()),
        None
    );
    Ok(())
}

#[test]
fn typed_getters_name_what_is_wrong() {
    let file = fixture();
    let metadata = file.metadata();
    let cases: [(Result<bool, GgufError>, &str); 12] = [
        (
            metadata.str("value.u8").map(|v| v.is_some()),
            "`value.u8` is of type u8, string is needed",
        ),
        (
            metadata.u32("value.string").map(|v| v.is_some()),
            "`value.string` is of type string, an integer is needed",
        ),
        (
            metadata.u32("value.i8").map(|v| v.is_some()),
            "`value.i8` is -100, which does not fit u32",
        ),
        (
            metadata.u32("value.u64").map(|v| v.is_some()),
            "`value.u64` is 18446744073709551615, which does not fit u32",
        ),
        (
            metadata.f32("value.u32").map(|v| v.is_some()),
            "`value.u32` is of type u32, f32 or f64 is needed",
        ),
        (
            metadata.bool("value.u8").map(|v| v.is_some()),
            "`value.u8` is of type u8, bool is needed",
        ),
        (
            metadata.strings("array.u8").map(|v| v.is_some()),
            "`array.u8` is of type array of u8, array of string is needed",
        ),
        (
            metadata.strings("value.string").map(|v| v.is_some()),
            "`value.string` is of type string, array of string is needed",
        ),
        (
            metadata.f32s("array.u8").map(|v| v.is_some()),
            "`array.u8` is of type array of u8, array of f32 or f64 is needed",
        ),
        (
            metadata.i32s("array.f32").map(|v| v.is_some()),
            "`array.f32` is of type array of f32, array of integers is needed",
        ),
        (
            metadata.i32s("array.u32").map(|v| v.is_some()),
            "`array.u32[1]` is 4294967295, which does not fit i32",
        ),
        (
            metadata.i32s("array.bool").map(|v| v.is_some()),
            "`array.bool` is of type array of bool, array of integers is needed",
        ),
    ];
    for (found, message) in cases {
        assert_eq!(found.expect_err(message).to_string(), message);
    }
    let found = metadata
        .f32("value.f64")
        .expect_err("1e300 is no f32")
        .to_string();
    assert!(found.ends_with("which does not fit f32"), "{found}");
}

#[test]
fn tensors() {
    // Offsets, sizes and first bytes as the package's own reader gives them.
    type Expected = (&'static str, DType, &'static [usize], usize, usize, [u8; 4]);
    let expected: [Expected; 17] = [
        ("plain.f32", DType::F32, &[4, 3, 2], 1984, 96, [0, 0, 0, 0]),
        (
            "plain.f16",
            DType::F16,
            &[3],
            2112,
            6,
            [0x00, 0x38, 0x00, 0xc0],
        ),
        (
            "plain.f64",
            DType::F64,
            &[1],
            2176,
            8,
            [0x9c, 0x75, 0x00, 0x88],
        ),
        (
            "plain.i8",
            DType::I8,
            &[2, 2],
            2240,
            4,
            [0x80, 0x7f, 0x01, 0x02],
        ),
        ("plain.i16", DType::I16, &[1], 2304, 2, [0x00, 0x80, 0, 0]),
        (
            "plain.i32",
            DType::I32,
            &[2],
            2368,
            8,
            [0x00, 0x00, 0x00, 0x40],
        ),
        (
            "plain.i64",
            DType::I64,
            &[2, 1, 1, 2],
            2432,
            32,
            [0, 0, 0, 0],
        ),
        (
            "blocks.bf16",
            DType::BF16,
            &[64, 3],
            2496,
            384,
            [0xa0, 0xc0, 0xa0, 0xc0],
        ),
        (
            "blocks.q4_0",
            DType::Q4_0,
            &[64, 3],
            2880,
            108,
            [0x00, 0x39, 0x00, 0x00],
        ),
        (
            "blocks.q4_1",
            DType::Q4_1,
            &[64, 3],
            3008,
            120,
            [0x22, 0x28, 0x00, 0xc5],
        ),
        (
            "blocks.q5_0",
            DType::Q5_0,
            &[64, 3],
            3136,
            132,
            [0x00, 0x35, 0x00, 0x00],
        ),
        (
            "blocks.q5_1",
            DType::Q5_1,
            &[64, 3],
            3328,
            144,
            [0x00, 0x24, 0x00, 0xc5],
        ),
        (
            "blocks.q8_0",
            DType::Q8_0,
            &[64, 3],
            3520,
            204,
            [0x0a, 0x29, 0x81, 0x81],
        ),
        (
            "blocks.q4_k",
            DType::Q4_K,
            &[256, 2],
            3776,
            288,
            [12, 13, 14, 15],
        ),
        (
            "blocks.q6_k",
            DType::Q6_K,
            &[256, 2],
            4096,
            420,
            [14, 15, 16, 17],
        ),
        (
            "blocks.iq4_nl",
            DType::IQ4_NL,
            &[256, 2],
            4544,
            288,
            [20, 21, 22, 23],
        ),
        (
            "blocks.mxfp4",
            DType::MXFP4,
            &[256, 2],
            4864,
            272,
            [39, 40, 41, 42],
        ),
    ];
    let file = fixture();
    assert_eq!(file.tensors().len(), expected.len());
    for (tensor, (name, dtype, shape, offset, len, first)) in file.tensors().iter().zip(expected) {
        assert_eq!(file.tensor(name), Some(tensor), "{name}");
        assert_eq!(tensor.name, name);
        assert_eq!(tensor.dtype, dtype, "{name}");
        assert_eq!(tensor.shape, shape, "{name}");
        assert_eq!(tensor.elements(), shape.iter().product::<usize>(), "{name}");
        assert_eq!(
            tensor.data.as_ptr().addr() - FIXTURE.as_ptr().addr(),
            offset,
            "{name}"
        );
        assert_eq!(tensor.data.len(), len, "{name}");
        let compared = len.min(first.len());
        assert_eq!(tensor.data[..compared], first[..compared], "{name}");
    }
    assert_eq!(file.tensor("absent"), None);
}

#[test]
fn tensor_data() {
    let file = fixture();
    let data = |name| file.tensor(name).expect("present").data;
    let (values, rest) = data("plain.f32").as_chunks();
    assert!(rest.is_empty());
    assert!(
        values
            .iter()
            .map(|&value| f32::from_le_bytes(value))
            .eq((0..24_u8).map(f32::from))
    );
    let (values, rest) = data("plain.i64").as_chunks();
    assert!(rest.is_empty());
    assert!(
        values
            .iter()
            .map(|&value| i64::from_le_bytes(value))
            .eq(0..4)
    );
    for (name, first) in [
        ("blocks.q4_k", 12),
        ("blocks.q6_k", 14),
        ("blocks.iq4_nl", 20),
        ("blocks.mxfp4", 39),
    ] {
        let data = data(name);
        assert!(
            data.iter()
                .zip(first..)
                .all(|(&byte, count): (_, u32)| byte == count as u8)
        );
    }
}

#[test]
fn writing_it_again_gives_the_same_bytes() {
    let mut written = Vec::new();
    Writer::from(&fixture())
        .write_to(&mut written)
        .expect("memory takes all bytes");
    assert!(written == FIXTURE);
}

fn array(file: &Gguf<'static>, key: &str) -> Array<'static> {
    let array = file.metadata().get(key).and_then(|value| match value {
        Value::Array(array) => Some(*array),
        _ => None,
    });
    array.expect("the fixture has this array")
}
