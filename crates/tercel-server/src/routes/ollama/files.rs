//! What is known of a model from its files, whether or not it is loaded.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tercel::source::{LocalModel, ModelKind, Store};
use tercel::{Inspection, ModelFiles};

/// A model's files.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) local: LocalModel,
    pub(super) modified: Option<SystemTime>,
    /// There where the files can be read.
    pub(super) inspection: Option<Arc<Inspection>>,
}

/// Remembers what files hold for as long as they do not change: lists are asked for often.
#[derive(Debug, Default)]
pub(super) struct Files {
    seen: Mutex<HashMap<PathBuf, Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    size_bytes: u64,
    modified: Option<SystemTime>,
    inspection: Option<Arc<Inspection>>,
}

impl Files {
    /// The files of what an operator named so, where they are on this machine. Reads their headers,
    /// which blocks.
    pub(super) fn find(&self, source: &str) -> Option<Found> {
        let store = Store::open_default().ok()?;
        let local = store.find(&store.parse(source).ok()?).ok()??;
        let first = local.files.first().map_or(&local.path, |file| &file.path);
        let modified = fs::metadata(first).and_then(|it| it.modified()).ok();
        let now = Seen {
            size_bytes: local.size_bytes,
            modified,
            inspection: None,
        };
        let known = self.seen().get(&local.path).cloned();
        let is_known =
            |seen: &Seen| (seen.size_bytes, seen.modified) == (now.size_bytes, now.modified);
        let inspection = match known.filter(is_known) {
            Some(seen) => seen.inspection,
            None => {
                let inspection = inspect(&local);
                let seen = Seen {
                    inspection: inspection.clone(),
                    ..now
                };
                self.seen().insert(local.path.clone(), seen);
                inspection
            }
        };
        Some(Found {
            local,
            modified,
            inspection,
        })
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<PathBuf, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn inspect(local: &LocalModel) -> Option<Arc<Inspection>> {
    let files = ModelFiles::of(local).ok()?;
    files.inspect(None).ok().map(Arc::new)
}

/// Ollama's word for how a model is packed.
pub(super) fn format(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::SingleGguf | ModelKind::SplitGguf => "gguf",
        _ => "safetensors",
    }
}

/// A number of weights as Ollama writes it, such as `134.52M`.
pub(super) fn parameter_size(parameters: u64) -> String {
    // A rounded number for people.
    let parameters = parameters as f64;
    match parameters {
        1e9.. => format!("{:.1}B", parameters / 1e9),
        1e6.. => format!("{:.2}M", parameters / 1e6),
        _ => format!("{:.2}K", parameters / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_counted_for_people() {
        for (parameters, expected) in [
            (134_515_008, "134.52M"),
            (7_241_732_096, "7.2B"),
            (999, "1.00K"),
            (1_000_000_000, "1.0B"),
        ] {
            assert_eq!(parameter_size(parameters), expected);
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert!(Files::default().find("no/such/model.gguf").is_none());
    }
}
