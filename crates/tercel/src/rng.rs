//! Random numbers that depend on a seed and a step alone.
//!
//! A counter-based generator has no state to carry: the draw of step `n` is the same whatever ran
//! before it, which is what lets a seeded request be replayed, cancelled or resumed anywhere.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number in `[0, 1)` with 53 random bits, the same for the same `seed` and `step`.
pub(crate) fn uniform(seed: u64, step: u64) -> f64 {
    // Two rounds, so that neighbouring seeds do not share a shifted sequence.
    let bits = mix(mix(seed).wrapping_add(step.wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// A seed made of a seed and what else there is to tell apart.
pub(crate) fn fold(seed: u64, values: &[u32]) -> u64 {
    let fold = |seed: u64, value: &u32| mix(seed ^ u64::from(*value));
    values.iter().fold(mix(seed), fold)
}

/// A seed that nothing predicts, below 2^53 so that every JSON reader keeps it exact.
pub(crate) fn fresh_seed() -> u64 {
    // The standard library's hash keys are random per process and differ from call to call.
    mix(RandomState::new().build_hasher().finish()) >> 11
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The SplitMix64 step: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014, with Stafford's variant 13 of the finalizer.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_gives_the_published_sequence_of_splitmix64() {
        // The first outputs of the reference implementation for the seed 1234567.
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        for (n, expected) in expected.into_iter().enumerate() {
            assert_eq!(
                mix(1_234_567_u64.wrapping_add(GOLDEN.wrapping_mul(n as u64))),
                expected
            );
        }
    }

    #[test]
    fn draws_are_even_over_steps_and_over_seeds() {
        for draw in [|i| uniform(7, i), |i| uniform(i, 0)] {
            let mut bins = [0_u32; 64];
            for i in 0..64_000 {
                let u: f64 = draw(i);
                assert!((0.0..1.0).contains(&u));
                bins[(u * 64.0) as usize] += 1;
            }
            let chi: f64 = bins
                .iter()
                .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0)
                .sum();
            // 63 degrees of freedom: p = 0.001 lies at 103.4.
            assert!(chi < 103.4, "chi-square {chi}");
        }
    }

    #[test]
    fn neighbouring_seeds_do_not_shift_into_each_other() {
        for seed in 0..200 {
            for step in 0..50 {
                assert_ne!(uniform(seed, step + 1), uniform(seed + 1, step));
                assert_ne!(uniform(seed, step), uniform(seed + 1, step));
            }
        }
    }

    #[test]
    fn fresh_seeds_differ_and_are_exact_as_floats() {
        let seeds: Vec<u64> = (0..100).map(|_| fresh_seed()).collect();
        for (i, &seed) in seeds.iter().enumerate() {
            assert_eq!(seed as f64 as u64, seed);
            assert!(!seeds[..i].contains(&seed));
        }
    }
}
