//! What a tokenizer says it takes, against an allocator that counts.

#[cfg(test)]
mod counting;
#[cfg(test)]
mod figures;
