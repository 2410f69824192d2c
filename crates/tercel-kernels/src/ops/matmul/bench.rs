//! How fast each format multiplies, beside the integer peak of the processor.

use std::hint::black_box;
use std::time::Instant;

use super::super::random;
use super::tests::{pack, random_source};
use super::*;
use tercel_formats::DType;

const TYPES: [DType; 5] = [
    DType::Q4_1,
    DType::Q8_0,
    DType::Q4_K,
    DType::Q6_K,
    DType::F16,
];
const ROUNDS: usize = 9;

/// The product of SmolLM2-135M's feed-forward layers, tokens at once, threads.
#[test]
#[ignore = "a benchmark: run it with --release --no-capture"]
fn rate_of_products() {
    let (rows, cols) = (1536, 768);
    #[cfg(target_arch = "x86_64")]
    if Isa::available().len() > 1 {
        // SAFETY: what is not scalar has AVX2.
        let peak = (0..ROUNDS).map(|_| unsafe { integer_peak() });
        eprintln!(
            "integer peak of one thread: {:.0} G multiply-adds/s",
            peak.fold(0.0, f64::max)
        );
    }
    for (dtype, isa) in TYPES.into_iter().flat_map(|dtype| {
        Isa::available()
            .into_iter()
            .skip(1)
            .map(move |isa| (dtype, isa))
    }) {
        let mut pool = Pool::new(2).unwrap();
        let source = random_source(dtype, rows, cols, 1);
        let weights = pack(&mut pool, dtype, rows, cols, &source);
        let mut line = format!("{:>11} {dtype:>5}:", isa.name());
        for threads in [1, 2] {
            let mut pool = Pool::new(threads).unwrap();
            for n in [1, 2, 4, 8, 64] {
                let x = random(n as u64, n * cols);
                let mut out = vec![0.0; n * rows];
                let mut scratch = Activations::with_capacity(x.len()).unwrap();
                let repeats = 256 / n;
                let mut best = f64::INFINITY;
                for _ in 0..ROUNDS {
                    let start = Instant::now();
                    for _ in 0..repeats {
                        let product = Product {
                            weights: &weights,
                            out: &mut out,
                            accumulate: false,
                        };
                        matmul(&mut pool, isa, &x, cols, &mut scratch, [product]);
                    }
                    best = best.min(start.elapsed().as_secs_f64());
                }
                let rate = (repeats * n * rows * cols) as f64 / best / 1e9;
                line += &format!(" {threads}x{n} {rate:.1}");
            }
        }
        eprintln!("{line}");
    }
}

/// How much of the memory's bandwidth one token takes, with weights that no cache holds.
#[test]
#[ignore = "a benchmark: run it with --release --no-capture"]
fn bandwidth_of_one_token() {
    let (rows, cols) = (1536, 768);
    for (dtype, isa) in TYPES[..3].iter().flat_map(|dtype| {
        let isas = Isa::available().into_iter().skip(1);
        isas.map(move |isa| (*dtype, isa))
    }) {
        let mut pool = Pool::new(2).unwrap();
        let source = random_source(dtype, rows, cols, 1);
        let one = pack(&mut pool, dtype, rows, cols, &source).bytes();
        let matrices = (0..(1 << 27) / one).map(|_| pack(&mut pool, dtype, rows, cols, &source));
        let matrices: Vec<_> = matrices.collect();
        let mut line = format!("{:>11} {dtype:>5}:", isa.name());
        for threads in [1, 2] {
            let mut pool = Pool::new(threads).unwrap();
            let x = random(1, cols);
            let mut out = vec![0.0; rows];
            let mut scratch = Activations::with_capacity(x.len()).unwrap();
            let (mut products, mut reads) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..ROUNDS {
                let start = Instant::now();
                for weights in &matrices {
                    let product = Product {
                        weights,
                        out: &mut out,
                        accumulate: false,
                    };
                    matmul(&mut pool, isa, &x, cols, &mut scratch, [product]);
                }
                products = products.min(start.elapsed().as_secs_f64());
                let start = Instant::now();
                for weights in &matrices {
                    read(&mut pool, weights);
                }
                reads = reads.min(start.elapsed().as_secs_f64());
            }
            let rate = |seconds| (matrices.len() * one) as f64 / seconds / 1e9;
            let (products, reads) = (rate(products), rate(reads));
            line += &format!(" {threads} threads {products:.1} of {reads:.1} GB/s");
        }
        eprintln!("{line}");
    }
}

/// Reads a matrix and does nothing with it.
fn read(pool: &mut Pool, weights: &PackedMatrix) {
    pool.run(weights.tiles(), 1, |_, tiles| {
        for tile in tiles {
            let sum = |sum: u64, eight: &[u8]| {
                sum ^ u64::from_le_bytes(eight.try_into().expect("eight bytes"))
            };
            black_box(weights.tile(tile).chunks_exact(8).fold(0, sum));
        }
    });
}

/// Multiply-adds of bytes in a second, in units of 10^9, by `maddubs`, `madd` and `add` alone.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn integer_peak() -> f64 {
    use std::arch::x86_64::*;
    const STEPS: usize = 1_000_000;
    // As many chains as hide the latency of one.
    const CHAINS: usize = 12;
    let a = black_box(_mm256_set1_epi8(3));
    let ones = black_box(_mm256_set1_epi16(1));
    let mut sums = [black_box(_mm256_set1_epi8(1)); CHAINS];
    let start = Instant::now();
    for _ in 0..STEPS {
        for sum in &mut sums {
            let pairs = _mm256_maddubs_epi16(a, *sum);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
    (STEPS * CHAINS * 32) as f64 / start.elapsed().as_secs_f64() / 1e9
}
