//! Tokenizers, chat templates, and the assembly of streamed text.
