//! Attention over pages of each type, of one token and of many, and what fills the pages.

use std::hint::black_box;

use tercel_kernels::ops::attention::{
    CacheType, KvPages, PAGE, Place, Shape, attention, scratch_len,
};

use crate::data::random;
use crate::{Case, Problem};

/// Tokens of the sequence, the last of which ask.
const CONTEXT: usize = 512;
/// Tokens of a prompt that come together.
const PROMPT: usize = 64;

const TYPES: [(CacheType, &str); 2] = [(CacheType::F16, "f16"), (CacheType::Q8_0, "q8_0")];
/// Query heads, key heads, head dimension: those of SmolLM2-135M and of Gemma-3-270M.
const SHAPES: [(usize, usize, usize); 2] = [(9, 3, 64), (4, 1, 256)];

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let shapes = SHAPES
        .into_iter()
        .map(|(n_heads, n_kv_heads, head_dim)| Shape {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: None,
        });
    shapes.flat_map(|shape| {
        TYPES.into_iter().flat_map(move |(kind, name)| {
            [
                attend(shape, kind, name, 1),
                attend(shape, kind, name, PROMPT),
                store(shape, kind, name),
            ]
        })
    })
}

/// The last `tokens` of the context.
fn attend(shape: Shape, kind: CacheType, kind_name: &str, tokens: usize) -> Case {
    let name = format!("attention/{kind_name}/{}/{tokens}", shape.head_dim);
    let first = CONTEXT - tokens;
    let visible: usize = (first..CONTEXT).map(|position| position + 1).sum();
    let products = 2 * shape.n_heads * shape.head_dim * visible;
    Case::new(name, (products, "multiply-adds"), move |_| {
        let cache = filled(&shape, kind)?;
        let pages = pages();
        let len = tokens * shape.n_heads * shape.head_dim;
        let (q, mut out) = (random(3, len), vec![0.0; len]);
        let mut scratch = vec![0.0; scratch_len(&shape, CONTEXT, 1)];
        Ok(Box::new(move |pool, isa| {
            let pages = &pages;
            let place = |i| Place {
                position: first + i,
                pages,
            };
            let scratch = &mut scratch;
            attention(pool, isa, &shape, &q, &cache, place, scratch, &mut out);
            black_box(&out);
            Ok(())
        }))
    })
}

/// Keys and values of a prompt, into a cache.
fn store(shape: Shape, kind: CacheType, kind_name: &str) -> Case {
    let name = format!("store/{kind_name}/{}", shape.head_dim);
    let len = PROMPT * shape.n_kv_heads * shape.head_dim;
    Case::new(name, (2 * len, "numbers"), move |_| {
        let mut cache = KvPages::zeroed(&shape, kind, CONTEXT / PAGE)?;
        let pages = pages();
        let (k, v) = (random(1, len), random(2, len));
        Ok(Box::new(move |_, _| {
            let pages = &pages;
            cache.store(&shape, &k, &v, |position| Place { position, pages });
            black_box(&cache);
            Ok(())
        }))
    })
}

fn filled(shape: &Shape, kind: CacheType) -> Result<KvPages, Problem> {
    let pages = pages();
    let pages = &pages;
    let mut cache = KvPages::zeroed(shape, kind, CONTEXT / PAGE)?;
    let len = CONTEXT * shape.n_kv_heads * shape.head_dim;
    let (k, v) = (random(1, len), random(2, len));
    cache.store(shape, &k, &v, |position| Place { position, pages });
    Ok(cache)
}

fn pages() -> Vec<u32> {
    (0..).take(CONTEXT / PAGE).collect()
}
