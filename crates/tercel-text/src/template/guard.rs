//! Writing a template's expressions so that every operation on text pays for what it touches.
//!
//! The engine counts steps, but one step may join, repeat or compare strings of any size, and
//! thirty doublings make a gigabyte. Here each operand of such an operation is led through a
//! filter that charges a budget (`super::budget`): `a ~ b` becomes `a|_deep ~ b|_deep`. Filters
//! bind tighter than any operator, so nothing has to be parsed but the ends of operands.
//! Repetition and slices, which the engine gets wrong at their limits, become calls of our own.

use std::ops::Range;

use super::lexer;
use super::limits::TAG_TOKENS;

/// Charges for a value itself: the bytes of a string, the length of a list.
pub(super) const SHALLOW: &str = "_shallow";
/// Charges for all that is in a value.
pub(super) const DEEP: &str = "_deep";
/// Refuses what nests too deep to become part of another value.
pub(super) const NESTED: &str = "_nested";
/// Refuses, beyond that, what could make a namespace hold itself.
pub(super) const STORED: &str = "_stored";
/// Refuses anything but numbers.
pub(super) const NUMBER: &str = "_number";
/// `a * b`, as `a|_times(b)`.
pub(super) const TIMES: &str = "_times";
/// `'..' % a`, as `'..'|_percent(a)`.
pub(super) const PERCENT: &str = "_percent";
/// `a[b:c:d]`, as `a._slice(b, c, d)`.
pub(super) const SLICE: &str = "_slice";
/// Charges for a stretch of the template's own text.
pub(super) const TEXT: &str = "_text";

/// Text of the template that is charged for each time it is written.
const CHARGED_TEXT: usize = 64;

/// Filters that look at a container without going through all that is in it.
const LIGHT_FILTERS: &[&str] = &[
    "length",
    "count",
    "first",
    "last",
    "list",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "items",
    "dictsort",
    "reverse",
    "default",
    "d",
    "tojson",
    "bool",
];

/// Words that are no operand.
const KEYWORDS: &[&str] = &[
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "elif",
    "else",
    "for",
    "set",
    "with",
    "call",
    "macro",
    "filter",
    "do",
    "recursive",
];

/// A tag, `{{ .. }}` or `{% .. %}`, with its operations guarded; nothing where it has more than
/// [`TAG_TOKENS`] tokens.
pub(super) fn tag(tag: &str) -> Option<String> {
    let tokens = tokens(tag);
    if tokens.len() > TAG_TOKENS {
        return None;
    }
    let mut edits = Edits::default();
    let mut closing = Vec::new();
    let mut last_operator = vec![""];
    // What stands in the brackets of these is names, not values.
    let parts = !matches!(
        tokens.first().map(|token| token.text),
        Some("macro" | "call")
    );
    for index in first_operation(&tokens)..tokens.len() {
        let token = &tokens[index];
        let binary = index > 0 && ends_operand(&tokens, index - 1);
        match token.text {
            "[" if binary && slice_colons(&tokens, index).next().is_some() => {
                closing.push(Some(index));
                edits.replace(token, format!(".{SLICE}("));
                slice(&tokens, index, &mut edits);
                last_operator.push("");
                continue;
            }
            "(" | "[" | "{" => {
                closing.push(None);
                last_operator.push("");
                continue;
            }
            "," if parts => part(&tokens, index, &mut edits),
            ")" | "]" | "}" => {
                if parts {
                    part(&tokens, index, &mut edits);
                }
                if closing.pop().flatten().is_some() {
                    edits.replace(token, ")".into());
                }
                last_operator.pop();
                if last_operator.is_empty() {
                    last_operator.push("");
                }
                continue;
            }
            "|" if binary => {
                let name = tokens.get(index + 1).map_or("", |token| token.text);
                let light = LIGHT_FILTERS.contains(&name);
                edits.guard(&tokens[index - 1], if light { SHALLOW } else { DEEP });
                continue;
            }
            "*" if binary => {
                let right = operand_end(&tokens, index + 1, true);
                let plain = matches!(last_operator.last(), Some(&("/" | "//" | "%" | "**")));
                if plain {
                    edits.guard(&tokens[index - 1], NUMBER);
                    edits.guard_end(&tokens, right, NUMBER);
                } else if let Some(last) = right.checked_sub(1).filter(|last| *last > index) {
                    edits.replace(token, format!("|{TIMES}("));
                    edits.close(&tokens[last]);
                }
            }
            "%" if binary && tokens[index - 1].kind == TokenKind::String => {
                let right = operand_end(&tokens, index + 1, true);
                if let Some(last) = right.checked_sub(1).filter(|last| *last > index) {
                    edits.replace(token, format!("|{PERCENT}("));
                    edits.close(&tokens[last]);
                }
            }
            "~" | "==" | "!=" | "<" | ">" | "<=" | ">=" if index > 0 => {
                guard_both(&tokens, index, DEEP, &mut edits);
            }
            "+" if binary => guard_both(&tokens, index, SHALLOW, &mut edits),
            "in" if is_comparison(&tokens, index) => {
                let left = if tokens[index - 1].text == "not" {
                    index - 1
                } else {
                    index
                };
                if left > 0 && ends_operand(&tokens, left - 1) {
                    edits.guard(&tokens[left - 1], DEEP);
                }
                edits.guard_end(&tokens, operand_end(&tokens, index + 1, false), DEEP);
            }
            _ => {}
        }
        let operator = token.kind == TokenKind::Operator || KEYWORDS.contains(&token.text);
        if let Some(last) = last_operator.last_mut().filter(|_| operator) {
            *last = token.text;
        }
    }
    if let [set, _, dot, ..] = tokens.as_slice()
        && set.text == "set"
        && dot.text == "."
        && let Some(value) = tokens
            .get(first_operation(&tokens)..)
            .filter(|rest| !rest.is_empty())
    {
        edits.enclose(value, STORED);
    }
    Some(edits.apply(tag))
}

/// The names in a tag, keywords included.
pub(super) fn names(tag: &str) -> impl Iterator<Item = &str> {
    let names = tokens(tag).into_iter();
    names
        .filter(|token| token.kind == TokenKind::Name)
        .map(|token| token.text)
}

/// A stretch of the template's own text, with a charge for it where it is long. The charge stands
/// behind the first character that no tag can strip.
pub(super) fn text(text: &str) -> String {
    let solid = text
        .char_indices()
        .find(|(_, c)| !c.is_whitespace() && *c != '{');
    match solid {
        Some((at, c)) if text.len() > CHARGED_TEXT => {
            let (head, tail) = text.split_at(at + c.len_utf8());
            format!("{head}{{{{ {TEXT}({}) }}}}{tail}", text.len())
        }
        _ => text.to_owned(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Name,
    Number,
    String,
    Operator,
}

#[derive(Debug)]
struct Token<'t> {
    kind: TokenKind,
    text: &'t str,
    range: Range<usize>,
}

/// The tokens between a tag's delimiters.
fn tokens(tag: &str) -> Vec<Token<'_>> {
    // One sign belongs to the tag, more are operators.
    let inner = &tag[2..tag.len() - 2];
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let start = tag.len() - 2 - inner.len();
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = inner[at..].chars().next() {
        let rest = &inner[at..];
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let (kind, length) = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '"' | '\'' => (
                TokenKind::String,
                lexer::string_length(rest).unwrap_or(rest.len()),
            ),
            '0'..='9' => (TokenKind::Number, number_length(rest)),
            c if word(c) => (
                TokenKind::Name,
                rest.find(|c| !word(c)).unwrap_or(rest.len()),
            ),
            c => {
                let double = ["**", "//", "==", "!=", "<=", ">="]
                    .iter()
                    .any(|op| rest.starts_with(op));
                (TokenKind::Operator, if double { 2 } else { c.len_utf8() })
            }
        };
        let range = start + at..start + at + length;
        tokens.push(Token {
            kind,
            text: &rest[..length],
            range,
        });
        at += length;
    }
    tokens
}

/// Digits with at most one fraction: `1.5`, but only `1` of `1.real`.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let whole = digits(text);
    match text[whole..].strip_prefix('.') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => whole + 1 + digits(rest),
        _ => whole,
    }
}

/// Where the expressions of a tag begin: behind what a `for` or a `set` assigns to.
fn first_operation(tokens: &[Token<'_>]) -> usize {
    let behind = |word: &str| {
        tokens
            .iter()
            .position(|token| token.text == word)
            .map(|at| at + 1)
    };
    match tokens.first().map(|token| token.text) {
        Some("for") => behind("in").unwrap_or(tokens.len()),
        Some("set") => behind("=").unwrap_or(tokens.len()),
        _ => 0,
    }
}

/// Whether an operand may end with this token.
fn ends_operand(tokens: &[Token<'_>], index: usize) -> bool {
    let token = &tokens[index];
    match token.kind {
        TokenKind::Number | TokenKind::String => true,
        TokenKind::Operator => matches!(token.text, ")" | "]" | "}"),
        TokenKind::Name => {
            let before = |back: usize| index.checked_sub(back).map_or("", |at| tokens[at].text);
            let test = before(1) == "is" || (before(1) == "not" && before(2) == "is");
            // A field may be named like a keyword; the name of a test is no operand.
            (!KEYWORDS.contains(&token.text) || before(1) == ".") && !test
        }
    }
}

fn is_comparison(tokens: &[Token<'_>], index: usize) -> bool {
    let before = |back: usize| index.checked_sub(back).map_or("", |at| tokens[at].text);
    let test = before(1) == "is" || (before(1) == "not" && before(2) == "is");
    index > 0 && !test && before(1) != "."
}

/// The index behind the operand that begins at `index`; with `powers`, behind its exponents too.
fn operand_end(tokens: &[Token<'_>], mut index: usize, powers: bool) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text);
    while matches!(text(index), "-" | "+" | "not") {
        index += 1;
    }
    index = match tokens.get(index).map(|token| token.kind) {
        Some(TokenKind::String) => {
            let strings = tokens[index..]
                .iter()
                .take_while(|token| token.kind == TokenKind::String);
            index + strings.count()
        }
        Some(TokenKind::Operator) => bracket_end(tokens, index),
        Some(_) => index + 1,
        None => return index,
    };
    loop {
        index = match text(index) {
            "." => index + 2,
            "[" | "(" => bracket_end(tokens, index),
            "|" => {
                let mut end = index + 2;
                while text(end) == "." {
                    end += 2;
                }
                if text(end) == "(" {
                    bracket_end(tokens, end)
                } else {
                    end
                }
            }
            "**" if powers => operand_end(tokens, index + 1, true),
            _ => return index.min(tokens.len()),
        };
    }
}

/// The index behind the bracket that closes the one at `index`.
fn bracket_end(tokens: &[Token<'_>], index: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(index) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The colons that make the bracket at `open` a slice.
fn slice_colons<'a>(tokens: &'a [Token<'_>], open: usize) -> impl Iterator<Item = usize> + 'a {
    let mut depth = 0usize;
    let end = bracket_end(tokens, open);
    (open..end).filter(move |at| {
        match tokens[*at].text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 1 && tokens[*at].text == ":"
    })
}

/// `[a:]` to `(a, none)`: the colons become commas, what is left out becomes `none`.
fn slice(tokens: &[Token<'_>], open: usize, edits: &mut Edits) {
    let close = bracket_end(tokens, open).saturating_sub(1);
    let mut previous = open;
    for colon in slice_colons(tokens, open) {
        let empty = previous + 1 == colon;
        edits.replace(
            &tokens[colon],
            if empty { "none, ".into() } else { ", ".into() },
        );
        previous = colon;
    }
    if previous + 1 == close {
        edits.close_with(&tokens[previous], "none");
    }
}

/// Guards what ends in front of a comma or closing bracket: it may become part of a list, a
/// dictionary or a namespace.
fn part(tokens: &[Token<'_>], index: usize, edits: &mut Edits) {
    let Some(last) = index.checked_sub(1) else {
        return;
    };
    let literal = matches!(tokens[last].kind, TokenKind::String | TokenKind::Number);
    if !literal && ends_operand(tokens, last) {
        edits.guard(&tokens[last], NESTED);
    }
}

fn guard_both(tokens: &[Token<'_>], operator: usize, filter: &'static str, edits: &mut Edits) {
    // The name of a test takes no filter, and its outcome is small.
    if ends_operand(tokens, operator - 1) {
        edits.guard(&tokens[operator - 1], filter);
    }
    edits.guard_end(tokens, operand_end(tokens, operator + 1, false), filter);
}

/// Changes to a tag, by position.
#[derive(Default)]
struct Edits(Vec<(usize, Change)>);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// An opening bracket put in.
    Open,
    /// Text put in before guards.
    Close(String),
    /// A filter put in: where several want one, the strictest.
    Guard(&'static str),
    /// A closing bracket and a filter put in behind everything else.
    Enclose(&'static str),
    /// Text instead of so many bytes.
    Replace(usize, String),
}

impl Edits {
    fn guard(&mut self, after: &Token<'_>, filter: &'static str) {
        self.0.push((after.range.end, Change::Guard(filter)));
    }

    /// A guard behind an operand, unless a repetition follows, which charges for itself.
    fn guard_end(&mut self, tokens: &[Token<'_>], end: usize, filter: &'static str) {
        let repeated = tokens
            .get(end)
            .is_some_and(|token| matches!(token.text, "*" | "%"));
        if let Some(last) = end.checked_sub(1).and_then(|last| tokens.get(last))
            && !repeated
        {
            self.guard(last, filter);
        }
    }

    /// Brackets around the tokens, and a filter behind them.
    fn enclose(&mut self, tokens: &[Token<'_>], filter: &'static str) {
        if let (Some(first), Some(last)) = (tokens.first(), tokens.last()) {
            self.0.push((first.range.start, Change::Open));
            self.0.push((last.range.end, Change::Enclose(filter)));
        }
    }

    fn close(&mut self, after: &Token<'_>) {
        self.close_with(after, ")");
    }

    fn close_with(&mut self, after: &Token<'_>, text: &str) {
        self.0.push((after.range.end, Change::Close(text.into())));
    }

    fn replace(&mut self, token: &Token<'_>, text: String) {
        self.0
            .push((token.range.start, Change::Replace(token.range.len(), text)));
    }

    fn apply(mut self, tag: &str) -> String {
        self.0.sort();
        // Of two guards at one place the second adds nothing.
        self.0.dedup_by(|later, first| {
            later.0 == first.0
                && matches!((&later.1, &first.1), (Change::Guard(_), Change::Guard(_)))
        });
        let mut out = String::with_capacity(tag.len() * 2);
        let mut done = 0;
        for (at, change) in self.0 {
            out.push_str(&tag[done..at]);
            done = at;
            match change {
                Change::Open => out.push('('),
                Change::Close(text) => out.push_str(&text),
                Change::Guard(filter) => {
                    out.push('|');
                    out.push_str(filter);
                }
                Change::Enclose(filter) => {
                    out.push_str(")|");
                    out.push_str(filter);
                }
                Change::Replace(length, text) => {
                    out.push_str(&text);
                    done += length;
                }
            }
        }
        out.push_str(&tag[done..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_guarded() {
        let cases = [
            ("{{ a }}", "{{ a }}"),
            (
                "{{- 'x' ~ a.b[0](1) ~ y -}}",
                "{{- 'x'|_deep ~ a.b[0](1)|_deep ~ y|_deep -}}",
            ),
            ("{{ a + -b }}", "{{ a|_shallow + -b|_shallow }}"),
            ("{{ -a - b }}", "{{ -a - b }}"),
            (
                "{{ a * b * c ~ d }}",
                "{{ a |_times( b) |_times( c)|_deep ~ d|_deep }}",
            ),
            ("{{ a ~ b * c ** 2 }}", "{{ a|_deep ~ b |_times( c ** 2) }}"),
            ("{{ a / b * c }}", "{{ a / b|_number * c|_number }}"),
            ("{{ '%s' % a.b }}", "{{ '%s' |_percent( a.b) }}"),
            ("{{ (a * b) / c }}", "{{ (a |_times( b)|_nested) / c }}"),
            (
                "{{ a | trim | length }}",
                "{{ a|_deep | trim|_shallow | length }}",
            ),
            (
                "{% if a == 'b' and c not in d %}",
                "{% if a|_deep == 'b'|_deep and c|_deep not in d|_deep %}",
            ),
            (
                "{% for a in b if a in c %}",
                "{% for a in b if a|_deep in c|_deep %}",
            ),
            ("{% set a = a ~ a %}", "{% set a = a|_deep ~ a|_deep %}"),
            (
                "{% set a.b = c if d else [e] %}",
                "{% set a.b = (c if d else [e|_nested])|_stored %}",
            ),
            ("{% set a %}", "{% set a %}"),
            (
                "{{ a is defined == b is not none }}",
                "{{ a is defined == b|_deep is not none }}",
            ),
            (
                "{{ a[::-1] ~ b[1:c + 1] }}",
                "{{ a._slice(none, none, -1)|_deep ~ b._slice(1, c|_shallow + 1|_shallow)|_deep }}",
            ),
            (
                "{{ a[:] }}{{ {'k': [1, 2]} }}",
                "{{ a._slice(none, none) }}{{ {'k': [1, 2]|_nested} }}",
            ),
            ("{{ a['b:c'] }}", "{{ a['b:c'] }}"),
            (
                "{{ f(a=b ~ c, *d) }}",
                "{{ f(a=b|_deep ~ c|_deep, *d|_nested) }}",
            ),
            (
                "{{ 1.5 ~ x.in ~ 'a' 'b' }}",
                "{{ 1.5|_deep ~ x.in|_deep ~ 'a' 'b'|_deep }}",
            ),
        ];
        for (source, expected) in cases {
            let guarded: String = lexer::parts(source)
                .into_iter()
                .filter_map(|part| tag(&source[part.range]))
                .collect();
            assert_eq!(guarded, expected);
        }
    }

    #[test]
    fn long_text_is_charged_where_no_tag_strips() {
        assert_eq!(text("short"), "short");
        let long = format!("\n  x{}", " y".repeat(40));
        assert_eq!(
            text(&long),
            format!("\n  x{{{{ _text(84) }}}}{}", " y".repeat(40))
        );
    }
}
