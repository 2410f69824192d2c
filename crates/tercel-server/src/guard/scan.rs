//! Finds patterns in a text that comes in pieces, and finds the same whatever the pieces are.
//!
//! A place is decided once no text that may follow can change the answer. What is not decided yet
//! is held back; as every pattern decides within a bounded number of characters, so is that.

use std::ops::RangeInclusive;

/// Takes one pattern from the front of what the cursor has.
pub(super) type Matcher = fn(&mut Cursor<'_>) -> Result<(), Stop>;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Pattern {
    /// What a find is called.
    pub(super) rule: &'static str,
    /// The least that makes a find.
    pub(super) starts: Matcher,
    /// What belongs to it as long as it follows, such as the rest of a key.
    pub(super) goes_on: Option<Matcher>,
}

/// Why a pattern was not taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stop {
    /// It is not here.
    Absent,
    /// What follows decides.
    Undecided,
}

/// A part of the text, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part<'a> {
    /// Nothing was found in it.
    Text(&'a str),
    /// Here stood what this rule looks for; more of the same find is not told again.
    Found(&'static str),
}

/// Reads a text from its beginning to its end.
pub(super) struct Scanner {
    /// At one place, the first that matches counts.
    patterns: Vec<Pattern>,
    held: String,
    /// The character before `held`.
    before: Option<char>,
    goes_on: Option<Matcher>,
}

enum Verdict {
    Nothing,
    Undecided,
    /// So many bytes, which may be more of the find before.
    Found(usize, Option<Pattern>),
}

impl Scanner {
    pub(super) fn new(patterns: Vec<Pattern>) -> Self {
        Self {
            patterns,
            held: String::new(),
            before: None,
            goes_on: None,
        }
    }

    /// Takes the next piece, of which `more` says whether others follow, and tells what has been
    /// decided.
    pub(super) fn read(&mut self, piece: &str, more: bool, mut tell: impl FnMut(Part<'_>)) {
        let mut held = std::mem::take(&mut self.held);
        held.push_str(piece);
        // What lies before `rest` is decided; `clean` is the end of what has been told.
        let (mut clean, mut rest) = (&*held, &*held);
        while let Some(first) = rest.chars().next() {
            match self.verdict(rest, more) {
                Verdict::Undecided => break,
                Verdict::Nothing => {
                    self.before = Some(first);
                    rest = rest.get(first.len_utf8()..).unwrap_or_default();
                }
                Verdict::Found(bytes, pattern) => {
                    tell_text(clean, rest, &mut tell);
                    if let Some(pattern) = pattern {
                        self.goes_on = pattern.goes_on;
                        tell(Part::Found(pattern.rule));
                    }
                    let (found, behind) = rest.split_at_checked(bytes).unwrap_or((rest, ""));
                    self.before = found.chars().next_back();
                    (clean, rest) = (behind, behind);
                }
            }
        }
        tell_text(clean, rest, &mut tell);
        self.held = rest.to_owned();
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn verdict(&mut self, rest: &str, more: bool) -> Verdict {
        let before = self.before;
        let take = |matcher: Matcher| {
            let mut cursor = Cursor { before, rest, more };
            matcher(&mut cursor).map(|()| rest.len() - cursor.rest.len())
        };
        if let Some(goes_on) = self.goes_on {
            match take(goes_on) {
                Ok(bytes) => return Verdict::Found(bytes, None),
                Err(Stop::Undecided) => return Verdict::Undecided,
                Err(Stop::Absent) => self.goes_on = None,
            }
        }
        for pattern in &self.patterns {
            match take(pattern.starts) {
                Ok(bytes) => return Verdict::Found(bytes, Some(*pattern)),
                Err(Stop::Undecided) => return Verdict::Undecided,
                Err(Stop::Absent) => {}
            }
        }
        Verdict::Nothing
    }
}

/// Tells what `clean` has before `rest`, which is its end.
fn tell_text(clean: &str, rest: &str, tell: &mut impl FnMut(Part<'_>)) {
    let text = clean.get(..clean.len() - rest.len()).unwrap_or_default();
    if !text.is_empty() {
        tell(Part::Text(text));
    }
}

/// A place in the text, and what is known of what follows.
pub(super) struct Cursor<'a> {
    before: Option<char>,
    rest: &'a str,
    more: bool,
}

impl<'a> Cursor<'a> {
    /// The character before the place at which the pattern began.
    pub(super) fn before(&self) -> Option<char> {
        self.before
    }

    /// What is there of the text behind.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Takes this word of ASCII letters, in any case.
    pub(super) fn word(&mut self, word: &str) -> Result<(), Stop> {
        let there = word.len().min(self.rest.len());
        let (rest, word) = (self.rest.as_bytes(), word.as_bytes());
        if !rest
            .iter()
            .zip(word)
            .all(|(a, b)| a.eq_ignore_ascii_case(b))
        {
            return Err(Stop::Absent);
        }
        if there < word.len() {
            return Err(self.at_end());
        }
        // What was compared is ASCII, so that the rest begins with a character.
        self.rest = self.rest.get(there..).unwrap_or_default();
        Ok(())
    }

    /// Takes as many characters of a class as there are, up to the end of `count`.
    pub(super) fn run(
        &mut self,
        count: RangeInclusive<usize>,
        class: impl Fn(char) -> bool,
    ) -> Result<&'a str, Stop> {
        let (mut taken, mut bytes) = (0, 0);
        for c in self.rest.chars() {
            if taken == *count.end() || !class(c) {
                break;
            }
            taken += 1;
            bytes += c.len_utf8();
        }
        let is_open = taken < *count.end() && bytes == self.rest.len();
        if is_open && self.more {
            return Err(Stop::Undecided);
        }
        if taken < *count.start() {
            return Err(Stop::Absent);
        }
        let (run, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        Ok(run)
    }

    /// Goes back to what [`Cursor::rest`] gave.
    pub(super) fn back_to(&mut self, rest: &'a str) {
        self.rest = rest;
    }

    /// Takes the next bytes, which the caller has looked at.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// What a pattern is that the text ends in the midst of.
    fn at_end(&self) -> Stop {
        if self.more {
            Stop::Undecided
        } else {
            Stop::Absent
        }
    }
}
