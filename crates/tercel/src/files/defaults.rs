//! The sampling defaults that a model brings.

use serde_json::Value as Json;
use tercel_formats::gguf::{Metadata, Value};
use tercel_formats::{Checkpoint, GgufError};

use super::ModelFiles;
use crate::sampling::Sampling;

/// Reads the model's defaults, and tells what could not be used.
pub(crate) fn of_files(files: &ModelFiles, checkpoint: &Checkpoint<'_>) -> (Sampling, Vec<String>) {
    match checkpoint.gguf_metadata() {
        Some(metadata) => of_model(metadata),
        None => of_directory(files.small().json(GENERATION)),
    }
}

const GENERATION: &str = "generation_config.json";

/// Reads `generation_config.json`, as transformers writes it.
fn of_directory(json: Result<Option<Json>, String>) -> (Sampling, Vec<String>) {
    let json = match json {
        Ok(Some(json)) => json,
        Ok(None) => return (Sampling::default(), Vec::new()),
        Err(error) => {
            let note = format!("the sampling defaults of {GENERATION} are not used: {error}");
            return (Sampling::default(), vec![note]);
        }
    };
    let mut notes = Vec::new();
    let mut number = |key: &str| match json.get(key) {
        None | Some(Json::Null) => None,
        Some(value) => {
            let number = value.as_f64();
            if number.is_none() {
                notes.push(format!(
                    "`{key}` of {GENERATION} is not used: it is no number"
                ));
            }
            number
        }
    };
    let found = Sampling {
        temperature: number("temperature").map(|value| value as f32),
        top_k: number("top_k").map(|value| value as usize),
        top_p: number("top_p").map(|value| value as f32),
        min_p: number("min_p").map(|value| value as f32),
        repetition_penalty: number("repetition_penalty").map(|value| value as f32),
        ..Sampling::default()
    };
    // Without sampling, the rest of the file has no meaning.
    let found = match json.get("do_sample") {
        Some(Json::Bool(false)) => Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        },
        _ => found,
    };
    checked(found, notes)
}

/// Reads `general.sampling.*`, as llama.cpp writes them, and tells what could not be used.
fn of_model(metadata: &Metadata<'_>) -> (Sampling, Vec<String>) {
    let mut notes = Vec::new();
    let mut float = |key: &str| note(metadata.f32(&format!("general.sampling.{key}")), &mut notes);
    let mut found = Sampling {
        temperature: float("temp"),
        top_p: float("top_p"),
        min_p: float("min_p"),
        repetition_penalty: float("penalty_repeat"),
        ..Sampling::default()
    };
    let mut count = |key: &str| {
        note(
            signed(metadata, &format!("general.sampling.{key}")),
            &mut notes,
        )
    };
    // At most 0 keeps all tokens.
    found.top_k = count("top_k").map(|k| usize::try_from(k).unwrap_or(0));
    match count("penalty_last_n") {
        // 0 turns the penalty off, below 0 it looks at the whole context.
        Some(0) => found.repetition_penalty = None,
        Some(n) => found.repetition_window = Some(usize::try_from(n).unwrap_or(WHOLE_CONTEXT)),
        None => {}
    }
    checked(found, notes)
}

fn checked(found: Sampling, mut notes: Vec<String>) -> (Sampling, Vec<String>) {
    match found.validate() {
        Ok(_) => (found, notes),
        Err(error) => {
            notes.push(format!(
                "the model's own sampling defaults are not used: {error}"
            ));
            (Sampling::default(), notes)
        }
    }
}

/// More tokens than any context has.
const WHOLE_CONTEXT: usize = i32::MAX as usize;

fn signed(metadata: &Metadata<'_>, key: &str) -> Result<Option<i64>, GgufError> {
    match metadata.get(key) {
        Some(Value::I8(n)) => Ok(Some((*n).into())),
        Some(Value::I16(n)) => Ok(Some((*n).into())),
        Some(Value::I32(n)) => Ok(Some((*n).into())),
        Some(Value::I64(n)) => Ok(Some(*n)),
        _ => Ok(metadata.u32(key)?.map(i64::from)),
    }
}

fn note<T>(value: Result<Option<T>, GgufError>, notes: &mut Vec<String>) -> Option<T> {
    value.unwrap_or_else(|error| {
        notes.push(format!(
            "a sampling default of the model is not used: {error}"
        ));
        None
    })
}

#[cfg(test)]
mod tests {
    use tercel_formats::Gguf;
    use tercel_formats::gguf::{OwnedValue, Writer};

    use super::*;

    fn read(entries: &[(&str, OwnedValue)]) -> (Sampling, Vec<String>) {
        let mut writer = Writer::new();
        for (key, value) in entries {
            writer
                .set(&format!("general.sampling.{key}"), value.clone())
                .expect("a valid entry");
        }
        let mut file = Vec::new();
        writer.write_to(&mut file).expect("written");
        of_model(Gguf::parse(&file).expect("a valid file").metadata())
    }

    #[test]
    fn defaults_are_read_and_their_special_values_translated() {
        let (sampling, notes) = read(&[
            ("temp", OwnedValue::F32(0.6)),
            ("top_k", OwnedValue::I32(-1)),
            ("top_p", OwnedValue::F32(0.95)),
            ("penalty_repeat", OwnedValue::F32(1.1)),
            ("penalty_last_n", OwnedValue::I32(-1)),
        ]);
        assert_eq!(notes, [""; 0]);
        assert_eq!((sampling.temperature, sampling.top_k), (Some(0.6), Some(0)));
        assert_eq!((sampling.top_p, sampling.min_p), (Some(0.95), None));
        assert_eq!(sampling.repetition_window, Some(WHOLE_CONTEXT));

        let (sampling, _) = read(&[
            ("penalty_repeat", OwnedValue::F32(1.1)),
            ("penalty_last_n", OwnedValue::I32(0)),
        ]);
        assert_eq!(sampling, Sampling::default());
        assert_eq!(read(&[]), (Sampling::default(), Vec::new()));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let (sampling, notes) = read(&[
            ("temp", OwnedValue::F32(f32::NAN)),
            ("top_k", OwnedValue::U32(7)),
        ]);
        assert_eq!(sampling, Sampling::default());
        assert!(notes[0].contains("`temperature` is NaN"), "{notes:?}");

        let (sampling, notes) = read(&[
            ("temp", OwnedValue::Str("hot".into())),
            ("top_k", OwnedValue::U32(7)),
        ]);
        assert_eq!(sampling.top_k, Some(7));
        assert!(notes[0].contains("general.sampling.temp"), "{notes:?}");
    }
}
