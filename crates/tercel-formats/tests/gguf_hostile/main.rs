//! Broken, cut and damaged GGUF files: always a typed error that names the fault, never a panic,
//! and never more memory than twice the file plus one megabyte.

mod cases;
mod memory;
mod raw;

use std::ops::Range;

use memory::peak_of;
use raw::{F32, I8, Raw, STRING, U8, rich};
use tercel_formats::Gguf;
use tercel_formats::gguf::{Array, GgufError, Value};

/// Parses `file`, holding the reader to its memory bound.
fn parse(file: &[u8]) -> Result<Gguf<'_>, GgufError> {
    let (result, peak) = peak_of(|| Gguf::parse(file));
    let bound = 2 * file.len() + 1_000_000;
    assert!(
        peak <= bound,
        "{peak} bytes for a file of {}: {result:?}",
        file.len()
    );
    result
}

#[test]
fn hand_made_files() {
    let llama_cpp = cases::llama_cpp();
    assert_eq!(llama_cpp.len(), 33);
    for (name, file, error) in llama_cpp.into_iter().chain(cases::more()) {
        let found = parse(&file.0)
            .map(|file| walk(&file))
            .map_err(|error| error.to_string());
        assert_eq!(found.err().as_deref(), error, "{name}");
    }
}

#[test]
fn every_cut_of_the_header_is_named() {
    let (file, header) = rich();
    for len in 0..header {
        let error = parse(&file[..len])
            .expect_err("the header is cut")
            .to_string();
        let expected = if len < 4 {
            "not a GGUF file"
        } else {
            "truncated: `"
        };
        assert!(error.starts_with(expected), "{len}: {error}");
    }
}

#[test]
fn every_cut_of_the_data_is_named() {
    let (file, header) = rich();
    for len in header..file.len() {
        let error = parse(&file[..len])
            .expect_err("the data is cut")
            .to_string();
        assert!(error.starts_with("tensor `"), "{len}: {error}");
        assert!(
            error.contains("of the data section, which has"),
            "{len}: {error}"
        );
    }
    assert!(parse(&file).is_ok());
}

#[test]
fn flipped_header_bits() {
    let (file, header) = rich();
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..10_000 {
        let mut damaged = file.clone();
        // Single flips find the checks; several at once reach states that one cannot.
        for _ in 0..=round % 4 {
            let bit = random.below(0..header * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        match parse(&damaged) {
            Ok(file) => {
                walk(&file);
                accepted += 1;
            }
            Err(error) => {
                assert_eq!(error.to_string().lines().count(), 1, "{error}");
                refused += 1;
            }
        }
    }
    assert!(
        accepted > 1_000 && refused > 1_000,
        "{accepted} accepted, {refused} refused"
    );
}

#[test]
fn overwritten_header_words() {
    // Values at which sizes overflow, change sign or lose their upper half.
    const WORDS: [u64; 10] = [
        0,
        1,
        0x7f,
        u32::MAX as u64,
        1 << 32,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 31,
        u64::MAX - 7,
        u64::MAX,
    ];
    let (file, header) = rich();
    for at in 4..header - 8 {
        for word in WORDS {
            let mut damaged = file.clone();
            damaged[at..at + 8].copy_from_slice(&word.to_le_bytes());
            if let Ok(file) = parse(&damaged) {
                walk(&file);
            }
        }
    }
}

#[test]
fn crowded_files_keep_the_memory_bound() {
    // As many of the shortest entries as possible: the worst ratio of views to bytes.
    let mut file = Raw::file(3, 32_768, 16_384);
    for entry in 0..16_384 {
        file = file.key(format!("{entry:x}"), U8).u8(1);
    }
    for tensor in 0..32_768 {
        file = file.tensor(format!("{tensor:x}"), &[1], I8, 32 * tensor);
    }
    let crowded = file.data(32, 32 * 32_768);
    let file = parse(&crowded.0).expect("it is within every limit");
    assert_eq!(
        (file.metadata().len(), file.tensors().len()),
        (16_384, 32_768)
    );
    assert_eq!(file.tensor("7fff").map(|tensor| tensor.data.len()), Some(1));

    let mut file = Raw::file(3, 32_768, 16_384).alignment(1);
    for entry in 1..16_384 {
        file = file.key(format!("{entry:x}"), U8).u8(1);
    }
    for tensor in 0..32_768 {
        file = file.tensor(format!("{tensor:x}"), &[1], I8, tensor);
    }
    let crowded = file.data(1, 32_768);
    let file = parse(&crowded.0).expect("it is within every limit");
    assert_eq!(
        (file.metadata().len(), file.tensors().len()),
        (16_384, 32_768)
    );
    assert_eq!(file.tensor("7fff").map(|tensor| tensor.data.len()), Some(1));
    // The same without the last byte: as much work, refused at the end.
    assert!(parse(&crowded.0[..crowded.0.len() - 1]).is_err());

    let entry = || Raw::file(3, 0, 1);
    let strings = (0..100_000).fold(entry().array("a", STRING, 100_000), |raw, _| raw.u64(0));
    let (_, peak) = peak_of(|| Gguf::parse(&strings.0).expect("it is valid"));
    assert!(peak < 1_000, "an array stays in the file: {peak} bytes");
}

#[test]
fn shapes_at_the_edge_of_overflow() {
    let sizes = [
        1,
        2,
        3,
        32,
        1 << 16,
        1 << 31,
        1 << 32,
        1 << 62,
        1 << 63,
        u64::MAX,
    ];
    for rows in sizes {
        for row in sizes {
            for offset in [0, 32, 1 << 63, u64::MAX - 31] {
                let file = Raw::file(3, 1, 0)
                    .tensor("t", &[row, rows], F32, offset)
                    .data(32, 512);
                let needed = (u128::from(row) * u128::from(rows)).saturating_mul(4);
                let fits = needed.saturating_add(offset.into()) <= 512;
                assert_eq!(parse(&file.0).is_ok(), fits, "{row} x {rows} at {offset}");
            }
        }
    }
}

/// Reads everything a file gives access to.
fn walk(file: &Gguf<'_>) {
    for (key, value) in file.metadata().iter() {
        assert_eq!(
            file.metadata().get(key).map(Value::kind),
            Some(value.kind())
        );
        if let Value::Array(array) = value {
            walk_array(array);
        }
    }
    for tensor in file.tensors() {
        assert_eq!(
            file.tensor(tensor.name).map(|found| found.name),
            Some(tensor.name)
        );
        assert_eq!(
            tensor.dtype.bytes_for(tensor.elements()),
            Some(tensor.data.len())
        );
    }
}

fn walk_array(array: &Array<'_>) {
    let mut count = 0;
    for value in array.iter() {
        assert_eq!(value.kind(), array.kind());
        if let Value::Array(inner) = &value {
            walk_array(inner);
        }
        count += 1;
    }
    assert_eq!(count, array.len());
}

/// A small generator, so that every run damages the same bits.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, range: Range<usize>) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + (self.0 % range.len() as u64) as usize
    }
}
