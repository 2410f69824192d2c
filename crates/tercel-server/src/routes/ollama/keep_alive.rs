//! How long a model is to stay in memory, as Ollama's clients say it.

use std::time::Duration;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// Seconds, or a duration such as `5m`; below 0 is for ever.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "a number of seconds or a duration such as \"5m\""
)]
pub(super) enum KeepAlive {
    /// Seconds.
    Seconds(f64),
    /// Such as `5m`, `1h30m` or `-1`.
    Text(String),
}

/// How long a model is to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    Forever,
    For(Duration),
}

impl KeepAlive {
    /// What it says.
    ///
    /// # Errors
    /// Names the field for what is no duration.
    pub(super) fn read(&self) -> Result<Stay, ApiError> {
        let seconds = match self {
            Self::Seconds(seconds) => Some(*seconds),
            Self::Text(text) => seconds(text),
        };
        match seconds {
            Some(seconds) if seconds < 0.0 => Ok(Stay::Forever),
            // What is too long for a clock is for ever.
            Some(seconds) => {
                Ok(Duration::try_from_secs_f64(seconds).map_or(Stay::Forever, Stay::For))
            }
            None => Err(ApiError::invalid(
                "keep_alive",
                "`keep_alive` must be a number of seconds or a duration such as `5m`",
            )),
        }
    }
}

impl Stay {
    pub(super) fn is_zero(self) -> bool {
        self == Self::For(Duration::ZERO)
    }

    /// What the client must be told where the server keeps models otherwise.
    pub(super) fn note(self, configured: Option<Duration>) -> Option<String> {
        let is_so = match (self, configured) {
            (Self::Forever, None) => true,
            (Self::For(asked), Some(configured)) => asked == configured,
            _ => false,
        };
        (!is_so).then(|| {
            let kept = match configured {
                None => "until the server stops".to_owned(),
                Some(ttl) => format!("until they were idle for {} s", ttl.as_secs_f64()),
            };
            format!("keep_alive: the server keeps models as configured, {kept}")
        })
    }
}

/// Seconds of a duration as Go writes it, or of a plain number.
fn seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) if text.starts_with('-') => (-1.0, rest),
        Some(rest) => (1.0, rest),
        None => (1.0, text),
    };
    let number_of = |text: &str| {
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_plain.then(|| text.parse::<f64>().ok()).flatten()
    };
    if let Some(plain) = number_of(rest) {
        return Some(sign * plain);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let length = behind.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, behind) = behind.split_at(length.unwrap_or(behind.len()));
        let unit = match unit {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number_of(number)? * unit;
        rest = behind;
    }
    Some(sign * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let text = |text: &str| KeepAlive::Text(text.to_owned()).read().ok();
        let secs = |seconds| Some(Stay::For(Duration::from_secs_f64(seconds)));
        for (given, expected) in [
            ("5m", secs(300.0)),
            ("1h30m", secs(5400.0)),
            ("1.5h", secs(5400.0)),
            ("300ms", secs(0.3)),
            ("10s", secs(10.0)),
            ("0", secs(0.0)),
            ("0s", secs(0.0)),
            ("3600", secs(3600.0)),
            ("-1", Some(Stay::Forever)),
            ("-1m", Some(Stay::Forever)),
            ("+5m", secs(300.0)),
            ("99999999999999999999h", Some(Stay::Forever)),
            ("", None),
            ("-", None),
            ("m", None),
            ("5", secs(5.0)),
            ("5x", None),
            ("5m3", None),
            ("1..5s", None),
            ("inf", None),
            ("nan", None),
            ("5 m", None),
        ] {
            assert_eq!(text(given), expected, "{given}");
        }
        let number = |seconds| KeepAlive::Seconds(seconds).read().ok();
        assert_eq!(number(-1.0), Some(Stay::Forever));
        assert_eq!(number(0.0), secs(0.0));
        assert_eq!(number(1.5), secs(1.5));
    }

    #[test]
    fn what_is_not_done_is_told() {
        let five = Stay::For(Duration::from_secs(300));
        for (asked, configured, is_told) in [
            (Stay::Forever, None, false),
            (five, None, true),
            (five, Some(300), false),
            (five, Some(301), true),
            (Stay::Forever, Some(300), true),
            (Stay::For(Duration::ZERO), None, true),
        ] {
            let note = asked.note(configured.map(Duration::from_secs));
            assert_eq!(note.is_some(), is_told, "{asked:?} {configured:?}");
        }
    }
}
