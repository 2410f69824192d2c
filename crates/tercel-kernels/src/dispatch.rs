//! Which instruction set the kernels use, chosen at run time.

use std::fmt;

/// Environment variable that forces an instruction set by name.
const FORCE: &str = "TERCEL_ISA";

/// An instruction set that this processor has.
///
/// A value can only be made by asking the processor, so holding one is the proof that the
/// kernels behind it may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2, and VNNI in its encoding.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2, AVX-512 with instructions for bytes, and VNNI in its encoding.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON, and dot products of four bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
    /// NEON, dot products, and products of matrices of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
}

/// A name that is no instruction set of this build, or one that the processor lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa {
    /// What was asked for.
    pub name: String,
}

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        write!(
            f,
            "{FORCE}: `{}` cannot run here (available: {})",
            self.name,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownIsa {}

impl Isa {
    /// The reference: plain Rust, on every processor.
    pub const SCALAR: Isa = Isa(Kind::Scalar);

    /// All that this processor can run, slowest first.
    pub fn available() -> Vec<Isa> {
        let mut all = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            all.push(Isa(Kind::Avx2));
            if is_x86_feature_detected!("avxvnni") {
                all.push(Isa(Kind::AvxVnni));
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                all.push(Isa(Kind::Avx512Vnni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected;
            all.push(Isa(Kind::Neon)); // there is no build without it
            if is_aarch64_feature_detected!("dotprod") {
                all.push(Isa(Kind::NeonDotprod));
                if is_aarch64_feature_detected!("i8mm") {
                    all.push(Isa(Kind::NeonI8mm));
                }
            }
        }
        all
    }

    /// The fastest one here, or the one that `TERCEL_ISA` names. AVX-VNNI has to be named: its
    /// kernels were never run on a processor that has it.
    ///
    /// # Errors
    /// [`UnknownIsa`] when `TERCEL_ISA` names one that cannot run here.
    pub fn detect() -> Result<Isa, UnknownIsa> {
        match std::env::var(FORCE) {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => {
                let mut proven = Self::available();
                #[cfg(target_arch = "x86_64")]
                proven.retain(|isa| isa.0 != Kind::AvxVnni);
                Ok(proven.pop().unwrap_or(Self::SCALAR))
            }
        }
    }

    /// The one with this name, as [`name`](Self::name) gives it.
    ///
    /// # Errors
    /// [`UnknownIsa`] when there is none, or the processor lacks it.
    pub fn named(name: &str) -> Result<Isa, UnknownIsa> {
        let found = Self::available().into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| UnknownIsa {
            name: name.to_owned(),
        })
    }

    /// `scalar`; `avx2`, `avx-vnni`, `avx512-vnni`; `neon`, `neon-dotprod`, `neon-i8mm`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDotprod => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonI8mm => "neon-i8mm",
        }
    }
}

/// Compiles functions of the module `vector`, which are written for registers of eight lanes on any
/// processor, for each kind of processor: `dispatch` calls them.
macro_rules! versions {
    ($(fn $name:ident ( $($arg:ident : $type:ty),* $(,)? );)*) => {
        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            use super::*;

            $(
                /// # Safety
                /// Needs the named processor features.
                #[target_feature(enable = "avx2,fma,f16c")]
                pub(super) unsafe fn $name($($arg: $type),*) {
                    // SAFETY: this function has the features.
                    unsafe { vector::$name::<$crate::ops::registers::Avx2>($($arg),*) }
                }
            )*
        }

        #[cfg(target_arch = "aarch64")]
        mod neon {
            use super::*;

            $(
                /// # Safety
                /// Needs the named processor features.
                #[target_feature(enable = "neon")]
                pub(super) unsafe fn $name($($arg: $type),*) {
                    // SAFETY: this function has the features.
                    unsafe { vector::$name::<$crate::ops::registers::Neon>($($arg),*) }
                }
            )*
        }
    };
}
pub(crate) use versions;

/// Calls the version of an operation that belongs to an [`Isa`]: that of `scalar`, or one that
/// `versions` made. What AVX2 computes is the same on the sets that have it and more; so with NEON.
macro_rules! dispatch {
    ($isa:expr, $name:ident ( $($arg:expr),* $(,)? )) => {
        match $isa.0 {
            $crate::dispatch::Kind::Scalar => scalar::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            $crate::dispatch::Kind::Avx2
            | $crate::dispatch::Kind::AvxVnni
            | $crate::dispatch::Kind::Avx512Vnni => {
                // SAFETY: an `Isa` of these kinds exists only where AVX2, FMA and F16C were detected.
                unsafe { avx2::$name($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            $crate::dispatch::Kind::Neon
            | $crate::dispatch::Kind::NeonDotprod
            | $crate::dispatch::Kind::NeonI8mm => {
                // SAFETY: every such processor has NEON.
                unsafe { neon::$name($($arg),*) }
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_value() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        let error = Isa::named("sse9").unwrap_err().to_string();
        assert!(
            error.contains("`sse9`") && error.contains("scalar"),
            "{error}"
        );
    }
}
