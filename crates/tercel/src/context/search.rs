//! How much of something fits.

use std::ops::RangeInclusive;

/// The largest number of `range` for which `attempt` gives something, with what it gave; nothing
/// where it gives nothing for the smallest.
///
/// `attempt` is expensive and gives something up to a point and nothing beyond: it is tried around
/// `guess` first, in growing steps, then halfway between what fits and what does not. What is
/// given was attempted, so it holds even where `attempt` has no such point.
pub(super) fn largest<T, E>(
    range: RangeInclusive<usize>,
    guess: usize,
    mut attempt: impl FnMut(usize) -> Result<Option<T>, E>,
) -> Result<Option<(usize, T)>, E> {
    let (mut low, highest) = range.into_inner();
    if low > highest {
        return Ok(None);
    }
    // What is not known yet to fit or not to fit is in `low..high`.
    let mut high = highest.saturating_add(1);
    let mut best = None;
    let mut at = guess.clamp(low, highest);
    let mut step = 1_usize;
    while low < high {
        match attempt(at)? {
            Some(found) => {
                best = Some((at, found));
                low = at + 1;
            }
            None => high = at,
        }
        let is_bounded = high <= highest;
        at = match &best {
            Some(_) if is_bounded => low + (high - low) / 2,
            Some((fits, _)) => fits.saturating_add(step).min(highest),
            None => high.saturating_sub(step).max(low),
        };
        step = step.saturating_mul(2);
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn the_largest_that_fits_is_found_from_any_guess() {
        for highest in [0, 1, 2, 7, 40] {
            for most in 0..=highest + 2 {
                for guess in [0, 1, most, highest, usize::MAX] {
                    let mut attempts = 0;
                    let found: Result<_, Infallible> = largest(1..=highest, guess, |n| {
                        attempts += 1;
                        assert!((1..=highest).contains(&n), "{n} is out of range");
                        Ok((n <= most).then_some(n * 10))
                    });
                    let expected = most.min(highest);
                    let expected = (expected >= 1).then_some((expected, expected * 10));
                    assert_eq!(
                        found.expect("no error"),
                        expected,
                        "{highest} {most} {guess}"
                    );
                    assert!(attempts <= 14, "{attempts} attempts for {highest}");
                }
            }
        }
        let failed = largest(0..=3, 0, |_| Err::<Option<()>, _>("failed"));
        assert_eq!(failed, Err("failed"));
    }
}
