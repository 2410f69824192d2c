//! Measurements of a model: perplexity.
