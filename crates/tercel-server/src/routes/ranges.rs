//! Refusals of values in the words of a protocol.

use tercel::{Error, Sampling};

use crate::error::ApiError;

/// Checks what is set, and names what is out of range as the client does: `names` pairs Tercel's
/// names with those of the protocol that differ.
///
/// # Errors
/// The first value out of range.
pub(super) fn check(sampling: &Sampling, names: &[(&str, &str)]) -> Result<(), ApiError> {
    match sampling.validate() {
        Err(Error::InvalidParameter {
            field,
            value,
            range,
        }) => {
            let named = names.iter().find(|(ours, _)| *ours == field);
            let name = named.map_or(field, |(_, theirs)| theirs);
            Err(out_of_range(name, value, &range))
        }
        checked => Ok(checked?),
    }
}

/// 400: a value that is not in its range.
pub(super) fn out_of_range(name: &str, value: impl std::fmt::Display, range: &str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` is {value}, must be {range}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_named_as_the_client_named_it() {
        let mut sampling = Sampling::default();
        sampling.max_new_tokens = Some(0);
        let names = [("max_new_tokens", "num_predict")];
        let error = check(&sampling, &names).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("num_predict"));
        assert_eq!(error.message, "`num_predict` is 0, must be at least 1");
        assert_eq!(error.code, "invalid_parameter");

        sampling.max_new_tokens = None;
        assert_eq!(check(&sampling, &names), Ok(()));
        sampling.top_p = Some(0.0);
        let error = check(&sampling, &names).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("top_p"));
    }
}
