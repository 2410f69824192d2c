//! Strings and regular expressions as tokenizer files use them, and cutting texts by them.

use std::ops::Range;

use fancy_regex::{Expr, Regex, RegexBuilder};

/// Longest expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 1 << 14;

/// How often a match may go back and try another way, before it is given up.
const MAX_BACKTRACKS: usize = 200_000;

/// Most memory that the automata of one expression may take.
const MAX_AUTOMATON_BYTES: usize = 8 << 20;

/// What a compiled expression is taken to have, since its crate does not tell: measured of one
/// without classes, and of Mistral's for each of its classes. What matching adds as it goes is
/// bounded by [`MAX_AUTOMATON_BYTES`].
const EXPRESSION_BYTES: usize = 7 << 10;
const CLASS_BYTES: usize = 19 << 10;

/// What is looked for in a text.
pub(super) enum Pattern {
    Text(String),
    Expression(Box<Regex>),
    Class(fn(char) -> bool),
}

/// What becomes of the matches that a text is cut by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub(super) enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

impl Pattern {
    /// Compiles an expression in the dialect of the Python package (Oniguruma).
    ///
    /// # Errors
    /// Says why it cannot be used: its syntax, its size, or repeats within repeats, which some
    /// texts would take exponential time for.
    pub(super) fn expression(source: &str) -> Result<Self, String> {
        if source.len() > MAX_EXPRESSION_BYTES {
            return Err(format!(
                "an expression of {} bytes, at most 16384",
                source.len()
            ));
        }
        if let Some(class) = class_of_other_meaning(source) {
            return Err(format!(
                "the expression {source:?} has `{class}`, which is not supported"
            ));
        }
        Self::compile(source)
    }

    /// The words of `Whitespace`, whose classes are those of this build.
    pub(super) fn whitespace_words() -> Result<Self, String> {
        Self::compile(r"\w+|[^\w\s]+")
    }

    fn compile(source: &str) -> Result<Self, String> {
        let unsound = |error: fancy_regex::Error| {
            let error = error.to_string();
            format!(
                "the expression {source:?}: {}",
                error.lines().next().unwrap_or_default()
            )
        };
        let tree = Expr::parse_tree(source).map_err(unsound)?;
        if repeats_within_repeats(&tree.expr, false) {
            return Err(format!(
                "the expression {source:?} has a repeat within a repeat"
            ));
        }
        let regex = RegexBuilder::new(source)
            .oniguruma_mode(true)
            .multi_line(true)
            .backtrack_limit(MAX_BACKTRACKS)
            .delegate_size_limit(MAX_AUTOMATON_BYTES)
            .delegate_dfa_size_limit(MAX_AUTOMATON_BYTES)
            .max_prog_size(MAX_EXPRESSION_BYTES)
            .build()
            .map_err(unsound)?;
        Ok(Self::Expression(Box::new(regex)))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::Expression(regex) => {
                EXPRESSION_BYTES + CLASS_BYTES * regex.as_str().matches("\\p{").count()
            }
            Self::Class(_) => 0,
        }
    }

    /// Calls `found` for each match, in order. An expression that gives up finds nothing in the
    /// rest of the text.
    fn find_all(&self, text: &str, mut found: impl FnMut(Range<usize>)) {
        match self {
            Self::Text(needle) if needle.is_empty() => {}
            Self::Text(needle) => {
                for (at, hit) in text.match_indices(needle.as_str()) {
                    found(at..at + hit.len());
                }
            }
            Self::Expression(regex) => {
                for hit in regex.find_iter(text).map_while(Result::ok) {
                    found(hit.start()..hit.end());
                }
            }
            Self::Class(class) => {
                for (at, c) in text.char_indices().filter(|(_, c)| class(*c)) {
                    found(at..at + c.len_utf8());
                }
            }
        }
    }

    /// The text with every match replaced; `None` where there is no match.
    pub(super) fn replace(&self, text: &str, content: &str) -> Option<String> {
        let mut out = None;
        let mut last = 0;
        self.find_all(text, |hit| {
            let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
            out.push_str(&text[last..hit.start]);
            out.push_str(content);
            last = hit.end;
        });
        let mut out = out?;
        out.push_str(&text[last..]);
        Some(out)
    }

    /// Cuts a text by the matches, or by what lies between them with `invert`. Calls `piece` for
    /// each part that is not empty.
    pub(super) fn cut<'t>(
        &self,
        text: &'t str,
        behavior: Behavior,
        invert: bool,
        piece: &mut dyn FnMut(&'t str),
    ) {
        let mut cutter = Cutter {
            text,
            behavior,
            piece,
            pending: None,
        };
        let mut last = 0;
        self.find_all(text, |hit| {
            cutter.gap(last..hit.start, invert);
            last = hit.end;
            // A match may be empty and still end the part before it.
            cutter.part(hit, !invert);
        });
        cutter.gap(last..text.len(), invert);
        cutter.flush();
    }
}

/// Joins matches and the parts between them as a [`Behavior`] says.
struct Cutter<'t, 'p> {
    text: &'t str,
    behavior: Behavior,
    piece: &'p mut dyn FnMut(&'t str),
    /// A part that waits for what comes next, and whether it ends with a match.
    pending: Option<(Range<usize>, bool)>,
}

impl Cutter<'_, '_> {
    /// What lies between two matches, if anything does.
    fn gap(&mut self, part: Range<usize>, is_match: bool) {
        if !part.is_empty() {
            self.part(part, is_match);
        }
    }

    fn part(&mut self, part: Range<usize>, is_match: bool) {
        match (&mut self.pending, self.behavior) {
            (_, Behavior::Removed) if is_match => self.flush(),
            (Some((waiting, false)), Behavior::MergedWithPrevious) if is_match => {
                waiting.end = part.end;
                self.flush();
            }
            (Some((waiting, true)), Behavior::MergedWithNext) if !is_match => {
                waiting.end = part.end;
                self.flush();
            }
            (Some((waiting, kind)), Behavior::Contiguous) if *kind == is_match => {
                waiting.end = part.end;
            }
            _ => {
                self.flush();
                self.pending = Some((part, is_match));
            }
        }
    }

    fn flush(&mut self) {
        if let Some((part, _)) = self.pending.take()
            && !part.is_empty()
        {
            (self.piece)(&self.text[part]);
        }
    }
}

/// A class that Oniguruma takes for other characters than this build does.
fn class_of_other_meaning(source: &str) -> Option<&'static str> {
    let mut escaped = false;
    for c in source.chars() {
        match c {
            'w' | 'W' if escaped => return Some("\\w"),
            'b' | 'B' if escaped => return Some("\\b"),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    source.contains("[:").then_some("[:")
}

/// Whether an unbounded repeat holds another.
fn repeats_within_repeats(expr: &Expr, inside: bool) -> bool {
    let unbounded = matches!(expr, Expr::Repeat { hi, .. } if *hi > 1000);
    if inside && unbounded {
        return true;
    }
    expr.children_iter()
        .any(|child| repeats_within_repeats(child, inside || unbounded))
}
