//! The outer grammar of Jinja: which parts of a source are text, which are tags.

use std::ops::Range;

/// What a part of a template source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text that is written as it stands.
    Text,
    /// `{{ .. }}`
    Expression,
    /// `{% .. %}`
    Statement,
    /// `{# .. #}`, and all of a `raw` block.
    Opaque,
}

/// A part of a template source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
}

/// Cuts a source into its parts. What never ends is left as text for the compiler to refuse.
pub(super) fn parts(source: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < source.len() {
        let open = next_tag(source, at);
        if open > at {
            parts.push(Part {
                kind: Kind::Text,
                range: at..open,
            });
        }
        if open == source.len() {
            break;
        }
        let rest = &source[open..];
        let (kind, length) = match rest.as_bytes().get(1) {
            Some(b'{') => (Kind::Expression, tag_length(rest, "}}")),
            Some(b'%') => match raw_length(rest) {
                Some(length) => (Kind::Opaque, Some(length)),
                None => (Kind::Statement, tag_length(rest, "%}")),
            },
            _ => (Kind::Opaque, rest.find("#}").map(|end| end + 2)),
        };
        let Some(length) = length else {
            parts.push(Part {
                kind: Kind::Opaque,
                range: open..source.len(),
            });
            break;
        };
        parts.push(Part {
            kind,
            range: open..open + length,
        });
        at = open + length;
    }
    parts
}

/// The string literals in a tag, without their quotes.
pub(super) fn literals(tag: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let open = at + tag.get(at..)?.find(['"', '\''])?;
        let length = string_length(&tag[open..])?;
        at = open + length;
        Some(&tag[open + 1..at - 1])
    })
}

/// The byte length of the string literal at the start of `text`, quotes included.
pub(super) fn string_length(text: &str) -> Option<usize> {
    let quote = text.bytes().next()?;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        if escaped {
            escaped = false;
        } else if byte == b'\\' {
            escaped = true;
        } else if byte == quote {
            return Some(at + 1);
        }
    }
    None
}

/// The name that a statement begins with: `for`, `set`, `generation`.
pub(super) fn statement_name(tag: &str) -> &str {
    let body = tag
        .trim_start_matches("{%")
        .trim_start_matches(['-', '+'])
        .trim_start();
    let end = body
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(body.len());
    &body[..end]
}

fn next_tag(source: &str, from: usize) -> usize {
    let bytes = source.as_bytes();
    let opens = |at: &usize| bytes[*at] == b'{' && matches!(bytes[at + 1], b'{' | b'%' | b'#');
    (from..source.len().saturating_sub(1))
        .find(opens)
        .unwrap_or(source.len())
}

/// The length of the tag at the start of `text`, up to and with `close`.
fn tag_length(text: &str, close: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = 2;
    while at < bytes.len() {
        // Braces of a dictionary may look like the end of the tag.
        if depth == 0 && bytes[at..].starts_with(close.as_bytes()) {
            return Some(at + close.len());
        }
        match bytes[at] {
            b'"' | b'\'' => at += string_length(&text[at..])? - 1,
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of a whole `raw` block, where `text` begins with one.
fn raw_length(text: &str) -> Option<usize> {
    if statement_name(text) != "raw" {
        return None;
    }
    let mut at = tag_length(text, "%}")?;
    loop {
        at += text[at..].find("{%")?;
        if statement_name(&text[at..]) == "endraw" {
            return Some(at + text[at..].find("%}")? + 2);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_fall_into_parts() {
        let source = "a{{ {'x': {}} }}b{% if '%}' %}{# {{ #}{% raw %}{{ x }}{% endraw %}c{";
        let found: Vec<_> = parts(source)
            .into_iter()
            .map(|p| &source[p.range])
            .collect();
        let expected = [
            "a",
            "{{ {'x': {}} }}",
            "b",
            "{% if '%}' %}",
            "{# {{ #}",
            "{% raw %}{{ x }}{% endraw %}",
            "c{",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            literals(r#"{{ 'a\'b' ~ "c" }}"#).collect::<Vec<_>>(),
            [r"a\'b", "c"]
        );
        assert_eq!(statement_name("{%- set x = 1 %}"), "set");
    }

    #[test]
    fn an_open_tag_takes_the_rest() {
        for source in ["x{{ 'a", "{% raw %}..", "{# a", "{{"] {
            let parts = parts(source);
            assert_eq!(
                parts.last().map(|part| part.range.end),
                Some(source.len()),
                "{source}"
            );
        }
    }
}
