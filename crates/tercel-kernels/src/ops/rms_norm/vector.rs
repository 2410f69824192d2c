use crate::ops::registers::Eight;

/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
pub(super) unsafe fn row<R: Eight>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    out.copy_from_slice(x);
    // SAFETY: by the contract of this function.
    unsafe { row_in_place::<R>(out, weight, eps) };
}

/// # Safety
/// As [`row`].
#[inline(always)]
pub(super) unsafe fn row_in_place<R: Eight>(x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len(), "a weight for every column");
    // SAFETY: by the contract of this function.
    let scale = unsafe { inverse_norm::<R>(x, eps) };
    let mut x = x.chunks_exact_mut(R::LANES);
    let mut weight = weight.chunks_exact(R::LANES);
    for (x, weight) in (&mut x).zip(&mut weight) {
        // SAFETY: as above; the chunks have a register's worth of numbers each.
        unsafe {
            let product = R::mul(R::load(x.as_ptr()), R::all(scale));
            R::store(x.as_mut_ptr(), R::mul(product, R::load(weight.as_ptr())));
        }
    }
    for (x, weight) in x.into_remainder().iter_mut().zip(weight.remainder()) {
        *x = *x * scale * weight;
    }
}

/// `1 / sqrt(mean(x^2) + eps)`, in two sums to hide the latency of the addition.
///
/// # Safety
/// As [`row`].
#[inline(always)]
pub(in crate::ops) unsafe fn inverse_norm<R: Eight>(x: &[f32], eps: f32) -> f32 {
    let chunks = x.chunks_exact(R::LANES);
    let mut squares: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    // SAFETY: by the contract of this function; the chunks have a register's worth of numbers.
    unsafe {
        let mut sums = [R::zeros(); 2];
        for (i, x) in chunks.enumerate() {
            let x = R::load(x.as_ptr());
            sums[i % 2] = R::mul_add(x, x, sums[i % 2]);
        }
        squares += R::sum(R::add(sums[0], sums[1]));
    }
    1.0 / (squares / x.len() as f32 + eps).sqrt()
}
