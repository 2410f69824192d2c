use super::Activation;
use super::scalar::{GELU_CUBIC, GELU_LINEAR};
use crate::ops::registers::{Each, Eight, for_each, gated_by_sigmoid};

/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
pub(super) unsafe fn gated<R: Eight>(activation: Activation, gate: &mut [f32], up: &[f32]) {
    // SAFETY: by the contract of this function.
    unsafe { for_each::<R, 1>(&activation, gate, [up]) }
}

impl Each<1> for Activation {
    #[inline(always)]
    unsafe fn of<R: Eight>(&self, x: R::Floats, [up]: [R::Floats; 1]) -> R::Floats {
        // SAFETY: by the contract of the trait.
        unsafe {
            let s = match self {
                Self::Silu => x,
                Self::GeluTanh => {
                    let cubic = R::mul(R::all(GELU_CUBIC), x);
                    R::mul(x, R::mul_add(cubic, x, R::all(GELU_LINEAR)))
                }
            };
            R::mul(gated_by_sigmoid::<R>(x, s), up)
        }
    }
}
