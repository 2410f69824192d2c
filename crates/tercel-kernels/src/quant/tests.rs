//! Packed blocks against values that the `gguf` Python package computed, and against each other.

use crate::{PackError, PackedMatrix, Pool, Target};
use tercel_formats::{DType, Storage};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../../test-data/quants/", $name))
    };
}

/// Rows of each block format with the floats they stand for: see `test-data/quants/make.py`.
const FIXTURES: &[(DType, &[u8], &[u8])] = &[
    (DType::Q4_0, fixture!("q4_0.bin"), fixture!("q4_0.f32")),
    (DType::Q4_1, fixture!("q4_1.bin"), fixture!("q4_1.f32")),
    (DType::Q5_0, fixture!("q5_0.bin"), fixture!("q5_0.f32")),
    (DType::Q8_0, fixture!("q8_0.bin"), fixture!("q8_0.f32")),
    (DType::Q4_K, fixture!("q4_k.bin"), fixture!("q4_k.f32")),
    (DType::Q6_K, fixture!("q6_k.bin"), fixture!("q6_k.f32")),
    (DType::Q5_1, fixture!("q5_1.bin"), fixture!("q5_1.f32")),
    (DType::Q2_K, fixture!("q2_k.bin"), fixture!("q2_k.f32")),
    (DType::Q3_K, fixture!("q3_k.bin"), fixture!("q3_k.f32")),
    (DType::Q5_K, fixture!("q5_k.bin"), fixture!("q5_k.f32")),
    (
        DType::IQ4_NL,
        fixture!("iq4_nl.bin"),
        fixture!("iq4_nl.f32"),
    ),
    (
        DType::IQ4_XS,
        fixture!("iq4_xs.bin"),
        fixture!("iq4_xs.f32"),
    ),
    (DType::MXFP4, fixture!("mxfp4.bin"), fixture!("mxfp4.f32")),
    (DType::TQ1_0, fixture!("tq1_0.bin"), fixture!("tq1_0.f32")),
    (DType::TQ2_0, fixture!("tq2_0.bin"), fixture!("tq2_0.f32")),
    (DType::F16, fixture!("f16.bin"), fixture!("f16.f32")),
    (DType::BF16, fixture!("bf16.bin"), fixture!("bf16.f32")),
];
/// The fixtures are matrices of 11 or of 3 rows by 512.
const COLS: usize = 512;

#[test]
fn rows_are_bit_exact_with_the_python_package() {
    for &(dtype, data, floats) in FIXTURES {
        let mut pool = Pool::new(2).unwrap();
        let rows = floats.len() / (4 * COLS);
        let storage = Storage::Plain { dtype, data };
        let matrix = PackedMatrix::pack(&mut pool, &storage, rows, COLS, Target::AsStored).unwrap();
        let mut row = vec![0.0; COLS];
        for (r, want) in floats.chunks_exact(4 * COLS).enumerate() {
            matrix.row(r, &mut row);
            for (k, (got, want)) in row.iter().zip(want.chunks_exact(4)).enumerate() {
                let want = f32::from_le_bytes(want.try_into().unwrap());
                assert_eq!(got.to_bits(), want.to_bits(), "{dtype} row {r} column {k}");
            }
        }
    }
}

#[test]
fn every_supported_format_has_a_fixture() {
    for dtype in PackedMatrix::SUPPORTED {
        let covered = FIXTURES.iter().any(|(fixture, ..)| *fixture == dtype);
        assert!(covered || dtype == DType::F32, "{dtype}");
    }
}

#[test]
fn other_types_are_refused_with_the_list_of_those_that_are_not() {
    use DType::*;
    let mut pool = Pool::new(1).unwrap();
    for dtype in [
        IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, Q8_1, Q8_K, I8, I16, I32, I64, F64,
    ] {
        let data = &vec![0; dtype.bytes_for(256).unwrap()];
        let storage = Storage::Plain { dtype, data };
        let packed = PackedMatrix::pack(&mut pool, &storage, 1, 256, Target::AsStored);
        let error = packed.unwrap_err();
        assert_eq!(error, PackError::Unsupported(dtype));
        let message = error.to_string();
        let start = format!("tensor type {dtype} is not supported, only F32, F16, BF16, Q8_0, ");
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn a_wrong_size_is_refused() {
    let mut pool = Pool::new(1).unwrap();
    let mut pack = |dtype, rows, cols, len| {
        let data = &vec![0; len];
        let storage = Storage::Plain { dtype, data };
        PackedMatrix::pack(&mut pool, &storage, rows, cols, Target::AsStored).unwrap_err()
    };
    assert_eq!(
        pack(DType::Q4_0, 2, 32, 35),
        PackError::Size {
            expected: 36,
            found: 35
        }
    );
    assert!(matches!(
        pack(DType::Q4_0, 2, 31, 36),
        PackError::Size { .. }
    ));
    assert!(matches!(pack(DType::F32, 0, 4, 0), PackError::Size { .. }));
    assert!(matches!(
        pack(DType::F32, usize::MAX, 8, 0),
        PackError::Size { .. }
    ));
}
