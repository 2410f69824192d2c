//! Who sends a request, and whether a path is theirs (13.5).

use std::time::{Instant, SystemTime};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Gate;
use super::keys::Role;
use super::signed::{Signed, refused};
use crate::body;
use crate::error::ApiError;

/// What a path asks for. What is not named here needs a key where there are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Probes: without a key, as often as they like, and while the server stops.
    Health,
    /// The page, which holds nothing of anybody's and asks for a key in its settings; and its files,
    /// several at once, so without a rate.
    Page,
    /// A key of this role or a higher one.
    Key(Role),
}

impl Need {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/healthz" | "/health" | "/readyz" | "/ready" => Self::Health,
            "/" => Self::Page,
            _ if path.starts_with("/page/") => Self::Page,
            "/admin" => Self::Key(Role::Admin),
            _ if path.starts_with("/admin/") => Self::Key(Role::Admin),
            _ => Self::Key(Role::User),
        }
    }
}

/// Whom a request is of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    pub(super) key_id: Option<String>,
    pub(super) role: Role,
}

/// What a request says of its sender.
enum Claim {
    Secret(Vec<u8>),
    Signed { key_id: String },
}

/// Finds out whom a request is of. One that is signed is read to its end for that, at most `limit`
/// bytes.
///
/// # Errors
/// In this order: 401 `Missing API key`, `Invalid API key`, `Missing signature headers`,
/// `Bad timestamp`, `Stale request`, `Bad signature`, `Replayed request`; then 403 `Forbidden`.
pub(super) async fn authenticate(
    gate: &Gate,
    need: Need,
    limit: usize,
    request: Request,
) -> Result<(Request, Identity), ApiError> {
    let anonymous = Identity {
        key_id: None,
        role: Role::User,
    };
    let Need::Key(needed) = need else {
        return Ok((request, anonymous));
    };
    let forbidden = || ApiError::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden");
    if gate.keys.is_empty() {
        // Whoever reaches the server may ask, but not change it.
        return if needed > anonymous.role {
            Err(forbidden())
        } else {
            Ok((request, anonymous))
        };
    }
    let invalid = || refused("invalid_api_key", "Invalid API key");
    let (request, identity) = match claim(request.headers())? {
        Claim::Secret(secret) => {
            let (key_id, role) = gate.keys.with_secret(&secret).ok_or_else(invalid)?;
            (
                request,
                Identity {
                    key_id: Some(key_id.to_owned()),
                    role,
                },
            )
        }
        Claim::Signed { key_id } => {
            let key = gate.keys.named(&key_id).ok_or_else(invalid)?;
            let signed = Signed::read(request.headers(), unix_seconds())?;
            let (parts, body) = request.into_parts();
            let body = body::read(Request::new(body), limit).await?;
            signed.verify(&key.secret, &parts.method, &parts.uri, &body)?;
            gate.replays.note(&key_id, &signed, Instant::now())?;
            let request = Request::from_parts(parts, Body::from(body));
            (
                request,
                Identity {
                    key_id: Some(key_id),
                    role: key.role,
                },
            )
        }
    };
    if identity.role < needed {
        Err(forbidden())
    } else {
        Ok((request, identity))
    }
}

/// `Authorization: Bearer` and `ApiKey`, else Anthropic's `x-api-key`.
fn claim(headers: &HeaderMap) -> Result<Claim, ApiError> {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let (scheme, rest) = match authorization {
        Some(value) => {
            let end = value
                .iter()
                .position(|byte| *byte == b' ')
                .unwrap_or(value.len());
            let (scheme, rest) = value.split_at(end);
            (scheme, rest.trim_ascii())
        }
        None => (&b""[..], &b""[..]),
    };
    if scheme.eq_ignore_ascii_case(b"bearer") && !rest.is_empty() {
        return Ok(Claim::Secret(rest.to_owned()));
    }
    if scheme.eq_ignore_ascii_case(b"apikey") && !rest.is_empty() {
        return Ok(Claim::Signed {
            key_id: String::from_utf8_lossy(rest).into_owned(),
        });
    }
    match headers.get("x-api-key") {
        Some(secret) if !secret.is_empty() => Ok(Claim::Secret(secret.as_bytes().to_owned())),
        _ => Err(refused("missing_api_key", "Missing API key")),
    }
}

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_open() {
        for (path, need) in [
            ("/healthz", Need::Health),
            ("/readyz", Need::Health),
            ("/healthz/", Need::Key(Role::User)),
            ("/", Need::Page),
            ("/page/chat.js", Need::Page),
            ("/page", Need::Key(Role::User)),
            ("/metrics", Need::Key(Role::User)),
            ("/openapi.json", Need::Key(Role::User)),
            ("/v1/chat/completions", Need::Key(Role::User)),
            ("/nowhere", Need::Key(Role::User)),
            ("/admin", Need::Key(Role::Admin)),
            ("/admin/", Need::Key(Role::Admin)),
            ("/admin/reload", Need::Key(Role::Admin)),
            ("/administration", Need::Key(Role::User)),
        ] {
            assert_eq!(Need::of(path), need, "{path}");
        }
    }
}
