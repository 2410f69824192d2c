//! The models of the server: their names, and how a request comes by one.

use std::collections::HashMap;
use std::iter;
use std::sync::OnceLock;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tercel::Pooling;
use tercel::host::{CancelWait, Host, HostError, Lease, ModelSpec, ModelStatus};

use crate::config::{Config, ServedModel};
use crate::error::ApiError;

/// The models of the server.
pub(crate) struct Models {
    host: Host,
    served: Vec<ServedModel>,
    /// Those that were added since.
    added: Added,
    /// When the server began to serve them, in Unix seconds.
    created: u64,
    /// Tokens of the context of each model that has been loaded.
    contexts: Mutex<HashMap<String, usize>>,
}

impl Models {
    /// Registers what the configuration names; nothing is loaded yet.
    pub(crate) fn new(config: &Config) -> Result<Self, HostError> {
        let mut builder = Host::builder();
        if let Some(ttl) = config.idle_ttl {
            builder = builder.idle_ttl(ttl);
        }
        if let Some(bytes) = config.max_model_bytes {
            builder = builder.max_bytes(bytes);
        }
        for model in &config.models {
            let make = model.builder.clone();
            builder = builder.model(&model.name, ModelSpec::new(move || make()));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            host: builder.build()?,
            served: config.models.clone(),
            added: Added::default(),
            created: now.map_or(0, |now| now.as_secs()),
            contexts: Mutex::default(),
        })
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// When the server began to serve its models, in Unix seconds.
    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    /// The models of the configuration, in its order.
    pub(crate) fn served(&self) -> &[ServedModel] {
        &self.served
    }

    /// Every model: those of the configuration, then those that were added, in that order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ServedModel> {
        self.served.iter().chain(self.added.iter())
    }

    /// Adds a model until the server stops; one of that name stays as it is.
    pub(crate) fn add(&self, model: ServedModel) -> Result<(), ApiError> {
        let make = model.builder.clone();
        match self
            .host
            .register(&model.name, ModelSpec::new(move || make()))
        {
            Ok(()) => {
                self.added.push(model);
                Ok(())
            }
            Err(HostError::AlreadyRegistered { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The model of this name, or the first one where none is given. Ollama's clients put
    /// `:latest` behind names without a tag.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<&ServedModel, ApiError> {
        let Some(name) = name else {
            return self.all().next().ok_or_else(|| {
                ApiError::new(
                    axum::http::StatusCode::SERVICE_UNAVAILABLE,
                    "model_not_ready",
                    "the server has no models",
                )
            });
        };
        let named = |name: &str| self.all().find(|model| model.name == name);
        let found = named(name).or_else(|| named(name.strip_suffix(":latest")?));
        found.ok_or_else(|| {
            let known: Vec<&str> = self.all().map(|model| &*model.name).collect();
            ApiError::new(
                axum::http::StatusCode::NOT_FOUND,
                "model_not_found",
                format!("no model `{name}` here (there are: {})", known.join(", ")),
            )
            .about("model")
        })
    }

    /// The state of a model.
    pub(crate) fn status(&self, name: &str) -> Result<ModelStatus, ApiError> {
        Ok(self.host.status(name)?)
    }

    /// How the model's states become one embedding.
    pub(crate) fn pooling(&self, name: &str) -> Pooling {
        let model = self.all().find(|model| model.name == name);
        model.map_or(Pooling::Mean, |model| model.pooling)
    }

    fn remember(&self, lease: &Lease) {
        let contexts = self.contexts.lock();
        let mut contexts = contexts.unwrap_or_else(PoisonError::into_inner);
        let context = lease.info().max_context;
        if contexts.get(lease.name()) != Some(&context) {
            contexts.insert(lease.name().to_owned(), context);
        }
    }

    /// Tokens that prompt and reply may have together, as of the model's latest load. Nothing before
    /// the first: asking a model itself would count as its use.
    pub(crate) fn context(&self, name: &str) -> Option<usize> {
        let contexts = self.contexts.lock();
        let contexts = contexts.unwrap_or_else(PoisonError::into_inner);
        contexts.get(name).copied()
    }

    /// The model, ready; loads it where it is not. Dropping the future ends the wait, not the load.
    pub(crate) async fn lease(&self, name: &str) -> Result<Lease, ApiError> {
        // What is loaded is had at once, without another thread.
        if self.host.is_loaded(name)
            && let Ok(lease) = self.host.get_within(name, Duration::ZERO)
        {
            self.remember(&lease);
            return Ok(lease);
        }
        let wait = EndOfWait(self.host.cancel_wait());
        let (host, name, cancel) = (self.host.clone(), name.to_owned(), wait.0.clone());
        let lease = tokio::task::spawn_blocking(move || host.get_unless(&name, &cancel)).await;
        match lease {
            Ok(lease) => {
                let lease = lease?;
                self.remember(&lease);
                Ok(lease)
            }
            Err(_) => Err(ApiError::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the wait for the model failed",
            )),
        }
    }
}

/// A list that grows while others read it: each entry holds the place of the next.
#[derive(Default)]
struct Added(OnceLock<(ServedModel, Box<Added>)>);

impl Added {
    fn iter(&self) -> impl Iterator<Item = &ServedModel> {
        iter::successors(self.0.get(), |(_, next)| next.0.get()).map(|(model, _)| model)
    }

    fn push(&self, model: ServedModel) {
        let (mut place, mut entry) = (self, (model, Box::default()));
        // Who came first in between has the place.
        while let Err(back) = place.0.set(entry) {
            entry = back;
            match place.0.get() {
                Some((_, next)) => place = next,
                None => return,
            }
        }
    }
}

/// Ends a thread's wait when nobody is there for the answer any more.
struct EndOfWait(CancelWait);

impl Drop for EndOfWait {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_are_added_come_after_those_of_the_configuration() {
        let model = |name: &str| ServedModel::new(name, "x", || tercel::Engine::builder("x"));
        let mut config = Config::default();
        config.models.push(model("first"));
        let models = Models::new(&config).expect("models");
        for name in ["second", "third", "second", "first"] {
            models.add(model(name)).expect("it is added, or was there");
        }
        let names: Vec<&str> = models.all().map(|model| &*model.name).collect();
        assert_eq!(names, ["first", "second", "third"]);
        for (asked, found) in [(None, "first"), (Some("third:latest"), "third")] {
            assert_eq!(models.find(asked).expect("a model").name, found);
        }
        let error = models.find(Some("fourth")).expect_err("none");
        assert!(
            error.message.contains("first, second, third"),
            "{}",
            error.message
        );
    }
}
