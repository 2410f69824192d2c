//! Against plain softmax attention, and the same bits however the work is divided.

use super::super::random;
use super::*;

/// A sequence whose pages lie scattered in the pool.
struct Sequence<E> {
    shape: Shape,
    pages: Vec<u32>,
    keys: Vec<E>,
    values: Vec<E>,
    /// `(len, n_kv_heads, head_dim)`, rounded as the cache rounds.
    k: Vec<f32>,
    v: Vec<f32>,
}

fn sequence<E: Element>(shape: Shape, len: usize) -> Sequence<E> {
    let n_pages = len.div_ceil(PAGE);
    let pages: Vec<u32> = (0..n_pages as u32)
        .map(|i| (i * 7 + 3) % (n_pages as u32 * 7 + 5))
        .collect();
    let pool = (n_pages * 7 + 10) * shape.page_len();
    // What no token was written to must not matter, not even a NaN.
    let (mut keys, mut values) = (
        vec![E::from_f32(f32::NAN); pool],
        vec![E::from_f32(f32::NAN); pool],
    );
    let round = |x: Vec<f32>| {
        x.into_iter()
            .map(|x| E::from_f32(x).to_f32())
            .collect::<Vec<_>>()
    };
    let k = round(random(5, len * shape.n_kv_heads * shape.head_dim));
    let v = round(random(6, len * shape.n_kv_heads * shape.head_dim));
    store(
        &shape,
        &k,
        &v,
        |i| Place {
            position: i,
            pages: &pages,
        },
        &mut keys,
        &mut values,
    );
    Sequence {
        shape,
        pages,
        keys,
        values,
        k,
        v,
    }
}

impl<E: Element> Sequence<E> {
    /// Attends from queries at the given positions, all in one call.
    fn attend(&self, isa: Isa, threads: usize, positions: &[usize], q: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; q.len()];
        let mut scratch =
            vec![f32::NAN; scratch_len(&self.shape, self.pages.len() * PAGE, threads)];
        let cache = Cache {
            keys: &self.keys,
            values: &self.values,
        };
        let place = |i: usize| Place {
            position: positions[i],
            pages: &self.pages,
        };
        let mut pool = Pool::new(threads).unwrap();
        attention(
            &mut pool,
            isa,
            &self.shape,
            q,
            cache,
            place,
            &mut scratch,
            &mut out,
        );
        out
    }

    /// The definition, in double precision.
    fn definition(&self, position: usize, q: &[f32]) -> Vec<f64> {
        let Shape {
            n_heads,
            n_kv_heads,
            head_dim,
            scale,
            ..
        } = self.shape;
        let mut out = vec![0.0; q.len()];
        for head in 0..n_heads {
            let kv = head / (n_heads / n_kv_heads);
            let at = |token: usize| (token * n_kv_heads + kv) * head_dim;
            let seen: Vec<usize> = self.shape.visible(position).collect();
            let q = &q[head * head_dim..(head + 1) * head_dim];
            let score = |token: &usize| {
                let k = &self.k[at(*token)..at(*token) + head_dim];
                let dot: f64 = q
                    .iter()
                    .zip(k)
                    .map(|(q, k)| f64::from(*q) * f64::from(*k))
                    .sum();
                (dot * f64::from(scale)).exp()
            };
            let weights: Vec<f64> = seen.iter().map(score).collect();
            let total: f64 = weights.iter().sum();
            for (token, weight) in seen.iter().zip(weights) {
                for d in 0..head_dim {
                    out[head * head_dim + d] += weight / total * f64::from(self.v[at(*token) + d]);
                }
            }
        }
        out
    }
}

fn shapes() -> Vec<Shape> {
    let shape = |n_heads, n_kv_heads, head_dim, window| Shape {
        n_heads,
        n_kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window,
    };
    vec![
        shape(9, 3, 64, None),
        shape(4, 1, 256, Some(40)),
        shape(2, 2, 24, None),
        shape(5, 1, 12, Some(1)),
        shape(6, 1, 40, Some(600)),
    ]
}

#[test]
fn every_isa_is_near_the_definition() {
    near_the_definition::<u16>();
    near_the_definition::<f32>();
}

fn near_the_definition<E: Element>() {
    for shape in shapes() {
        let sequence = sequence::<E>(shape, 1100);
        for position in [0, 1, 15, 31, 32, 47, 511, 512, 700, 1099] {
            let q: Vec<f32> = random(9, shape.n_heads * shape.head_dim)
                .iter()
                .map(|x| x * 3.0)
                .collect();
            let want = sequence.definition(position, &q);
            for isa in Isa::available() {
                let got = sequence.attend(isa, 2, &[position], &q);
                for (got, want) in got.iter().zip(&want) {
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error < 3e-6,
                        "{} {shape:?} at {position}: {error}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn queries_get_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads() {
    for shape in shapes() {
        let sequence = sequence::<u16>(shape, 1100);
        let positions: Vec<usize> = (0..1100).step_by(61).collect();
        let len = shape.n_heads * shape.head_dim;
        let q = random(13, positions.len() * len);
        for isa in Isa::available() {
            let batch = sequence.attend(isa, 1, &positions, &q);
            assert_eq!(sequence.attend(isa, 3, &positions, &q), batch);
            for (i, (q, want)) in q.chunks(len).zip(batch.chunks(len)).enumerate() {
                for threads in [1, 2] {
                    let alone = sequence.attend(isa, threads, &positions[i..=i], q);
                    assert_eq!(alone, want, "{} {shape:?} at {}", isa.name(), positions[i]);
                }
            }
            let few = sequence.attend(isa, 2, &positions[15..18], &q[15 * len..18 * len]);
            assert_eq!(few, batch[15 * len..18 * len]);
        }
    }
}
