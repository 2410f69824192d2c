//! Runs a GGUF file with candle's own quantized models: reads a prompt behind so many tokens,
//! generates, and prints a line of JSON with what that took.
//!
//! usage: candle-bench MODEL DEPTH PROMPT TOKENS WARMUP

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Write};
use std::time::Instant;

use candle_core::quantized::gguf_file;
use candle_core::{D, Device, Tensor};
use candle_transformers::models::{
    quantized_gemma3, quantized_llama, quantized_qwen2, quantized_qwen3,
};

/// How many tokens of what lies before the prompt are read at once.
const CHUNK: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, numbers @ ..] = &args[..] else {
        return Err("no model given".into());
    };
    let numbers: Result<Vec<usize>, _> = numbers.iter().map(|number| number.parse()).collect();
    let [depth, prompt, tokens, warmup] = numbers?[..] else {
        return Err("a model and four numbers are needed".into());
    };
    let device = Device::Cpu;
    let started = Instant::now();
    let mut model = Model::load(path, &device)?;
    let load_seconds = started.elapsed().as_secs_f64();
    model.check_length(depth + prompt + tokens)?;

    for _ in 0..warmup {
        let last = model.read(0, prompt.clamp(1, CHUNK), &device)?;
        model.forward(&[last], prompt.clamp(1, CHUNK), &device)?;
        model.forget();
    }
    let mut at = 0;
    let mut last = 0;
    while at < depth {
        let chunk = CHUNK.min(depth - at);
        last = model.read(at, chunk, &device)?;
        at += chunk;
    }
    let started = Instant::now();
    if prompt > 0 {
        last = model.read(at, prompt, &device)?;
        at += prompt;
    }
    let prefill_seconds = started.elapsed().as_secs_f64();
    // Who started this process waits for the first byte.
    print!(" ");
    std::io::stdout().flush()?;
    let started = Instant::now();
    for _ in 0..tokens {
        last = model.forward(&[last], at, &device)?;
        at += 1;
    }
    let decode_seconds = started.elapsed().as_secs_f64();
    println!(
        "{{\"load_seconds\":{load_seconds},\"prefill_seconds\":{prefill_seconds},\
         \"decode_seconds\":{decode_seconds},\"last\":{last}}}"
    );
    Ok(())
}

enum Model {
    Llama(quantized_llama::ModelWeights),
    Gemma3(quantized_gemma3::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

impl Model {
    fn load(path: &str, device: &Device) -> Result<Self, Box<dyn Error>> {
        let mut file = BufReader::new(File::open(path)?);
        let content = gguf_file::Content::read(&mut file)?;
        let architecture = content.metadata.get("general.architecture");
        let architecture = architecture.ok_or("the file names no architecture")?;
        let file = &mut file;
        Ok(match architecture.to_string()?.as_str() {
            "llama" => Self::Llama(quantized_llama::ModelWeights::from_gguf(
                content, file, device,
            )?),
            "gemma3" => Self::Gemma3(quantized_gemma3::ModelWeights::from_gguf(
                content, file, device,
            )?),
            "qwen2" => Self::Qwen2(quantized_qwen2::ModelWeights::from_gguf(
                content, file, device,
            )?),
            "qwen3" => Self::Qwen3(quantized_qwen3::ModelWeights::from_gguf(
                content, file, device,
            )?),
            other => return Err(format!("not supported: architecture {other}").into()),
        })
    }

    /// Some models have rotary tables of a fixed length.
    fn check_length(&self, tokens: usize) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Llama(_) if tokens > quantized_llama::MAX_SEQ_LEN => {
                let most = quantized_llama::MAX_SEQ_LEN;
                Err(format!("not supported: {tokens} tokens, {most} at most").into())
            }
            _ => Ok(()),
        }
    }

    /// [`Self::forward`] for `n` tokens of no meaning.
    fn read(&mut self, at: usize, n: usize, device: &Device) -> Result<u32, Box<dyn Error>> {
        let tokens: Vec<u32> = (at..at + n).map(|i| 100 + (i as u32 * 7) % 1000).collect();
        self.forward(&tokens, at, device)
    }

    /// Reads tokens that begin at a position and gives the most likely next one.
    fn forward(
        &mut self,
        tokens: &[u32],
        at: usize,
        device: &Device,
    ) -> Result<u32, Box<dyn Error>> {
        let input = Tensor::new(tokens, device)?.unsqueeze(0)?;
        let logits = match self {
            Self::Llama(model) => model.forward(&input, at)?,
            Self::Gemma3(model) => model.forward(&input, at)?,
            Self::Qwen2(model) => model.forward(&input, at)?,
            Self::Qwen3(model) => model.forward(&input, at)?,
        };
        Ok(logits.flatten_all()?.argmax(D::Minus1)?.to_scalar()?)
    }

    /// Empties the cache.
    fn forget(&mut self) {
        match self {
            Self::Llama(model) => model.clear_kv_cache(),
            Self::Qwen2(model) => model.clear_kv_cache(),
            Self::Qwen3(model) => model.clear_kv_cache(),
            // It begins anew at position 0.
            Self::Gemma3(_) => {}
        }
    }
}
