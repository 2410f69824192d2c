//! The errors that every path of the protocol may answer with, for the description of the API.

use std::collections::BTreeMap;

use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::error::ErrorBody;

/// The errors of a request that reaches a model.
pub(super) struct Refusals;

const REFUSALS: [(&str, &str); 9] = [
    (
        "400",
        "The request is wrong, or asks for what is not to be had here",
    ),
    ("401", "No key, or one that is not known"),
    (
        "403",
        "The key, the host or the origin may not ask for this",
    ),
    ("404", "There is no such model"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    (
        "429",
        "Asked too often, or as many requests wait as may; see `Retry-After`",
    ),
    ("500", "The model failed"),
    (
        "503",
        "The model is not ready, or the server is about to stop",
    ),
];

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let body = Ref::from_schema_name(ErrorBody::name());
        let response = |description: &str| {
            ResponseBuilder::new()
                .description(description)
                .content("application/json", Content::new(Some(body.clone())))
                .build()
        };
        let refusals = REFUSALS.into_iter();
        refusals
            .map(|(status, text)| (status.to_owned(), RefOr::T(response(text))))
            .collect()
    }
}
