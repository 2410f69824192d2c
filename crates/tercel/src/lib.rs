//! Run language models on the device: load a model, ask it, stream the answer.
//!
//! ```no_run
//! use tercel::{Engine, Event, Request};
//!
//! let engine = Engine::builder("smollm2:135m")
//!     .max_context(2048)
//!     .on_progress(|progress| eprintln!("{progress}"))
//!     .load()?;
//!
//! let mut chat = engine.chat().system("Answer briefly.");
//! println!("{}", chat.ask("What is 2+2?")?.text);
//! for event in chat.stream("Tell me a story.")? {
//!     if let Event::Delta { text, .. } = event? {
//!         print!("{text}");
//!     }
//! }
//!
//! let reply = engine.generate(Request::prompt("Once upon").max_new_tokens(64).seed(42))?;
//! println!("{} ({})", reply.text, reply.stop_reason);
//! # Ok::<(), tercel::Error>(())
//! ```
//!
//! What holds throughout:
//! - One seed, one text: a request with a seed gives the same tokens whatever the number of
//!   threads, the prefill chunks, or what the engine still held from before.
//! - Memory is asked for before it is used, and nothing is cut or changed in silence.
//! - A request ends within one token, or one prefill chunk, once it is cancelled or its stream is
//!   dropped.
//! - Model files are read through a memory map while they load. A file that is shortened by
//!   someone else in that time ends the process; files of the [`source::Store`] never change.
#![deny(unsafe_code)]

mod answer;
mod bare;
mod builder;
mod chat;
mod context;
pub mod cores;
mod draft;
mod embed;
mod engine;
mod error;
mod files;
mod guide;
pub mod host;
mod job;
pub mod json;
mod lenient;
pub mod lifecycle;
mod logprobs;
mod machine;
pub mod memory;
mod model;
mod pace;
mod pipe;
mod queue;
mod reply;
mod request;
mod rng;
mod sampler;
mod sampling;
mod scheduler;
mod score;
pub mod source;
mod speculate;
mod stream;
mod sync;
mod thinking;
mod tools;
mod verify;
mod wake;

pub use bare::{BareModel, BareOptions};
pub use builder::EngineBuilder;
pub use chat::{Chat, ChatStream, SavedSession, SessionError};
pub use context::{
    Block, BlockKind, BlockLimit, BlockOutcome, BlockReport, BudgetReport, ContextBudget,
    ContextBuilder, ContextOverflow, ContextReport, Cut, CutKind, PromptCounter, TokenCounter,
    ToolBudget, ToolScope,
};
pub use embed::Pooling;
pub use engine::{Activity, Engine, Info};
pub use error::Error;
pub use files::{
    Inspection, MemoryUse, MetadataEntry, ModelFiles, ModelSummary, TensorEntry, TensorType,
};
pub use logprobs::{TokenLogprob, TopLogprob};
pub use pipe::CancelHandle;
pub use reply::{CacheMiss, Event, Reply, StopReason, Timings, Usage};
pub use request::{Request, parse_role};
pub use sampling::{Sampling, Settings};
pub use source::{Phase, Progress};
pub use stream::{AsyncStream, Stream};
pub use tercel_nn::{
    Function, KvPart, KvType, KvUsage, Packing, PlannedTensor, PrefixCache, Treatment, Workers,
};
pub use tercel_text::grammar::{Grammar, GrammarError};
pub use tercel_text::tools::Tool;
pub use tercel_text::{
    ChatTemplate, Message, Role, TextError, ThinkTags, TokenId, Tokenizer, ToolCall,
};
pub use thinking::Thinking;
pub use tools::{ToolChoice, ToolFailure, Toolbox};
pub use verify::{
    Check, Outcome, PromptCheck, SpecialTokenIds, Verification, VerifyOptions, verify,
};

#[cfg(test)]
mod testing;
