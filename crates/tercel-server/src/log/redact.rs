//! Takes out of a text what names a person or opens a door, before a part of it is logged.
//!
//! Only for those logs whose operator asked for texts. Patterns find what has a pattern; better too
//! much is taken than too little.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// Characters of an excerpt.
const EXCERPT_CHARS: usize = 80;

/// The beginning of a text, on one line, scrubbed.
pub(super) fn excerpt(text: &str) -> String {
    // Scrubbed before it is cut: half an address is no address to a pattern.
    let scrubbed = scrub(&without_controls(text, ' '));
    scrubbed.chars().take(EXCERPT_CHARS).collect()
}

/// The whole text, scrubbed; its lines stay.
pub(super) fn whole(text: &str) -> String {
    scrub(&without_controls(text, '\n'))
}

/// Whether there are addresses or numbers of persons in a text.
pub(super) fn has_personal_data(text: &str) -> bool {
    EMAIL.is_match(text) || PHONE.is_match(text)
}

fn scrub(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, replacement) in [
        (&KEY_BLOCK, "[REDACTED]"),
        (&NAMED_SECRET, "[REDACTED]"),
        (&TOKEN, "[REDACTED]"),
        (&USER_OF_URL, "://[REDACTED]@"),
        (&EMAIL, "[EMAIL]"),
        (&PHONE, "[PHONE_OR_ID]"),
    ] {
        let scrubbed = match pattern.replace_all(&text, replacement) {
            Cow::Borrowed(_) => continue,
            Cow::Owned(scrubbed) => scrubbed,
        };
        text = scrubbed;
    }
    text
}

/// Without control characters, and those that are not seen and could part a pattern.
fn without_controls(text: &str, line_end: char) -> String {
    let keep = |character| match character {
        '\n' | '\u{2028}' | '\u{2029}' => Some(line_end),
        '\t' => Some(' '),
        character if character.is_control() || is_unseen(character) => None,
        character => Some(character),
    };
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .chars()
        .filter_map(keep)
        .collect()
}

/// Soft hyphens, and characters without width or of direction.
fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{AD}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}'
    )
}

/// Any private key, with or without an end.
static KEY_BLOCK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?s)(?:-----)?BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:END [A-Z0-9 ]*PRIVATE KEY(?:-----)?|\z)",
    )
});

/// What follows a word for a secret.
static NAMED_SECRET: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?ix)
        (?: \b(?:api|access|secret|private)[\s_-]?key | passw(?:or)?d | passphrase | secret | token )
        ["']? \s* (?: [:=] | \bis\b ) \s* \S+
        | \b(?:bearer|basic)\s+[\w.~+/=-]{8,}"#,
    )
});

/// Secrets that are known by their beginning.
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x) \bsk-[A-Za-z0-9_-]{16,} | \bAKIA[0-9A-Z]{16} | \bgh[pousr]_[A-Za-z0-9]{20,}
        | \beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?",
    )
});

/// `https://name:password@host`.
static USER_OF_URL: LazyLock<Regex> = LazyLock::new(|| pattern(r"://[^\s/@]+@"));

/// Beside the plain form: names and hosts in any script, quoted names, and an encoded `@`.
static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?x) (?: "[^"\n]{1,64}" | [\w.!\#$%&'*+/=?^`{|}~-]+ )
        (?: @ | \u{FF20} | %40 ) [\w-]+ (?: [.\u{3002}] [\w-]+ )+"#,
    )
});

/// Eight digits or more, with what stands between them: from the first one, or the `+` before it,
/// to the last.
static PHONE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:\+\s?)?\(?\+?\d[\d\s().\-/\u{2010}-\u{2015}\u{2212}]{6,}\d"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the tests compile every pattern")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persons_and_secrets_are_taken_out_and_the_rest_stays() {
        for (text, scrubbed) in [
            ("plain text, 12 apples", "plain text, 12 apples"),
            (
                "write to a.b+c@mail.example.com now",
                "write to [EMAIL] now",
            ),
            ("<a@b.de>,c@d.org", "<[EMAIL]>,[EMAIL]"),
            ("j\u{f6}rg@b\u{fc}ro.de!", "[EMAIL]!"),
            ("\"john doe\"@example.com", "[EMAIL]"),
            ("mail=john%40example.com", "[EMAIL]"),
            ("jo\u{200b}hn@exa\u{0}mple.com", "[EMAIL]"),
            ("a\u{FF20}b.jp", "[EMAIL]"),
            ("a@b is no address", "a@b is no address"),
            // The plus goes too, the blank behind stays.
            ("call +49 30 1234567 now", "call [PHONE_OR_ID] now"),
            ("call (030) 123-45-67.", "call [PHONE_OR_ID]."),
            ("+1 (555) 010-9999, x", "[PHONE_OR_ID], x"),
            ("no 1234567 is short", "no 1234567 is short"),
            ("id:12345678", "id:[PHONE_OR_ID]"),
            (
                "\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}\u{667}\u{668}",
                "[PHONE_OR_ID]",
            ),
            ("4111 1111 1111 1111", "[PHONE_OR_ID]"),
            ("api key: abc-1", "[REDACTED]"),
            ("\"api_key\": \"x\" ,", "\"[REDACTED] ,"),
            ("the password is hunter2, ok", "the [REDACTED] ok"),
            (
                "Authorization: Bearer abcdefgh12",
                "Authorization: [REDACTED]",
            ),
            ("use sk-abcdefghij0123456789 here", "use [REDACTED] here"),
            (
                "git clone https://me:pw@host/x",
                "git clone https://[REDACTED]@host/x",
            ),
            (
                "k -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- z",
                "k [REDACTED] z",
            ),
            ("-----BEGIN EC PRIVATE KEY-----\nMIIE and on", "[REDACTED]"),
        ] {
            assert_eq!(whole(text), scrubbed, "{text:?}");
        }
    }

    #[test]
    fn an_excerpt_is_short_on_one_line_and_without_half_an_address() {
        assert_eq!(excerpt("a\r\nb\u{7}\tc\u{1b}[31m"), "a b c[31m");
        assert_eq!(excerpt(&"\u{1f600}".repeat(100)), "\u{1f600}".repeat(80));
        let cut = excerpt(&format!("{} john.doe@example.com", "x".repeat(72)));
        assert_eq!(cut, format!("{} [EMAIL]", "x".repeat(72)));
    }

    #[test]
    fn lines_stay_where_the_whole_text_is_asked_for() {
        assert_eq!(whole("a\r\nb\n\u{8}c"), "a\nb\nc");
    }

    #[test]
    fn personal_data_is_told_apart_from_other_texts() {
        for (text, has) in [
            ("a@b.de", true),
            ("0301234567", true),
            ("What is 2+2?", false),
        ] {
            assert_eq!(has_personal_data(text), has, "{text}");
        }
    }
}
