use crate::ops::registers::{Each, Eight, for_each, gated_by_sigmoid};
use crate::ops::rms_norm::inverse_norm;

/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
pub(super) unsafe fn row<R: Eight>(x: &mut [f32], gate: &[f32], weight: &[f32], eps: f32) {
    // SAFETY: by the contract of this function.
    unsafe {
        let scale = inverse_norm::<R>(x, eps);
        for_each::<R, 2>(&Gated { scale }, x, [gate, weight]);
    }
}

/// `x * scale * weight * silu(gate)`
struct Gated {
    scale: f32,
}

impl Each<2> for Gated {
    #[inline(always)]
    unsafe fn of<R: Eight>(&self, x: R::Floats, [gate, weight]: [R::Floats; 2]) -> R::Floats {
        // SAFETY: by the contract of the trait.
        unsafe {
            let normal = R::mul(R::mul(x, R::all(self.scale)), weight);
            R::mul(normal, gated_by_sigmoid::<R>(gate, gate))
        }
    }
}
