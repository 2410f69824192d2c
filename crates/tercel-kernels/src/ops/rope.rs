//! Rotary position embedding (Su et al., 2021): pairs of a head's elements are rotated by an
//! angle that grows with the position.

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Elements `2i` and `2i + 1`, as GGUF files of the `llama` architecture are laid out.
    Adjacent,
    /// Elements `i` and `i + dims / 2`, as Hugging Face checkpoints are laid out.
    Halves,
}

/// Writes the cosines and sines for one position: `table` is `(dims / 2, 2)`.
///
/// `frequencies` are the angles per position, one per pair.
pub fn angles(position: usize, frequencies: &[f64], table: &mut [f32]) {
    for (frequency, pair) in frequencies.iter().zip(table.chunks_exact_mut(2)) {
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        pair[0] = cos as f32;
        pair[1] = sin as f32;
    }
}

/// Rotates the first `dims` elements of each head of each token in place.
///
/// `x` is `(n, heads, head_dim)`, `table` is `(n, dims / 2, 2)`.
///
/// # Panics
/// When the lengths do not fit the shapes.
pub fn rope(x: &mut [f32], heads: usize, head_dim: usize, pairing: Pairing, table: &[f32]) {
    let n = x.len() / (heads * head_dim);
    let dims = table.len() / n.max(1);
    assert!(
        x.len() == n * heads * head_dim && dims <= head_dim,
        "shapes of a rotation"
    );
    let tokens = x
        .chunks_exact_mut(heads * head_dim)
        .zip(table.chunks_exact(dims));
    for (token, table) in tokens {
        for head in token.chunks_exact_mut(head_dim) {
            match pairing {
                Pairing::Adjacent => {
                    for (pair, angle) in head[..dims].chunks_exact_mut(2).zip(table.chunks_exact(2))
                    {
                        (pair[0], pair[1]) = rotate(pair[0], pair[1], angle);
                    }
                }
                Pairing::Halves => {
                    let (first, second) = head[..dims].split_at_mut(dims / 2);
                    for ((a, b), angle) in first.iter_mut().zip(second).zip(table.chunks_exact(2)) {
                        (*a, *b) = rotate(*a, *b, angle);
                    }
                }
            }
        }
    }
}

fn rotate(a: f32, b: f32, angle: &[f32]) -> (f32, f32) {
    (a * angle[0] - b * angle[1], a * angle[1] + b * angle[0])
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    #[test]
    fn pairs_turn_by_position_times_frequency() {
        let frequencies = [1.0, 0.1];
        let mut table = [0.0; 8];
        angles(0, &frequencies, &mut table[..4]);
        angles(3, &frequencies, &mut table[4..]);
        for pairing in [Pairing::Adjacent, Pairing::Halves] {
            let x = random(1, 2 * 2 * 6); // two tokens, two heads of 6, of which 4 turn
            let mut turned = x.clone();
            rope(&mut turned, 2, 6, pairing, &table);
            assert_eq!(turned[..12], x[..12], "position 0 does not turn");
            for head in [12, 18] {
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (a, b) = match pairing {
                        Pairing::Adjacent => (head + 2 * i, head + 2 * i + 1),
                        Pairing::Halves => (head + i, head + i + 2),
                    };
                    let (sin, cos) = (3.0 * frequency).sin_cos();
                    let (xa, xb) = (f64::from(x[a]), f64::from(x[b]));
                    assert!((f64::from(turned[a]) - (xa * cos - xb * sin)).abs() < 1e-6);
                    assert!((f64::from(turned[b]) - (xa * sin + xb * cos)).abs() < 1e-6);
                }
                assert_eq!(turned[head + 4..head + 6], x[head + 4..head + 6]);
            }
        }
    }
}
