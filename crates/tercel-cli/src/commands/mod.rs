//! One module per subcommand: its options and what it does.

pub(crate) mod convert;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod perplexity;
pub(crate) mod prompt;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod tokenize;
pub(crate) mod validate;
pub(crate) mod verify;
