//! `tokenizer.model`: protocol buffers, written by hand (sentencepiece_model.proto; protobuf.dev,
//! "Encoding").

use super::ExportedFile;
use crate::error::TextError;
use crate::tokenizer::{TokenId, TokenKind, TokenizerParts};

/// `TrainerSpec.ModelType` of byte-pair encoding.
const BPE: i64 = 2;

pub(super) fn file(
    parts: &TokenizerParts<'_>,
    kinds: &[TokenKind],
) -> Result<ExportedFile, TextError> {
    let field = "tokenizer.ggml.scores";
    let scores = parts.scores.as_deref();
    let scores = scores.ok_or(TextError::MissingField { field })?;
    if scores.len() != parts.tokens.len() {
        return Err(TextError::Length {
            field,
            expected: parts.tokens.len(),
            found: scores.len(),
        });
    }
    let mut model = Message::default();
    for ((text, score), kind) in parts.tokens.iter().zip(scores).zip(kinds) {
        let mut piece = Message::default();
        piece.text(1, text);
        piece.float(2, *score);
        piece.number(3, number(*kind));
        model.message(1, &piece);
    }
    model.message(2, &trainer(parts, kinds));
    model.message(3, &normalizer(parts));
    let name = "tokenizer.model";
    let bytes = model.0;
    Ok(ExportedFile { name, bytes })
}

fn trainer(parts: &TokenizerParts<'_>, kinds: &[TokenKind]) -> Message {
    let id = |id: Option<TokenId>| id.map_or(-1, i64::from);
    let mut spec = Message::default();
    spec.number(3, BPE);
    spec.number(4, parts.tokens.len() as i64);
    spec.number(35, kinds.contains(&TokenKind::Byte).into());
    for (field, of) in [
        (40, parts.unk),
        (41, parts.bos),
        (42, parts.eos),
        (43, parts.pad),
    ] {
        spec.number(field, id(of));
    }
    spec
}

fn normalizer(parts: &TokenizerParts<'_>) -> Message {
    let mut spec = Message::default();
    spec.text(1, "identity");
    spec.number(3, parts.add_space_prefix.unwrap_or(true).into());
    spec.number(4, 0); // spaces stay as many as they are
    spec.number(5, 1); // and become visible
    spec
}

/// `SentencePiece.Type`, numbered as in GGUF.
fn number(kind: TokenKind) -> i64 {
    match kind {
        TokenKind::Normal => 1,
        TokenKind::Unknown => 2,
        TokenKind::Control => 3,
        TokenKind::UserDefined => 4,
        TokenKind::Unused => 5,
        TokenKind::Byte => 6,
    }
}

/// The bytes of one message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, field: u32, value: i64) {
        self.tag(field, 0);
        self.varint(value as u64);
    }

    fn float(&mut self, field: u32, value: f32) {
        self.tag(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
