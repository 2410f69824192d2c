//! Signed requests (13.5): the secret stays with the client, and a request that was overheard is
//! good for nothing else, nor a second time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// How far a client's clock may be off, in seconds.
const SKEW_SECONDS: u64 = 60;
/// How long a signature may be good for: from a clock that is early to one that is late, and the
/// parts of seconds that timestamps leave out.
const REMEMBERED: Duration = Duration::from_secs(2 * SKEW_SECONDS + 2);
/// Signatures of one key that are remembered: 128 requests a second.
const MOST_REMEMBERED: usize = 128 * 122;

/// What the headers of a signed request say.
#[derive(Debug)]
pub(super) struct Signed {
    timestamp: String,
    signature: [u8; 32],
}

impl Signed {
    /// Reads the headers; `now` is in Unix seconds.
    ///
    /// # Errors
    /// 401 `Missing signature headers`, `Bad timestamp`, `Stale request`, in this order. A signature
    /// that is none is left for [`Self::verify`] to refuse.
    pub(super) fn read(headers: &HeaderMap, now: u64) -> Result<Self, ApiError> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(timestamp), Some(signature)) = (header("x-timestamp"), header("x-signature"))
        else {
            return Err(refused(
                "missing_signature_headers",
                "Missing signature headers",
            ));
        };
        let is_number = !timestamp.is_empty() && timestamp.bytes().all(|it| it.is_ascii_digit());
        let seconds = timestamp.parse::<u64>().ok().filter(|_| is_number);
        let seconds = seconds.ok_or_else(|| refused("bad_timestamp", "Bad timestamp"))?;
        if seconds.abs_diff(now) > SKEW_SECONDS {
            return Err(refused("stale_request", "Stale request"));
        }
        // All zeros is the signature of nothing that could be found.
        let signature = unhex(signature).unwrap_or_default();
        Ok(Self {
            timestamp: timestamp.to_owned(),
            signature,
        })
    }

    /// Checks the signature of a request, in constant time.
    ///
    /// # Errors
    /// 401 `Bad signature`.
    pub(super) fn verify(
        &self,
        secret: &[u8],
        method: &Method,
        uri: &Uri,
        body: &[u8],
    ) -> Result<(), ApiError> {
        let bad = || refused("bad_signature", "Bad signature");
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let mac = signature(secret, method.as_str(), target, &self.timestamp, body);
        mac.ok_or_else(bad)?
            .verify_slice(&self.signature)
            .map_err(|_| bad())
    }
}

/// HMAC-SHA256 over `METHOD\nPATH[?QUERY]\nTIMESTAMP\nSHA256HEX(body)`.
fn signature(
    secret: &[u8],
    method: &str,
    target: &str,
    timestamp: &str,
    body: &[u8],
) -> Option<Hmac<Sha256>> {
    let hash = hex(&Sha256::digest(body));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(format!("{method}\n{target}\n{timestamp}\n{hash}").as_bytes());
    Some(mac)
}

/// The signatures that were used, of each key.
#[derive(Default)]
pub(super) struct Replays(Mutex<HashMap<String, Seen>>);

#[derive(Default)]
struct Seen {
    signatures: HashSet<[u8; 32]>,
    /// The same with their times, the oldest first.
    times: VecDeque<(Instant, [u8; 32])>,
}

impl Replays {
    /// Notes that a key's request was made; its signature was found to be good before.
    ///
    /// # Errors
    /// 401 `Replayed request` where it was made before, and 429 where the key made so many that no
    /// more can be remembered: one that was forgotten early could be made again.
    pub(super) fn note(&self, key_id: &str, signed: &Signed, now: Instant) -> Result<(), ApiError> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = keys.entry(key_id.to_owned()).or_default();
        while let Some((time, signature)) = seen.times.front()
            && now.saturating_duration_since(*time) > REMEMBERED
        {
            seen.signatures.remove(signature);
            seen.times.pop_front();
        }
        if seen.signatures.contains(&signed.signature) {
            return Err(refused("replayed_request", "Replayed request"));
        }
        if seen.times.len() >= MOST_REMEMBERED {
            let message = "Too many signed requests with this key";
            let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
            error.scope = Some("client");
            return Err(error.retry_after(Duration::from_secs(1)));
        }
        seen.signatures.insert(signed.signature);
        seen.times.push_back((now, signed.signature));
        Ok(())
    }
}

pub(super) fn refused(code: &'static str, message: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, message)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    // The vector of 13.5.
    const SECRET: &[u8] = b"YOUR_SECRET";
    const BODY: &[u8] = br#"{"prompt":"Summarize this.","max_new_tokens":64}"#;
    const BODY_HASH: &str = "85355245608efb3e597f8ede8c7c3d461c9328f641e0cc5cbff864cb7103d03f";
    const SIGNATURE: &str = "20eb5245605aeea981be5f40f711e438193bf74c3f9c17eeb8c67c7293fe39d9";
    const TIME: u64 = 1_700_000_000;

    fn headers(timestamp: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-timestamp", HeaderValue::from_str(timestamp).unwrap());
        headers.insert("x-signature", HeaderValue::from_str(signature).unwrap());
        headers
    }

    fn verify(signed: &Signed, target: &'static str, body: &[u8]) -> Result<(), ApiError> {
        signed.verify(SECRET, &Method::POST, &Uri::from_static(target), body)
    }

    #[test]
    fn the_books_vector_holds() {
        assert_eq!(hex(&Sha256::digest(BODY)), BODY_HASH);
        let mac = signature(SECRET, "POST", "/v1/chat", "1700000000", BODY).unwrap();
        assert_eq!(hex(&mac.finalize().into_bytes()), SIGNATURE);
        for text in [SIGNATURE.to_owned(), SIGNATURE.to_uppercase()] {
            let signed = Signed::read(&headers("1700000000", &text), TIME).unwrap();
            assert_eq!(verify(&signed, "/v1/chat", BODY), Ok(()));
        }
    }

    #[test]
    fn whatever_is_changed_breaks_the_signature() {
        let signed = Signed::read(&headers("1700000000", SIGNATURE), TIME).unwrap();
        let later = Signed::read(&headers("1700000001", SIGNATURE), TIME).unwrap();
        let chat = Uri::from_static("/v1/chat");
        for result in [
            verify(&signed, "/v1/chat?a=1", BODY),
            verify(&signed, "/v1/other", BODY),
            verify(&signed, "/v1/chat", b"{}"),
            verify(&later, "/v1/chat", BODY),
            signed.verify(SECRET, &Method::PUT, &chat, BODY),
            signed.verify(b"MY_SECRET", &Method::POST, &chat, BODY),
        ] {
            let error = result.unwrap_err();
            assert_eq!(
                (error.status.as_u16(), &*error.message),
                (401, "Bad signature")
            );
        }
        for text in [
            "",
            "20eb",
            &"zz".repeat(32),
            &format!("{SIGNATURE}00"),
            &"00".repeat(32),
        ] {
            let signed = Signed::read(&headers("1700000000", text), TIME).unwrap();
            assert_eq!(
                verify(&signed, "/v1/chat", BODY).unwrap_err().message,
                "Bad signature"
            );
        }
    }

    #[test]
    fn a_query_is_signed() {
        let mac = signature(SECRET, "GET", "/v1/models?limit=2", "1700000000", b"").unwrap();
        let headers = headers("1700000000", &hex(&mac.finalize().into_bytes()));
        let signed = Signed::read(&headers, TIME).unwrap();
        let verify = |target: &'static str| {
            signed.verify(SECRET, &Method::GET, &Uri::from_static(target), b"")
        };
        assert!(verify("/v1/models?limit=2").is_ok());
        assert!(verify("/v1/models?limit=3").is_err());
        assert!(verify("/v1/models").is_err());
    }

    #[test]
    fn headers_are_refused_in_the_books_order() {
        let read = |headers: &HeaderMap| Signed::read(headers, TIME).unwrap_err().message;
        let mut only_time = headers("1700000000", SIGNATURE);
        only_time.remove("x-signature");
        let mut only_signature = headers("1", SIGNATURE);
        only_signature.remove("x-timestamp");
        for missing in [HeaderMap::new(), only_time, only_signature] {
            assert_eq!(read(&missing), "Missing signature headers");
        }
        for bad in [
            "",
            "x",
            "-1",
            "+1700000000",
            "1700000000.0",
            "99999999999999999999",
        ] {
            assert_eq!(read(&headers(bad, "x")), "Bad timestamp", "{bad}");
        }
        for (seconds, is_fresh) in [
            (-61, false),
            (-60, true),
            (0, true),
            (60, true),
            (61, false),
        ] {
            let timestamp = TIME.checked_add_signed(seconds).unwrap().to_string();
            let signed = Signed::read(&headers(&timestamp, SIGNATURE), TIME);
            assert_eq!(signed.is_ok(), is_fresh, "{seconds}");
            if let Err(error) = signed {
                assert_eq!(error.message, "Stale request");
            }
        }
    }

    #[test]
    fn a_request_is_good_once_and_forgotten_when_stale() {
        let (replays, start) = (Replays::default(), Instant::now());
        let signed = Signed::read(&headers("1700000000", SIGNATURE), TIME).unwrap();
        assert_eq!(replays.note("a", &signed, start), Ok(()));
        for seconds in [0, 1, 60, 121] {
            let again = replays.note("a", &signed, start + Duration::from_secs(seconds));
            assert_eq!(again.unwrap_err().message, "Replayed request", "{seconds}");
        }
        // Another key has other signatures, so its requests are no replays.
        assert_eq!(replays.note("b", &signed, start), Ok(()));
        assert_eq!(
            replays.note("a", &signed, start + Duration::from_secs(123)),
            Ok(())
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (replays, start) = (Replays::default(), Instant::now());
        let numbered = |number: usize| {
            let mut signature = [0; 32];
            signature[..8].copy_from_slice(&number.to_le_bytes());
            Signed {
                timestamp: String::new(),
                signature,
            }
        };
        for number in 0..MOST_REMEMBERED {
            assert_eq!(replays.note("a", &numbered(number), start), Ok(()));
        }
        let error = replays
            .note("a", &numbered(MOST_REMEMBERED), start)
            .unwrap_err();
        assert_eq!((error.status.as_u16(), error.scope), (429, Some("client")));
        assert_eq!(replays.note("b", &numbered(0), start), Ok(()));
        let later = start + REMEMBERED + Duration::from_secs(1);
        assert_eq!(replays.note("a", &numbered(0), later), Ok(()));
    }
}
