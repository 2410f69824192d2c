//! What becomes of a matrix on its way into tiles.

use std::ops::ControlFlow;

use half::{bf16, f16};
use tercel_formats::{DType, Storage};

use crate::ops::random;
use crate::quant::{EncodeError, QUANTIZABLE, fallback, quantize_row};
use crate::{Layout, PackError, PackedMatrix, Pool, Target, dequantize_row};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn bytes(dtype: DType, x: &[f32]) -> Vec<u8> {
    let bytes = |x: &f32| match dtype {
        DType::F16 => f16::from_f32(*x).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f32(*x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    };
    x.iter().flat_map(bytes).collect()
}

#[test]
fn a_large_matrix_is_packed_in_parts_and_can_be_given_up_between_them() {
    let (rows, cols) = (4100, 512);
    let data = bytes(DType::F32, &random(3, rows * cols));
    let storage = Storage::Plain {
        dtype: DType::F32,
        data: &data,
    };
    for target in [Target::AsStored, Target::Quantize(DType::Q4_0)] {
        let mut pool = Pool::new(2).unwrap();
        let mut told = Vec::new();
        let mut all = |packed| {
            told.push(packed);
            ControlFlow::Continue(())
        };
        PackedMatrix::pack_while(&mut pool, &storage, (rows, cols), target, &mut all).unwrap();
        assert!(told.is_sorted() && told.last() == Some(&rows), "{told:?}");
        if target == Target::AsStored {
            assert!(told.len() > 3, "{told:?}");
        }
        let mut asked = 0;
        let mut none = |_| {
            asked += 1;
            ControlFlow::Break(())
        };
        let given_up =
            PackedMatrix::pack_while(&mut pool, &storage, (rows, cols), target, &mut none);
        assert_eq!(given_up.unwrap_err(), PackError::Stopped);
        assert_eq!(asked, 1);
    }
}

#[test]
fn floats_quantized_on_the_way_are_the_matrix_quantized_before() {
    for source in FLOATS {
        for dtype in QUANTIZABLE {
            for (rows, cols) in [(1, 256), (13, 512), (40, 256)] {
                let data = bytes(source, &random(7, rows * cols));
                let storage = Storage::Plain {
                    dtype: source,
                    data: &data,
                };
                let mut encoded = Vec::new();
                let mut row = vec![0.0; cols];
                for r in 0..rows {
                    dequantize_row(&storage, rows, cols, r, &mut row).unwrap();
                    let mut out = vec![0; dtype.bytes_for(cols).unwrap()];
                    quantize_row(dtype, &row, &mut out).unwrap();
                    encoded.extend(out);
                }
                let before = Storage::Plain {
                    dtype,
                    data: &encoded,
                };
                let mut pool = Pool::new(1).unwrap();
                let want = PackedMatrix::pack(&mut pool, &before, rows, cols, Target::AsStored);
                let want = want.unwrap();
                for threads in 1..4 {
                    let mut pool = Pool::new(threads).unwrap();
                    let target = Target::Quantize(dtype);
                    let got = PackedMatrix::pack(&mut pool, &storage, rows, cols, target).unwrap();
                    assert_eq!(got.layout(), Layout::Plain(dtype));
                    let planned = PackedMatrix::packed_bytes(&storage, rows, cols, target);
                    assert_eq!(planned, Ok(got.bytes()));
                    for tile in 0..got.tiles() {
                        assert!(got.tile(tile) == want.tile(tile), "{source} to {dtype}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_exact_target_keeps_every_number() {
    let (rows, cols) = (11, 512);
    let x = random(9, rows * cols);
    let mut pool = Pool::new(2).unwrap();
    for dtype in PackedMatrix::SUPPORTED {
        // Random floats as bytes: some are no numbers, and stay what they are.
        let data = bytes(DType::F16, &x).repeat(2);
        let data = &data[..rows * dtype.bytes_for(cols).unwrap()];
        let storage = Storage::Plain { dtype, data };
        let stored = PackedMatrix::pack(&mut pool, &storage, rows, cols, Target::AsStored).unwrap();
        let exact = PackedMatrix::pack(&mut pool, &storage, rows, cols, Target::Exact).unwrap();
        assert_eq!(exact.layout(), Layout::Plain(DType::F32));
        assert!(!exact.is_quantized());
        let mut three = [const { Vec::new() }; 3];
        for row in 0..rows {
            for out in &mut three {
                out.resize(cols, 0.0);
            }
            let [a, b, c] = &mut three;
            stored.row(row, a);
            exact.row(row, b);
            dequantize_row(&storage, rows, cols, row, c).unwrap();
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(a), bits(b), "{dtype}");
            assert_eq!(bits(a), bits(c), "{dtype}");
        }
    }
}

#[test]
fn a_fallback_is_told() {
    let mut pool = Pool::new(2).unwrap();
    for cols in [96, 100] {
        let data = bytes(DType::BF16, &random(3, 5 * cols));
        let storage = Storage::Plain {
            dtype: DType::BF16,
            data: &data,
        };
        for dtype in QUANTIZABLE {
            let real = fallback(dtype, cols);
            let target = Target::Quantize(dtype);
            let packed = PackedMatrix::pack(&mut pool, &storage, 5, cols, target).unwrap();
            assert_eq!(packed.layout(), Layout::Plain(real));
        }
    }
}

#[test]
fn what_is_quantized_already_stays() {
    let mut pool = Pool::new(1).unwrap();
    let storage = Storage::Plain {
        dtype: DType::Q4_0,
        data: &[0x11; 36],
    };
    let target = Target::Quantize(DType::Q8_0);
    let packed = PackedMatrix::pack(&mut pool, &storage, 2, 32, target).unwrap();
    assert_eq!(packed.layout(), Layout::Plain(DType::Q4_0));
}

#[test]
fn the_first_row_that_cannot_be_quantized_is_named() {
    let (rows, cols) = (100, 64);
    let mut x = random(3, rows * cols);
    x[90 * cols] = f32::NAN;
    x[17 * cols + 5] = f32::INFINITY;
    x[60 * cols + 40] = 1e9;
    let error = EncodeError::NotFinite { at: 5 };
    let data = bytes(DType::F32, &x);
    let storage = Storage::Plain {
        dtype: DType::F32,
        data: &data,
    };
    for threads in [1, 3] {
        let mut pool = Pool::new(threads).unwrap();
        let target = Target::Quantize(DType::Q4_0);
        let packed = PackedMatrix::pack(&mut pool, &storage, rows, cols, target);
        assert_eq!(packed.unwrap_err(), PackError::Encode { row: 17, error });
        // As it is stored it can be looked at.
        PackedMatrix::pack(&mut pool, &storage, rows, cols, Target::AsStored).unwrap();
        PackedMatrix::pack(&mut pool, &storage, rows, cols, Target::Exact).unwrap();
    }
}

#[test]
fn a_type_that_nothing_writes_is_refused() {
    let storage = Storage::Plain {
        dtype: DType::F32,
        data: &[0; 128],
    };
    let target = Target::Quantize(DType::Q8_1);
    let error = PackedMatrix::packed_bytes(&storage, 1, 32, target).unwrap_err();
    assert_eq!(error, PackError::NotATarget(DType::Q8_1));
    assert!(error.to_string().contains("Q4_K"), "{error}");
}
