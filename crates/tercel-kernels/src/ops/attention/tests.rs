//! Against plain softmax attention, and the same bits however the work is divided.

use super::super::random;
use super::*;

const TYPES: [CacheType; 3] = [CacheType::F16, CacheType::F32, CacheType::Q8_0];

/// A sequence whose pages lie scattered in the pool.
struct Sequence {
    shape: Shape,
    pages: Vec<u32>,
    cache: KvPages,
    /// `(len, n_kv_heads, head_dim)`, as they were before they were stored.
    k: Vec<f32>,
    v: Vec<f32>,
}

fn sequence(shape: Shape, kind: CacheType, len: usize) -> Sequence {
    let n_pages = len.div_ceil(PAGE);
    let pages: Vec<u32> = (0..n_pages as u32)
        .map(|i| (i * 7 + 3) % (n_pages as u32 * 7 + 5))
        .collect();
    let pool = n_pages * 7 + 10;
    let mut cache = KvPages::zeroed(&shape, kind, pool).unwrap();
    // What no token was written to must not matter, not even a NaN: in each type, that is what
    // bits that are all set mean.
    let garbage = vec![0xff; KvPages::page_bytes(&shape, kind)];
    for page in 0..pool {
        cache.write_page(page as u32, &garbage);
    }
    let k = random(5, len * shape.n_kv_heads * shape.head_dim);
    let v = random(6, len * shape.n_kv_heads * shape.head_dim);
    let place = |position| Place {
        position,
        pages: &pages,
    };
    cache.store(&shape, &k, &v, place);
    Sequence {
        shape,
        pages,
        cache,
        k,
        v,
    }
}

impl Sequence {
    /// Attends from queries at the given positions, all in one call.
    fn attend(&self, isa: Isa, threads: usize, positions: &[usize], q: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; q.len()];
        let mut scratch =
            vec![f32::NAN; scratch_len(&self.shape, self.pages.len() * PAGE, threads)];
        let place = |i: usize| Place {
            position: positions[i],
            pages: &self.pages,
        };
        attention(
            &mut Pool::new(threads).unwrap(),
            isa,
            &self.shape,
            q,
            &self.cache,
            place,
            &mut scratch,
            &mut out,
        );
        out
    }

    /// The key and the value of a token as they are stored.
    fn stored(&self, token: usize, kv_head: usize) -> [Vec<f32>; 2] {
        let dim = self.shape.head_dim;
        with_pages!(&self.cache.0, pages => {
            pages.token(self.pages[token / PAGE], kv_head, dim, token % PAGE)
        })
    }

    /// The key and the value of a token as they were given.
    fn given(&self, token: usize, kv_head: usize) -> [Vec<f32>; 2] {
        let dim = self.shape.head_dim;
        let at = (token * self.shape.n_kv_heads + kv_head) * dim;
        [&self.k, &self.v].map(|x| x[at..at + dim].to_vec())
    }

    /// The definition, in double precision, over keys and values that `read` gives.
    fn definition(
        &self,
        position: usize,
        q: &[f32],
        read: impl Fn(&Self, usize, usize) -> [Vec<f32>; 2],
    ) -> Vec<f64> {
        let Shape {
            n_heads,
            n_kv_heads,
            head_dim,
            scale,
            ..
        } = self.shape;
        let group = n_heads / n_kv_heads;
        let mut out = vec![0.0; q.len()];
        for kv_head in 0..n_kv_heads {
            let seen: Vec<[Vec<f32>; 2]> = self
                .shape
                .visible(position)
                .map(|token| read(self, token, kv_head))
                .collect();
            for head in kv_head * group..(kv_head + 1) * group {
                let own = head * head_dim..(head + 1) * head_dim;
                let weight = |[k, _]: &[Vec<f32>; 2]| {
                    let products = q[own.clone()].iter().zip(k);
                    let dot: f64 = products.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    (dot * f64::from(scale)).exp()
                };
                let weights: Vec<f64> = seen.iter().map(weight).collect();
                let total: f64 = weights.iter().sum();
                for ([_, v], weight) in seen.iter().zip(weights) {
                    for (out, v) in out[own.clone()].iter_mut().zip(v) {
                        *out += weight / total * f64::from(*v);
                    }
                }
            }
        }
        out
    }
}

impl<E: Encoding> Paged<E> {
    /// A key and a value.
    fn token(&self, page: u32, kv_head: usize, dim: usize, slot: usize) -> [Vec<f32>; 2] {
        let part = self.part(page, kv_head);
        let key = (0..dim).map(|d| E::key(part, dim, slot, d));
        let value = (0..dim).map(|d| E::value(part, dim, slot, d));
        [key.collect(), value.collect()]
    }
}

fn shape(n_heads: usize, n_kv_heads: usize, head_dim: usize, window: Option<usize>) -> Shape {
    Shape {
        n_heads,
        n_kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window,
    }
}

/// Every type with the shapes it supports.
fn cases() -> Vec<(CacheType, Shape)> {
    let shapes = [
        shape(9, 3, 64, None),
        shape(4, 1, 256, Some(40)),
        shape(2, 2, 24, None),
        shape(5, 1, 12, Some(1)),
        shape(6, 1, 40, Some(600)),
        shape(7, 1, 32, Some(33)),
        shape(2, 1, 96, None),
        shape(6, 2, 128, Some(513)),
    ];
    let all = TYPES.map(|kind| shapes.map(|shape| (kind, shape)));
    let mut all = all.concat();
    all.retain(|(kind, shape)| kind.supports(shape));
    all
}

fn queries(shape: &Shape) -> Vec<f32> {
    let q = random(9, shape.n_heads * shape.head_dim);
    q.iter().map(|x| x * 3.0).collect()
}

#[test]
fn every_isa_is_near_the_definition_over_what_is_stored() {
    for (kind, shape) in cases() {
        let sequence = sequence(shape, kind, 1100);
        for position in [0, 1, 15, 31, 32, 47, 511, 512, 700, 1099] {
            let q = queries(&shape);
            let want = sequence.definition(position, &q, Sequence::stored);
            for isa in Isa::available() {
                // Floats are summed as they are. With 8-bit blocks, vectors round the query to
                // 16 bits: a score is off by |q| * |k| * 2^-16 / sqrt(dim) for each element, one
                // sum of those with random signs, and the weights by 2^-16 of the page's largest.
                let rounds = kind == CacheType::Q8_0 && isa != Isa::SCALAR;
                let bound = if rounds { 1e-4 } else { 3e-6 };
                let got = sequence.attend(isa, 2, &[position], &q);
                for (got, want) in got.iter().zip(&want) {
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error < bound,
                        "{kind:?} {} {shape:?} at {position}: {error}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn eight_bits_cost_what_half_a_scale_a_number_may_cost() {
    for (_, shape) in cases().iter().filter(|(kind, _)| *kind == CacheType::Q8_0) {
        let sequence = sequence(*shape, CacheType::Q8_0, 1100);
        let q = queries(shape);
        // Keys and values are below 1, so half a scale is at most this, rounded up to eleven bits.
        let half = 0.5 / 127.0 * (1.0 + 1.0 / 1024.0);
        let heads = q.chunks(shape.head_dim);
        let largest = heads.map(|q| q.iter().map(|q| f64::from(q.abs())).sum::<f64>());
        let score = largest.fold(0.0, f64::max) * half * f64::from(shape.scale);
        // All weights may be off by exp(+-score), their sum too; values by half a scale.
        let worst = (2.0 * score).exp() - 1.0 + half;
        for position in [0, 31, 32, 511, 512, 1099] {
            let want = sequence.definition(position, &q, Sequence::given);
            for isa in Isa::available() {
                let got = sequence.attend(isa, 2, &[position], &q);
                let errors: Vec<f64> = got
                    .iter()
                    .zip(&want)
                    .map(|(got, want)| (f64::from(*got) - want).abs())
                    .collect();
                let largest = errors.iter().fold(0.0f64, |a, b| a.max(*b));
                let mean = errors.iter().sum::<f64>() / errors.len() as f64;
                assert!(
                    largest < worst,
                    "{} {shape:?} at {position}: {largest} of {worst}",
                    isa.name()
                );
                // Errors have random signs, so they add up to far less than the worst case.
                assert!(
                    mean < half,
                    "{} {shape:?} at {position}: {mean}",
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn queries_get_the_same_bits_alone_in_a_batch_on_any_number_of_threads_and_in_any_vectors() {
    for (kind, shape) in cases() {
        let sequence = sequence(shape, kind, 1100);
        let positions: Vec<usize> = (0..1100).step_by(61).collect();
        let len = shape.n_heads * shape.head_dim;
        let q = random(13, positions.len() * len);
        let mut of_vectors = None;
        for isa in Isa::available() {
            let batch = sequence.attend(isa, 1, &positions, &q);
            assert_eq!(sequence.attend(isa, 3, &positions, &q), batch);
            // Wider registers change nothing but the time.
            if isa != Isa::SCALAR {
                let narrow = of_vectors.get_or_insert_with(|| batch.clone());
                assert_eq!(*narrow, batch, "{kind:?} {} {shape:?}", isa.name());
            }
            for (i, (q, want)) in q.chunks(len).zip(batch.chunks(len)).enumerate() {
                for threads in [1, 2] {
                    let alone = sequence.attend(isa, threads, &positions[i..=i], q);
                    let at = positions[i];
                    assert_eq!(alone, want, "{kind:?} {} {shape:?} at {at}", isa.name());
                }
            }
            let few = sequence.attend(isa, 2, &positions[15..18], &q[15 * len..18 * len]);
            assert_eq!(few, batch[15 * len..18 * len]);
        }
    }
}

#[test]
fn pages_before_the_window_are_never_looked_at() {
    for (kind, shape) in cases() {
        let Some(window) = shape.window else {
            continue;
        };
        let mut sequence = sequence(shape, kind, 1100);
        let q = queries(&shape);
        for position in [0, 31, 32, 63, 64, 545, 639, 640, 1099] {
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let want = sequence.attend(isa, threads, &[position], &q);
                    let gone = (position + 1).saturating_sub(window) / PAGE;
                    let whole = sequence.pages.clone();
                    sequence.pages[..gone].fill(u32::MAX);
                    assert_eq!(sequence.attend(isa, threads, &[position], &q), want);
                    sequence.pages = whole;
                }
            }
        }
    }
}

#[test]
fn a_token_is_stored_the_same_whatever_came_with_it() {
    for (kind, shape) in cases() {
        let whole = sequence(shape, kind, 100);
        let mut parts = sequence(shape, kind, 100);
        let token_len = shape.n_kv_heads * shape.head_dim;
        let zeros = vec![0.0; 100 * token_len];
        let place = |position| Place {
            position,
            pages: &whole.pages,
        };
        parts.cache.store(&shape, &zeros, &zeros, place);
        let mut first = 0;
        for n in [1, 30, 1, 1, 40, 27] {
            let range = first * token_len..(first + n) * token_len;
            let (k, v) = (&whole.k[range.clone()], &whole.v[range]);
            parts.cache.store(&shape, k, v, |i| place(first + i));
            first += n;
        }
        assert_eq!(first, 100);
        for page in &whole.pages {
            let mut pages = [Vec::new(), Vec::new()];
            whole.cache.read_page(*page, &mut pages[0]);
            parts.cache.read_page(*page, &mut pages[1]);
            assert!(pages[0] == pages[1], "{kind:?} {shape:?}");
        }
    }
}

#[test]
fn pages_are_copied_read_and_written_whole() {
    for (kind, shape) in cases() {
        let mut sequence = sequence(shape, kind, 3 * PAGE);
        let position = 3 * PAGE - 1;
        let q = queries(&shape);
        let isa = Isa::detect().unwrap();
        let want = sequence.attend(isa, 1, &[position], &q);
        let mut bytes = Vec::new();
        for page in &sequence.pages {
            sequence.cache.read_page(*page, &mut bytes);
        }
        let page_bytes = KvPages::page_bytes(&shape, kind);
        assert_eq!(bytes.len(), 3 * page_bytes);

        // Copied to other pages of the same pool.
        let old = std::mem::replace(&mut sequence.pages, vec![1, 0, 2]);
        for (from, to) in old.iter().zip(&sequence.pages) {
            sequence.cache.copy_page(*from, *to);
        }
        assert_eq!(sequence.attend(isa, 1, &[position], &q), want);

        // Written to a new pool, whose memory is committed after.
        sequence.cache = KvPages::zeroed(&shape, kind, 3).unwrap();
        assert_eq!(sequence.cache.kind(), kind);
        for (page, bytes) in sequence.pages.iter().zip(bytes.chunks_exact(page_bytes)) {
            sequence.cache.write_page(*page, bytes);
        }
        sequence.cache.touch();
        assert_eq!(sequence.attend(isa, 1, &[position], &q), want);
    }
}

#[test]
fn a_page_of_another_length_is_refused() {
    for (kind, shape) in cases() {
        let len = KvPages::page_bytes(&shape, kind);
        for wrong in [0, len - 1, len + 1, 2 * len] {
            let mut cache = KvPages::zeroed(&shape, kind, 2).unwrap();
            let write = std::panic::AssertUnwindSafe(|| cache.write_page(0, &vec![0; wrong]));
            assert!(std::panic::catch_unwind(write).is_err(), "{kind:?} {wrong}");
        }
    }
}

#[test]
fn a_key_or_value_that_is_not_finite_is_seen_in_the_result() {
    for (kind, shape) in cases() {
        let mut sequence = sequence(shape, kind, 70);
        let q = queries(&shape);
        for isa in Isa::available() {
            for side in 0..2 {
                let (mut k, mut v) = (sequence.k.clone(), sequence.v.clone());
                let token = 69 * shape.n_kv_heads * shape.head_dim;
                [&mut k, &mut v][side][token] = f32::NAN;
                let place = |position| Place {
                    position,
                    pages: &sequence.pages,
                };
                sequence.cache.store(&shape, &k, &v, place);
                let got = sequence.attend(isa, 1, &[69], &q);
                assert!(got[0].is_nan(), "{kind:?} {} {shape:?}", isa.name());
                let before = sequence.attend(isa, 1, &[68], &q);
                assert!(before.iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn what_is_supported_and_how_large_it_is() {
    let shape = |head_dim| shape(32, 8, head_dim, None);
    for (kind, per_32) in TYPES.into_iter().zip([64, 128, 34]) {
        for dim in [32, 64, 96, 128, 256] {
            assert!(kind.supports(&shape(dim)));
            let numbers = 2 * 8 * dim * PAGE;
            let bytes = KvPages::page_bytes(&shape(dim), kind);
            assert_eq!(bytes, numbers / 32 * per_32, "{kind:?} {dim}");
        }
        let blocks = kind == CacheType::Q8_0;
        assert_ne!(kind.supports(&shape(80)), blocks);
        assert!(KvPages::zeroed(&shape(64), kind, usize::MAX / 2).is_err());
    }
}
