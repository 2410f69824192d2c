//! Cutting a normalized text into words: the steps of a `pre_tokenizer`.

use super::pattern::{Behavior, Pattern};
use super::pretokenize::PreTokenizer;

/// Steps; each cuts what the one before it left.
#[derive(Default)]
pub(super) struct Splitter(pub(super) Vec<Split>);

/// One step.
pub(super) enum Split {
    /// A well-known expression, written out by hand.
    Words(PreTokenizer),
    Cut {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    /// A space in front of a text that begins with none.
    SpaceInFront,
    Metaspace(Metaspace),
}

/// Spaces become a visible character, which words then begin with.
pub(super) struct Metaspace {
    pub(super) replacement: char,
    pub(super) prepend: Prepend,
    pub(super) split: bool,
}

/// Where a visible space is put in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Prepend {
    /// At the start of the whole text alone.
    First,
    Never,
    Always,
}

impl Split {
    /// Each match of an expression on its own, by hand-written code where there is some.
    ///
    /// # Errors
    /// Says why the expression cannot be used.
    pub(super) fn expression(source: &str) -> Result<Self, String> {
        Ok(match PreTokenizer::of_expression(source) {
            Some(scheme) => Self::Words(scheme),
            None => Self::Cut {
                pattern: Pattern::expression(source)?,
                behavior: Behavior::Isolated,
                invert: false,
            },
        })
    }
}

impl Splitter {
    pub(super) fn heap_bytes(&self) -> usize {
        let of_step = |step: &Split| match step {
            Split::Cut { pattern, .. } => pattern.heap_bytes(),
            Split::Words(_) | Split::SpaceInFront | Split::Metaspace(_) => 0,
        };
        let steps: usize = self.0.iter().map(of_step).sum();
        self.0.capacity() * size_of::<Split>() + steps
    }

    /// Calls `word` for each word of `text`, in order; `at_start` says that nothing comes before
    /// the text.
    pub(super) fn split(&self, text: &str, at_start: bool, word: &mut dyn FnMut(&str)) {
        if !text.is_empty() {
            apply(&self.0, text, at_start, word);
        }
    }
}

fn apply(steps: &[Split], text: &str, at_start: bool, word: &mut dyn FnMut(&str)) {
    let Some((step, rest)) = steps.split_first() else {
        if !text.is_empty() {
            word(text);
        }
        return;
    };
    // Only the part that begins where the text begins has nothing before it.
    let start = text.as_ptr();
    let mut part = |part: &str| apply(rest, part, at_start && part.as_ptr() == start, word);
    match step {
        Split::Words(scheme) => scheme.split(text, part),
        Split::Cut {
            pattern,
            behavior,
            invert,
        } => pattern.cut(text, *behavior, *invert, &mut part),
        Split::SpaceInFront if text.starts_with(' ') => part(text),
        Split::SpaceInFront => apply(rest, &format!(" {text}"), at_start, word),
        Split::Metaspace(metaspace) => {
            let mut first = at_start;
            metaspace.apply(text, at_start, &mut |part| {
                apply(rest, part, std::mem::take(&mut first), word);
            });
        }
    }
}

impl Metaspace {
    fn apply(&self, text: &str, at_start: bool, piece: &mut dyn FnMut(&str)) {
        let mut spelled = String::with_capacity(text.len() + 8);
        let wanted = match self.prepend {
            Prepend::First => at_start,
            Prepend::Never => false,
            Prepend::Always => true,
        };
        if wanted && !text.starts_with([' ', self.replacement]) {
            spelled.push(self.replacement);
        }
        spelled.extend(text.chars().map(|c| match c {
            ' ' => self.replacement,
            _ => c,
        }));
        if self.split {
            let pattern = Pattern::Text(self.replacement.into());
            pattern.cut(&spelled, Behavior::MergedWithNext, false, piece);
        } else {
            piece(&spelled);
        }
    }
}
