//! Reads much more memory than caches hold, by so many threads, and prints the most bytes a second
//! of a few passes.
//!
//! usage: bandwidth THREADS

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

const BYTES: usize = 512 << 20;
const PASSES: usize = 7;
/// Numbers in a cache line.
const LINE: usize = 8;

fn main() {
    let threads = std::env::args().nth(1);
    let threads: usize = threads.and_then(|text| text.parse().ok()).unwrap_or(1);
    let numbers = vec![1_u64; BYTES / 8 + LINE];
    // No load crosses a line.
    let aligned = &numbers[numbers.as_ptr().align_offset(8 * LINE).min(LINE)..][..BYTES / 8];
    let part = (aligned.len() / threads.max(1)).next_multiple_of(LINE);
    let parts: Vec<&[u64]> = aligned.chunks(part).collect();
    let barrier = Barrier::new(parts.len());
    let pass = |part: &[u64]| {
        barrier.wait();
        let started = Instant::now();
        black_box(sum(black_box(part)));
        (started, Instant::now())
    };
    let pass = &pass;
    // (threads, passes), each with its start and its end
    let times: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let read = |part| scope.spawn(move || (0..PASSES).map(|_| pass(part)).collect());
        let readers: Vec<_> = parts.iter().copied().map(read).collect();
        let times = readers.into_iter().map(|reader| reader.join());
        times
            .map(|times| times.expect("a sum does not fail"))
            .collect()
    });
    let seconds = (0..PASSES).filter_map(|pass| {
        let started = times.iter().map(|times| times[pass].0).min()?;
        let ended = times.iter().map(|times| times[pass].1).max()?;
        Some((ended - started).as_secs_f64())
    });
    let best = seconds.fold(f64::INFINITY, f64::min);
    println!("{{\"bytes_per_second\":{}}}", BYTES as f64 / best);
}

/// Combines all numbers, read as four streams: more of memory is on its way at once than with one.
/// Loops as plain as this become wide loads; lanes written by hand became gathers.
fn sum(numbers: &[u64]) -> u64 {
    let quarter = numbers.len() / 4;
    let (a, rest) = numbers.split_at(quarter);
    let (b, rest) = rest.split_at(quarter);
    let (c, d) = rest.split_at(quarter);
    let fours = a.iter().zip(b).zip(c.iter().zip(d));
    fours.fold(0, |sum, ((a, b), (c, d))| sum.wrapping_add(a ^ b ^ c ^ d))
}
