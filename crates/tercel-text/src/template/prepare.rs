//! Making a template ready for the engine before it is compiled.

use super::guard;
use super::lexer::{self, Kind};
use super::limits::BRANCHES;
use crate::error::TextError;

/// A source that the engine compiles, and what it looks for in its input.
pub(super) struct Prepared {
    pub(super) source: String,
    /// String literals that may be compared with messages, without escapes.
    pub(super) literals: Vec<String>,
    /// Names in its code, sorted, each once.
    pub(super) names: Vec<String>,
}

/// Writes the `generation` blocks of `transformers` as scopes, since they only mark the model's
/// own text for training, guards every operation on text, and collects the string literals. Line
/// numbers stay.
///
/// # Errors
/// Statements that read other templates, since a chat template stands alone; tags and chains of
/// branches that are too long to parse safely.
pub(super) fn prepare(source: &str) -> Result<Prepared, TextError> {
    let mut prepared = String::with_capacity(source.len());
    let mut literals: Vec<String> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut branches = 0;
    let line = |at: usize| source[..at].matches('\n').count() + 1;
    for part in lexer::parts(source) {
        let text = &source[part.range.clone()];
        if matches!(part.kind, Kind::Expression | Kind::Statement) {
            literals.extend(lexer::literals(text).filter_map(plain_literal));
            names.extend(guard::names(text).map(str::to_owned));
        }
        let name = if part.kind == Kind::Statement {
            lexer::statement_name(text)
        } else {
            ""
        };
        match (part.kind, name) {
            (_, "include" | "extends" | "import" | "from") => {
                let line = line(part.range.start);
                let message = format!("`{name}` is not supported: a chat template stands alone");
                return Err(TextError::Template {
                    message,
                    line: Some(line),
                });
            }
            (_, "generation") => prepared.push_str(&text.replacen(name, "with", 1)),
            (_, "endgeneration") => prepared.push_str(&text.replacen(name, "endwith", 1)),
            (Kind::Expression | Kind::Statement, _) => {
                branches += usize::from(name == "elif");
                let guarded = guard::tag(text).filter(|_| branches <= BRANCHES);
                prepared.push_str(&guarded.ok_or_else(|| TextError::Template {
                    message: "an expression or a chain of branches is too long".to_owned(),
                    line: Some(line(part.range.start)),
                })?);
            }
            (Kind::Text, _) => prepared.push_str(&guard::text(text)),
            (Kind::Opaque, _) => prepared.push_str(text),
        }
    }
    literals.sort_unstable();
    literals.dedup();
    names.sort_unstable();
    names.dedup();
    Ok(Prepared {
        source: prepared,
        literals,
        names,
    })
}

/// A literal that is long enough to mean something, as the engine will see it.
fn plain_literal(literal: &str) -> Option<String> {
    let text = if literal.contains('\\') {
        literal
            .replace("\\n", "\n")
            .replace("\\t", "\t")
            .replace("\\'", "'")
            .replace("\\\"", "\"")
    } else {
        literal.to_owned()
    };
    text.chars().nth(1).map(|_| text)
}
