//! From rules to Lark.

use std::collections::VecDeque;
use std::fmt::Write;

use super::parse::{parse, visit};
use super::{Alternatives, GbnfError, Item, Kind, Rules};

/// The grammar as Lark.
///
/// # Errors
/// What is wrong with it, with the line.
pub(in super::super) fn to_lark(text: &str) -> Result<String, GbnfError> {
    let rules = parse(text)?;
    let writer = Writer {
        is_pattern: rules.patterns(),
        rules: &rules,
    };
    let mut out = String::from("start: ");
    writer.name("root", &mut out);
    out.push('\n');
    for (name, alternatives) in &rules.rules {
        writer.name(name, &mut out);
        out.push_str(": ");
        writer.alternatives(alternatives, &mut out);
        out.push('\n');
    }
    Ok(out)
}

impl Rules {
    /// Which rules do not come back to themselves, nor to one that does.
    fn patterns(&self) -> Vec<bool> {
        // Rules are done when all that they name are.
        let mut named = vec![0_usize; self.rules.len()];
        let mut by = vec![Vec::new(); self.rules.len()];
        for (index, (_, alternatives)) in self.rules.iter().enumerate() {
            visit(alternatives, &mut |kind| {
                if let Kind::Rule(name) = kind {
                    named[index] += 1;
                    by[self.by_name[name]].push(index);
                }
            });
        }
        let mut done: VecDeque<usize> = (0..named.len()).filter(|it| named[*it] == 0).collect();
        let mut is_pattern = vec![false; named.len()];
        while let Some(index) = done.pop_front() {
            is_pattern[index] = true;
            for &user in &by[index] {
                named[user] -= 1;
                if named[user] == 0 {
                    done.push_back(user);
                }
            }
        }
        is_pattern
    }
}

struct Writer<'r> {
    rules: &'r Rules,
    is_pattern: Vec<bool>,
}

impl Writer<'_> {
    /// Patterns have names in capitals. Names of GBNF have characters that Lark has not, so rules
    /// are called by their place.
    fn name(&self, name: &str, out: &mut String) {
        let index = self.rules.by_name[name];
        let prefix = if self.is_pattern[index] { 'P' } else { 'r' };
        // Writing to a string does not fail.
        let _ = write!(out, "{prefix}{index}");
    }

    fn alternatives(&self, alternatives: &Alternatives, out: &mut String) {
        for (index, sequence) in alternatives.iter().enumerate() {
            if index > 0 {
                out.push_str(" | ");
            }
            if sequence.is_empty() {
                out.push_str("\"\"");
            }
            for (index, item) in sequence.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                self.item(item, out);
            }
        }
    }

    fn item(&self, item: &Item, out: &mut String) {
        if let Some((_, Some(0))) = item.repeat {
            // Lark has no such count.
            out.push_str("\"\"");
            return;
        }
        match &item.kind {
            Kind::Literal(text) => literal(text, out),
            Kind::Class { negated, ranges } => class(*negated, ranges, out),
            Kind::Any => out.push_str("/(?s:.)/"),
            Kind::Rule(name) => self.name(name, out),
            Kind::Group(inner) => {
                out.push('(');
                self.alternatives(inner, out);
                out.push(')');
            }
        }
        // Writing to a string does not fail.
        let _ = match item.repeat {
            None => Ok(()),
            Some((0, None)) => write!(out, "*"),
            Some((1, None)) => write!(out, "+"),
            Some((0, Some(1))) => write!(out, "?"),
            Some((least, None)) => write!(out, "{{{least},}}"),
            Some((least, Some(most))) => write!(out, "{{{least},{most}}}"),
        };
    }
}

/// A text as Lark's strings have it, which are those of JSON.
fn literal(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn class(negated: bool, ranges: &[(char, char)], out: &mut String) {
    out.push_str(if negated { "/[^" } else { "/[" });
    for (first, last) in ranges {
        let _ = write!(out, "\\x{{{:x}}}", u32::from(*first));
        if last > first {
            let _ = write!(out, "-\\x{{{:x}}}", u32::from(*last));
        }
    }
    out.push_str("]/");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_come_back_to_themselves_are_no_patterns() {
        let text = "root ::= list\nlist ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= num | list\nnum ::= [0-9]{1,3}";
        let lark = to_lark(text).unwrap();
        let lines: Vec<&str> = lark.lines().collect();
        let expected = [
            "start: r0",
            "r0: r1",
            "r1: \"[\" (r2 (\",\" r2)*)? \"]\"",
            "r2: P3 | r1",
            "P3: /[\\x{30}-\\x{39}]/{1,3}",
        ];
        assert_eq!(lines, expected);
    }
}
