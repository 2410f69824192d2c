//! Serves the models of a host to other programs, over HTTP: the protocols of OpenAI, Anthropic and
//! Ollama, Tercel's own, and a page to chat on.
//!
//! ```no_run
//! use tercel_server::{Config, ServedModel, Server};
//!
//! let mut config = Config::default();
//! config.models.push(ServedModel::new("small", "smollm2:135m", || {
//!     tercel::Engine::builder("smollm2:135m").max_context(2048)
//! }));
//! let server = Server::bind(config, "127.0.0.1:8080".parse()?)?;
//! println!("http://{}", server.address());
//! server.run()?; // until its `stop_handle` says so
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What holds throughout:
//! - A request is checked whole before a model is touched; what is not supported is refused by
//!   name, never ignored.
//! - Every queue is bounded. A client that does not read costs a bounded piece of memory and is
//!   dropped after a while; one that goes away ends its request within a token.
//! - Texts of prompts and replies are in no log unless the operator says so.
#![forbid(unsafe_code)]

mod accept;
mod app;
mod body;
mod config;
mod error;
mod gate;
mod guard;
mod ids;
mod log;
mod metrics;
mod models;
mod ready;
mod routes;
mod server;
mod stream;
mod work;

pub use config::{Config, GuardPolicy, Limits, LogPolicy, LogTarget, Rate, Rates, ServedModel};
pub use gate::{Keys, KeysError, Role};
pub use server::{Notice, Server, ServerError, StopHandle};
