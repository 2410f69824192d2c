//! The JSON face, for bindings to other languages: methods by name, parameters and results as JSON.
//!
//! ```no_run
//! use serde_json::json;
//! use tercel::host::Host;
//! use tercel::json::JsonApi;
//!
//! let api = JsonApi::new(Host::builder().build()?);
//! let call = |method, params| api.call(method, params).map_err(|error| error.to_string());
//! call("start_model", json!({"model_name": "chat", "engines_path": "smollm2:135m"}))?;
//! let replies = call("infer", json!({"model_name": "chat", "prompt": "Hello!", "seed": 1}))?;
//! println!("{}", replies[0]["text"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | method | parameters (`?`: may be left out) | result |
//! | --- | --- | --- |
//! | `start_model` | `model_name`, `engines_path`, `model_type?`, `device?`, `config?`, `revision?` | `{model_name, model_type, status}`, and `notes` where something asked for is not done |
//! | `infer` | `model_name`, `prompt` or `messages`, `system_prompt?`, sampling values?, `enable_thinking?`; or these in `inputs` | a list of one result |
//! | `infer_stream` | those of `infer`, `stream_id?` | see [`JsonApi::infer_stream`] |
//! | `stop_stream` | `stream_id` | `{stream_id}` |
//! | `stop_model` | `model_name` | `{model_name, model_type, status}` |
//! | `reset_model` | `model_name` | `{model_name, model_type, status}` |
//! | `prefetch_engines`, `prefetch` | `repo_id`, `model_type?`, `revision?` | the path |
//! | `list` | | the models with their states |
//! | `is_loaded` | `model_name` | a truth |
//! | `memory_footprint` | `model_name?` | `{footprint_mb, resident_mb}` |
//! | `initialize`, `is_initialized` | `api_token?` | true: no account is needed |
//!
//! `config` is an object of `max_context_size` (by default 2048, or what the model was trained for),
//! `threads`, `prefill_chunk`, `quantize`, `chat_template` (a source, or `raw`),
//! `default_system_prompt` and `sampling`. A parameter that no method knows is an error.
//!
//! An error is an object: `code` (stable, in snake case), `message`, and where known `sdk_error`
//! (what the SDKs call it), `param` (the parameter at fault) and `hint` (the way out).

mod ask;
mod error;
mod params;
mod shapes;
mod start;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use self::ask::Ask;
use self::error::JsonError;
use self::params::Params;
use self::shapes::{Listed, LlmResult, LoadProgress, Status, to_value};
use self::start::{Config, MODEL_TYPE, Start, check_model_type, with_revision};
pub use self::streams::JsonStream;
use self::streams::Streams;
use crate::host::{Host, Lease, ModelSpec};
use crate::source::{Control, Progress, Store};

/// The JSON face of a [`Host`]. It may be used from any thread; calls that wait, such as
/// `start_model` and `infer`, wait on the caller's.
pub struct JsonApi {
    host: Host,
    /// The models that were started here, with what they were started with.
    started: Mutex<HashMap<String, Arc<Started>>>,
    streams: Arc<Streams>,
    store: Option<Store>,
    offline: bool,
    on_progress: Arc<dyn Fn(Value) + Send + Sync>,
}

struct Started {
    params: Value,
    config: Config,
    notes: Vec<String>,
}

type Answer = Result<Value, JsonError>;

impl JsonApi {
    /// The face of `host`. Models that the host has already can be used by their names.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            started: Mutex::default(),
            streams: Arc::default(),
            store: None,
            offline: false,
            on_progress: Arc::new(|_| {}),
        }
    }

    /// Where fetched models are kept, by default [`Store::open_default`].
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    /// Forbids the network.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Who is told how loads and fetches go: `{phase, fraction, model}`. Both only move forward:
    /// `downloading` to 0.70, `extracting` to 0.85, `loading` to 0.99, `ready` 1.00; the last
    /// comes after the warm-up, and never from a load that failed.
    #[must_use]
    pub fn on_progress(mut self, sink: impl Fn(Value) + Send + Sync + 'static) -> Self {
        self.on_progress = Arc::new(sink);
        self
    }

    /// The host behind it.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Calls a method; see the module's documentation for all of them.
    ///
    /// # Errors
    /// An object with `code`, `message` and more.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let answer = Params::new(params).and_then(|params| self.dispatch(method, params));
        answer.map_err(JsonError::into_value)
    }

    /// Starts a reply and gives its chunks as they come: `{kind: "text", index, is_final: false,
    /// delta}`, and at the end one with `is_final`, the counts, the times and the `stop_reason`.
    /// After `stop_stream` that is `{kind: "cancelled", index: -1, is_final: true, ..}`. The
    /// thought of a model that thinks is not shown. Each reply stands alone: what was said before
    /// is part of `messages`, or forgotten.
    ///
    /// # Errors
    /// Those of `infer` before anything runs; later ones come out of the stream.
    pub fn infer_stream(&self, params: Value) -> Result<JsonStream, Value> {
        let start = || {
            let mut params = Params::new(params)?;
            let id = params.text("stream_id")?;
            let (lease, ask, started) = self.read_ask(params)?;
            let request = ask.request(lease.engine(), &started.config);
            let stream = lease.stream(request)?;
            self.streams.add(id, lease.name(), stream)
        };
        start().map_err(JsonError::into_value)
    }

    fn dispatch(&self, method: &str, mut params: Params) -> Answer {
        match method {
            "initialize" => {
                params.text("api_token")?;
                params.finish()?;
                Ok(Value::Bool(true))
            }
            "is_initialized" => params.finish().map(|()| Value::Bool(true)),
            "start_model" => self.start_model(params),
            "stop_model" => self.stop_model(&only_name(params)?),
            "reset_model" => self.reset_model(&only_name(params)?),
            "infer" => self.infer(params),
            "infer_stream" => {
                let message = "`infer_stream` gives more than one value";
                let hint = "use the function for streams".to_owned();
                Err(JsonError::new("stream_required", message).with_hint(hint))
            }
            "stop_stream" => self.stop_stream(params),
            "prefetch_engines" | "prefetch" => self.prefetch(params),
            "list" => params.finish().map(|()| self.list()),
            "is_loaded" => {
                let status = self.host.status(&only_name(params)?)?;
                Ok(Value::Bool(status.state.takes_requests()))
            }
            "memory_footprint" => {
                let name = params.text("model_name")?;
                params.finish()?;
                let footprint = match name {
                    Some(name) => self.host.memory_footprint_of(&name)?,
                    None => self.host.memory_footprint(),
                };
                Ok(to_value(&footprint))
            }
            _ => {
                let message = format!("unknown method `{method}` (known: {})", METHODS.join(", "));
                Err(JsonError::new("unknown_method", message))
            }
        }
    }

    fn start_model(&self, mut params: Params) -> Answer {
        let whole = params.copy();
        let name = params.required_text("model_name")?;
        let start = Start::read(&mut params)?;
        params.finish()?;
        let started = self.register(&name, whole, start)?;
        self.host.get(&name)?;
        Ok(status(&name, "ready", &started.notes))
    }

    /// Makes the model known, unless it is so already, in the same way.
    fn register(&self, name: &str, params: Value, start: Start) -> Result<Arc<Started>, JsonError> {
        let mut all = self.lock();
        // Unless a `stop_model` is just about to forget it.
        if let Some(started) = all.get(name)
            && self.host.status(name).is_ok()
        {
            if started.params != params {
                let message = format!("a model `{name}` was started with other parameters");
                let hint = "stop it first, or choose another name".to_owned();
                let error = JsonError::new("model_already_started", message);
                return Err(error.with_param("model_name").with_hint(hint));
            }
            return Ok(Arc::clone(started));
        }
        let started = Arc::new(Started {
            params,
            config: start.config.clone(),
            notes: start.notes.clone(),
        });
        let (store, offline) = (self.store.clone(), self.offline);
        let sink = Arc::clone(&self.on_progress);
        let model = name.to_owned();
        let spec = ModelSpec::new(move || {
            let (sink, model) = (Arc::clone(&sink), model.clone());
            start
                .builder(store.as_ref(), offline)
                .on_progress(move |progress| sink(load_progress(progress, &model)))
        });
        self.host.register(name, spec)?;
        all.insert(name.to_owned(), Arc::clone(&started));
        Ok(started)
    }

    fn stop_model(&self, name: &str) -> Answer {
        let stopped = self.lock().get(name).cloned();
        self.streams.stop_all(name);
        self.host.unregister(name)?;
        let mut all = self.lock();
        let current = all.get(name);
        if let (Some(stopped), Some(current)) = (&stopped, current)
            && Arc::ptr_eq(stopped, current)
        {
            all.remove(name);
        }
        drop(all);
        Ok(status(name, "stopped", &[]))
    }

    fn reset_model(&self, name: &str) -> Answer {
        self.host.reset(name)?;
        let state = self.host.status(name)?.state;
        Ok(status(name, state.name(), &[]))
    }

    fn infer(&self, params: Params) -> Answer {
        let (lease, ask, started) = self.read_ask(params)?;
        let reply = lease.generate(ask.request(lease.engine(), &started.config))?;
        Ok(json!([to_value(&LlmResult::from(&reply))]))
    }

    fn read_ask(&self, mut params: Params) -> Result<(Lease, Ask, Arc<Started>), JsonError> {
        let name = params.required_text("model_name")?;
        let ask = Ask::read(&mut params)?;
        params.finish()?;
        let started = self.lock().get(&name).cloned();
        let lease = self.host.get(&name)?;
        let started = started.unwrap_or_else(|| {
            Arc::new(Started {
                params: Value::Null,
                config: Config::default(),
                notes: Vec::new(),
            })
        });
        Ok((lease, ask, started))
    }

    fn stop_stream(&self, mut params: Params) -> Answer {
        let id = params.required_text("stream_id")?;
        params.finish()?;
        if self.streams.stop(&id) {
            return Ok(json!({"stream_id": id}));
        }
        let message = format!("no stream `{id}` is running");
        Err(JsonError::new("stream_not_found", message).with_param("stream_id"))
    }

    fn prefetch(&self, mut params: Params) -> Answer {
        let repository = params.required_text("repo_id")?;
        check_model_type(&mut params)?;
        let model = with_revision(repository.clone(), &mut params)?;
        params.finish()?;
        let store = match &self.store {
            Some(store) => store.clone(),
            None => Store::open_default()?,
        };
        let model = store.parse(&model)?;
        let mut relay = |progress| (self.on_progress)(load_progress(&progress, &repository));
        let mut control = Control::new().on_progress(&mut relay).offline(self.offline);
        let local = store.fetch(&model, &mut control)?;
        Ok(Value::String(local.path.display().to_string()))
    }

    fn list(&self) -> Value {
        let models = self.host.list();
        models
            .iter()
            .map(|model| to_value(&Listed::from(model)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Started>>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for JsonApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonApi")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

const METHODS: [&str; 13] = [
    "initialize",
    "is_initialized",
    "start_model",
    "infer",
    "infer_stream",
    "stop_stream",
    "stop_model",
    "reset_model",
    "prefetch_engines",
    "prefetch",
    "list",
    "is_loaded",
    "memory_footprint",
];

fn only_name(mut params: Params) -> Result<String, JsonError> {
    let name = params.required_text("model_name")?;
    params.finish()?;
    Ok(name)
}

fn status(model_name: &str, status: &str, notes: &[String]) -> Value {
    to_value(&Status {
        model_name,
        model_type: MODEL_TYPE,
        status,
        notes,
    })
}

fn load_progress(progress: &Progress, model: &str) -> Value {
    to_value(&LoadProgress {
        phase: progress.phase.name(),
        fraction: progress.fraction,
        model,
    })
}
