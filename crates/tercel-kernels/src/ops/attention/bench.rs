//! What a token's attention costs in each type of cache.

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
                    times.push(token(isa, threads, &shape, caches, context) / layers as u32);
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

/// The time of the attention of all layers for one token.
fn token(
    isa: Isa,
    threads: usize,
    shape: &Shape,
    layers: &mut [KvPages],
    context: usize,
) -> Duration {
    let mut pool = Pool::new(threads).unwrap();
    let pages: Vec<u32> = (0..(context / PAGE) as u32).collect();
    let len = shape.n_heads * shape.head_dim;
    let (q, mut out) = (random(3, len), vec![0.0; len]);
    let mut scratch = vec![0.0; scratch_len(shape, context, threads)];
    let place = |_| Place {
        position: context - 1,
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
