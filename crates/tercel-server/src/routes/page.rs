//! The chat page: a few files in the binary, without anything from outside.

use std::convert::Infallible;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use sha2::{Digest, Sha256};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What a text of a model could do at worst: nothing but the page's own files runs, and nothing
/// but the server it came from is asked.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

/// A file under `/page/`.
macro_rules! file {
    ($name:literal, $content_type:expr) => {
        File {
            path: concat!("/page/", $name),
            content_type: $content_type,
            content: include_bytes!(concat!("../page/", $name)),
        }
    };
}

const FILES: &[File] = &[
    File {
        path: "/",
        content_type: HTML,
        content: include_bytes!("../page/index.html"),
    },
    file!("style.css", CSS),
    file!("prose.css", CSS),
    file!("icon.svg", SVG),
    file!("theme.js", SCRIPT),
    file!("app.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("composer.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("icons.js", SCRIPT),
    file!("inline.js", SCRIPT),
    file!("markdown.js", SCRIPT),
    file!("meter.js", SCRIPT),
    file!("render.js", SCRIPT),
    file!("run.js", SCRIPT),
    file!("settings.js", SCRIPT),
    file!("sheet.js", SCRIPT),
    file!("sidebar.js", SCRIPT),
    file!("sse.js", SCRIPT),
    file!("store.js", SCRIPT),
    file!("thread.js", SCRIPT),
    file!("trouble.js", SCRIPT),
];

/// The page at `/` and its files under `/page/`.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let add = |router: Router<S>, file: &'static File| router.route(file.path, serve(file));
    FILES.iter().fold(Router::new(), add)
}

fn serve<S: Clone + Send + Sync + 'static>(file: &'static File) -> MethodRouter<S, Infallible> {
    let tag = tag(file.content);
    get(move |headers: HeaderMap| {
        let response = answer(file, tag.as_ref(), &headers);
        async move { response }
    })
}

/// The file, or 304 for who has it already.
fn answer(file: &File, tag: Option<&HeaderValue>, headers: &HeaderMap) -> Response {
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, file.content_type),
        // A new server has a new page: it is asked every time, and mostly says 304.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let is_known = tag.is_some_and(|tag| is_among(tag, headers));
    let mut response = if is_known {
        (StatusCode::NOT_MODIFIED, fixed).into_response()
    } else {
        (fixed, file.content).into_response()
    };
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag.clone());
    }
    response
}

/// Whether `If-None-Match` names the tag; proxies that compress make it a weak one.
fn is_among(tag: &HeaderValue, headers: &HeaderMap) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|it| it.split(','));
    known.any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

fn tag(content: &[u8]) -> Option<HeaderValue> {
    let digest = Sha256::digest(content);
    let digits: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::try_from(format!("\"{digits}\"")).ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, known: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(known) = known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        let request = request.body(Body::empty()).unwrap();
        router::<()>().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_file_has_its_type_its_policy_and_its_bytes() {
        for file in FILES {
            let response = ask(file.path, None).await;
            assert_eq!(response.status(), StatusCode::OK, "{}", file.path);
            let headers = response.headers();
            assert_eq!(
                headers[header::CONTENT_TYPE],
                file.content_type,
                "{}",
                file.path
            );
            assert_eq!(
                headers[header::CONTENT_SECURITY_POLICY],
                POLICY,
                "{}",
                file.path
            );
            assert_eq!(
                headers[header::X_CONTENT_TYPE_OPTIONS],
                "nosniff",
                "{}",
                file.path
            );
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, file.content, "{}", file.path);
        }
        assert_eq!(
            ask("/page/other.js", None).await.status(),
            StatusCode::NOT_FOUND
        );
    }

    #[tokio::test]
    async fn who_has_a_file_is_told_so() {
        let first = ask("/page/app.js", None).await;
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for (known, status) in [
            (tag.clone(), 304),
            (format!("\"0\", W/{tag}"), 304),
            ("*".to_owned(), 304),
            ("\"0\"".to_owned(), 200),
            (tag.trim_matches('"').to_owned(), 200),
        ] {
            let response = ask("/page/app.js", Some(&known)).await;
            assert_eq!(response.status(), status, "{known}");
            assert_eq!(response.headers()[header::ETAG], tag.as_str(), "{known}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.is_empty(), status == 304, "{known}");
        }
    }

    #[test]
    fn the_page_is_small_and_asks_nobody_else() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes < 90 << 10, "{bytes} bytes");
        for file in FILES {
            let text = std::str::from_utf8(file.content).unwrap();
            // A namespace is a name, not an address.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in [
                "http://",
                "https://",
                "innerHTML",
                "eval(",
                "document.write",
                "style=",
            ] {
                assert!(!text.contains(word), "{}: {word}", file.path);
            }
        }
    }

    #[test]
    fn every_file_that_is_imported_is_there() {
        for file in FILES {
            let text = std::str::from_utf8(file.content).unwrap();
            for import in text.split(" from \"./").skip(1) {
                let name = import.split('"').next().unwrap();
                let path = format!("/page/{name}");
                assert!(
                    FILES.iter().any(|file| file.path == path),
                    "{}: {name}",
                    file.path
                );
            }
        }
    }
}
