//! Products with weights of each format, and what makes weights and activations ready for them.

use std::hint::black_box;

use tercel_formats::{DType, Storage};
use tercel_kernels::ops::matmul::{Product, matmul};
use tercel_kernels::ops::quantize::Activations;
use tercel_kernels::quant::quantize_row;
use tercel_kernels::{PackedMatrix, Target};

use crate::Case;
use crate::data::{matrix, packed, random};

const ROWS: usize = 256;
const COLS: usize = 1024;
const PRODUCTS: &str = "multiply-adds";
const NUMBERS: &str = "numbers";

/// Formats that models are published in.
const MULTIPLIED: [DType; 8] = [
    DType::F16,
    DType::Q8_0,
    DType::Q6_K,
    DType::Q5_K,
    DType::Q5_0,
    DType::Q4_K,
    DType::Q4_1,
    DType::Q4_0,
];
const ENCODED: [DType; 4] = [DType::Q8_0, DType::Q6_K, DType::Q4_K, DType::Q4_0];

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let products = MULTIPLIED
        .into_iter()
        .flat_map(|dtype| [1, 4, 64].map(|tokens| product(dtype, tokens)));
    let packs = [DType::Q4_1, DType::Q4_K].map(pack);
    let encodes = ENCODED.map(encode);
    products.chain([quantize()]).chain(packs).chain(encodes)
}

/// Tokens times weights, the quantization of the tokens included.
fn product(dtype: DType, tokens: usize) -> Case {
    let name = format!("matmul/{dtype}/{tokens}");
    Case::new(name, (tokens * ROWS * COLS, PRODUCTS), move |pool| {
        let weights = packed(pool, dtype, (ROWS, COLS))?;
        let x = random(2, tokens * COLS);
        let mut out = vec![0.0; tokens * ROWS];
        let mut scratch = Activations::with_capacity(x.len())?;
        Ok(Box::new(move |pool, isa| {
            let product = Product {
                weights: &weights,
                out: &mut out,
                accumulate: false,
            };
            matmul(pool, isa, &x, COLS, &mut scratch, [product]);
            black_box(&out);
            Ok(())
        }))
    })
}

fn quantize() -> Case {
    const LEN: usize = 64 * COLS;
    Case::new("quantize".to_owned(), (LEN, NUMBERS), |_| {
        let x = random(3, LEN);
        let mut activations = Activations::with_capacity(LEN)?;
        Ok(Box::new(move |pool, isa| {
            activations.quantize(pool, isa, &x, COLS);
            black_box(&activations);
            Ok(())
        }))
    })
}

/// What a start does with every weight.
fn pack(dtype: DType) -> Case {
    let name = format!("pack/{dtype}");
    Case::new(name, (ROWS * COLS, NUMBERS), move |_| {
        let data = matrix(dtype, ROWS, COLS)?;
        Ok(Box::new(move |pool, _| {
            let data = &data;
            let storage = Storage::Plain { dtype, data };
            let target = Target::AsStored;
            black_box(PackedMatrix::pack(pool, &storage, ROWS, COLS, target)?);
            Ok(())
        }))
    })
}

/// What a conversion does with every weight.
fn encode(dtype: DType) -> Case {
    let name = format!("encode/{dtype}");
    Case::new(name, (COLS, NUMBERS), move |_| {
        let row = random(4, COLS);
        let mut out = matrix(dtype, 1, COLS)?;
        Ok(Box::new(move |_, _| {
            quantize_row(dtype, &row, &mut out)?;
            black_box(&out);
            Ok(())
        }))
    })
}
