//! Everything that can go wrong between a model's name and its reply.

use std::io;
use std::path::PathBuf;

use tercel_formats::CheckpointError;
use tercel_nn::NnError;
use tercel_text::TextError;
use tercel_text::grammar::GrammarError;

use crate::chat::SessionError;
use crate::context::ContextOverflow;
use crate::files::MemoryUse;
use crate::memory::AdmissionError;
use crate::source::SourceError;

/// An error of the engine.
///
/// The message is one line in lower case that names the thing; [`Error::kind`] is a stable code
/// for programs, and [`Error::hint`] says the way out where one is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter is out of range. Nothing ran.
    #[error("`{field}` is {value}, must be {range}")]
    InvalidParameter {
        /// Its name.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        range: String,
    },
    /// The prompt, or the last message of a conversation, has no text.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The conversation has no messages.
    #[error("the conversation has no messages")]
    EmptyMessages,
    /// The conversation has no such turn.
    #[error("the conversation has no turn {turn}, it has {turns} (numbered from 0)")]
    NoSuchTurn {
        /// What was asked for, from 0.
        turn: usize,
        /// How many turns there are.
        turns: usize,
    },
    /// A message's role is none of those known.
    #[error("role `{role}` is not known (known: system, user, assistant, tool)")]
    InvalidRole {
        /// What was given.
        role: String,
    },
    /// A conversation was asked of a model without a chat template.
    #[error("the model has no chat template")]
    NoChatTemplate,
    /// A model that is not known to think was asked to.
    #[error("the model is not known to think: neither its template nor its vocabulary says how")]
    NoThinking,
    /// The chat template does not compile, or refuses the conversation.
    #[error(transparent)]
    Template(TextError),
    /// The prompt does not fit the context. Nothing was cut, nothing ran.
    #[error(
        "the prompt has {prompt_tokens} tokens and needs room for one more, \
         the context holds {max_context}"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens the context holds.
        max_context: usize,
    },
    /// The prompt leaves too little of the context to the reply, even cut as its policy allows.
    /// Nothing ran.
    #[error(
        "the prompt has {prompt_tokens} tokens{} and must leave {reserve_tokens} to the reply, \
         the context holds {max_context}", after(*policy)
    )]
    ContextReserve {
        /// How the prompt may be cut.
        policy: ContextOverflow,
        /// The fewest tokens that the prompt comes to.
        prompt_tokens: usize,
        /// Tokens to keep free for the reply.
        reserve_tokens: usize,
        /// Tokens the context holds.
        max_context: usize,
    },
    /// A context longer than the model was trained for was asked for.
    #[error("`max_context` is {requested}, the model was trained for {trained}")]
    ContextTooLong {
        /// What was asked for.
        requested: usize,
        /// What the model allows.
        trained: usize,
    },
    /// The model does not fit the available memory. Nothing was allocated.
    #[error(
        "the model needs {} MB (weights {}, KV cache {}, recurrent state {}, workspace {}, \
         prefix cache {}, tokenizer {}, draft model {}), {} MB are available",
        megabytes(needed.total_bytes), megabytes(needed.weights_bytes),
        megabytes(needed.kv_bytes), megabytes(needed.recurrent_bytes),
        megabytes(needed.workspace_bytes), megabytes(needed.prefix_cache_bytes),
        megabytes(needed.tokenizer_bytes), megabytes(needed.draft_bytes), available_bytes >> 20
    )]
    InsufficientMemory {
        /// What it would take.
        needed: MemoryUse,
        /// What there is.
        available_bytes: u64,
    },
    /// Other engines of the process have what the model would need. Nothing was allocated.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// What a request may come to take does not fit the engine's memory budget. Nothing was
    /// computed.
    #[error(
        "with this request the process would hold {} MB, too near its budget of {} MB",
        needed_bytes.div_ceil(1 << 20), budget_bytes >> 20
    )]
    MemoryBudget {
        /// What it would hold.
        needed_bytes: u64,
        /// What it may.
        budget_bytes: u64,
    },
    /// A conversation could not be saved or resumed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The model could not be found, fetched or stored.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The model file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The path is no regular file, or an empty one.
    #[error("{} {problem}", path.display())]
    NotAModelFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        problem: &'static str,
    },
    /// The files are damaged, or do not belong together.
    #[error("{}: {error}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: CheckpointError,
    },
    /// The file is valid, but the model in it cannot be loaded.
    #[error("{}: {error}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: NnError,
    },
    /// A directory has no tokenizer.
    #[error("{} has no tokenizer.json and no tokenizer.model", path.display())]
    NoTokenizer {
        /// The directory.
        path: PathBuf,
    },
    /// A file beside the weights does not say what it must.
    #[error("{}: {problem}", path.display())]
    SmallFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The model's tokenizer cannot be loaded.
    #[error("{}: {error}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: TextError,
    },
    /// Computing failed.
    #[error("inference failed: {0}")]
    Inference(#[source] NnError),
    /// The model computed a NaN or an infinity.
    #[error("the model gave logits that are not numbers after {tokens} tokens")]
    InvalidLogits {
        /// Tokens of prompt and reply it had seen.
        tokens: usize,
    },
    /// The reply was to keep to a grammar or schema, which is none, or cannot be kept to.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// The answer was to be read by the caller, who could make nothing of it.
    #[error("of {attempts} answers none could be used: {problem}")]
    UnusableAnswer {
        /// How often the model answered.
        attempts: usize,
        /// What was wrong with the last answer.
        problem: String,
    },
    /// Too many requests wait.
    #[error("the queue is full: {capacity} requests wait")]
    QueueFull {
        /// How many may wait.
        capacity: usize,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The engine has been dropped, or the stream was read to its end before.
    #[error("the engine or the stream is closed")]
    EngineClosed,
    /// A fault of Tercel itself. The engine takes no more requests; load it again.
    #[error("internal error: {message}")]
    Internal {
        /// What is known.
        message: String,
    },
}

impl Error {
    /// A stable code in snake case, for programs and wire formats.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InvalidParameter { .. } | Self::ContextTooLong { .. } => "invalid_parameter",
            Self::EmptyPrompt => "empty_prompt",
            Self::EmptyMessages => "empty_messages",
            Self::NoSuchTurn { .. } => "no_such_turn",
            Self::InvalidRole { .. } => "invalid_role",
            Self::NoChatTemplate => "no_chat_template",
            Self::NoThinking => "no_thinking",
            Self::Template(_) => "invalid_template",
            Self::ContextOverflow { .. } | Self::ContextReserve { .. } => "context_overflow",
            Self::InsufficientMemory { .. } => "insufficient_memory",
            Self::Admission(error) => error.kind(),
            Self::MemoryBudget { .. } => "oom_kv_cache",
            Self::Session(error) => error.kind(),
            Self::Source(error) => error.kind(),
            Self::Unreadable { reason, .. } if reason.kind() == io::ErrorKind::NotFound => {
                "model_not_found"
            }
            Self::Model { error, .. } | Self::Inference(error)
                if matches!(error, NnError::OutOfMemory { .. }) =>
            {
                "out_of_memory"
            }
            Self::Model {
                error: NnError::Cancelled,
                ..
            }
            | Self::Cancelled => "cancelled",
            Self::Model {
                error: NnError::KvType { .. },
                ..
            } => "unsupported_kv_type",
            Self::Unreadable { .. }
            | Self::NotAModelFile { .. }
            | Self::InvalidFile { .. }
            | Self::Model { .. }
            | Self::NoTokenizer { .. }
            | Self::SmallFile { .. }
            | Self::Tokenizer { .. } => "model_load_failed",
            Self::Inference(_) => "inference_failed",
            Self::InvalidLogits { .. } => "invalid_logits",
            Self::Grammar(GrammarError::Stuck { .. }) => "constraint_failed",
            Self::Grammar(_) => "invalid_grammar",
            Self::UnusableAnswer { .. } => "unusable_answer",
            Self::QueueFull { .. } => "queue_full",
            Self::EngineClosed => "engine_closed",
            Self::Internal { .. } => "internal",
        }
    }

    /// The way out, in one line, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoChatTemplate => Some(
                "give a template with `--template FILE`, \
                 or continue the text as it stands with `--raw`"
                    .to_owned(),
            ),
            Self::NoThinking => {
                Some("leave out `--thinking on`, or choose a model that thinks".to_owned())
            }
            Self::ContextOverflow { prompt_tokens, .. } => Some(format!(
                "shorten the prompt, or, where the model was trained for so many tokens, load it \
                 with a context above {prompt_tokens} (`--max-context`)"
            )),
            Self::ContextReserve {
                policy: ContextOverflow::DropOldestTurns,
                ..
            } => Some(
                "`drop_oldest_turns` drops whole turns of a conversation and keeps the latest; \
                 `sliding_window` and `truncate_middle` cut inside a text"
                    .to_owned(),
            ),
            Self::ContextReserve { .. } => Some(
                "shorten the prompt or the system text, keep fewer tokens free, or load the model \
                 with a larger context (`--max-context`)"
                    .to_owned(),
            ),
            Self::ContextTooLong { trained, .. } => {
                Some(format!("use at most `--max-context {trained}`"))
            }
            Self::InsufficientMemory {
                needed,
                available_bytes,
            } => {
                let fixed = needed.total_bytes.saturating_sub(needed.kv_bytes);
                let fits = u64::try_from(fixed).is_ok_and(|fixed| fixed < *available_bytes);
                let advice = if fits {
                    "use a smaller `--max-context`"
                } else {
                    "use a smaller model"
                };
                Some(format!("{advice}, or close other programs"))
            }
            Self::Admission(AdmissionError::Refused { .. }) => Some(
                "unload another model, use a smaller `--max-context`, or wait for memory"
                    .to_owned(),
            ),
            Self::MemoryBudget { .. } => Some(
                "ask for fewer tokens, shorten the prompt, or raise the memory budget".to_owned(),
            ),
            Self::InvalidFile {
                error: CheckpointError::UnsupportedQuantization { .. },
                ..
            } => Some(
                "use the original weights with `--quantize`, or a GGUF or MLX version of the model"
                    .to_owned(),
            ),
            Self::InvalidFile { .. } => {
                Some("the file is damaged or no model file; fetch it again".to_owned())
            }
            Self::NoTokenizer { .. } => Some(
                "put the tokenizer.json that the model was published with beside its weights"
                    .to_owned(),
            ),
            Self::Session(error) => error.hint(),
            Self::Source(error) => error.hint(),
            _ => None,
        }
    }

    pub(crate) fn invalid_parameter(
        field: &'static str,
        value: impl Into<String>,
        range: impl Into<String>,
    ) -> Self {
        Self::InvalidParameter {
            field,
            value: value.into(),
            range: range.into(),
        }
    }
}

/// How a prompt came to its tokens.
fn after(policy: ContextOverflow) -> String {
    match policy {
        ContextOverflow::Error => String::new(),
        policy => format!(" after `{policy}`"),
    }
}

/// Whole mebibytes, rounded up, so that something never reads as nothing.
fn megabytes(bytes: usize) -> usize {
    bytes.div_ceil(1 << 20)
}
