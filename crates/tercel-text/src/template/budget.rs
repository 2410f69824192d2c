//! What the operations of one render may touch, counted in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// What a small value, or a place in a container, counts.
const SMALL: usize = 64;

/// How deep a value may nest that is written or compared as a whole.
const DEPTH: usize = 100;

/// What a walk through a value charges for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// Places and the bytes of strings.
    Text,
    /// Places alone.
    Places,
    /// Places alone, among which there must be no namespace.
    PlacesInNamespace,
}

/// The bytes that are left. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Takes so many bytes, or fails where fewer are left.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Error> {
        let take = |left: usize| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map(drop)
            .map_err(|_| {
                Error::new(
                    ErrorKind::InvalidOperation,
                    "the template handles too much text",
                )
            })
    }

    /// Charges for the bytes of a string or the places of a container.
    pub(super) fn shallow(&self, value: &Value) -> Result<(), Error> {
        self.charge(match value.as_str() {
            Some(text) => text.len(),
            None => value.len().unwrap_or(1).saturating_mul(SMALL),
        })
    }

    /// Charges for everything in a value, as often as it is there.
    pub(super) fn deep(&self, value: &Value) -> Result<(), Error> {
        self.walk(value, 0, Walk::Text)
    }

    /// Charges for the places in a value that becomes part of another. Fails where it nests too
    /// deep: taking a deeper one apart would overflow the stack.
    pub(super) fn nested(&self, value: &Value) -> Result<(), Error> {
        self.walk(value, 0, Walk::Places)
    }

    /// As [`Budget::nested`], for what a namespace is to hold. Fails for another namespace, since
    /// one that came to hold itself would never be freed.
    pub(super) fn stored(&self, value: &Value) -> Result<(), Error> {
        self.walk(value, 0, Walk::PlacesInNamespace)
    }

    fn walk(&self, value: &Value, depth: usize, walk: Walk) -> Result<(), Error> {
        if depth > DEPTH {
            let detail = format!("a value nests deeper than {DEPTH}");
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
        let namespace = || {
            value
                .as_object()
                .is_some_and(|it| it.type_name().contains("Namespace"))
        };
        match value.kind() {
            _ if walk == Walk::PlacesInNamespace && namespace() => {
                let detail = "a namespace cannot hold a namespace";
                Err(Error::new(ErrorKind::InvalidOperation, detail))
            }
            ValueKind::String if walk == Walk::Text => self.shallow(value),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
                self.charge(SMALL)?;
                let map = value.kind() == ValueKind::Map;
                for item in value.try_iter()? {
                    self.walk(&item, depth + 1, walk)?;
                    if map {
                        self.walk(&value.get_item(&item)?, depth + 1, walk)?;
                    }
                }
                Ok(())
            }
            _ => self.charge(SMALL),
        }
    }
}
