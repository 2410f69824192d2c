//! Functions that kernels share, on every processor that can be asked.

use super::{Registers, exp};
use crate::Isa;
use crate::dispatch::Kind;

/// A register's worth of `e^x`, in all lanes the same.
///
/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
unsafe fn exp_of<R: Registers>(x: f32) -> f32 {
    let mut out = [0.0f32; 16];
    // SAFETY: by the contract of this function; no register has more lanes.
    unsafe { R::store(out.as_mut_ptr(), exp::<R>(R::all(x))) };
    let first = out[0].to_bits();
    assert!(out[..R::LANES].iter().all(|x| x.to_bits() == first));
    out[0]
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn exp_avx2(x: f32) -> f32 {
    // SAFETY: this function has the features.
    unsafe { exp_of::<super::Avx2>(x) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn exp_avx512(x: f32) -> f32 {
    // SAFETY: this function has the features.
    unsafe { exp_of::<super::Avx512>(x) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn exp_neon(x: f32) -> f32 {
    // SAFETY: this function has the features.
    unsafe { exp_of::<super::Neon>(x) }
}

/// The version for each set of registers that this processor has.
fn versions() -> Vec<unsafe fn(f32) -> f32> {
    let mut versions: Vec<unsafe fn(f32) -> f32> = Vec::new();
    for isa in Isa::available() {
        match isa.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => versions.push(exp_avx2),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => versions.push(exp_avx512),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => versions.push(exp_neon),
            _ => {}
        }
    }
    versions
}

#[test]
fn exp_is_within_two_ulp_and_the_same_everywhere() {
    let versions = versions();
    let mut x = -87.3f32;
    while x < 88.7 {
        let want = f64::from(x).exp() as f32;
        // SAFETY: the processor has the features.
        let got: Vec<f32> = versions.iter().map(|exp| unsafe { exp(x) }).collect();
        for got in &got {
            let ulps = (i64::from(got.to_bits()) - i64::from(want.to_bits())).abs();
            assert!(ulps <= 2, "exp({x}) = {got}, want {want}");
        }
        assert!(got.windows(2).all(|pair| pair[0] == pair[1]), "exp({x})");
        x += 0.003_7;
    }
}

#[test]
fn exp_of_extreme_numbers() {
    for exp in versions() {
        for (x, want) in [
            (f32::NEG_INFINITY, 0.0),
            (-1e9, 0.0),
            (-87.4, 0.0),
            (-0.0, 1.0),
            (0.0, 1.0),
            (88.73, f32::INFINITY),
            (1e9, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
        ] {
            // SAFETY: the processor has the features.
            let got = unsafe { exp(x) };
            assert_eq!(got, want, "exp({x})");
        }
        // SAFETY: as above.
        assert!(unsafe { exp(f32::NAN) }.is_nan());
    }
}
