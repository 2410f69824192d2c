//! Every format on every instruction set against the reference and against plain floats.

use super::super::random;
use super::*;
use crate::quant::PART;
use crate::{Layout, Target};
use tercel_formats::{Affine, DType, Storage};

/// Bytes of a random but sane matrix: codes are random, scales small.
pub(crate) fn random_source(dtype: DType, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let len = dtype.bytes_for(cols).unwrap() * rows;
    let noise: Vec<u8> = random(seed, len)
        .iter()
        .map(|x| (x * 128.0) as i8 as u8)
        .collect();
    let mut bytes = noise.clone();
    let scale = |i: usize| half::f16::from_f32((f32::from(noise[i]) + 1.0) / 4096.0).to_le_bytes();
    for (i, block) in bytes.chunks_exact_mut(dtype.block_bytes()).enumerate() {
        for &at in half_floats(dtype) {
            block[at..at + 2].copy_from_slice(&scale(i * dtype.block_bytes() + at));
        }
        match dtype {
            _ if !half_floats(dtype).is_empty() => {}
            DType::MXFP4 => block[0] = 119 + block[0] % 8,
            DType::BF16 => block.copy_from_slice(
                &half::bf16::from_f32(0.01 * f32::from(noise[2 * i] as i8)).to_le_bytes(),
            ),
            _ => block.copy_from_slice(&(0.01 * f32::from(noise[4 * i] as i8)).to_le_bytes()),
        }
    }
    bytes
}

/// Packs a matrix as it is stored.
pub(super) fn pack(
    pool: &mut Pool,
    dtype: DType,
    rows: usize,
    cols: usize,
    data: &[u8],
) -> PackedMatrix {
    let storage = Storage::Plain { dtype, data };
    PackedMatrix::pack(pool, &storage, rows, cols, Target::AsStored).unwrap()
}

/// Where a block has half floats.
fn half_floats(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F16 | DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS => {
            &[0]
        }
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        _ => &[],
    }
}

fn product(isa: Isa, threads: usize, weights: &PackedMatrix, x: &[f32]) -> Vec<f32> {
    let n = x.len() / weights.cols();
    let mut out = vec![0.0; n * weights.rows()];
    let mut scratch = Activations::with_capacity(x.len()).unwrap();
    let mut pool = Pool::new(threads).unwrap();
    let product = Product {
        weights,
        out: &mut out,
        accumulate: false,
    };
    matmul(&mut pool, isa, x, weights.cols(), &mut scratch, [product]);
    out
}

/// Packs groups with codes out of `codes`, over and over, and scales and biases of `numbers`.
fn pack_affine(
    (bits, group): (u32, usize),
    (rows, cols): (usize, usize),
    codes: &[u8],
    numbers: &[f32],
) -> PackedMatrix {
    let cycle = |bytes: &[u8], len| bytes.iter().copied().cycle().take(len).collect::<Vec<_>>();
    let numbers: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let affine = Affine {
        bits,
        group,
        codes: &cycle(codes, rows * cols * bits as usize / 8),
        scales: &cycle(&numbers, 4 * rows * cols / group),
        biases: &cycle(&numbers[4..], 4 * rows * cols / group),
        scale_type: DType::F32,
    };
    let mut pool = Pool::new(1).unwrap();
    let storage = Storage::Affine(affine);
    PackedMatrix::pack(&mut pool, &storage, rows, cols, Target::AsStored).unwrap()
}

fn affine_kinds() -> impl Iterator<Item = (u32, usize)> {
    let kinds = |bits| Affine::GROUPS.map(|group| (bits, group));
    Affine::BITS.into_iter().flat_map(kinds)
}

/// Matrices of every layout, with their widths.
fn cases() -> impl Iterator<Item = (Layout, PackedMatrix, usize)> {
    const SHAPES: [(usize, usize); 4] = [(1, 1), (8, 2), (13, 3), (40, 1)];
    let plain = PackedMatrix::SUPPORTED.into_iter().flat_map(|dtype| {
        let step = dtype.block_len();
        SHAPES.map(|(rows, steps)| {
            let cols = if step == 1 {
                8 * steps + 5
            } else {
                steps * step
            };
            let source = random_source(dtype, rows, cols, rows as u64);
            pack(&mut Pool::new(1).unwrap(), dtype, rows, cols, &source)
        })
    });
    let affine = affine_kinds().flat_map(|(bits, group)| {
        let codes = random_source(DType::F16, 1, 997, 5);
        let numbers: Vec<f32> = random(6, 91).iter().map(|x| 0.02 * x).collect();
        SHAPES.map(|(rows, steps)| {
            pack_affine((bits, group), (rows, steps * group), &codes, &numbers)
        })
    });
    plain.chain(affine).map(|weights| {
        let cols = weights.cols();
        (weights.layout(), weights, cols)
    })
}

#[test]
fn every_isa_gives_the_reference_bit_for_bit() {
    let isas = Isa::available();
    println!(
        "covered: {:?}",
        isas.iter().map(|isa| isa.name()).collect::<Vec<_>>()
    );
    for (layout, weights, cols) in cases() {
        for n in [1, 2, 3, 5, 70] {
            let x = random(11, n * cols);
            let want = product(Isa::SCALAR, 1, &weights, &x);
            for &isa in &isas {
                for threads in [1, 2, 3] {
                    let got = product(isa, threads, &weights, &x);
                    assert_eq!(got, want, "{layout} {} n={n} threads={threads}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_token_gets_the_same_bits_alone_and_in_a_batch() {
    for isa in Isa::available() {
        for (layout, weights, cols) in cases() {
            let x = random(17, 67 * cols);
            let batch = product(isa, 2, &weights, &x);
            for (x, want) in x.chunks(cols).zip(batch.chunks(weights.rows())) {
                assert_eq!(
                    product(isa, 1, &weights, x),
                    want,
                    "{layout} {}",
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn the_result_is_near_the_float_product() {
    for isa in Isa::available() {
        for (layout, weights, cols) in cases() {
            let x = random(23, 2 * cols);
            let got = product(isa, 1, &weights, &x);
            let mut row = vec![0.0; cols];
            for r in 0..weights.rows() {
                weights.row(r, &mut row);
                for (n, x) in x.chunks(cols).enumerate() {
                    let want: f64 = row
                        .iter()
                        .zip(x)
                        .map(|(w, x)| f64::from(*w) * f64::from(*x))
                        .sum();
                    let magnitude: f64 = row.iter().map(|w| f64::from(w.abs())).sum();
                    // Activations are off by at most half of 1/127 of their block's largest, which is
                    // at most 1.
                    let bound = if weights.is_quantized() {
                        0.51 / 127.0
                    } else {
                        1e-6
                    };
                    let error = (f64::from(got[n * weights.rows() + r]) - want).abs();
                    assert!(
                        error <= bound * magnitude + 1e-6,
                        "{layout}: off by {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    for isa in Isa::available() {
        for dtype in PackedMatrix::SUPPORTED
            .into_iter()
            .filter(|d| d.block_len() > 1)
        {
            for byte in [0x00, 0x80, 0x7f, 0xff] {
                let cols = dtype.block_len();
                let mut source = vec![byte; dtype.bytes_for(cols).unwrap() * 8];
                for block in source.chunks_exact_mut(dtype.block_bytes()) {
                    for &at in half_floats(dtype) {
                        block[at..at + 2].copy_from_slice(&half::f16::ONE.to_le_bytes());
                    }
                    if dtype == DType::MXFP4 {
                        block[0] = 128;
                    }
                }
                let mut pool = Pool::new(1).unwrap();
                let weights = pack(&mut pool, dtype, 8, cols, &source);
                for sign in [1.0, -1.0] {
                    let x = vec![sign; cols];
                    let want = product(Isa::SCALAR, 1, &weights, &x);
                    assert_eq!(product(isa, 1, &weights, &x), want, "{dtype} {byte:#x}");
                }
            }
        }
    }
}

#[test]
fn extreme_affine_codes_do_not_overflow() {
    for isa in Isa::available() {
        for (bits, group) in affine_kinds() {
            for codes in [0x00, 0xff] {
                let numbers = [1.0, -0.5];
                let weights = pack_affine((bits, group), (8, group), &[codes], &numbers);
                for sign in [1.0, -1.0] {
                    let x = vec![sign; group];
                    let want = product(Isa::SCALAR, 1, &weights, &x);
                    assert_eq!(product(isa, 1, &weights, &x), want, "{bits} {codes:#x}");
                }
            }
        }
    }
}

#[test]
fn several_products_share_an_input_and_can_accumulate() {
    let cols = 2 * PART;
    let mut pool = Pool::new(2).unwrap();
    let mut packed = |dtype, rows, seed| {
        let source = random_source(dtype, rows, cols, seed);
        pack(&mut pool, dtype, rows, cols, &source)
    };
    let a = packed(DType::Q4_1, 24, 1);
    let b = packed(DType::F32, 5, 2);
    let x = random(29, 3 * cols);
    for isa in Isa::available() {
        let (alone_a, alone_b) = (product(isa, 1, &a, &x), product(isa, 1, &b, &x));
        let (mut out_a, mut out_b) = (vec![1.0; 3 * 24], vec![7.0; 3 * 5]);
        let mut scratch = Activations::with_capacity(x.len()).unwrap();
        let products = [
            Product {
                weights: &a,
                out: &mut out_a,
                accumulate: true,
            },
            Product {
                weights: &b,
                out: &mut out_b,
                accumulate: false,
            },
        ];
        matmul(&mut pool, isa, &x, cols, &mut scratch, products);
        assert_eq!(out_b, alone_b);
        assert!(out_a.iter().zip(&alone_a).all(|(sum, x)| *sum == 1.0 + x));
    }
}
