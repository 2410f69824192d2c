//! The reference.

pub(super) fn row(x: &mut [f32], gate: &[f32], weight: &[f32], eps: f32) {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((x, gate), weight) in x.iter_mut().zip(gate).zip(weight) {
        *x = *x * scale * weight * (gate / (1.0 + (-gate).exp()));
    }
}
