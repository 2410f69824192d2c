//! Moments and durations as Ollama's clients read them.

use std::time::{Duration, SystemTime};

/// A moment in UTC as RFC 3339 has it, with nanoseconds. What lies before 1970 is told as 1970.
pub(super) fn rfc3339(moment: SystemTime) -> String {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of the Gregorian calendar, so many days after 1 January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // 1 January 1600 begins 400 years with a leap year, which all others repeat.
    let since_1600 = days + 135_140;
    let mut year = 1600 + since_1600 / DAYS_OF_400_YEARS * 400;
    let mut left = since_1600 % DAYS_OF_400_YEARS;
    while left >= days_of_year(year) {
        left -= days_of_year(year);
        year += 1;
    }
    let february = days_of_year(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

fn days_of_year(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    365 + u64::from(is_leap)
}

/// Nanoseconds, which no clock of these programs counts past 64 bits.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds that were measured, as a duration; 0 for what is none.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_told() {
        for (seconds, nanos, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (1, 5, "1970-01-01T00:00:01.000000005Z"),
            (951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000000000Z"),
            (978_307_199, 0, "2000-12-31T23:59:59.000000000Z"),
            (1_000_000_000, 0, "2001-09-09T01:46:40.000000000Z"),
            (1_234_567_890, 120_000_000, "2009-02-13T23:31:30.120000000Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00.000000000Z"),
            (1_767_225_599, 0, "2025-12-31T23:59:59.000000000Z"),
            (1_767_225_600, 0, "2026-01-01T00:00:00.000000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
            (11_017_065_600, 0, "2319-02-13T08:00:00.000000000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000000Z"),
        ] {
            let moment = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
            assert_eq!(rfc3339(moment), expected, "{seconds}");
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn days_follow_each_other() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(date(days), (year, month, day));
            let (next_year, next_month, next_day) = date(days + 1);
            if next_day == day + 1 {
                assert_eq!((next_year, next_month), (year, month));
            } else if next_month == month + 1 {
                assert_eq!((next_year, next_day), (year, 1));
                assert!((28..=31).contains(&day), "{year}-{month}-{day}");
            } else {
                assert_eq!((next_year, next_month, next_day), (year + 1, 1, 1));
                assert_eq!((month, day), (12, 31));
            }
            (year, month, day) = (next_year, next_month, next_day);
        }
    }

    #[test]
    fn durations_are_whole_nanoseconds() {
        assert_eq!(nanos(duration(1.5)), 1_500_000_000);
        assert_eq!(nanos(duration(0.000_000_001)), 1);
        assert_eq!(nanos(duration(-1.0)), 0);
        assert_eq!(nanos(duration(f64::NAN)), 0);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
