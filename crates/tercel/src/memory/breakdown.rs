//! What something takes, part by part.

use std::fmt;

use serde::Serialize;

/// The parts of what an engine takes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Breakdown {
    entries: Vec<Entry>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it is, in words.
    pub part: String,
    /// Its size.
    pub bytes: u64,
}

impl Breakdown {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a part more. A part without bytes is left out.
    #[must_use]
    pub fn with(mut self, part: impl Into<String>, bytes: u64) -> Self {
        if bytes > 0 {
            let part = part.into();
            self.entries.push(Entry { part, bytes });
        }
        self
    }

    /// The parts, in the order they were added.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The sum.
    pub fn total_bytes(&self) -> u64 {
        self.entries
            .iter()
            .fold(0, |sum, entry| sum.saturating_add(entry.bytes))
    }

    /// The parts in one line, in units of 2^20 bytes, rounded up: `weights 300, KV cache 100`.
    pub fn in_one_line(&self) -> String {
        let parts: Vec<String> = self
            .entries
            .iter()
            .map(|entry| format!("{} {}", entry.part, mebibytes(entry.bytes)))
            .collect();
        parts.join(", ")
    }
}

/// A table with a line for each part and one for the sum, in units of 2^20 bytes.
impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TOTAL: &str = "total";
        let names = self.entries.iter().map(|entry| entry.part.chars().count());
        let width = names.chain([TOTAL.len()]).max().unwrap_or(0);
        for entry in &self.entries {
            let size = entry.bytes as f64 / 1_048_576.0;
            writeln!(f, "{:<width$}  {size:>10.1} MB", entry.part)?;
        }
        let total = self.total_bytes() as f64 / 1_048_576.0;
        write!(f, "{TOTAL:<width$}  {total:>10.1} MB")
    }
}

/// Whole units of 2^20 bytes, rounded up, so that something never reads as nothing.
pub(super) fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_shown_with_their_sum() {
        let breakdown = Breakdown::new()
            .with("weights", 300 << 20)
            .with("recurrent state", 0)
            .with("KV cache", (100 << 20) + 1);
        assert_eq!(breakdown.total_bytes(), (400 << 20) + 1);
        assert_eq!(breakdown.in_one_line(), "weights 300, KV cache 101");
        assert_eq!(
            breakdown.to_string(),
            "weights        300.0 MB\n\
             KV cache       100.0 MB\n\
             total          400.0 MB"
        );
        assert_eq!(
            Breakdown::new()
                .with("all", u64::MAX)
                .with("more", 1)
                .total_bytes(),
            u64::MAX
        );
    }
}
