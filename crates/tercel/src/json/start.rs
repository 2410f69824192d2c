//! What `start_model` and `prefetch_engines` are given.

use std::path::Path;

use serde_json::Value;

use super::error::JsonError;
use super::params::Params;
use crate::builder::EngineBuilder;
use crate::engine::Engine;
use crate::sampling::Sampling;
use crate::source::Store;

/// The one kind of model there is.
pub(super) const MODEL_TYPE: &str = "llm";
/// The context where `config` does not say.
const USUAL_CONTEXT: usize = 2048;

/// A model as it is to be started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// Where it comes from, as [`Engine::builder`] takes it.
    pub(super) model: String,
    pub(super) config: Config,
    /// What the caller should know of what was asked for and is not done.
    pub(super) notes: Vec<String>,
}

/// How it is to be set up.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    max_context_size: Option<usize>,
    threads: Option<usize>,
    prefill_chunk: Option<usize>,
    quantize: Option<String>,
    chat_template: Option<String>,
    /// Prompts are continued as they stand.
    pub(super) is_raw: bool,
    pub(super) default_system_prompt: Option<String>,
    sampling: Sampling,
}

impl Start {
    pub(super) fn read(params: &mut Params) -> Result<Self, JsonError> {
        let Some(path) = params.text("engines_path")?.filter(|path| !path.is_empty()) else {
            let message = "`engines_path` is missing: a file, a directory, a name of the catalog, \
                           or a repository as `hf:org/repo`";
            return Err(JsonError::new("missing_engines_path", message).with_param("engines_path"));
        };
        check_model_type(params)?;
        let model = with_revision(path, params)?;
        let device = params.text("device")?;
        let notes = match device.as_deref() {
            None | Some("auto" | "cpu") => Vec::new(),
            Some(asked @ ("gpu" | "npu")) => {
                vec![format!(
                    "device `{asked}` is not supported, the model runs on the cpu"
                )]
            }
            Some(_) => {
                let problem = "must be one of auto, cpu, gpu, npu";
                return Err(JsonError::parameter("device", problem));
            }
        };
        let config = Config::read(params.value("config").unwrap_or_default())?;
        Ok(Self {
            model,
            config,
            notes,
        })
    }

    /// How the model is loaded.
    pub(super) fn builder(&self, store: Option<&Store>, offline: bool) -> EngineBuilder {
        let config = &self.config;
        let mut builder = Engine::builder(self.model.clone())
            .sampling(config.sampling.clone())
            .offline(offline);
        builder.usual_context = Some(USUAL_CONTEXT);
        if let Some(store) = store {
            builder = builder.store(store.clone());
        }
        if let Some(tokens) = config.max_context_size {
            builder = builder.max_context(tokens);
        }
        if let Some(threads) = config.threads {
            builder = builder.threads(threads);
        }
        if let Some(tokens) = config.prefill_chunk {
            builder = builder.prefill_chunk(tokens);
        }
        if let Some(to) = &config.quantize {
            builder = builder.quantize(to.clone());
        }
        if let Some(source) = &config.chat_template {
            builder = builder.template(source.clone());
        }
        builder
    }
}

impl Config {
    fn read(config: Value) -> Result<Self, JsonError> {
        let mut params = Params::of("config", config)?;
        let template = params.text("chat_template")?;
        let is_raw = template.as_deref() == Some("raw");
        let sampling = params.value("sampling").unwrap_or_default();
        let this = Self {
            max_context_size: params.count("max_context_size")?,
            threads: params.count("threads")?,
            prefill_chunk: params.count("prefill_chunk")?,
            quantize: params.text("quantize")?,
            chat_template: template.filter(|_| !is_raw),
            is_raw,
            default_system_prompt: params.text("default_system_prompt")?,
            sampling: read_sampling(&mut Params::of("config.sampling", sampling)?)?,
        };
        params.finish()?;
        Ok(this)
    }
}

/// Takes the sampling values, by Tercel's names; `stop_sequences` is another name of `stop`.
pub(super) fn read_sampling(params: &mut Params) -> Result<Sampling, JsonError> {
    let stop = match (params.texts("stop")?, params.texts("stop_sequences")?) {
        (Some(_), Some(_)) => {
            let problem = "and `stop` are two names of one thing, give one";
            return Err(JsonError::parameter("stop_sequences", problem));
        }
        (one, other) => one.or(other).unwrap_or_default(),
    };
    Ok(Sampling {
        max_new_tokens: params.count("max_new_tokens")?,
        temperature: params.number("temperature")?,
        top_k: params.count("top_k")?,
        top_p: params.number("top_p")?,
        min_p: params.number("min_p")?,
        repetition_penalty: params.number("repetition_penalty")?,
        repetition_window: params.count("repetition_window")?,
        presence_penalty: params.number("presence_penalty")?,
        frequency_penalty: params.number("frequency_penalty")?,
        seed: params.seed("seed")?,
        stop,
        ignore_eos: params.truth("ignore_eos")?,
        thinking: None,
        max_thinking_tokens: params.count("max_thinking_tokens")?,
        min_answer_tokens: params.count("min_answer_tokens")?,
        ..Sampling::default()
    })
}

pub(super) fn check_model_type(params: &mut Params) -> Result<(), JsonError> {
    match params.text("model_type")? {
        Some(kind) if kind != MODEL_TYPE => {
            let message = format!("model type `{kind}` is not known (known: {MODEL_TYPE})");
            Err(JsonError::new("unknown_model_type", message).with_param("model_type"))
        }
        _ => Ok(()),
    }
}

/// The model at its revision. Files on this machine have none, as in the SDK.
pub(super) fn with_revision(model: String, params: &mut Params) -> Result<String, JsonError> {
    let revision = params.text("revision")?;
    let Some(revision) = revision.filter(|revision| revision != "main") else {
        return Ok(model);
    };
    if Path::new(&model).exists() {
        return Ok(model);
    }
    let (repository, file) = match model.strip_prefix("hf:").unwrap_or(&model).split_once(':') {
        Some((repository, file)) => (repository, Some(file)),
        None => (model.strip_prefix("hf:").unwrap_or(&model), None),
    };
    if !repository.contains('/') || repository.contains('@') {
        let problem = "is for a repository that is named without one";
        return Err(JsonError::parameter("revision", problem));
    }
    let file = file.map(|file| format!(":{file}")).unwrap_or_default();
    Ok(format!("hf:{repository}@{revision}{file}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(params: Value) -> Result<Start, Value> {
        let mut params = Params::new(params).map_err(JsonError::into_value)?;
        let start = Start::read(&mut params).map_err(JsonError::into_value)?;
        params.finish().map_err(JsonError::into_value)?;
        Ok(start)
    }

    #[test]
    fn a_revision_becomes_part_of_the_reference() {
        for (path, revision, expected) in [
            ("org/repo", "main", "org/repo"),
            ("org/repo", "v2", "hf:org/repo@v2"),
            ("hf:org/repo", "v2", "hf:org/repo@v2"),
            ("hf:org/repo:Q4_K_M", "v2", "hf:org/repo@v2:Q4_K_M"),
            (".", "v2", "."),
        ] {
            let start = read(json!({"engines_path": path, "revision": revision}));
            assert_eq!(start.expect("valid").model, expected);
        }
        for path in ["smollm2:135m", "hf:org/repo@v1"] {
            let error = read(json!({"engines_path": path, "revision": "v2"})).expect_err("no");
            assert_eq!(error["param"], "revision");
        }
    }

    #[test]
    fn what_cannot_be_done_is_an_error_or_a_note() {
        let error = |params| read(params).expect_err("refused");
        assert_eq!(
            error(json!({"model_type": "llm"})),
            json!({
                "code": "missing_engines_path",
                "sdk_error": "missingEnginesPath",
                "message": "`engines_path` is missing: a file, a directory, a name of the \
                            catalog, or a repository as `hf:org/repo`",
                "param": "engines_path",
            })
        );
        assert_eq!(
            error(json!({"engines_path": "x", "model_type": "tts"})),
            json!({
                "code": "unknown_model_type",
                "sdk_error": "unknownModelType",
                "message": "model type `tts` is not known (known: llm)",
                "param": "model_type",
            })
        );
        for (params, param) in [
            (json!({"engines_path": "x", "device": "tpu"}), "device"),
            (
                json!({"engines_path": "x", "devices": {"decoder": "cpu"}}),
                "devices",
            ),
            (json!({"engines_path": "x", "config": 1}), "config"),
            (
                json!({"engines_path": "x", "config": {"theads": 1}}),
                "config.theads",
            ),
            (
                json!({"engines_path": "x", "config": {"threads": "1"}}),
                "config.threads",
            ),
        ] {
            assert_eq!(error(params)["param"], param);
        }
        for (device, notes) in [("cpu", 0), ("auto", 0), ("gpu", 1), ("npu", 1)] {
            let start = read(json!({"engines_path": "x", "device": device})).expect("valid");
            assert_eq!(start.notes.len(), notes, "{device}");
        }
    }
}
