//! `tercel prompt count`: how many tokens a text takes, and another one.

use std::path::PathBuf;

use serde::Serialize;
use tercel::ModelFiles;

use crate::context::Context;
use crate::failure::Failure;
use crate::files::read_text;
use crate::terminal::one_line;
use crate::{format, load};

/// Count the tokens of a text file, and compare it with another
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel prompt count prompt.txt --model smollm2:135m
  tercel prompt count long.txt short.txt --model smollm2:135m")]
pub(super) struct Args {
    /// A text
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Another one
    #[arg(value_name = "B")]
    second: Option<PathBuf>,
    /// A model on this machine, whose tokens are counted
    #[arg(short, long, value_name = "MODEL")]
    model: String,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct Counts {
    files: Vec<Counted>,
    /// Tokens of the second less those of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<i64>,
}

#[derive(Serialize)]
struct Counted {
    path: String,
    tokens: usize,
}

/// More than any context holds.
const MOST_BYTES: u64 = 64 << 20;

pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let tokenizer = ModelFiles::of(&load::local(&args.model)?)?.tokenizer()?;
    let mut files = Vec::new();
    for path in [Some(&args.first), args.second.as_ref()]
        .into_iter()
        .flatten()
    {
        let text = read_text("text file", path, MOST_BYTES)?;
        files.push(Counted {
            path: path.display().to_string(),
            tokens: tokenizer.encode(&text).len(),
        });
    }
    let difference = match files.as_slice() {
        [first, second] => Some(second.tokens as i64 - first.tokens as i64),
        _ => None,
    };
    let counts = Counts { files, difference };
    let out = context.out;
    if args.json {
        return out.json(&counts);
    }
    for file in &counts.files {
        let tokens = format::plural(file.tokens, "token");
        out.line(&format!("{tokens:>14}  {}", one_line(&file.path)))?;
    }
    let Some(difference) = counts.difference else {
        return Ok(());
    };
    let amount = format::plural(difference.unsigned_abs() as usize, "token");
    let share = difference.unsigned_abs() as f64 * 100.0 / counts.files[0].tokens.max(1) as f64;
    let name = one_line(&counts.files[1].path);
    out.line(&match difference {
        0 => format!("{name} has as many"),
        1.. => format!("{name} has {amount} more ({share:.1} %)"),
        _ => format!("{name} saves {amount} ({share:.1} %)"),
    })
}
