//! Thoughts: how a model marks them, and how they are told from the answer while both come in.

use crate::stream::TextStream;
use crate::template::Rendered;
use crate::tokenizer::{TokenId, Tokenizer};
use crate::tools::ToolFormat;

/// The marks that published models put around a thought: Qwen 3, DeepSeek R1 and SmolLM3;
/// Magistral; Seed-OSS.
const KNOWN: [(&str, &str); 3] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
];

/// The marks that one model puts around its thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinkTags {
    open: &'static str,
    close: &'static str,
}

/// What the end of a prompt says of the thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromptEnd {
    /// Nothing: whether there is a thought is up to the model.
    Plain,
    /// A thought has begun; what comes first is thought.
    Open,
    /// A thought, commonly an empty one, is over; what comes is the answer.
    Closed,
}

impl ThinkTags {
    /// The marks of a model: those that its template mentions, else those in its vocabulary.
    /// `None` for a model that is not known to think.
    pub fn find(template: Option<&str>, is_token: impl Fn(&str) -> bool) -> Option<Self> {
        // Some templates only look for the end of a thought, to drop it.
        let mentioned = |(_, close): &&(_, &str)| template.is_some_and(|it| it.contains(*close));
        let listed = |(open, close): &&(&str, &str)| is_token(open) && is_token(close);
        let mut known = KNOWN.iter();
        let found = known.clone().find(mentioned);
        let (open, close) = found.or_else(|| known.find(listed))?;
        Some(Self { open, close })
    }

    /// What stands in front of a thought.
    pub fn open(&self) -> &'static str {
        self.open
    }

    /// What stands behind a thought.
    pub fn close(&self) -> &'static str {
        self.close
    }

    /// What begins a thought at the end of a prompt.
    pub fn opening(&self) -> String {
        format!("{}\n", self.open)
    }

    /// What ends a thought and begins the answer.
    pub fn closing(&self) -> String {
        format!("\n{}\n\n", self.close)
    }

    /// What says at the end of a prompt that there is no thought.
    pub fn empty_block(&self) -> String {
        self.opening() + &self.closing()
    }

    /// Whether a prompt, white space aside, ends with one of the marks. A mark that is a control
    /// token counts where the template wrote it, not in a message.
    pub fn end_of(&self, prompt: &Rendered) -> PromptEnd {
        let text = prompt.text().trim_end();
        let ends = |tag: &str| {
            text.strip_suffix(tag)
                .is_some_and(|rest| prompt.is_trusted(rest.len()..text.len()))
        };
        if ends(self.open) {
            PromptEnd::Open
        } else if ends(self.close) {
            PromptEnd::Closed
        } else {
            PromptEnd::Plain
        }
    }
}

/// What a push to a [`ReplyStream`] sets free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplyPiece {
    /// More of the thought; may be empty.
    pub thought: String,
    /// More of the answer; may be empty.
    pub text: String,
    /// The index of the stop string that ended the answer, in the list given to
    /// [`ReplyStream::new`].
    pub stopped: Option<usize>,
}

/// Assembles the tokens of a reply into its thought and its answer.
///
/// A thought counts where the prompt opened it, or where the reply begins with the opening mark,
/// white space aside; marks in an answer are text. The marks and the line breaks next to them
/// belong to neither. Stop strings end the answer and are not looked for in the thought. However
/// the bytes are cut into tokens, the texts are the same; without a thought the answer is what a
/// [`TextStream`] gives.
#[derive(Debug, Clone)]
pub struct ReplyStream {
    tags: Option<ThinkTags>,
    /// Control tokens that are text in the answer.
    marks: &'static [&'static str],
    phase: Phase,
    /// Makes characters of bytes.
    characters: TextStream,
    /// What cannot be told yet: the beginning of the reply, or the end of a thought.
    held: String,
    /// Whether the thought has text.
    has_thought: bool,
    answer: TextStream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There may be an opening mark.
    Start,
    Thought,
    /// Behind the closing mark, before the answer's first character.
    Gap,
    Answer,
}

impl ReplyStream {
    /// The stream of a reply to a prompt that ended so, with an answer that ends before any of
    /// the strings in `stop`. Without `tags` everything is answer.
    pub fn new(tags: Option<ThinkTags>, prompt: PromptEnd, stop: &[String]) -> Self {
        let phase = match (tags, prompt) {
            (None, _) | (_, PromptEnd::Closed) => Phase::Answer,
            (Some(_), PromptEnd::Plain) => Phase::Start,
            (Some(_), PromptEnd::Open) => Phase::Thought,
        };
        Self {
            tags,
            marks: &[],
            phase,
            characters: TextStream::new(&[]),
            held: String::new(),
            has_thought: false,
            answer: TextStream::new(stop),
        }
    }

    /// The same, in whose answer the marks of calls stand, where they are tokens without a text.
    #[must_use]
    pub fn with_calls(mut self, format: ToolFormat) -> Self {
        self.marks = format.control_marks();
        self
    }

    /// Whether what comes next belongs to a thought.
    pub fn is_thinking(&self) -> bool {
        self.phase == Phase::Thought
    }

    /// Takes a token.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: TokenId) -> ReplyPiece {
        let piece = tokenizer.piece(token);
        // A control token stands for no text, but a mark has to be seen.
        let name = tokenizer.token(token).filter(|_| piece.is_empty());
        let mark = name.filter(|name| {
            let tags = self.tags.filter(|_| self.phase != Phase::Answer);
            tags.is_some_and(|tags| [tags.open, tags.close].contains(name))
                || (self.phase != Phase::Thought && self.marks.contains(name))
        });
        self.push_bytes(mark.map_or(piece, str::as_bytes))
    }

    /// Takes the bytes of one or more tokens.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> ReplyPiece {
        let text = self.characters.push(bytes).text;
        let mut out = ReplyPiece::default();
        self.accept(&text, &mut out);
        out
    }

    /// Ends the stream: whatever was held back. The stream is of no use afterwards.
    pub fn finish(&mut self) -> ReplyPiece {
        let mut out = ReplyPiece::default();
        let text = self.characters.finish();
        self.accept(&text, &mut out);
        let held = std::mem::take(&mut self.held);
        if self.phase == Phase::Thought {
            out.thought.push_str(held.trim_end_matches('\n'));
        } else {
            self.answer(&held, &mut out);
            out.text.push_str(&self.answer.finish());
        }
        out
    }

    fn accept(&mut self, text: &str, out: &mut ReplyPiece) {
        match (self.phase, self.tags) {
            (_, None) | (Phase::Answer, _) => self.answer(text, out),
            (Phase::Start, Some(tags)) => self.begin(text, tags, out),
            (Phase::Thought, Some(tags)) => self.think(text, tags, out),
            (Phase::Gap, _) => {
                let text = text.trim_start_matches('\n');
                if !text.is_empty() {
                    self.phase = Phase::Answer;
                    self.answer(text, out);
                }
            }
        }
    }

    fn begin(&mut self, text: &str, tags: ThinkTags, out: &mut ReplyPiece) {
        self.held.push_str(text);
        let start = self.held.trim_start();
        if let Some(rest) = start.strip_prefix(tags.open) {
            let rest = rest.to_owned();
            self.held.clear();
            self.phase = Phase::Thought;
            self.think(&rest, tags, out);
        } else if !tags.open.starts_with(start) {
            self.phase = Phase::Answer;
            let held = std::mem::take(&mut self.held);
            self.answer(&held, out);
        }
    }

    fn think(&mut self, text: &str, tags: ThinkTags, out: &mut ReplyPiece) {
        self.held.push_str(text);
        if !self.has_thought {
            let breaks = self.held.len() - self.held.trim_start_matches('\n').len();
            self.held.drain(..breaks);
        }
        let (end, rest) = match self.held.find(tags.close) {
            Some(at) => (at, Some(self.held.split_off(at + tags.close.len()))),
            None => (unfinished(&self.held, tags.close), None),
        };
        let thought = self.held[..end].trim_end_matches('\n');
        out.thought.push_str(thought);
        self.has_thought |= !thought.is_empty();
        match rest {
            Some(rest) => {
                self.held.clear();
                self.phase = Phase::Gap;
                self.accept(&rest, out);
            }
            None => {
                let done = thought.len();
                self.held.drain(..done);
            }
        }
    }

    fn answer(&mut self, text: &str, out: &mut ReplyPiece) {
        let piece = self.answer.push(text.as_bytes());
        out.text.push_str(&piece.text);
        out.stopped = piece.stopped;
    }
}

/// Where in `text` something begins that may yet become `tag`: its length where nothing does.
pub(crate) fn unfinished(text: &str, tag: &str) -> usize {
    let from = text.len().saturating_sub(tag.len() - 1);
    (from..text.len())
        .find(|&at| text.is_char_boundary(at) && tag.starts_with(&text[at..]))
        .unwrap_or(text.len())
}
