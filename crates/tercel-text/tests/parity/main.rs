//! Tokenizers against the Python packages: small vocabularies that are committed, and the real
//! models that `cargo xtask test` fetches.

#[cfg(test)]
mod common;
#[cfg(test)]
mod export;
#[cfg(test)]
mod markers;
#[cfg(test)]
mod models;
#[cfg(test)]
mod published;
#[cfg(test)]
mod small;
#[cfg(test)]
mod tokenizers;
