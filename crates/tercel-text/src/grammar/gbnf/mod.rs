//! GBNF, the form of grammars that llama.cpp reads, as Lark.
//!
//! Rules that do not come back to themselves become patterns, the others rules. A pattern takes as
//! much text as it can: where a rule that comes back to itself stands beside one, the text between
//! them must be told apart by its characters.

mod lark;
mod parse;

use std::collections::HashMap;

pub(super) use lark::to_lark;

/// The rules of a grammar, by name, in their order.
#[derive(Debug, PartialEq)]
struct Rules {
    rules: Vec<(String, Alternatives)>,
    /// Where each name stands.
    by_name: HashMap<String, usize>,
}

/// Any of some sequences.
type Alternatives = Vec<Vec<Item>>;

#[derive(Debug, PartialEq)]
struct Item {
    kind: Kind,
    /// How often, at least and at most; once where it is `None`.
    repeat: Option<(u32, Option<u32>)>,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Literal(String),
    /// One character in, or not in, these ranges.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Any,
    /// The rule of this place.
    Rule(String),
    Group(Alternatives),
}

/// What is wrong with a grammar, and in which line, from 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct GbnfError {
    line: usize,
    problem: String,
}
