//! The file of counts: a table in Markdown, a row for each case and a column for each release.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

const INTRODUCTION: &str = "\
# Instruction counts

Instructions that each kernel takes with AVX2 and one thread, as callgrind counts them: the same on
a busy machine. A name ends with the tokens of a call, where they matter; `attention` has the type of
the pages and the length of a head before them. `each` is the newest count over what it computes.

`cargo xtask counts` writes the column of this version; `cargo xtask counts --check`, a part of
`cargo xtask test`, fails where a count is more than 2 % above the newest column. Time depends on the
memory and on which instructions they are, too: that is for `cargo xtask bench-peers` to measure.
";
/// Releases that are shown.
const KEPT: usize = 5;
/// Where a release has no count.
const NONE: &str = "-";
/// The columns beside the releases: the first two and the last.
const HEADS: [&str; 3] = ["case", "computes", "each"];

/// One case at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) case: String,
    pub(super) work: Work,
    pub(super) instructions: u64,
}

/// What a case computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) amount: u64,
    pub(super) unit: String,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) version: String,
    /// What the counts were made with.
    pub(super) tools: String,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    work: Work,
    /// For each release.
    counts: Vec<Option<u64>>,
}

/// All counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The newest last.
    pub(super) releases: Vec<Release>,
    rows: BTreeMap<String, Row>,
}

impl Record {
    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// With the number of the line that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        let mut is_headed = false;
        for (i, line) in text.lines().enumerate() {
            let read = if let Some(release) = line.strip_prefix("- ") {
                record.read_release(release)
            } else if let Some(row) = line.strip_prefix("| ") {
                let cells: Vec<&str> = row
                    .trim_end_matches('|')
                    .split('|')
                    .map(str::trim)
                    .collect();
                if std::mem::replace(&mut is_headed, true) {
                    record.read_row(&cells)
                } else {
                    record.read_head(&cells)
                }
            } else {
                Ok(())
            };
            read.with_context(|| format!("line {}", i + 1))?;
        }
        Ok(record)
    }

    /// Makes `counts` those of `version`, which is a new release unless it is the newest already.
    /// Cases that are not among them go, and so do older counts of those that computed something
    /// else.
    pub(super) fn set(&mut self, version: String, tools: String, counts: Vec<Count>) {
        if self
            .releases
            .last()
            .is_some_and(|newest| newest.version == version)
        {
            self.remove(self.releases.len() - 1);
        }
        if self.releases.len() == KEPT {
            self.remove(0);
        }
        let older = self.releases.len();
        self.releases.push(Release { version, tools });
        let mut rows = BTreeMap::new();
        for count in counts {
            let known = self.rows.remove(&count.case);
            let known = known.filter(|row| row.work == count.work);
            let mut cells = known.map_or_else(|| vec![None; older], |row| row.counts);
            cells.push(Some(count.instructions));
            let row = Row {
                work: count.work,
                counts: cells,
            };
            rows.insert(count.case, row);
        }
        self.rows = rows;
    }

    /// The newest count of a case, if it computed this.
    pub(super) fn newest(&self, case: &str, work: &Work) -> Option<u64> {
        let row = self.rows.get(case).filter(|row| row.work == *work)?;
        row.counts.last().copied().flatten()
    }

    /// The names of all cases, in order.
    pub(super) fn cases(&self) -> impl Iterator<Item = &String> {
        self.rows.keys()
    }

    fn remove(&mut self, release: usize) {
        self.releases.remove(release);
        for row in self.rows.values_mut() {
            row.counts.remove(release);
        }
    }

    fn read_release(&mut self, text: &str) -> Result<()> {
        let (version, tools) = text.split_once(": ").context("no version")?;
        self.releases.push(Release {
            version: version.to_owned(),
            tools: tools.to_owned(),
        });
        Ok(())
    }

    fn read_head(&self, cells: &[&str]) -> Result<()> {
        let [first, second, last] = HEADS;
        let versions = self.releases.iter().map(|release| release.version.as_str());
        let want: Vec<&str> = [first, second]
            .into_iter()
            .chain(versions)
            .chain([last])
            .collect();
        ensure!(cells == want, "the columns are not {}", want.join(", "));
        Ok(())
    }

    fn read_row(&mut self, cells: &[&str]) -> Result<()> {
        let [case, work, counts @ .., _each] = cells else {
            bail!("too few cells");
        };
        if case.starts_with("---") {
            return Ok(());
        }
        ensure!(
            counts.len() == self.releases.len(),
            "{} counts of {} releases",
            counts.len(),
            self.releases.len()
        );
        let counts = counts.iter().map(|cell| match *cell {
            NONE => Ok(None),
            cell => cell
                .parse()
                .map(Some)
                .with_context(|| format!("`{cell}` is no count")),
        });
        let row = Row {
            work: work.parse()?,
            counts: counts.collect::<Result<_>>()?,
        };
        let known = self.rows.insert((*case).to_owned(), row);
        ensure!(known.is_none(), "`{case}` stands twice");
        Ok(())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{INTRODUCTION}")?;
        for Release { version, tools } in &self.releases {
            writeln!(f, "- {version}: {tools}")?;
        }
        let [first, second, last] = HEADS;
        write!(f, "\n| {first} | {second} |")?;
        for release in &self.releases {
            write!(f, " {} |", release.version)?;
        }
        writeln!(f, " {last} |")?;
        writeln!(
            f,
            "| --- | ---: |{}",
            " ---: |".repeat(self.releases.len() + 1)
        )?;
        for (case, Row { work, counts }) in &self.rows {
            write!(f, "| {case} | {work} |")?;
            for count in counts {
                match count {
                    Some(count) => write!(f, " {count} |")?,
                    None => write!(f, " {NONE} |")?,
                }
            }
            match counts.last() {
                Some(Some(count)) => {
                    writeln!(f, " {:.3} |", *count as f64 / work.amount as f64)?;
                }
                _ => writeln!(f, " {NONE} |")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.unit)
    }
}

impl FromStr for Work {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (amount, unit) = text.split_once(' ').context("no amount of some unit")?;
        let amount = amount.parse();
        Ok(Self {
            amount: amount.with_context(|| format!("`{text}` is no amount"))?,
            unit: unit.to_owned(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// So many instructions for so many numbers.
    pub(crate) fn count(case: &str, amount: u64, instructions: u64) -> Count {
        Count {
            case: case.to_owned(),
            work: Work {
                amount,
                unit: "numbers".to_owned(),
            },
            instructions,
        }
    }

    fn table(record: &Record) -> String {
        let text = record.to_string();
        text.strip_prefix(INTRODUCTION).unwrap().to_owned()
    }

    #[test]
    fn a_release_is_a_column_and_replaces_itself() {
        let mut record = Record::default();
        record.set(
            "0.1.0".into(),
            "a".into(),
            vec![count("y", 64, 32), count("x", 8, 1)],
        );
        record.set("0.2.0".into(), "b".into(), vec![count("x", 8, 3)]);
        let newest = vec![count("z", 2, 7), count("y", 64, 96), count("x", 9, 9)];
        record.set("0.2.0".into(), "c".into(), newest);
        let want = "\n- 0.1.0: a\n- 0.2.0: c\n\n\
                    | case | computes | 0.1.0 | 0.2.0 | each |\n\
                    | --- | ---: | ---: | ---: | ---: |\n\
                    | x | 9 numbers | - | 9 | 1.000 |\n\
                    | y | 64 numbers | - | 96 | 1.500 |\n\
                    | z | 2 numbers | - | 7 | 3.500 |\n";
        assert_eq!(table(&record), want);
        assert_eq!(Record::parse(&record.to_string()).unwrap(), record);
        let work = |amount| count("", amount, 0).work;
        assert_eq!(record.newest("y", &work(64)), Some(96));
        assert_eq!(record.newest("y", &work(65)), None);
        assert_eq!(record.newest("w", &work(64)), None);
    }

    #[test]
    fn the_oldest_release_goes() {
        let mut record = Record::default();
        for version in 0..KEPT as u64 + 2 {
            let counts = vec![count("x", 4, version)];
            record.set(format!("0.{version}.0"), "tools".into(), counts);
        }
        let text = table(&record);
        assert!(
            text.contains("| x | 4 numbers | 2 | 3 | 4 | 5 | 6 | 1.500 |"),
            "{text}"
        );
        assert!(!text.contains("0.1.0"), "{text}");
        assert_eq!(Record::parse(&record.to_string()).unwrap(), record);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let head = "- 1: a\n| case | computes | 1 | each |\n| --- | --- | --- | --- |\n";
        for (rows, line, part) in [
            ("| x | 4 numbers | many | 1 |", 4, "`many`"),
            ("| x | 4 numbers | 1 | 1 | 1 |", 4, "2 counts of 1"),
            ("| x | 4 n | 1 |", 4, "0 counts of 1"),
            ("| x |", 4, "too few"),
            ("| x | some numbers | 1 | 1 |", 4, "`some numbers`"),
            ("| x | 4 | 1 | 1 |", 4, "no amount"),
            (
                "| x | 4 n | 1 | 1 |\n| x | 4 n | 1 | 1 |",
                5,
                "`x` stands twice",
            ),
            ("- two", 4, "no version"),
        ] {
            let error = Record::parse(&format!("{head}{rows}\n")).expect_err(rows);
            let error = format!("{error:#}");
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
            assert!(error.contains(part), "{rows}: {error}");
        }
        let other = Record::parse("- 1: a\n| case | computes | 2 | each |\n").unwrap_err();
        assert!(format!("{other:#}").contains("columns"), "{other:#}");
    }
}
