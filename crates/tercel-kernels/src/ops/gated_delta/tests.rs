//! Against the formula in double precision, and the same bits however the work is divided.

use super::super::random;
use super::*;

struct Layer {
    shape: Shape,
    n: usize,
    qkv: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    decay: Vec<f32>,
    dt_bias: Vec<f32>,
    state: Vec<f32>,
}

fn layer(shape: Shape, n: usize) -> Layer {
    let scaled = |seed, len, factor: f32| -> Vec<f32> {
        random(seed, len).iter().map(|x| factor * x).collect()
    };
    let heads = shape.n_value_heads;
    Layer {
        shape,
        n,
        qkv: scaled(1, n * shape.qkv_len(), 2.0),
        a: scaled(2, n * heads, 3.0),
        b: scaled(3, n * heads, 4.0),
        // As trained: slow heads and fast ones.
        decay: random(4, heads)
            .iter()
            .map(|x| -(2.0 * x).exp() / 4.0)
            .collect(),
        dt_bias: random(5, heads),
        state: random(6, shape.state_len()),
    }
}

/// Outputs and the last state.
#[derive(Debug, PartialEq)]
struct Outcome<T> {
    out: Vec<T>,
    state: Vec<T>,
}

impl Layer {
    fn run(&self, isa: Isa, threads: usize, chunk: usize) -> Outcome<f32> {
        let (shape, heads) = (&self.shape, self.shape.n_value_heads);
        let mut pool = Pool::new(threads).unwrap();
        let (mut qkv, mut a, mut b) = (self.qkv.clone(), self.a.clone(), self.b.clone());
        let mut state = self.state.clone();
        let mut out = vec![f32::NAN; self.n * shape.out_len()];
        let chunks = qkv
            .chunks_mut(chunk * shape.qkv_len())
            .zip(a.chunks_mut(chunk * heads))
            .zip(b.chunks_mut(chunk * heads))
            .zip(out.chunks_mut(chunk * shape.out_len()));
        for (((qkv, a), b), out) in chunks {
            let (decay, dt_bias) = (&self.decay, &self.dt_bias);
            gated_delta(
                &mut pool, isa, shape, qkv, a, b, decay, dt_bias, &mut state, out,
            );
        }
        Outcome { out, state }
    }

    /// The formula of the module as it stands there.
    fn reference(&self) -> Outcome<f64> {
        let Shape {
            n_key_heads,
            n_value_heads,
            key_dim,
            value_dim,
            ..
        } = self.shape;
        let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
        let unit = |x: &[f32], scale: f64| -> Vec<f64> {
            let squares: f64 = wide(x).iter().map(|x| x * x).sum();
            wide(x)
                .iter()
                .map(|x| x / (squares + 1e-6).sqrt() * scale)
                .collect()
        };
        let mut state = wide(&self.state);
        let mut out = Vec::new();
        for t in 0..self.n {
            let row = &self.qkv[t * self.shape.qkv_len()..];
            for h in 0..n_value_heads {
                let key_head = match self.shape.sharing {
                    Sharing::Grouped => h * n_key_heads / n_value_heads,
                    Sharing::Tiled => h % n_key_heads,
                };
                let at = key_head * key_dim;
                let q = unit(&row[at..at + key_dim], (key_dim as f64).powf(-0.5));
                let at = (n_key_heads + key_head) * key_dim;
                let k = unit(&row[at..at + key_dim], 1.0);
                let at = 2 * n_key_heads * key_dim + h * value_dim;
                let v = wide(&row[at..at + value_dim]);
                let x = f64::from(self.a[t * n_value_heads + h]) + f64::from(self.dt_bias[h]);
                let g = (f64::from(self.decay[h]) * x.exp().ln_1p()).exp();
                let beta = 1.0 / (1.0 + (-f64::from(self.b[t * n_value_heads + h])).exp());
                let s = &mut state[h * key_dim * value_dim..(h + 1) * key_dim * value_dim];
                s.iter_mut().for_each(|s| *s *= g);
                for j in 0..value_dim {
                    let seen: f64 = (0..key_dim).map(|i| s[i * value_dim + j] * k[i]).sum();
                    let d = (v[j] - seen) * beta;
                    (0..key_dim).for_each(|i| s[i * value_dim + j] += k[i] * d);
                    out.push((0..key_dim).map(|i| s[i * value_dim + j] * q[i]).sum());
                }
            }
        }
        Outcome { out, state }
    }
}

fn shape(heads: (usize, usize), key_dim: usize, value_dim: usize, sharing: Sharing) -> Shape {
    Shape {
        n_key_heads: heads.0,
        n_value_heads: heads.1,
        key_dim,
        value_dim,
        sharing,
    }
}

#[test]
fn every_isa_is_near_the_formula() {
    for (heads, key_dim, value_dim, n) in [
        ((1, 1), 1, 1, 3),
        ((1, 3), 5, 7, 9),
        ((2, 4), 16, 8, 12),
        ((2, 2), 9, 33, 4),
        ((3, 6), 24, 43, 6),
        ((2, 4), 128, 128, 70),
    ] {
        for sharing in [Sharing::Grouped, Sharing::Tiled] {
            let layer = layer(shape(heads, key_dim, value_dim, sharing), n);
            let want = layer.reference();
            for isa in Isa::available() {
                let got = layer.run(isa, 1, n);
                for (got, want) in [(&got.out, &want.out), (&got.state, &want.state)] {
                    let largest = want.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
                    for (got, want) in got.iter().zip(want) {
                        let error = (f64::from(*got) - want).abs();
                        assert!(
                            error <= 1e-5 * largest,
                            "{}: {got}, want {want} of {largest}",
                            isa.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn isa_threads_and_chunks_do_not_change_a_bit() {
    for (heads, key_dim, value_dim) in [
        ((2, 6), 24, 45),
        ((2, 4), 128, 128),
        ((1, 8), 33, 8),
        ((1, 2), 130, 40),
    ] {
        let layer = layer(shape(heads, key_dim, value_dim, Sharing::Grouped), 13);
        let whole = layer.run(Isa::SCALAR, 1, 13);
        for isa in Isa::available() {
            for (threads, chunk) in [(1, 13), (2, 13), (3, 5), (4, 1), (2, 12)] {
                let other = layer.run(isa, threads, chunk);
                assert!(other == whole, "{} {threads} {chunk}", isa.name());
            }
        }
    }
}

#[test]
fn extreme_gates_and_empty_heads_give_no_nan() {
    let shape = shape((1, 2), 16, 16, Sharing::Grouped);
    let mut layer = layer(shape, 4);
    layer.a = vec![-1e4, 1e4, 20.0, 20.1, 90.0, -90.0, 0.0, 1e30];
    layer.b = vec![-1e4, 1e4, -90.0, 90.0, 1e30, -1e30, 0.0, 1.0];
    layer.qkv[..32].fill(0.0);
    for isa in Isa::available() {
        let got = layer.run(isa, 1, 4);
        assert!(got.out.iter().chain(&got.state).all(|x| x.is_finite()));
    }
}
