//! The reference.

pub(super) fn row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    out.copy_from_slice(x);
    row_in_place(out, weight, eps);
}

pub(super) fn row_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}
