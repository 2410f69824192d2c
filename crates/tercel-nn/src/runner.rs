//! A loaded model: sequences in, logits out.
