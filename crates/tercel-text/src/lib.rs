//! Tokenizers, chat templates, and the assembly of streamed text.
//!
//! A [`Tokenizer`] and a [`ChatTemplate`] are built from a model file's own metadata. Text goes
//! in by one of three doors: [`Tokenizer::encode`] for what users wrote (the names of control
//! tokens stay text), [`Tokenizer::encode_trusted`] for text whose control tokens are meant, and
//! [`Tokenizer::encode_rendered`] for a rendered template, where only the template's own markers
//! count. On the way back a [`ReplyStream`] tells the model's thought ([`ThinkTags`]) from its
//! answer, and a [`TextStream`] turns token bytes into whole characters and withholds stop strings.
//! A [`grammar::Grammar`] says what a reply's text must be, and a [`tools::ToolStream`] finds the calls of
//! tools in it.

#![forbid(unsafe_code)]

mod error;
pub mod grammar;
mod message;
mod stream;
mod template;
mod thinking;
mod tokenizer;
pub mod tools;

pub use error::TextError;
pub use message::{Message, Role, ToolCall};
pub use stream::{Piece, TextStream};
pub use template::{ChatTemplate, Rendered, TemplateInput, limits};
pub use thinking::{PromptEnd, ReplyPiece, ReplyStream, ThinkTags};
pub use tokenizer::{
    ExportedFile, HfTokenizerFiles, Markers, TokenId, TokenKind, Tokenizer, TokenizerParts,
    VocabularySize,
};
