//! CPU maths: quantized matrix products, norms, rotary embedding, attention, and the worker pool.
