//! What all objects of one reply have in common.

use std::time::SystemTime;

use crate::ids::random_hex;
use crate::work::Running;

/// What all objects of one reply have in common.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: String,
    /// In Unix seconds.
    pub(super) created: u64,
    pub(super) model: String,
    /// Changes when the same request may give another reply.
    pub(super) fingerprint: Option<String>,
}

impl Head {
    /// That of a reply which is being made, with an id that begins with `prefix`.
    pub(super) fn new(prefix: &str, running: &[Running]) -> Self {
        let first = running.first();
        Self {
            id: id(prefix),
            created: now(),
            model: first
                .map(|first| first.model().to_owned())
                .unwrap_or_default(),
            fingerprint: first.map(|first| {
                let whole = &first.engine().info().fingerprint;
                let short: String = whole.chars().take(12).collect();
                format!("fp_{short}")
            }),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            id: "id".to_owned(),
            created: 7,
            model: "small".to_owned(),
            fingerprint: Some("fp_1".to_owned()),
        }
    }
}

/// A name that no other object has.
pub(super) fn id(prefix: &str) -> String {
    format!("{prefix}{}", random_hex())
}

/// In Unix seconds.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
