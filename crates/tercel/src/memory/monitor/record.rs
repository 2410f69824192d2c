//! What was seen of a request, the line that is logged of it, and what many of them say.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::{Level, Sample, Stage};

/// The memory of a request at one moment; sizes in units of 2^20 bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// The request.
    pub request_id: String,
    /// When it was taken.
    pub stage: Stage,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The most tokens it may generate.
    pub max_new_tokens: usize,
    /// Tokens it has generated.
    pub actual_new_tokens: usize,
    /// Tokens of it that are in the context.
    pub context_tokens_used: usize,
    /// What the process holds; `None` where the system does not tell.
    pub rss_mb_now: Option<f64>,
    /// The most that it held while the request ran.
    pub rss_mb_peak: Option<f64>,
    /// What the pages of the request take.
    pub kv_cache_est_mb: f64,
    /// What was planned for it.
    pub kv_cache_plan_mb: f64,
}

impl Record {
    pub(super) fn new(sample: &Sample, rss_bytes: Option<u64>, peak_bytes: Option<u64>) -> Self {
        Self {
            request_id: sample.request_id.clone(),
            stage: sample.stage,
            prompt_tokens: sample.prompt_tokens,
            max_new_tokens: sample.max_new_tokens,
            actual_new_tokens: sample.actual_new_tokens,
            context_tokens_used: sample.context_tokens_used,
            rss_mb_now: rss_bytes.map(mebibytes),
            rss_mb_peak: peak_bytes.map(mebibytes),
            kv_cache_est_mb: mebibytes(sample.kv_cache_est_bytes),
            kv_cache_plan_mb: mebibytes(sample.kv_cache_plan_bytes),
        }
    }
}

/// A line for the log. Its `Display` is one line of `name=value`, in the order of the fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// When, in UTC.
    #[serde(serialize_with = "timestamp")]
    pub ts: SystemTime,
    /// How grave.
    pub level: Level,
    /// The request.
    pub request_id: String,
    /// What the process holds; `None` where the system does not tell.
    pub rss_mb_now: Option<f64>,
    /// The most that it held while the request ran.
    pub rss_mb_peak: Option<f64>,
    /// What the pages of the request take.
    pub kv_cache_est_mb: f64,
    /// What was planned for it.
    pub kv_cache_plan_mb: f64,
    /// Tokens it has generated.
    pub tokens_done: usize,
}

impl Alert {
    pub(super) fn now(level: Level, record: &Record) -> Self {
        Self {
            ts: SystemTime::now(),
            level,
            request_id: record.request_id.clone(),
            rss_mb_now: record.rss_mb_now,
            rss_mb_peak: record.rss_mb_peak,
            kv_cache_est_mb: record.kv_cache_est_mb,
            kv_cache_plan_mb: record.kv_cache_plan_mb,
            tokens_done: record.actual_new_tokens,
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known =
            |mb: Option<f64>| mb.map_or_else(|| "unknown".to_owned(), |mb| format!("{mb:.1}"));
        write!(
            f,
            "ts={} level={} request_id={} rss_mb_now={} rss_mb_peak={} kv_cache_est_mb={:.1} \
             kv_cache_plan_mb={:.1} tokens_done={}",
            utc(self.ts),
            self.level.name(),
            // It stays one line, whatever a caller names a request.
            self.request_id.escape_debug(),
            known(self.rss_mb_now),
            known(self.rss_mb_peak),
            self.kv_cache_est_mb,
            self.kv_cache_plan_mb,
            self.tokens_done
        )
    }
}

/// What the records of several requests say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The request with the highest peak.
    pub request_id: String,
    /// That peak.
    pub rss_mb_peak: f64,
    /// What it looks like.
    pub verdict: Verdict,
}

/// What a peak of memory looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Memory and KV cache are as planned.
    AsPlanned,
    /// The memory rose, the KV cache did not: temporary buffers, or fragmentation.
    BuffersOrFragmentation,
    /// The KV cache takes more than its plan: look at truncation, tokenizer, and the type and
    /// layout of the cache.
    KvCacheBeyondPlan,
}

/// Finds the request with the highest peak among `records` and what that looks like: a peak counts
/// as a rise when it is `rise_mb` above what the process held when the request started. `None`
/// where no record has a figure of the process.
pub fn diagnose(records: &[Record], kv_cache_threshold: f64, rise_mb: f64) -> Option<Diagnosis> {
    let with_peak = records
        .iter()
        .filter_map(|record| Some((record, record.rss_mb_peak?)));
    let (highest, rss_mb_peak) = with_peak.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let mut of_request = records
        .iter()
        .filter(|record| record.request_id == highest.request_id);
    let beyond =
        |record: &Record| record.kv_cache_est_mb > record.kv_cache_plan_mb * kv_cache_threshold;
    let first = of_request.clone().find_map(|record| record.rss_mb_now);
    let verdict = if of_request.any(beyond) {
        Verdict::KvCacheBeyondPlan
    } else if first.is_some_and(|first| rss_mb_peak >= first + rise_mb) {
        Verdict::BuffersOrFragmentation
    } else {
        Verdict::AsPlanned
    };
    Some(Diagnosis {
        request_id: highest.request_id.clone(),
        rss_mb_peak,
        verdict,
    })
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn timestamp<S: Serializer>(ts: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&utc(*ts))
}

/// `2026-11-21T11:03:48.123Z` (RFC 3339); the start of 1970 for times before it.
fn utc(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date of the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms", `civil_from_days`), with years that begin in March.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::monitor::{Action, Thresholds, decide};

    fn record(id: &str, now: f64, peak: f64, est: f64, plan: f64) -> Record {
        Record {
            request_id: id.to_owned(),
            stage: Stage::Running,
            prompt_tokens: 10,
            max_new_tokens: 100,
            actual_new_tokens: 64,
            context_tokens_used: 74,
            rss_mb_now: Some(now),
            rss_mb_peak: Some(peak),
            kv_cache_est_mb: est,
            kv_cache_plan_mb: plan,
        }
    }

    #[test]
    fn the_worked_alert() {
        let seen = record("42", 812.3, 845.0, 310.2, 295.0);
        assert!((seen.kv_cache_est_mb / seen.kv_cache_plan_mb - 1.0515).abs() < 1e-4);
        // The process is below 80 % of its budget: the KV cache gives the alarm.
        let action = decide(
            &Thresholds::default(),
            Some(1024.0),
            seen.rss_mb_now,
            seen.kv_cache_est_mb,
            seen.kv_cache_plan_mb,
        );
        assert_eq!(action, Action::LogAndContinue);
        let level = action.level().expect("a warning");
        let alert = Alert {
            ts: UNIX_EPOCH + Duration::from_millis(1_795_259_028_123),
            ..Alert::now(level, &seen)
        };
        assert_eq!(
            alert.to_string(),
            "ts=2026-11-21T11:03:48.123Z level=WARN request_id=42 rss_mb_now=812.3 \
             rss_mb_peak=845.0 kv_cache_est_mb=310.2 kv_cache_plan_mb=295.0 tokens_done=64"
        );
        let json = serde_json::to_string(&alert).expect("JSON");
        assert_eq!(
            json,
            r#"{"ts":"2026-11-21T11:03:48.123Z","level":"WARN","request_id":"42","rss_mb_now":812.3,"rss_mb_peak":845.0,"kv_cache_est_mb":310.2,"kv_cache_plan_mb":295.0,"tokens_done":64}"#
        );
    }

    #[test]
    fn an_alert_is_one_line_and_tells_what_is_not_known() {
        let alert = Alert {
            rss_mb_now: None,
            ..Alert::now(Level::Stop, &record("a\nb", 1.0, 1.0, 1.0, 1.0))
        };
        let line = alert.to_string();
        assert!(!line.contains('\n'), "{line}");
        assert!(
            line.contains("level=STOP") && line.contains("rss_mb_now=unknown"),
            "{line}"
        );
    }

    #[test]
    fn dates_of_awkward_days() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), date);
        }
    }

    #[test]
    fn the_highest_peak_is_found_and_explained() {
        let calm = record("1", 500.0, 510.0, 10.0, 10.0);
        let start = record("2", 500.0, 500.0, 10.0, 20.0);
        let spike = record("2", 520.0, 900.0, 15.0, 20.0);
        let beyond = record("2", 890.0, 900.0, 22.0, 20.0);
        for (records, id, verdict) in [
            (vec![calm.clone()], "1", Verdict::AsPlanned),
            (
                vec![calm.clone(), start.clone(), spike.clone()],
                "2",
                Verdict::BuffersOrFragmentation,
            ),
            (
                vec![calm, start, spike, beyond],
                "2",
                Verdict::KvCacheBeyondPlan,
            ),
        ] {
            let found = diagnose(&records, 1.05, 100.0).expect("there are figures");
            assert_eq!((found.request_id.as_str(), found.verdict), (id, verdict));
        }
        assert_eq!(diagnose(&[], 1.05, 100.0), None);
    }
}
