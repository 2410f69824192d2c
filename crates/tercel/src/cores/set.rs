//! A set of processors, as people and Linux write it: `0-3,6`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::CoresError;

/// Processors by their numbers, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CoreSet(BTreeSet<usize>);

/// More than any machine has; a list is not worth more memory.
const MOST_CORES: usize = 1 << 16;

impl CoreSet {
    /// The set of these processors; `None` where there are none.
    pub fn new(cores: impl IntoIterator<Item = usize>) -> Option<Self> {
        let cores: BTreeSet<usize> = cores.into_iter().collect();
        (!cores.is_empty()).then_some(Self(cores))
    }

    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// How many there are, at least 1.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether this processor is one of them.
    pub fn contains(&self, core: usize) -> bool {
        self.0.contains(&core)
    }

    /// The first that `other` lacks.
    pub fn first_outside(&self, other: &Self) -> Option<usize> {
        self.0.difference(&other.0).next().copied()
    }
}

impl FromStr for CoreSet {
    type Err = CoresError;

    /// Reads numbers and ranges with commas between them, as `taskset -c` does: `0-3,6`.
    fn from_str(text: &str) -> Result<Self, CoresError> {
        let wrong = |reason| CoresError::InvalidList {
            text: text.to_owned(),
            reason,
        };
        let number = |digits: &str| {
            let digits = digits.trim();
            // `parse` also takes a plus sign.
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong("numbers and ranges with commas between them are"));
            }
            let number = digits.parse::<usize>().ok().filter(|n| *n < MOST_CORES);
            number.ok_or_else(|| wrong("no machine has so many"))
        };
        let mut cores = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(wrong("a range goes from the lower number to the higher"));
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for CoreSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cores = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cores.next() {
            let mut last = first;
            while let Some(next) = cores.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{comma}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl Serialize for CoreSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for (text, cores, shown) in [
            ("0", &[0][..], "0"),
            ("0-3,6", &[0, 1, 2, 3, 6], "0-3,6"),
            ("6,0-2,1", &[0, 1, 2, 6], "0-2,6"),
            ("0,1", &[0, 1], "0-1"),
            ("4-4", &[4], "4"),
            (" 2 , 5 - 7\n", &[2, 5, 6, 7], "2,5-7"),
            ("65535", &[65535], "65535"),
        ] {
            let set: CoreSet = text.parse().expect("a list");
            assert_eq!(set.iter().collect::<Vec<_>>(), cores, "{text:?}");
            assert_eq!(set.to_string(), shown);
            assert_eq!(shown.parse(), Ok(set));
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "numbers and ranges"),
            ("a", "numbers and ranges"),
            ("0,,1", "numbers and ranges"),
            ("0-", "numbers and ranges"),
            ("-1", "numbers and ranges"),
            ("+1", "numbers and ranges"),
            ("1.5", "numbers and ranges"),
            ("0-1-2", "numbers and ranges"),
            ("3-1", "from the lower"),
            ("65536", "no machine"),
            ("0-99999999999999999999999", "no machine"),
        ] {
            let error = text.parse::<CoreSet>().expect_err(text);
            assert_eq!(error.kind(), "invalid_cores");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn sets_are_compared() {
        let set = |text: &str| text.parse::<CoreSet>().expect("a list");
        assert_eq!(set("0-3").first_outside(&set("0-7")), None);
        assert_eq!(set("2-9").first_outside(&set("0-7")), Some(8));
        assert_eq!(CoreSet::new([]), None);
        assert_eq!(CoreSet::new([1, 0]), Some(set("0,1")));
        assert_eq!(
            serde_json::to_string(&set("0,1,2")).expect("JSON"),
            "\"0-2\""
        );
    }
}
