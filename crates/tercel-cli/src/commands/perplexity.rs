//! `tercel perplexity`: how well a model foretells a text.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use tercel::Engine;
use tercel_eval::{PerplexityOptions, perplexity};

use crate::args::EngineArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::files::read_text;
use crate::output::Line;
use crate::{format, load};

/// Measure a model's perplexity on a text
///
/// The text is cut into chunks of --context tokens, and in each the second half is scored, as
/// llama.cpp's llama-perplexity does it. The value so far is printed after every chunk.
#[derive(clap::Args)]
#[command(after_help = "Example:
  tercel perplexity smollm2:135m book.txt --context 512 --chunks 8")]
pub(crate) struct Args {
    /// A catalog name, a GGUF file, or hf:org/repo
    model: String,
    /// A text file, UTF-8
    file: PathBuf,
    /// Tokens of a chunk, at least 4
    #[arg(long, alias = "max-context", value_name = "N", default_value_t = 512)]
    context: usize,
    /// Stop after N chunks, at least 1 [default: the whole text]
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Print one JSON object a line: one per chunk, then the result
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// More takes longer to measure than anyone waits.
const MOST_TEXT_BYTES: u64 = 1 << 30;

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let text = read_text("text file", &args.file, MOST_TEXT_BYTES)?;
    let builder = Engine::builder(&args.model).max_context(args.context);
    let engine = load::measured_engine(builder, &args.model, &args.engine, context)?;

    let mut options = PerplexityOptions::default().context(args.context);
    if let Some(chunks) = args.chunks {
        options = options.max_chunks(chunks);
    }
    let out = context.out;
    let started = Instant::now();
    let mut written = Ok(());
    let measured = perplexity(&engine, &text, options, |chunk| {
        written = if out.is_json() {
            out.json(&Line::Chunk(&chunk))
        } else {
            out.line(&format!("[{}] {:.4}", chunk.chunk, chunk.ppl))
        };
        if written.is_err() || context.interrupt.is_hit() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    written?;
    let measured = measured?;
    if out.is_json() {
        return out.json(&Line::Perplexity(&measured));
    }
    let took = started.elapsed().as_secs_f64();
    let rate = (measured.chunks * args.context) as f64 / took.max(1e-9);
    out.line(&format!(
        "perplexity {:.4} +/- {:.3} over {} ({} tokens scored), {}, {rate:.0} tokens/s",
        measured.ppl,
        measured.stderr,
        format::plural(measured.chunks, "chunk"),
        measured.tokens_scored,
        format::seconds(took),
    ))
}
