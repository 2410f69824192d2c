//! How a GGUF file turns positions into angles, in the words of `config.json`.

use std::f64::consts::PI;

use serde_json::{Value as Json, json};
use tercel_nn::dequantize_row;

use super::gguf::{Model, ROPE_FACTORS};
use crate::error::ConvertError;

/// What Llama 3.1 and later put beside the factor; a file holds only what follows from it.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// More than rounding to single floats makes of a divisor.
const TOLERANCE: f64 = 1e-5;

/// `rope_scaling`; `None` where nothing is stretched.
pub(super) fn scaling(model: &Model<'_, '_>, base: f64) -> Result<Option<Json>, ConvertError> {
    let kind = model.metadata.str(&model.key("rope.scaling.type"))?;
    let old = model.number("rope.scale_linear")?;
    let factor = model.number("rope.scaling.factor")?.or(old);
    let linear = factor.filter(|factor| *factor != 1.0 && kind != Some("none"));
    let divisors = divisors(model)?;
    match (linear, divisors) {
        (None, None) => Ok(None),
        (Some(factor), None) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
        (None, Some(divisors)) => llama3(model, base, &divisors).map(Some),
        (Some(_), Some(_)) => {
            let problem = "positions are divided by one factor besides";
            Err(ConvertError::unsupported(
                format!("tensor `{ROPE_FACTORS}`"),
                problem,
            ))
        }
    }
}

fn divisors(model: &Model<'_, '_>) -> Result<Option<Vec<f32>>, ConvertError> {
    let Some(tensor) = model.checkpoint.tensor(ROPE_FACTORS) else {
        return Ok(None);
    };
    let mut divisors = vec![0.0; tensor.shape.iter().product()];
    let len = divisors.len();
    dequantize_row(&tensor.storage, 1, len, 0, &mut divisors).map_err(|error| {
        ConvertError::Tensor {
            name: tensor.name.clone(),
            error,
        }
    })?;
    Ok(Some(divisors))
}

/// The factor is the largest divisor; the rest is that of the published models, if it fits.
fn llama3(model: &Model<'_, '_>, base: f64, divisors: &[f32]) -> Result<Json, ConvertError> {
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    // Tests and finetunes were trained on shorter texts.
    let originals = std::iter::successors(Some(ORIGINAL), |n| (*n > 32.0).then_some(n / 2.0));
    for original in originals {
        let expected = expected(factor, original, base, divisors.len());
        let fits = divisors
            .iter()
            .zip(expected)
            .all(|(found, expected)| (f64::from(*found) / expected - 1.0).abs() < TOLERANCE);
        if fits {
            return Ok(json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LOW,
                "high_freq_factor": HIGH,
                "original_max_position_embeddings": original as u64,
            }));
        }
    }
    let problem = format!(
        "its divisors for {} follow from no parameters that are known (llama3 with low 1, high 4 \
         and an original length of 8192 or a half, a quarter.. of it)",
        model.info.architecture
    );
    Err(ConvertError::unsupported(
        format!("tensor `{ROPE_FACTORS}`"),
        problem,
    ))
}

/// `_compute_llama3_parameters` in transformers.
fn expected(
    factor: f64,
    original: f64,
    base: f64,
    pairs: usize,
) -> impl Iterator<Item = f64> + use<> {
    (0..pairs).map(move |i| {
        let wavelength = 2.0 * PI * base.powf(i as f64 / pairs as f64);
        if wavelength < original / HIGH {
            1.0
        } else if wavelength > original / LOW {
            factor
        } else {
            let smooth = (original / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    })
}
