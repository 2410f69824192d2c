//! Hashes that say whether two texts are the same, without saying what they are.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The hash of a text: `sha256:` and its digits, or `hmac-sha256:` with a key, which keeps short
/// texts from being guessed.
pub(super) fn hash(text: &str, key: Option<&[u8]>) -> String {
    let text = normalize(text);
    let keyed = key.and_then(|key| Hmac::<Sha256>::new_from_slice(key).ok());
    match keyed {
        Some(mut mac) => {
            mac.update(text.as_bytes());
            format!("hmac-sha256:{}", hex(&mac.finalize().into_bytes()))
        }
        None => format!("sha256:{}", hex(&Sha256::digest(text.as_bytes()))),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The text without what does not matter: line ends are LF, and outside of code blocks each run of
/// whitespace is one space, with none at the ends. A code block, from a line that begins with three
/// backticks to the next such line, stays line by line.
fn normalize(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(text.len());
    let mut is_code = false;
    for line in text.split('\n') {
        let is_fence = line.trim_start().starts_with("```");
        if is_fence || is_code {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(line);
            out.push('\n');
            is_code ^= is_fence;
            continue;
        }
        for word in line.split_whitespace() {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push(' ');
            }
            out.push_str(word);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_matter_is_taken_away() {
        for (text, normalized) in [
            ("", ""),
            ("  a \t b\r\n\r\n c\rd ", "a b c d"),
            ("a\u{a0}b", "a b"),
            (
                "see:\n```py\nif  x:\n    y\n```\n  end",
                "see:\n```py\nif  x:\n    y\n```\nend",
            ),
            ("```\r\nopen  block\r\n", "```\nopen  block\n\n"),
            ("a ``` b  c", "a ``` b c"),
        ] {
            assert_eq!(normalize(text), normalized, "{text:?}");
        }
    }

    #[test]
    fn the_same_text_has_the_same_hash_and_a_key_changes_it() {
        assert_eq!(
            hash("abc", None),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hash(" a\r\n b", None), hash("a b\n", None));
        assert_ne!(hash("```\na  b", None), hash("```\na b", None));
        // RFC 4231, test case 2.
        assert_eq!(
            hash("what do ya want for nothing?", Some(b"Jefe")),
            "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
