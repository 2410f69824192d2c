//! From text to rules.

use std::collections::HashMap;

use super::{Alternatives, GbnfError, Item, Kind, Rules};

/// Groups in each other.
const MOST_NESTED: usize = 20;
/// How often something may be repeated by count.
const MOST_REPEATS: u32 = 2000;

pub(super) fn parse(text: &str) -> Result<Rules, GbnfError> {
    let mut parser = Parser {
        rest: text,
        line: 1,
    };
    let mut rules = Vec::new();
    let mut by_name = HashMap::new();
    parser.skip(true);
    while !parser.rest.is_empty() {
        let name = parser.name()?;
        parser.skip(false);
        if !parser.take("::=") {
            return Err(parser.error("expected `::=` after the name of a rule"));
        }
        parser.skip(true);
        let alternatives = parser.alternatives(0)?;
        if by_name.insert(name.clone(), rules.len()).is_some() {
            return Err(parser.error(&format!("the rule `{name}` is there twice")));
        }
        rules.push((name, alternatives));
        parser.skip(false);
        if !parser.rest.is_empty() && !parser.rest.starts_with(['\n', '\r']) {
            return Err(parser.error("expected the end of the rule"));
        }
        parser.skip(true);
    }
    let rules = Rules { rules, by_name };
    rules.check()?;
    Ok(rules)
}

impl Rules {
    fn check(&self) -> Result<(), GbnfError> {
        let error = |problem: String| Err(GbnfError { line: 1, problem });
        if !self.by_name.contains_key("root") {
            return error("there is no rule `root`".to_owned());
        }
        for (name, alternatives) in &self.rules {
            let mut unknown = None;
            visit(alternatives, &mut |kind| {
                if let Kind::Rule(other) = kind
                    && !self.by_name.contains_key(other)
                {
                    unknown.get_or_insert_with(|| other.clone());
                }
            });
            if let Some(other) = unknown {
                return error(format!(
                    "the rule `{name}` names `{other}`, which there is not"
                ));
            }
        }
        Ok(())
    }
}

/// Looks at each item, those of groups included.
pub(super) fn visit<'a>(alternatives: &'a Alternatives, look: &mut impl FnMut(&'a Kind)) {
    for item in alternatives.iter().flatten() {
        look(&item.kind);
        if let Kind::Group(inner) = &item.kind {
            visit(inner, look);
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
    line: usize,
}

impl Parser<'_> {
    fn error(&self, problem: &str) -> GbnfError {
        GbnfError {
            line: self.line,
            problem: problem.to_owned(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Goes past white space and comments; line breaks only where they mean nothing.
    fn skip(&mut self, over_lines: bool) {
        while let Some(next) = self.peek() {
            match next {
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                '\n' | '\r' if !over_lines => return,
                _ if next.is_ascii_whitespace() => drop(self.next()),
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Result<String, GbnfError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.error("expected the name of a rule"));
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(name.to_owned())
    }

    fn alternatives(&mut self, depth: usize) -> Result<Alternatives, GbnfError> {
        if depth > MOST_NESTED {
            return Err(self.error(&format!("groups nest deeper than {MOST_NESTED} levels")));
        }
        let mut alternatives = vec![Vec::new()];
        loop {
            self.skip(depth > 0);
            let Some(next) = self.peek() else { break };
            let kind = match next {
                '|' => {
                    self.next();
                    self.skip(true);
                    alternatives.push(Vec::new());
                    continue;
                }
                '"' => {
                    self.next();
                    self.literal()?
                }
                '[' => {
                    self.next();
                    self.class()?
                }
                '.' => {
                    self.next();
                    Kind::Any
                }
                '(' => {
                    self.next();
                    let inner = self.alternatives(depth + 1)?;
                    if !self.take(")") {
                        return Err(self.error("expected `)`"));
                    }
                    Kind::Group(inner)
                }
                '*' | '+' | '?' | '{' => return Err(self.error("there is nothing to repeat")),
                '<' | '!' => return Err(self.error("tokens in grammars are not supported")),
                _ if next.is_ascii_alphanumeric() => Kind::Rule(self.name()?),
                _ => break,
            };
            let repeat = self.repeat()?;
            if let Some(sequence) = alternatives.last_mut() {
                sequence.push(Item { kind, repeat });
            }
        }
        Ok(alternatives)
    }

    fn repeat(&mut self) -> Result<Option<(u32, Option<u32>)>, GbnfError> {
        self.skip(false);
        let repeat = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.next();
                let least = self.number()?;
                self.skip(false);
                let most = if self.take(",") {
                    self.skip(false);
                    match self.peek() {
                        Some('}') => None,
                        _ => Some(self.number()?),
                    }
                } else {
                    Some(least)
                };
                self.skip(false);
                if self.peek() != Some('}') {
                    return Err(self.error("expected `}`"));
                }
                if most.is_some_and(|most| most < least) {
                    return Err(self.error("a count of repeats ends before it begins"));
                }
                (least, most)
            }
            _ => return Ok(None),
        };
        self.next();
        self.skip(false);
        if let Some('*' | '+' | '?' | '{') = self.peek() {
            return Err(self.error("something is repeated twice; put the first in `( )`"));
        }
        Ok(Some(repeat))
    }

    fn number(&mut self) -> Result<u32, GbnfError> {
        self.skip(false);
        let end = self.rest.find(|c: char| !c.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let number = digits.parse().ok().filter(|number| *number <= MOST_REPEATS);
        number.ok_or_else(|| self.error(&format!("expected a count, at most {MOST_REPEATS}")))
    }

    fn literal(&mut self) -> Result<Kind, GbnfError> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(Kind::Literal(text)),
                Some('\\') => text.push(self.escaped()?),
                Some('\n') | None => return Err(self.error("a text in quotes does not end")),
                Some(c) => text.push(c),
            }
        }
    }

    fn class(&mut self) -> Result<Kind, GbnfError> {
        let negated = self.take("^");
        let mut ranges = Vec::new();
        loop {
            let first = match self.next() {
                Some(']') if !ranges.is_empty() => return Ok(Kind::Class { negated, ranges }),
                Some(']') => return Err(self.error("a set of characters is empty")),
                Some('\\') => self.escaped()?,
                Some('\n') | None => return Err(self.error("a set of characters does not end")),
                Some(c) => c,
            };
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            let last = if is_range {
                self.next();
                match self.next() {
                    Some('\\') => self.escaped()?,
                    Some(c) if c != '\n' => c,
                    _ => return Err(self.error("a set of characters does not end")),
                }
            } else {
                first
            };
            if last < first {
                return Err(self.error("a range of characters ends before it begins"));
            }
            ranges.push((first, last));
        }
    }

    /// The character behind a backslash.
    fn escaped(&mut self) -> Result<char, GbnfError> {
        let digits = match self.next() {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(c @ ('"' | '\\' | '[' | ']' | '-' | '^')) => return Ok(c),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.error("no such escape")),
        };
        let code = self.rest.get(..digits);
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        let character = code.and_then(char::from_u32);
        let character = character.ok_or_else(|| self.error("no such character"))?;
        self.rest = &self.rest[digits..];
        Ok(character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, part) in [
            ("", 1, "no rule `root`"),
            ("root = \"a\"", 1, "expected `::=`"),
            ("root ::= \"a", 1, "does not end"),
            ("# a\nroot ::= (\n\"a\"", 3, "expected `)`"),
            ("root ::= other", 1, "`other`"),
            ("root ::= *", 1, "nothing to repeat"),
            ("root ::= \"a\"**", 1, "repeated twice"),
            ("root ::= \"a\"{3,2}", 1, "ends before"),
            ("root ::= \"a\"{5000}", 1, "at most 2000"),
            ("root ::= [z-a]", 1, "ends before"),
            ("root ::= []", 1, "empty"),
            ("root ::= \"\\q\"", 1, "no such escape"),
            ("root ::= \"\\ud800\"", 1, "no such character"),
            ("root ::= \"a\"\nroot ::= \"b\"", 2, "twice"),
            ("root ::= <think>", 1, "tokens"),
            ("root ::= \"a\" )", 1, "the end of the rule"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.problem.contains(part), "{text}: {error}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000));
        let error = parse(&deep).unwrap_err();
        assert!(error.problem.contains("deeper than 20"), "{error}");
    }

    #[test]
    fn rules_go_over_lines_where_they_cannot_end() {
        let text = "root ::= a | # one\n  b\na ::= (\n \"x\"\n [0-9a-f\\]-]+ ) {2,} . b?\nb ::= \"\\x41\\u00e9\" |";
        let rules = parse(text).unwrap();
        let names: Vec<&str> = rules.rules.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["root", "a", "b"]);
        let item = |kind, repeat| Item { kind, repeat };
        let class = Kind::Class {
            negated: false,
            ranges: vec![('0', '9'), ('a', 'f'), (']', ']'), ('-', '-')],
        };
        let group = vec![vec![
            item(Kind::Literal("x".into()), None),
            item(class, Some((1, None))),
        ]];
        let a = vec![vec![
            item(Kind::Group(group), Some((2, None))),
            item(Kind::Any, None),
            item(Kind::Rule("b".into()), Some((0, Some(1)))),
        ]];
        assert_eq!(rules.rules[1].1, a);
        let b = vec![vec![item(Kind::Literal("A\u{e9}".into()), None)], vec![]];
        assert_eq!(rules.rules[2].1, b);
    }
}
