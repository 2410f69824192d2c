//! Reads how positions are turned into angles (Su et al., 2021), and how a model stretches them
//! to longer sequences.

use std::f64::consts::PI;

use tercel_formats::checkpoint::Packaging;
use tercel_kernels::ops::rope::Pairing;

use crate::NnError;
use crate::backend::Rope;
use crate::loader::Loader;
use crate::runner::ModelInfo;

/// The rotary embedding of a model, whose base is `base` unless the configuration has another.
pub(super) fn read(
    w: &Loader<'_, '_>,
    info: &ModelInfo,
    base: f64,
    pairing: Pairing,
) -> Result<Rope, NnError> {
    let base = w.positive_or("rope.freq_base", base)?;
    let rope = Rope::new(info.head_dim, dims(w, info)?, base, pairing);
    scaled(w, rope, base)
}

/// The elements of a head that are turned.
fn dims(w: &Loader<'_, '_>, info: &ModelInfo) -> Result<usize, NnError> {
    const GGUF: &str = "rope.dimension_count";
    let head_dim = info.head_dim;
    let (field, dims) = if w.packaging() == Packaging::Gguf {
        (GGUF, w.count_or(GGUF, 2..=head_dim, head_dim)?)
    } else {
        let paths = [
            "rope_parameters.partial_rotary_factor",
            "partial_rotary_factor",
        ];
        let field = paths
            .into_iter()
            .find(|path| w.has_field(path))
            .unwrap_or(paths[1]);
        let share = w.positive_or(field, 1.0)?;
        if share > 1.0 {
            return Err(w.refuse(field, format!("{share} is more than 1")));
        }
        (field, (head_dim as f64 * share) as usize)
    };
    if dims < 2 || !dims.is_multiple_of(2) {
        return Err(w.refuse(field, format!("{dims} elements do not make pairs")));
    }
    Ok(dims)
}

/// Applies the stretching that the configuration asks for.
fn scaled(w: &Loader<'_, '_>, rope: Rope, base: f64) -> Result<Rope, NnError> {
    let (kind, table) = kind(w)?;
    let at = |name: &str| match (w.packaging(), name) {
        (Packaging::Gguf, _) => format!("rope.scaling.{name}"),
        _ => format!("{table}.{name}"),
    };
    let pairs = rope.frequencies.len();
    let rope = match kind {
        "default" | "none" => rope,
        "linear" => {
            // Old GGUF files name no type, or have the factor under another name.
            let old = w.positive_or("rope.scale_linear", 1.0)?;
            let factor = w.positive_or(&at("factor"), old)?;
            rope.divided_by(std::iter::repeat_n(factor, pairs))
        }
        "llama3" if w.packaging() != Packaging::Gguf => {
            let llama3 = Llama3 {
                factor: w.positive_or(&at("factor"), 8.0)?,
                low: w.positive_or(&at("low_freq_factor"), 1.0)?,
                high: w.positive_or(&at("high_freq_factor"), 4.0)?,
                original: w.positive_or(&at("original_max_position_embeddings"), 8192.0)?,
            };
            let dims = 2 * pairs;
            rope.divided_by(
                (0..pairs).map(|i| llama3.divisor(base.powf(-2.0 * i as f64 / dims as f64))),
            )
        }
        other => {
            let field = at(if w.has_field(&at("rope_type")) {
                "rope_type"
            } else {
                "type"
            });
            let problem = format!("`{other}` is not supported (supported: none, linear, llama3)");
            return Err(w.refuse(&field, problem));
        }
    };
    // In GGUF files the divisors of Llama 3.1 and later lie in a tensor.
    const FACTORS: &str = "rope_freqs.weight";
    if w.packaging() == Packaging::Gguf && w.has_tensor(FACTORS) {
        let factors = w.numbers(FACTORS, &[pairs])?;
        return Ok(rope.divided_by(factors.into_iter().map(f64::from)));
    }
    Ok(rope)
}

/// The kind of stretching, and the table of `config.json` that describes it.
fn kind<'c>(w: &Loader<'c, '_>) -> Result<(&'c str, &'static str), NnError> {
    if w.packaging() == Packaging::Gguf {
        return Ok((w.text("rope.scaling.type")?.unwrap_or("linear"), ""));
    }
    for table in [
        "rope_parameters.full_attention",
        "rope_parameters",
        "rope_scaling",
    ] {
        for name in ["rope_type", "type"] {
            if let Some(kind) = w.text(&format!("{table}.{name}"))? {
                // Positions of text are the same along all axes of an image.
                return Ok((if kind == "mrope" { "default" } else { kind }, table));
            }
        }
    }
    Ok(("default", "rope_parameters"))
}

/// The stretching of Llama 3.1 (`_compute_llama3_parameters` in transformers).
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    /// What a frequency is divided by: nothing for short waves, the factor for long ones.
    fn divisor(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * PI / frequency;
        if wavelength < self.original / self.high {
            1.0
        } else if wavelength > self.original / self.low {
            self.factor
        } else {
            let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        }
    }
}
