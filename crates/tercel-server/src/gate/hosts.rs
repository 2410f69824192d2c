//! From where a browser may reach the server.
//!
//! A page of another site can make a browser send requests to this machine. Two things tell: the
//! `Origin` of the page, and, where that site had its own name lead here (DNS rebinding), the `Host`
//! that the browser believes to speak to.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::config::Config;
use crate::error::ApiError;

/// How long a browser may remember that it may ask, in seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// The names of the server and the origins of pages that may ask it, in lower case.
pub(super) struct Hosts {
    names: Vec<String>,
    origins: Vec<String>,
}

/// An origin whose pages may ask, other than the server's own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin(HeaderValue);

impl Hosts {
    pub(super) fn new(config: &Config) -> Self {
        let lower = |texts: &[String]| -> Vec<String> {
            texts
                .iter()
                .map(|text| text.trim_end_matches('/').to_ascii_lowercase())
                .collect()
        };
        Self {
            names: lower(&config.allowed_hosts),
            origins: lower(&config.allowed_origins),
        }
    }

    /// Checks where a request believes to be and where it is from. A program sends no origin; a page
    /// of the server's own needs no leave; another that has it is returned.
    ///
    /// # Errors
    /// 403 `host_not_allowed` and `origin_not_allowed`.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<Origin>, ApiError> {
        let host = self.host(uri, headers)?;
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return Ok(None);
        };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        if origins.next().is_none() {
            if is_same(&text, &host) {
                return Ok(None);
            }
            if self.origins.contains(&text) {
                return Ok(Some(Origin(origin.clone())));
            }
        }
        Err(forbidden(
            "origin_not_allowed",
            "pages of this origin may not ask; the operator can allow it (`allowed_origins`)",
        ))
    }

    /// The host that the request is for, which must be one under which the server may be spoken to.
    fn host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Authority, ApiError> {
        let mut named = headers.get_all(header::HOST).iter();
        let host = named.next().and_then(|value| value.to_str().ok());
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        // A request line with a whole URL names the host too.
        match (host, named.next()) {
            (Some(host), None)
                if self.may_be(&host) && uri.authority().is_none_or(|it| self.may_be(it)) =>
            {
                Ok(uri.authority().cloned().unwrap_or(host))
            }
            _ => Err(forbidden(
                "host_not_allowed",
                "the server does not answer to this host name; use its address or `localhost`, or \
                 have the operator allow the name (`allowed_hosts`)",
            )),
        }
    }

    fn may_be(&self, host: &Authority) -> bool {
        if host.as_str().contains('@') {
            return false;
        }
        let whole = host.as_str().to_ascii_lowercase();
        let name = host.host().to_ascii_lowercase();
        // An address is nobody's name, so it cannot have been made to lead here.
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || address.parse::<IpAddr>().is_ok()
            || self
                .names
                .iter()
                .any(|allowed| *allowed == name || *allowed == whole)
    }
}

/// Whether a page of `origin` is one of `host`; a proxy in front may have added the `s` of `https`.
fn is_same(origin: &str, host: &Authority) -> bool {
    let (rest, port) = match origin.split_once("://") {
        Some(("http", rest)) => (rest, 80),
        Some(("https", rest)) => (rest, 443),
        _ => return false,
    };
    let Ok(of_page) = rest.parse::<Authority>() else {
        return false;
    };
    of_page.host().eq_ignore_ascii_case(host.host())
        && of_page.port_u16().unwrap_or(port) == host.port_u16().unwrap_or(port)
}

impl Origin {
    /// The answer to the question of a browser whether a page may ask; `None` for all else.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        if *method != Method::OPTIONS || !headers.contains_key("access-control-request-method") {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        let methods = HeaderValue::from_static("GET, HEAD, POST, DELETE");
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            // Clients' libraries add headers of their own; none of them makes a difference here.
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        if headers.contains_key("access-control-request-private-network") {
            let name = HeaderName::from_static("access-control-allow-private-network");
            answer.insert(name, HeaderValue::from_static("true"));
        }
        Some(response)
    }

    /// Lets the page read an answer.
    pub(super) fn allow(&self, headers: &mut HeaderMap) {
        let exposed = HeaderValue::from_static("x-request-id, x-tercel-backend, retry-after");
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.0.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// What every answer says to browsers.
pub(super) fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
}

fn forbidden(code: &'static str, message: &'static str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts {
            names: vec!["models.example".into(), "other.example:8080".into()],
            origins: vec!["https://app.example".into()],
        }
    }

    fn check(host: &str, origin: Option<&str>) -> Result<Option<Origin>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        hosts()
            .check(&Uri::from_static("/v1/models"), &headers)
            .map_err(|error| error.code)
    }

    #[test]
    fn only_names_that_cannot_be_made_to_lead_here_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.1.2.3:8080",
            "[::1]:8080",
            "[::1]",
            "192.168.1.7:8080",
            "models.example",
            "Models.Example:1",
            "other.example:8080",
        ] {
            assert_eq!(check(host, None), Ok(None), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "other.example",
            "other.example:8081",
            "user@localhost",
            "local host",
            "2130706433",
        ] {
            assert_eq!(check(host, None), Err("host_not_allowed"), "{host}");
        }
    }

    #[test]
    fn a_request_without_one_host_is_refused() {
        let check = |uri: &'static str, hosts_named: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts_named {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            hosts().check(&Uri::from_static(uri), &headers).is_ok()
        };
        assert!(!check("/", &[]));
        assert!(!check("/", &["localhost", "localhost"]));
        assert!(check("http://localhost/", &["localhost"]));
        assert!(!check("http://evil.example/", &["localhost"]));
        assert!(!check("http://localhost/", &["evil.example"]));
    }

    #[test]
    fn pages_of_others_need_leave() {
        for (host, origin) in [
            ("localhost:8080", "http://localhost:8080"),
            ("localhost", "http://localhost:80"),
            ("127.0.0.1:80", "http://127.0.0.1"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("models.example", "https://models.example"),
        ] {
            assert_eq!(check(host, Some(origin)), Ok(None), "{origin}");
        }
        let allowed = Origin(HeaderValue::from_static("https://app.example"));
        assert_eq!(
            check("localhost", Some("https://app.example")),
            Ok(Some(allowed))
        );
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://localhost",
            "http://localhost:8081",
            "http://127.0.0.1:8080",
            "http://app.example",
            "https://app.example.evil.example",
            "ftp://localhost:8080",
            "localhost:8080",
            "http://evil.example@localhost:8080x",
        ] {
            assert_eq!(
                check("localhost:8080", Some(origin)),
                Err("origin_not_allowed"),
                "{origin}"
            );
        }
        // A name that leads here is refused as a host before its pages could pass as our own.
        assert_eq!(
            check("evil.example", Some("http://evil.example")),
            Err("host_not_allowed")
        );
    }

    #[test]
    fn a_browser_is_told_what_an_allowed_page_may_do() {
        let origin = Origin(HeaderValue::from_static("https://app.example"));
        let mut asked = HeaderMap::new();
        assert!(origin.preflight(&Method::OPTIONS, &asked).is_none());
        asked.insert(
            "access-control-request-method",
            HeaderValue::from_static("POST"),
        );
        asked.insert(
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            HeaderValue::from_static("authorization,x-stainless-lang"),
        );
        assert!(origin.preflight(&Method::POST, &asked).is_none());
        let mut answer = origin.preflight(&Method::OPTIONS, &asked).unwrap();
        origin.allow(answer.headers_mut());
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example"),
            (
                "access-control-allow-headers",
                "authorization,x-stainless-lang",
            ),
            ("access-control-allow-methods", "GET, HEAD, POST, DELETE"),
            ("vary", "origin"),
        ] {
            assert_eq!(answer.headers()[name], value, "{name}");
        }
    }
}
