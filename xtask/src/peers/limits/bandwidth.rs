//! Reads much more memory than caches hold, by so many threads, and prints the most bytes a second
//! of a few passes.
//!
//! usage: bandwidth THREADS

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

const BYTES: usize = 512 << 20;
const PASSES: usize = 7;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; 8]);

fn main() {
    let threads = std::env::args().nth(1);
    let threads: usize = threads
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
        .max(1);
    let lines = vec![Line([1; 8]); BYTES / 64];
    let part = lines.len().div_ceil(threads);
    let parts: Vec<&[Line]> = lines.chunks(part).collect();
    let barrier = Barrier::new(parts.len() + 1);
    let mut best = f64::INFINITY;
    std::thread::scope(|scope| {
        for part in &parts {
            scope.spawn(|| {
                for _ in 0..PASSES {
                    barrier.wait();
                    black_box(sum(black_box(part)));
                    barrier.wait();
                }
            });
        }
        for _ in 0..PASSES {
            barrier.wait();
            let started = Instant::now();
            barrier.wait();
            best = best.min(started.elapsed().as_secs_f64());
        }
    });
    println!("{{\"bytes_per_second\":{}}}", BYTES as f64 / best);
}

/// Adds all up, in chains that do not wait for one another.
fn sum(lines: &[Line]) -> u64 {
    const CHAINS: usize = 4;
    let mut sums = [[0_u64; 8]; CHAINS];
    for lines in lines.chunks_exact(CHAINS) {
        for (sum, line) in sums.iter_mut().zip(lines) {
            for (sum, value) in sum.iter_mut().zip(line.0) {
                *sum = sum.wrapping_add(value);
            }
        }
    }
    sums.iter()
        .flatten()
        .fold(0, |all, sum| all.wrapping_add(*sum))
}
