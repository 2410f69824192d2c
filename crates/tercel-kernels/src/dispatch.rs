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
        }
        all
    }

    /// The fastest one here, or the one that `TERCEL_ISA` names.
    ///
    /// # Errors
    /// [`UnknownIsa`] when `TERCEL_ISA` names one that cannot run here.
    pub fn detect() -> Result<Isa, UnknownIsa> {
        match std::env::var(FORCE) {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => Ok(Self::available().pop().unwrap_or(Self::SCALAR)),
        }
    }

    /// The one with this name: `scalar` or `avx2`.
    ///
    /// # Errors
    /// [`UnknownIsa`] when there is none, or the processor lacks it.
    pub fn named(name: &str) -> Result<Isa, UnknownIsa> {
        let found = Self::available().into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| UnknownIsa {
            name: name.to_owned(),
        })
    }

    /// `scalar` or `avx2`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
        }
    }
}

/// Calls the version of an operation that belongs to an [`Isa`].
///
/// Both versions take the same arguments; the vector one is `unsafe` because it needs the
/// processor features that the `Isa` value proves.
macro_rules! dispatch {
    ($isa:expr, $name:ident ( $($arg:expr),* $(,)? )) => {
        match $isa.0 {
            $crate::dispatch::Kind::Scalar => scalar::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this kind exists only where its features were detected.
            $crate::dispatch::Kind::Avx2 => unsafe { avx2::$name($($arg),*) },
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
