//! Puts bytes of a GGUF file together without checking anything.

/// Value type ids, as the format numbers them.
pub(crate) const U8: u32 = 0;
pub(crate) const U32: u32 = 4;
pub(crate) const I32: u32 = 5;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;
pub(crate) const U64: u32 = 10;

/// Tensor type ids.
pub(crate) const F32: u32 = 0;
pub(crate) const Q8_0: u32 = 8;
pub(crate) const I8: u32 = 24;
pub(crate) const I64: u32 = 27;

/// A file in the making; every method adds to its end.
#[derive(Clone, Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    /// A file that starts with this header.
    pub(crate) fn file(version: u32, tensors: u64, entries: u64) -> Self {
        Self::default()
            .bytes(b"GGUF")
            .u32(version)
            .u64(tensors)
            .u64(entries)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn str(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.u64(text.len() as u64).bytes(text)
    }

    /// A key and the type of its value.
    pub(crate) fn key(self, key: impl AsRef<[u8]>, kind: u32) -> Self {
        self.str(key).u32(kind)
    }

    /// A key and the head of an array of `len` elements of type `kind`.
    pub(crate) fn array(self, key: &str, kind: u32, len: u64) -> Self {
        self.key(key, ARRAY).u32(kind).u64(len)
    }

    pub(crate) fn alignment(self, alignment: u32) -> Self {
        self.key("general.alignment", U32).u32(alignment)
    }

    pub(crate) fn tensor(
        self,
        name: impl AsRef<[u8]>,
        shape: &[u64],
        dtype: u32,
        offset: u64,
    ) -> Self {
        let head = self.str(name).u32(shape.len() as u32);
        shape
            .iter()
            .fold(head, |raw, &size| raw.u64(size))
            .u32(dtype)
            .u64(offset)
    }

    pub(crate) fn pad(mut self, alignment: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }

    /// Padding, then `len` bytes of tensor data.
    pub(crate) fn data(self, alignment: usize, len: usize) -> Self {
        let mut raw = self.pad(alignment);
        raw.0.extend((0..len).map(|at| at as u8));
        raw
    }
}

/// A small file with every kind of thing in it, and the length of its header.
pub(crate) fn rich() -> (Vec<u8>, usize) {
    let mut raw = Raw::file(3, 3, 19)
        .alignment(64)
        .key("text", STRING)
        .str("gr\u{fc}\u{df}e");
    for (kind, size) in [
        (U8, 1),
        (1, 1),
        (2, 2),
        (3, 2),
        (U32, 4),
        (I32, 4),
        (6, 4),
        (BOOL, 1),
        (10, 8),
        (11, 8),
        (12, 8),
    ] {
        raw = raw
            .key(format!("scalar.{kind}"), kind)
            .bytes(&[1; 8][..size]);
    }
    let raw = raw
        .array("bools", BOOL, 3)
        .bytes(&[1, 0, 1])
        .array("texts", STRING, 3)
        .str("a")
        .str("")
        .str("\u{2581}the")
        .array("numbers", I32, 2)
        .u32(7)
        .u32(u32::MAX)
        .array("nothing", ARRAY, 0)
        .array("nested", ARRAY, 2)
        .u32(U8)
        .u64(3)
        .bytes(&[1, 2, 3])
        .u32(STRING)
        .u64(1)
        .str("deep")
        .key("last", U32)
        .u32(9)
        .tensor("token_embd.weight", &[4, 3], F32, 64)
        .tensor("blk.0.ffn.weight", &[32, 2], Q8_0, 128)
        .tensor("norm", &[1, 2, 3, 4], I8, 0);
    let header = raw.0.len();
    (raw.data(64, 128 + 68).0, header)
}
