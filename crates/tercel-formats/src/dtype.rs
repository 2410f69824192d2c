//! The tensor types of GGUF and the size of their blocks.

use std::fmt;

/// How the elements of a tensor are stored.
///
/// A type packs `block_len` consecutive elements of a row into `block_bytes` bytes. The numbers
/// are those of `ggml.h` and `ggml-common.h`; discriminants are the ids used in GGUF files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(
    non_camel_case_types,
    reason = "the names every tool of the field uses"
)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum DType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q8_1 = 9,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    Q8_K = 15,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    I8 = 24,
    I16 = 25,
    I32 = 26,
    I64 = 27,
    F64 = 28,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
}

/// Name, elements per block, bytes per block.
const LAYOUT: &[(DType, &str, usize, usize)] = &[
    (DType::F32, "F32", 1, 4),
    (DType::F16, "F16", 1, 2),
    (DType::Q4_0, "Q4_0", 32, 18),
    (DType::Q4_1, "Q4_1", 32, 20),
    (DType::Q5_0, "Q5_0", 32, 22),
    (DType::Q5_1, "Q5_1", 32, 24),
    (DType::Q8_0, "Q8_0", 32, 34),
    (DType::Q8_1, "Q8_1", 32, 36),
    (DType::Q2_K, "Q2_K", 256, 84),
    (DType::Q3_K, "Q3_K", 256, 110),
    (DType::Q4_K, "Q4_K", 256, 144),
    (DType::Q5_K, "Q5_K", 256, 176),
    (DType::Q6_K, "Q6_K", 256, 210),
    (DType::Q8_K, "Q8_K", 256, 292),
    (DType::IQ2_XXS, "IQ2_XXS", 256, 66),
    (DType::IQ2_XS, "IQ2_XS", 256, 74),
    (DType::IQ3_XXS, "IQ3_XXS", 256, 98),
    (DType::IQ1_S, "IQ1_S", 256, 50),
    (DType::IQ4_NL, "IQ4_NL", 32, 18),
    (DType::IQ3_S, "IQ3_S", 256, 110),
    (DType::IQ2_S, "IQ2_S", 256, 82),
    (DType::IQ4_XS, "IQ4_XS", 256, 136),
    (DType::I8, "I8", 1, 1),
    (DType::I16, "I16", 1, 2),
    (DType::I32, "I32", 1, 4),
    (DType::I64, "I64", 1, 8),
    (DType::F64, "F64", 1, 8),
    (DType::IQ1_M, "IQ1_M", 256, 56),
    (DType::BF16, "BF16", 1, 2),
    (DType::TQ1_0, "TQ1_0", 256, 54),
    (DType::TQ2_0, "TQ2_0", 256, 66),
    (DType::MXFP4, "MXFP4", 32, 17),
];

impl DType {
    /// The type with this GGUF id, if there is one.
    pub fn from_id(id: u32) -> Option<Self> {
        LAYOUT
            .iter()
            .find(|(dtype, ..)| *dtype as u32 == id)
            .map(|(dtype, ..)| *dtype)
    }

    /// The id of this type in a GGUF file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name in capitals, as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.layout().1
    }

    /// Elements in one block; a row is a whole number of blocks.
    pub fn block_len(self) -> usize {
        self.layout().2
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.layout().3
    }

    /// Bytes of `elements` consecutive elements, or `None` when they are not a whole number of
    /// blocks or the product does not fit.
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        let blocks = elements / self.block_len();
        elements.is_multiple_of(self.block_len()).then_some(())?;
        blocks.checked_mul(self.block_bytes())
    }

    fn layout(self) -> &'static (DType, &'static str, usize, usize) {
        LAYOUT
            .iter()
            .find(|(dtype, ..)| *dtype == self)
            .expect("every type has a row")
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_round_trip() {
        for (dtype, ..) in LAYOUT {
            assert_eq!(DType::from_id(dtype.id()), Some(*dtype));
        }
        assert_eq!(DType::from_id(4), None);
        assert_eq!(DType::from_id(u32::MAX), None);
    }

    #[test]
    fn sizes_follow_whole_blocks() {
        assert_eq!(DType::Q4_1.bytes_for(64), Some(40));
        assert_eq!(DType::Q4_1.bytes_for(33), None);
        assert_eq!(DType::F64.bytes_for(usize::MAX), None);
    }
}
