//! The size of a KV cache: keys and values of every token, term by term.

use std::fmt;

use serde::Serialize;

/// How the numbers of a KV cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KvDtype {
    /// Half floats.
    #[default]
    F16,
    /// Half floats with the exponents of single ones.
    Bf16,
    /// Single floats.
    F32,
    /// Blocks of 32 bytes with a half float as their scale.
    Q8_0,
}

impl KvDtype {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::F16, Self::Bf16, Self::F32, Self::Q8_0];

    /// Its name, as [`parse`](Self::parse) takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The type of this name, in any case; `fp16` and `fp32` are known too.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "f16" | "fp16" | "float16" => Some(Self::F16),
            "bf16" | "bfloat16" => Some(Self::Bf16),
            "f32" | "fp32" | "float32" => Some(Self::F32),
            "q8_0" => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Elements and bytes of the least unit that is stored.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F16 | Self::Bf16 => (1, 2),
            Self::F32 => (1, 4),
            Self::Q8_0 => (32, 34),
        }
    }

    /// Bytes of one element, scales included.
    pub fn bytes_per_element(self) -> f64 {
        let (elements, bytes) = self.block();
        bytes as f64 / elements as f64
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with the numbers of a KV cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvSizeError {
    /// A count is zero.
    #[error("`{field}` is 0, must be at least 1")]
    Zero {
        /// Which.
        field: &'static str,
    },
    /// The width is no multiple of the heads.
    #[error("{d_model} elements cannot be shared among {heads} heads; give the head dimension")]
    Width {
        /// The width of the model.
        d_model: u64,
        /// Its attention heads.
        heads: u64,
    },
    /// Heads cannot share the key heads.
    #[error("{heads} attention heads cannot share {kv_heads} key heads")]
    Heads {
        /// Attention heads.
        heads: u64,
        /// Key and value heads.
        kv_heads: u64,
    },
    /// A head is no whole number of the type's blocks.
    #[error("a head of {head_dim} elements does not divide into blocks of {block} of {dtype}")]
    Block {
        /// Elements of a head.
        head_dim: u64,
        /// The type.
        dtype: KvDtype,
        /// Elements of its blocks.
        block: u64,
    },
    /// There are more bytes than can be counted.
    #[error("the size of the KV cache does not fit 64 bits")]
    Overflow,
}

/// The part of a model that decides about its KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KvShape {
    layers: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
}

impl KvShape {
    /// `layers` that attend, with `heads` attention heads that share `kv_heads` heads of keys and
    /// values of `head_dim` elements.
    ///
    /// # Errors
    /// [`KvSizeError`] when a number is 0, or the heads cannot share the key heads.
    pub fn new(layers: u64, heads: u64, kv_heads: u64, head_dim: u64) -> Result<Self, KvSizeError> {
        for (field, value) in [
            ("layers", layers),
            ("heads", heads),
            ("kv_heads", kv_heads),
            ("head_dim", head_dim),
        ] {
            if value == 0 {
                return Err(KvSizeError::Zero { field });
            }
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(KvSizeError::Heads { heads, kv_heads });
        }
        Ok(Self {
            layers,
            heads,
            kv_heads,
            head_dim,
        })
    }

    /// As [`new`](Self::new) for a model that is `d_model` wide and shares that among its heads.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when the width is no multiple of the heads.
    pub fn of_width(
        layers: u64,
        heads: u64,
        kv_heads: u64,
        d_model: u64,
    ) -> Result<Self, KvSizeError> {
        if heads == 0 {
            return Err(KvSizeError::Zero { field: "heads" });
        }
        if d_model == 0 {
            return Err(KvSizeError::Zero { field: "d_model" });
        }
        if !d_model.is_multiple_of(heads) {
            return Err(KvSizeError::Width { d_model, heads });
        }
        Self::new(layers, heads, kv_heads, d_model / heads)
    }

    /// Layers that attend.
    pub fn layers(&self) -> u64 {
        self.layers
    }

    /// Attention heads of a layer.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Key and value heads of a layer.
    pub fn kv_heads(&self) -> u64 {
        self.kv_heads
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> u64 {
        self.head_dim
    }

    /// Whether attention heads share key heads, so that counting the former is a mistake.
    pub fn is_grouped(&self) -> bool {
        self.heads != self.kv_heads
    }
}

/// A factor of the size of a KV cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// What it counts: `keys_and_values`, `layers`, `sequences`, `kv_heads`, `tokens`, `head_dim`,
    /// `bytes_per_element`.
    pub name: &'static str,
    /// The factor.
    pub value: f64,
    /// The product up to here.
    pub product: u64,
}

/// A KV cache of a given size: `2 * layers * sequences * kv_heads * tokens * head_dim * bytes`.
///
/// This is the arithmetic of full attention at full length. What an engine takes, with its pages
/// and the windows of its layers, [`EngineBuilder::load`](crate::EngineBuilder::load) estimates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KvSize {
    shape: KvShape,
    sequences: u64,
    tokens: u64,
    dtype: KvDtype,
    bytes: u64,
}

impl KvSize {
    /// The cache of `sequences` sequences of `tokens` tokens each.
    ///
    /// # Errors
    /// [`KvSizeError`] when a number is 0, a head does not divide into the blocks of the type, or
    /// the size does not fit 64 bits.
    pub fn new(
        shape: KvShape,
        sequences: u64,
        tokens: u64,
        dtype: KvDtype,
    ) -> Result<Self, KvSizeError> {
        for (field, value) in [("sequences", sequences), ("tokens", tokens)] {
            if value == 0 {
                return Err(KvSizeError::Zero { field });
            }
        }
        let (block, block_bytes) = dtype.block();
        if !shape.head_dim.is_multiple_of(block) {
            return Err(KvSizeError::Block {
                head_dim: shape.head_dim,
                dtype,
                block,
            });
        }
        let head_bytes = (shape.head_dim / block).checked_mul(block_bytes);
        let counts = [
            shape.layers,
            sequences,
            shape.kv_heads,
            tokens,
            shape.head_dim,
        ];
        // The product of elements is among the terms, so it must be countable as well.
        let elements = product(counts);
        let bytes = head_bytes
            .and_then(|head| product([shape.layers, sequences, shape.kv_heads, tokens, head]));
        match (elements, bytes) {
            (Some(_), Some(bytes)) => Ok(Self {
                shape,
                sequences,
                tokens,
                dtype,
                bytes,
            }),
            _ => Err(KvSizeError::Overflow),
        }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its size in units of 2^20 bytes.
    pub fn mebibytes(&self) -> f64 {
        self.bytes as f64 / MEBIBYTE
    }

    /// Its size in units of 2^20 bytes with `percent` of it added, as a reserve of 5 to 15.
    pub fn mebibytes_with_margin(&self, percent: f64) -> f64 {
        self.mebibytes() * (1.0 + percent / 100.0)
    }

    /// Its size in bytes with `percent` of it added, rounded up.
    pub fn bytes_with_margin(&self, percent: f64) -> u64 {
        (self.bytes as f64 * (1.0 + percent / 100.0)).ceil() as u64
    }

    /// Bytes that a token of one sequence takes.
    pub fn bytes_per_token(&self) -> u64 {
        self.bytes / (self.tokens * self.sequences)
    }

    /// What counting attention heads in place of key heads would give: the usual mistake. `None`
    /// where the two are the same.
    pub fn bytes_by_mistake(&self) -> Option<u64> {
        let times = self.shape.heads / self.shape.kv_heads;
        self.shape
            .is_grouped()
            .then(|| self.bytes.saturating_mul(times))
    }

    /// The shape it was made for.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Sequences that it holds.
    pub fn sequences(&self) -> u64 {
        self.sequences
    }

    /// Tokens of each sequence.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How its numbers are stored.
    pub fn dtype(&self) -> KvDtype {
        self.dtype
    }

    /// The factors in their order, each with the product so far; the last product is the size.
    pub fn terms(&self) -> Vec<Term> {
        let KvShape {
            layers,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let mut so_far = 1_u64;
        let counts = [
            ("keys_and_values", 2),
            ("layers", layers),
            ("sequences", self.sequences),
            ("kv_heads", kv_heads),
            ("tokens", self.tokens),
            ("head_dim", head_dim),
        ];
        let mut terms: Vec<Term> = counts
            .into_iter()
            .map(|(name, value)| {
                so_far = so_far.saturating_mul(value);
                Term {
                    name,
                    value: value as f64,
                    product: so_far,
                }
            })
            .collect();
        terms.push(Term {
            name: "bytes_per_element",
            value: self.dtype.bytes_per_element(),
            product: self.bytes,
        });
        terms
    }

    /// The same model with every number of sequences by every number of tokens.
    ///
    /// # Errors
    /// As [`new`](Self::new), for the first that cannot be.
    pub fn table(&self, sequences: &[u64], tokens: &[u64]) -> Result<Vec<Self>, KvSizeError> {
        let rows = tokens
            .iter()
            .flat_map(|tokens| sequences.iter().map(move |sequences| (*sequences, *tokens)));
        rows.map(|(sequences, tokens)| Self::new(self.shape, sequences, tokens, self.dtype))
            .collect()
    }
}

const MEBIBYTE: f64 = 1_048_576.0;

/// Twice the product: keys and values.
fn product(factors: [u64; 5]) -> Option<u64> {
    factors.into_iter().try_fold(2, u64::checked_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    const F16: KvDtype = KvDtype::F16;

    /// The worked model: 32 layers, 32 heads that share 8, 4096 wide.
    fn worked(tokens: u64, sequences: u64, dtype: KvDtype) -> KvSize {
        let shape = KvShape::of_width(32, 32, 8, 4096).expect("a shape");
        KvSize::new(shape, sequences, tokens, dtype).expect("a size")
    }

    #[test]
    fn the_worked_example_term_by_term() {
        let size = worked(2048, 1, F16);
        assert_eq!(size.shape().head_dim(), 128);
        let terms = size.terms();
        let products: Vec<u64> = terms.iter().map(|term| term.product).collect();
        assert_eq!(
            products,
            [2, 64, 64, 512, 1_048_576, 134_217_728, 268_435_456]
        );
        let values: Vec<f64> = terms.iter().map(|term| term.value).collect();
        assert_eq!(values, [2.0, 32.0, 1.0, 8.0, 2048.0, 128.0, 2.0]);
        assert_eq!(size.bytes(), 268_435_456);
        assert_eq!(size.bytes_per_token(), 131_072);
    }

    #[test]
    fn worked_sizes_in_mebibytes() {
        for (tokens, sequences, dtype, want) in [
            (1024, 1, F16, 128.0),
            (2048, 1, F16, 256.0),
            (4096, 1, F16, 512.0),
            (2048, 2, F16, 512.0),
            (2048, 1, KvDtype::Bf16, 256.0),
            (2048, 1, KvDtype::F32, 512.0),
            (2048, 1, KvDtype::Q8_0, 136.0),
        ] {
            let size = worked(tokens, sequences, dtype);
            assert_eq!(size.mebibytes(), want, "{tokens} x {sequences}, {dtype}");
        }
    }

    #[test]
    fn a_margin_is_added() {
        let size = worked(2048, 1, F16);
        assert!((size.mebibytes_with_margin(10.0) - 281.6).abs() < 1e-9);
        assert_eq!(size.bytes_with_margin(10.0), 295_279_002);
        assert_eq!(size.bytes_with_margin(0.0), size.bytes());
    }

    #[test]
    fn counting_attention_heads_is_four_times_too_much() {
        let size = worked(2048, 1, F16);
        assert!(size.shape().is_grouped());
        assert_eq!(size.bytes_by_mistake(), Some(1024 << 20));
        let all = KvShape::of_width(32, 32, 32, 4096).expect("a shape");
        let all = KvSize::new(all, 1, 2048, F16).expect("a size");
        assert_eq!((all.bytes(), all.bytes_by_mistake()), (1024 << 20, None));
    }

    #[test]
    fn full_heads_as_in_the_recovery_chapter() {
        // 2 * L * S * H * bytes with L = 32, H = 4096.
        let shape = KvShape::of_width(32, 32, 32, 4096).expect("a shape");
        for (tokens, want) in [(4096, 2_147_483_648), (2048, 1_073_741_824)] {
            let size = KvSize::new(shape, 1, tokens, F16).expect("a size");
            assert_eq!(size.bytes(), want);
        }
    }

    #[test]
    fn a_table_has_every_combination() {
        let rows = worked(2048, 1, F16)
            .table(&[1, 2], &[1024, 2048])
            .expect("a table");
        let rows: Vec<(u64, u64, f64)> = rows
            .iter()
            .map(|row| (row.tokens(), row.sequences(), row.mebibytes()))
            .collect();
        assert_eq!(
            rows,
            [
                (1024, 1, 128.0),
                (1024, 2, 256.0),
                (2048, 1, 256.0),
                (2048, 2, 512.0)
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let zero = |field| KvSizeError::Zero { field };
        for (shape, want) in [
            (KvShape::new(0, 1, 1, 64), zero("layers")),
            (KvShape::of_width(1, 0, 1, 64), zero("heads")),
            (KvShape::new(1, 1, 0, 64), zero("kv_heads")),
            (KvShape::of_width(1, 1, 1, 0), zero("d_model")),
            (
                KvShape::of_width(1, 3, 1, 64),
                KvSizeError::Width {
                    d_model: 64,
                    heads: 3,
                },
            ),
            (
                KvShape::new(1, 4, 3, 64),
                KvSizeError::Heads {
                    heads: 4,
                    kv_heads: 3,
                },
            ),
        ] {
            assert_eq!(shape, Err(want));
        }
        let shape = KvShape::new(1, 4, 4, 48).expect("a shape");
        assert_eq!(KvSize::new(shape, 0, 1, F16), Err(zero("sequences")));
        assert_eq!(KvSize::new(shape, 1, 0, F16), Err(zero("tokens")));
        let block = KvSize::new(shape, 1, 1, KvDtype::Q8_0).expect_err("no whole blocks");
        assert!(block.to_string().contains("48"), "{block}");
        let most = KvShape::new(1 << 16, 1, 1, 1 << 16).expect("a shape");
        for tokens in [1 << 31, u64::MAX] {
            let size = KvSize::new(most, 1 << 16, tokens, F16);
            assert_eq!(size, Err(KvSizeError::Overflow));
        }
    }

    #[test]
    fn names_of_types_are_read_back() {
        for dtype in KvDtype::ALL {
            assert_eq!(KvDtype::parse(dtype.name()), Some(dtype));
        }
        assert_eq!(KvDtype::parse("FP16"), Some(F16));
        assert_eq!(KvDtype::parse("q4_0"), None);
    }
}
