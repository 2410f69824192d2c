//! `tercel tokenize`: the ids and pieces of a text.

use serde::Serialize;
use tercel::{ModelFiles, TokenId, Tokenizer};

use super::run::read_stdin;
use crate::context::Context;
use crate::failure::Failure;
use crate::terminal::one_line;
use crate::{format, load};

/// Show the tokens of a text
///
/// Prints one token a line: its id and the text it stands for. Parts of a character are shown as
/// bytes. No begin or end token is added.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel tokenize smollm2:135m \"Why is the sky blue?\"
  tercel tokenize smollm2:135m --count - < book.txt
  tercel tokenize smollm2:135m --special \"<|im_start|>user\"")]
pub(crate) struct Args {
    /// A model on this machine
    model: String,
    /// The text; `-` reads it from standard input as it is
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Take the names of control tokens in the text for those tokens
    #[arg(long)]
    special: bool,
    /// Print only how many tokens there are
    #[arg(long)]
    count: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let tokenizer = ModelFiles::of(&load::local(&args.model)?)?.tokenizer()?;
    let from_stdin = if args.text == "-" {
        Some(read_stdin(context)?)
    } else {
        None
    };
    let text = from_stdin.as_ref().unwrap_or(&args.text);
    let ids = if args.special {
        tokenizer.encode_trusted(text)
    } else {
        tokenizer.encode(text)
    };
    let lost = tokenizer.lost_bytes(text);
    if lost > 0 {
        let bytes = format::plural(lost, "byte");
        context.note(&format!(
            "the vocabulary has no tokens for {bytes} of the text"
        ));
    }
    if args.json {
        return context
            .out
            .json(&Tokens::new(&tokenizer, &ids, !args.count));
    }
    if args.count {
        return context.out.line(&ids.len().to_string());
    }
    for id in ids {
        context.out.line(&format!(
            "{id:>6}  {}",
            shown(&format::piece(&tokenizer, id))
        ))?;
    }
    Ok(())
}

/// A piece in quotes, so that its spaces can be seen.
fn shown(piece: &str) -> String {
    format!("\"{}\"", one_line(piece))
}

#[derive(Serialize)]
struct Tokens {
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<Token>>,
}

#[derive(Serialize)]
struct Token {
    id: TokenId,
    piece: String,
}

impl Tokens {
    fn new(tokenizer: &Tokenizer, ids: &[TokenId], all: bool) -> Self {
        let token = |&id: &TokenId| Token {
            id,
            piece: format::piece(tokenizer, id),
        };
        Self {
            count: ids.len(),
            tokens: all.then(|| ids.iter().map(token).collect()),
        }
    }
}
