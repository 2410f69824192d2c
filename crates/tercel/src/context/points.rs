//! Where a text may be cut: between its tokens, never inside a character.

use tercel_text::Tokenizer;

/// The places between the tokens of a text.
pub(super) struct Points<'t> {
    text: &'t str,
    /// Byte offsets, ascending, from 0 to the length of the text.
    offsets: Vec<usize>,
}

impl<'t> Points<'t> {
    pub(super) fn of(text: &'t str, tokenizer: &Tokenizer) -> Self {
        let offsets = between_tokens(text, tokenizer).unwrap_or_else(|| {
            // A tokenizer that rewrites the text says nothing of its bytes.
            let characters = text.char_indices().map(|(at, _)| at);
            characters.chain([text.len()]).collect()
        });
        Self { text, offsets }
    }

    /// How many pieces the places make.
    pub(super) fn pieces(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The text without its pieces from `head` on up to the last `tail`; whole where these meet.
    pub(super) fn without_middle(&self, head: usize, tail: usize) -> Option<(&'t str, &'t str)> {
        let resume = self.pieces().checked_sub(tail).filter(|at| *at > head)?;
        let (end, start) = (self.offsets.get(head)?, self.offsets.get(resume)?);
        Some((&self.text[..*end], &self.text[*start..]))
    }
}

/// The byte offsets between the tokens of `text` that are between characters too; nothing where
/// the tokens do not spell the text.
fn between_tokens(text: &str, tokenizer: &Tokenizer) -> Option<Vec<usize>> {
    let tokens = tokenizer.encode(text);
    let spelled: usize = tokens.iter().map(|id| tokenizer.piece(*id).len()).sum();
    // Some tokenizers put a space before a text.
    let added = spelled
        .checked_sub(text.len())
        .filter(|added| *added <= 1)?;
    let mut offsets = vec![0];
    let mut at = 0;
    for id in tokens {
        let piece = tokenizer.piece(id);
        let (start, end) = (at, at + piece.len());
        at = end;
        let piece = piece.get(added.saturating_sub(start)..).unwrap_or_default();
        let end = end.saturating_sub(added);
        if text.as_bytes().get(end - piece.len().min(end)..end) != Some(piece) {
            return None;
        }
        if end > *offsets.last()? && text.is_char_boundary(end) {
            offsets.push(end);
        }
    }
    Some(offsets)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tercel_text::HfTokenizerFiles;

    use super::*;

    #[test]
    fn texts_are_cut_between_tokens_and_never_inside_a_character() {
        let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-data/tokenizers/small");
        for family in [
            "qwen3.json",
            "unigram.json",
            "unigram-bytes.json",
            "wordpiece.json",
            "spm-bpe.model",
            "spm-unigram.model",
        ] {
            let bytes = std::fs::read(small.join(family)).expect("a file");
            let tokenizer = if family.ends_with(".model") {
                Tokenizer::from_sentencepiece(&bytes, None)
            } else {
                Tokenizer::from_hf(&HfTokenizerFiles {
                    tokenizer_json: &bytes,
                    tokenizer_config: None,
                    special_tokens_map: None,
                })
            };
            let tokenizer = tokenizer.expect("a tokenizer");
            for text in [
                "",
                "x",
                " Hello, edge devices.  Twice\n\nspaced ",
                "caf\u{e9} \u{1f985}\u{1f985} \u{4f60}\u{597d}",
            ] {
                let points = Points::of(text, &tokenizer);
                let offsets = &points.offsets;
                assert_eq!((offsets[0], offsets[offsets.len() - 1]), (0, text.len()));
                assert!(
                    offsets.windows(2).all(|pair| pair[0] < pair[1]),
                    "{family} {text}"
                );
                assert!(
                    offsets.iter().all(|at| text.is_char_boundary(*at)),
                    "{family} {text}"
                );
                for (head, tail) in [(0, 0), (1, 1), (2, 0), (0, 3)] {
                    let cut = points.without_middle(head, tail);
                    assert_eq!(
                        cut.is_some(),
                        head + tail < points.pieces(),
                        "{family} {text}"
                    );
                    let Some((start, end)) = cut else { continue };
                    assert!(text.starts_with(start) && text.ends_with(end));
                    assert!(start.len() + end.len() < text.len());
                }
            }
        }
    }
}
