//! One module per subcommand: its options and what it does.

pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod convert;
pub(crate) mod fit;
pub(crate) mod inspect;
pub(crate) mod kv_size;
pub(crate) mod list;
pub(crate) mod perplexity;
pub(crate) mod prompt;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod tokenize;
pub(crate) mod tune;
pub(crate) mod validate;
pub(crate) mod verify;
