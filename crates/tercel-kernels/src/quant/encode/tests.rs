//! Encoders against bytes that the `gguf` Python package wrote, and against plain rounding.

use half::f16;

use super::*;
use crate::ops::random;
use crate::source::dequantize;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../../../test-data/quants/", $name))
    };
}

const FLOATS: &[u8] = fixture!("encoded.f32");
/// What `test-data/quants/make_encoded.py` got for them.
const ENCODED: &[(DType, &[u8])] = &[
    (DType::F16, fixture!("encoded_f16.bin")),
    (DType::Q8_0, fixture!("encoded_q8_0.bin")),
    (DType::Q4_0, fixture!("encoded_q4_0.bin")),
    (DType::Q4_1, fixture!("encoded_q4_1.bin")),
    (DType::Q5_0, fixture!("encoded_q5_0.bin")),
    (DType::Q5_1, fixture!("encoded_q5_1.bin")),
];
const K_TYPES: [DType; 3] = [DType::Q4_K, DType::Q5_K, DType::Q6_K];

fn encode(dtype: DType, row: &[f32]) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0xaa; dtype.bytes_for(row.len()).unwrap()];
    quantize_row(dtype, row, &mut out).map(|()| out)
}

fn decode(dtype: DType, blocks: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; blocks.len() / dtype.block_bytes() * dtype.block_len()];
    dequantize(dtype, blocks, &mut out);
    out
}

/// Rows of 512 of many kinds: uniform, nearly normal, with outliers, of one sign, small, large.
fn rows() -> Vec<Vec<f32>> {
    let uniform = |seed| random(seed, 512);
    let mut rows = vec![uniform(1)];
    for seed in 2..10 {
        let parts: [Vec<f32>; 4] = std::array::from_fn(|i| uniform(100 * seed + i as u64));
        let normal: Vec<f32> = (0..512).map(|k| parts.iter().map(|x| x[k]).sum()).collect();
        let map = |f: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
            normal.iter().enumerate().map(|(k, x)| f(k, *x)).collect()
        };
        let (every, some) = (7 * seed as usize, 13 * seed as usize);
        rows.push(map(&|k, x| {
            if k % every == 3 { 30.0 * x } else { 0.02 * x }
        }));
        rows.push(map(&|k, x| if k % some == 5 { -9.0 } else { 0.02 * x }));
        rows.push(map(&|_, x| 5.0 + x));
        rows.push(map(&|_, x| -3.0 + 0.5 * x));
        rows.push(map(&|_, x| 1e-3 * x * x * x));
        rows.push(map(&|k, x| x * 10f32.powi(k as i32 / 32 % 5)));
        rows.push(normal);
    }
    rows
}

#[test]
fn blocks_of_32_are_the_bytes_of_the_python_package() {
    let floats = decode(DType::F32, FLOATS);
    for (dtype, want) in ENCODED {
        for (i, (row, want)) in floats
            .chunks(512)
            .zip(want.chunks(want.len() / 4))
            .enumerate()
        {
            let got = encode(*dtype, row).unwrap();
            let bytes = dtype.block_bytes();
            for (block, (got, want)) in got.chunks(bytes).zip(want.chunks(bytes)).enumerate() {
                assert_eq!(got, want, "{dtype} row {i} block {block}");
            }
        }
    }
}

#[test]
fn every_target_has_a_test() {
    for dtype in QUANTIZABLE {
        let fixture = ENCODED.iter().any(|(other, _)| *other == dtype);
        assert!(fixture || K_TYPES.contains(&dtype), "{dtype}");
    }
}

#[test]
fn what_was_decoded_encodes_to_nearly_the_same_numbers() {
    for dtype in QUANTIZABLE {
        let mut ratios: Vec<f64> = Vec::new();
        for row in rows() {
            let once = decode(dtype, &encode(dtype, &row).unwrap());
            let twice = decode(dtype, &encode(dtype, &once).unwrap());
            if !K_TYPES.contains(&dtype) {
                assert_eq!(once, twice, "{dtype}");
                continue;
            }
            let weights = weights(dtype, &row);
            let lost = error(&row, &once, &weights);
            ratios.push(error(&once, &twice, &weights) / lost);
        }
        // A search may find another optimum: seldom, and then not a bad one.
        let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
        let worst = ratios.iter().fold(0.0f64, |a, b| a.max(*b));
        assert!(
            mean < 0.3 && worst < 4.0,
            "{dtype}: {mean}, at worst {worst}"
        );
    }
}

#[test]
fn searched_blocks_are_never_worse_than_plain_ones_and_mostly_better() {
    for dtype in K_TYPES {
        let (mut blocks, mut logs) = (0.0, 0.0);
        for row in rows() {
            for row in row.chunks_exact(256) {
                let weights = weights(dtype, row);
                let got = error(row, &decode(dtype, &encode(dtype, row).unwrap()), &weights);
                let plain = error(row, &plain(dtype, row), &weights);
                // The encoder compares sums in F32.
                assert!(
                    got <= plain * (1.0 + 1e-5),
                    "{dtype}: {got} against {plain}"
                );
                blocks += 1.0;
                logs += (got / plain).ln();
            }
        }
        let ratio = f64::exp(logs / blocks);
        assert!(ratio < 0.85, "{dtype}: {ratio} of the plain error");
    }
}

fn error(a: &[f32], b: &[f32], weights: &[f32]) -> f64 {
    let terms = a.iter().zip(b).zip(weights);
    terms
        .map(|((a, b), w)| f64::from(*w) * (f64::from(*a) - f64::from(*b)).powi(2))
        .sum()
}

/// What the encoder weighs squared errors with.
fn weights(dtype: DType, block: &[f32]) -> Vec<f32> {
    if dtype == DType::Q6_K {
        return block.iter().map(|x| x * x).collect();
    }
    let part = |part: &[f32]| {
        let mean = (part.iter().map(|x| x * x).sum::<f32>() / 32.0).sqrt();
        part.iter().map(|x| mean + x.abs()).collect::<Vec<_>>()
    };
    block.chunks(32).flat_map(part).collect()
}

/// The numbers of a block that spans each part from end to end, its scales rounded as the format
/// rounds them.
fn plain(dtype: DType, block: &[f32]) -> Vec<f32> {
    let half = |x: f32| f16::from_f32(x).to_f32();
    let ratio = |x: f32, unit: f32| {
        if unit == 0.0 {
            0.0
        } else {
            (x / unit).round_ties_even()
        }
    };
    if dtype == DType::Q6_K {
        let scale = |x: &[f32]| {
            x.iter()
                .fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a })
                / -32.0
        };
        let scales: Vec<f32> = block.chunks(16).map(scale).collect();
        let largest = scales
            .iter()
            .fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a });
        let d = half(largest / -128.0);
        let rounded = scales
            .iter()
            .map(|scale| d * ratio(*scale, d).clamp(-128.0, 127.0));
        let groups = block.chunks(16).zip(rounded);
        return groups
            .flat_map(|(x, s)| x.iter().map(move |x| s * ratio(*x, s).clamp(-32.0, 31.0)))
            .collect();
    }
    let largest = if dtype == DType::Q4_K { 15.0 } else { 31.0 };
    let span = |x: &[f32]| {
        let low = x.iter().fold(0.0f32, |a, b| a.min(*b));
        let high = x.iter().fold(f32::MIN, |a, b| a.max(*b));
        ((high - low) / largest, -low)
    };
    let spans: Vec<(f32, f32)> = block.chunks(32).map(span).collect();
    let d = half(spans.iter().fold(0.0f32, |a, b| a.max(b.0)) / 63.0);
    let d_min = half(spans.iter().fold(0.0f32, |a, b| a.max(b.1)) / 63.0);
    let parts = block.chunks(32).zip(spans);
    parts
        .flat_map(|(x, (scale, min))| {
            let scale = d * ratio(scale, d).clamp(0.0, 63.0);
            let min = d_min * ratio(min, d_min).clamp(0.0, 63.0);
            let code = move |x: f32| ratio(x + min, scale).clamp(0.0, largest);
            x.iter().map(move |x| scale * code(*x) - min)
        })
        .collect()
}

#[test]
fn zeros_stay_zeros_and_constants_stay_near() {
    for dtype in QUANTIZABLE {
        let zeros = decode(dtype, &encode(dtype, &[0.0; 256]).unwrap());
        assert!(zeros.iter().all(|x| *x == 0.0), "{dtype}");
        for constant in [1.0, -1.0, 0.3, -7e3, 1e-2] {
            for x in decode(dtype, &encode(dtype, &[constant; 256]).unwrap()) {
                let error = (x - constant).abs() / constant.abs();
                assert!(error < 0.02, "{dtype}: {constant} became {x}");
            }
        }
    }
}

#[test]
fn numbers_that_cannot_be_written_are_errors() {
    for dtype in QUANTIZABLE {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = random(3, 512);
            row[300] = bad;
            assert_eq!(encode(dtype, &row), Err(EncodeError::NotFinite { at: 300 }));
        }
        for huge in [f32::MAX, -f32::MAX, 1e30, -1e12] {
            let mut row = random(3, 512);
            row[511] = huge;
            let at = 511 / dtype.block_len() * dtype.block_len();
            assert_eq!(
                encode(dtype, &row),
                Err(EncodeError::TooLarge { dtype, at })
            );
            row.fill(huge);
            assert_eq!(
                encode(dtype, &row),
                Err(EncodeError::TooLarge { dtype, at: 0 })
            );
        }
        let mixed: Vec<f32> = [f32::MAX, -f32::MAX].repeat(128);
        assert_eq!(
            encode(dtype, &mixed),
            Err(EncodeError::TooLarge { dtype, at: 0 })
        );
    }
}

#[test]
fn tiny_numbers_do_no_harm() {
    for dtype in QUANTIZABLE {
        for tiny in [1e-8, -1e-8, 1e-20, 1e-40, f32::MIN_POSITIVE] {
            let row: Vec<f32> = random(5, 256).iter().map(|x| tiny * x).collect();
            for x in decode(dtype, &encode(dtype, &row).unwrap()) {
                assert!(x.abs() <= 1e-5, "{dtype}: {tiny} became {x}");
            }
        }
    }
}

#[test]
fn any_bits_give_finite_numbers_or_an_error() {
    for seed in 0..200 {
        let bits: Vec<u32> = random(seed, 1024)
            .iter()
            .map(|x| ((x + 1.0) * 32768.0) as u32)
            .collect();
        // Many exponents, and in every second row few too large ones.
        let top = if seed % 2 == 0 { 0xffff } else { 0xc9ff };
        let float = |pair: &[u32]| f32::from_bits((pair[0] & top) << 16 | pair[1]);
        let row: Vec<f32> = bits.chunks_exact(2).map(float).collect();
        for dtype in QUANTIZABLE {
            for block in row.chunks_exact(256) {
                if let Ok(bytes) = encode(dtype, block) {
                    assert!(
                        decode(dtype, &bytes).iter().all(|x| x.is_finite()),
                        "{dtype}"
                    );
                }
            }
        }
    }
}

#[test]
fn other_types_and_lengths_are_refused() {
    let row = [0.0; 256];
    for dtype in [DType::Q8_1, DType::IQ4_XS, DType::I32] {
        let error = quantize_row(dtype, &row, &mut [0; 1024]);
        assert_eq!(error, Err(EncodeError::NotATarget(dtype)));
    }
    for (numbers, bytes) in [(256, 143), (256, 145), (255, 144), (512, 144), (0, 1)] {
        let error = quantize_row(DType::Q4_K, &[0.0; 512][..numbers], &mut vec![0; bytes]);
        let dtype = DType::Q4_K;
        assert_eq!(
            error,
            Err(EncodeError::Size {
                dtype,
                numbers,
                bytes
            })
        );
    }
}

#[test]
fn a_row_that_the_block_does_not_divide_gets_another_type() {
    let cases = [
        (DType::Q4_K, 512, DType::Q4_K),
        (DType::Q4_K, 96, DType::Q5_0),
        (DType::Q5_K, 96, DType::Q5_1),
        (DType::Q6_K, 96, DType::Q8_0),
        (DType::Q4_K, 100, DType::F16),
        (DType::Q5_K, 100, DType::F16),
        (DType::Q6_K, 100, DType::F16),
        (DType::Q8_0, 100, DType::F16),
        (DType::Q4_0, 31, DType::F16),
        (DType::F16, 31, DType::F16),
    ];
    for (dtype, cols, want) in cases {
        assert_eq!(fallback(dtype, cols), want, "{dtype} of {cols}");
    }
}
