//! What every request passes before a handler sees it: from where it comes, who sends it, how often.

mod admit;
mod auth;
mod bodies;
mod buckets;
mod hosts;
mod keys;
mod shape;
mod signed;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

pub(crate) use admit::admit;
pub(crate) use bodies::{Crowded, Late};
pub use keys::{Keys, KeysError, Role};

use crate::app::Shared;
use crate::config::Config;
use crate::error::ApiError;
use crate::ids::RequestId;

/// What the gate knows and remembers.
pub(crate) struct Gate {
    keys: Keys,
    hosts: hosts::Hosts,
    bodies: bodies::Bodies,
    buckets: buckets::Buckets,
    replays: signed::Replays,
}

impl Gate {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            keys: config.keys.clone(),
            hosts: hosts::Hosts::new(config),
            bodies: bodies::Bodies::new(config.limits.all_body_bytes),
            buckets: buckets::Buckets::new(config.rates),
            replays: signed::Replays::default(),
        }
    }
}

/// The other end of a connection; the acceptor puts it beside each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who sent a request that was let in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Caller {
    pub(crate) request_id: RequestId,
    /// The name of the key; `None` where none is needed.
    pub(crate) key_id: Option<String>,
    pub(crate) role: Role,
    pub(crate) address: IpAddr,
}

impl Caller {
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            request_id: RequestId::new(),
            key_id: None,
            role: Role::User,
            address: Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        // Only a path that was not put behind the gate has none.
        parts.extensions.get().cloned().ok_or_else(|| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the request did not pass the gate",
            )
        })
    }
}

/// The address of the other end, or none that a client has.
fn address_of(peer: Option<&Peer>) -> IpAddr {
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip())
}
