//! What attention costs in each type of cache: of one token, and of many tokens of a prompt.

use std::time::{Duration, Instant};

use super::super::random;
use super::*;

const TYPES: [CacheType; 2] = [CacheType::F16, CacheType::Q8_0];
const ROUNDS: usize = 15;

/// Query heads, key heads, head dimension: those of SmolLM2-135M, Qwen3-0.6B, Llama-3.2-1B,
/// Gemma-3-270M.
const SHAPES: [(usize, usize, usize); 4] = [(9, 3, 64), (16, 8, 128), (32, 8, 64), (4, 1, 256)];

#[test]
#[ignore = "a benchmark: run it with --release --no-capture"]
fn time_of_one_token() {
    let isa = Isa::detect().unwrap();
    for (n_heads, n_kv_heads, head_dim) in SHAPES {
        let shape = Shape {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: None,
        };
        for (context, threads) in [(512, 1), (512, 2), (8192, 1), (8192, 2), (32768, 2)] {
            // As many layers as it takes to be larger than the caches of most processors.
            let layers = (1 << 27) / (context / PAGE * KvPages::page_bytes(&shape, TYPES[1])) + 1;
            let mut times = TYPES.map(|_| Vec::new());
            let mut caches = TYPES.map(|kind| filled(&shape, kind, context, layers));
            for _ in 0..ROUNDS {
                for (caches, times) in caches.iter_mut().zip(&mut times) {
                    let time = tokens(isa, threads, &shape, caches, context, 1);
                    times.push(time / layers as u32);
                }
            }
            let line: Vec<String> = TYPES
                .iter()
                .zip(&mut times)
                .map(|(kind, times)| {
                    times.sort();
                    let bytes = context / PAGE * KvPages::page_bytes(&shape, *kind);
                    let median = times[ROUNDS / 2];
                    format!(
                        "{kind:?} {:.1} us ({:.1} to {:.1}), {:.1} GB/s",
                        micros(median),
                        micros(times[0]),
                        micros(times[ROUNDS - 1]),
                        bytes as f64 / median.as_secs_f64() / 1e9
                    )
                })
                .collect();
            eprintln!(
                "{n_heads}/{n_kv_heads} x {head_dim}, {context} tokens, {threads} threads: {}",
                line.join("; ")
            );
        }
    }
}

/// Tokens of a prompt that come together.
const PROMPT: usize = 64;

#[test]
#[ignore = "a benchmark: run it with --release --no-capture"]
fn rate_of_a_prompt() {
    let isas = Isa::available().split_off(1);
    for (n_heads, n_kv_heads, head_dim) in SHAPES {
        let shape = Shape {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: None,
        };
        for context in [512, 4096] {
            let mut caches = TYPES.map(|kind| filled(&shape, kind, context, 1));
            let mut times = vec![TYPES.map(|_| Vec::new()); isas.len()];
            for _ in 0..ROUNDS {
                for (isa, times) in isas.iter().zip(&mut times) {
                    for (caches, times) in caches.iter_mut().zip(times) {
                        times.push(tokens(*isa, 1, &shape, caches, context, PROMPT));
                    }
                }
            }
            for (isa, times) in isas.iter().zip(&mut times) {
                for (kind, times) in TYPES.iter().zip(times) {
                    times.sort();
                    let median = times[ROUNDS / 2];
                    let products = 2 * PROMPT * n_heads * head_dim * (context - PROMPT / 2);
                    eprintln!(
                        "{n_heads}/{n_kv_heads} x {head_dim}, {PROMPT} tokens after {context}, \
                         {}, {kind:?}: {:.0} us, {:.1} G multiply-adds/s",
                        isa.name(),
                        micros(median),
                        products as f64 / median.as_secs_f64() / 1e9
                    );
                }
            }
        }
    }
}

fn filled(shape: &Shape, kind: CacheType, context: usize, layers: usize) -> Vec<KvPages> {
    let n_pages = context / PAGE;
    let pages: Vec<u32> = (0..n_pages as u32).collect();
    let len = PAGE * shape.n_kv_heads * shape.head_dim;
    let (k, v) = (random(1, len), random(2, len));
    let mut one = KvPages::zeroed(shape, kind, 1).unwrap();
    let place = |position| Place {
        position,
        pages: &pages[..1],
    };
    one.store(shape, &k, &v, place);
    let mut bytes = Vec::new();
    one.read_page(0, &mut bytes);
    let layer = |_| {
        let mut cache = KvPages::zeroed(shape, kind, n_pages).unwrap();
        for page in &pages {
            cache.write_page(*page, &bytes);
        }
        cache
    };
    (0..layers).map(layer).collect()
}

/// The time of the attention of all layers for the last `n` tokens of the context.
fn tokens(
    isa: Isa,
    threads: usize,
    shape: &Shape,
    layers: &mut [KvPages],
    context: usize,
    n: usize,
) -> Duration {
    let mut pool = Pool::new(threads).unwrap();
    let pages: Vec<u32> = (0..(context / PAGE) as u32).collect();
    let len = n * shape.n_heads * shape.head_dim;
    let (q, mut out) = (random(3, len), vec![0.0; len]);
    let mut scratch = vec![0.0; scratch_len(shape, context, threads)];
    let place = |i| Place {
        position: context - n + i,
        pages: &pages,
    };
    let start = Instant::now();
    for cache in layers {
        attention(
            &mut pool,
            isa,
            shape,
            &q,
            cache,
            place,
            &mut scratch,
            &mut out,
        );
    }
    start.elapsed()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
