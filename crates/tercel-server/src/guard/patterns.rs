//! What replies are searched for (13.2 and 13.4 of the book, with their gaps closed).

use super::scan::{Cursor, Matcher, Pattern, Stop};

/// The reply announces a secret.
pub(super) const SENSITIVE_OUTPUT: &str = "sensitive_output";
/// Something that grants access.
pub(super) const SECRET: &str = "secret_redacted";
/// An e-mail address or a telephone number.
pub(super) const PERSONAL_DATA: &str = "personal_data_redacted";

/// From one of these on, a reply is withheld.
pub(super) fn announcements() -> Vec<Pattern> {
    let begins = |starts: Matcher| Pattern {
        rule: SENSITIVE_OUTPUT,
        starts,
        goes_on: None,
    };
    vec![
        begins(key_block),
        begins(here_is_the_password),
        begins(private_key),
    ]
}

/// Each of these is replaced.
pub(super) fn secrets(personal_data: bool) -> Vec<Pattern> {
    let mut patterns = vec![
        Pattern {
            rule: SECRET,
            starts: api_key,
            goes_on: Some(value),
        },
        Pattern {
            rule: SECRET,
            starts: secret_token,
            goes_on: Some(token_character),
        },
    ];
    if personal_data {
        patterns.push(Pattern {
            rule: PERSONAL_DATA,
            starts: email,
            goes_on: None,
        });
        patterns.push(Pattern {
            rule: PERSONAL_DATA,
            starts: number,
            goes_on: Some(next_digit),
        });
    }
    patterns
}

/// White space between the words of a pattern, in characters.
const GAP: usize = 16;
/// What may stand between a name and its value, in characters. More than that counts as a value:
/// a secret is not to be had by putting it far away.
const FILLER: usize = 64;
/// The label of a key block, such as `OPENSSH PRIVATE KEY`, in characters.
const LABEL: usize = 48;
/// Parts of an address, in characters (RFC 5321, 4.5.3.1).
const LOCAL_PART: usize = 64;
const DOMAIN: usize = 253;

/// `-----BEGIN .. PRIVATE KEY`: all that follows is its key, whether it has an end or not.
fn key_block(at: &mut Cursor<'_>) -> Result<(), Stop> {
    if !at.run(0..=8, |c| c == '-')?.is_empty() {
        at.run(0..=1, |c| c == ' ')?;
    }
    let begin = at.run(5..=5, |c| c.is_ascii_uppercase())?;
    if begin != "BEGIN" {
        return Err(Stop::Absent);
    }
    at.run(1..=1, |c| c == ' ')?;
    // A label that ends, or is too long, decides; one that says it is a key need not end.
    let is_label = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
    let seen = at.rest().char_indices().take(LABEL);
    let label = seen.take_while(|(_, c)| is_label(*c)).last();
    let label = label
        .and_then(|(end, _)| at.rest().get(..=end))
        .unwrap_or_default();
    if let Some(start) = label.find("PRIVATE KEY") {
        at.skip(start + "PRIVATE KEY".len());
        return Ok(());
    }
    at.run(0..=LABEL, is_label)?;
    Err(Stop::Absent)
}

fn here_is_the_password(at: &mut Cursor<'_>) -> Result<(), Stop> {
    words(at, &["here", "is", "the", "password"])
}

fn private_key(at: &mut Cursor<'_>) -> Result<(), Stop> {
    words(at, &["private", "key"])
}

fn words(at: &mut Cursor<'_>, words: &[&str]) -> Result<(), Stop> {
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            at.run(1..=GAP, char::is_whitespace)?;
        }
        at.word(word)?;
    }
    Ok(())
}

/// `api_key = x`, `api key: "x"`, `"api-key": "x"`, `**API key:** x`.
fn api_key(at: &mut Cursor<'_>) -> Result<(), Stop> {
    at.word("api")?;
    at.run(0..=1, |c| matches!(c, '_' | '-') || c.is_whitespace())?;
    at.word("key")?;
    at.run(0..=3, |c| matches!(c, '"' | '\'' | '`' | '*'))?;
    at.run(0..=GAP, char::is_whitespace)?;
    at.run(1..=1, |c| matches!(c, ':' | '='))?;
    let filler = at.run(0..=FILLER, |c| {
        c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '*' | ':' | '=' | '>')
    })?;
    if filler.chars().count() < FILLER {
        at.run(1..=1, |c| !c.is_whitespace())?;
    }
    Ok(())
}

/// The rest of a value, up to the first white space behind it.
fn value(at: &mut Cursor<'_>) -> Result<(), Stop> {
    // Where the filler was too long, the value is still to come.
    let is_before = at.before().is_some_and(char::is_whitespace);
    at.run(1..=1, |c| is_before || !c.is_whitespace()).map(drop)
}

/// `sk-` and 20 characters, be it behind short labels as in `sk-proj-..`.
fn secret_token(at: &mut Cursor<'_>) -> Result<(), Stop> {
    at.word("sk-")?;
    for _ in 0..5 {
        let part = at.run(1..=20, |c| c.is_ascii_alphanumeric() || c == '_')?;
        if part.len() == 20 {
            return Ok(());
        }
        at.run(1..=1, |c| c == '-')?;
    }
    Err(Stop::Absent)
}

fn token_character(at: &mut Cursor<'_>) -> Result<(), Stop> {
    let class = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    at.run(1..=1, class).map(drop)
}

fn email(at: &mut Cursor<'_>) -> Result<(), Stop> {
    let local = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-');
    at.run(1..=LOCAL_PART, local)?;
    at.run(1..=1, |c| c == '@')?;
    let start = at.rest();
    let domain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let domain = at.run(1..=DOMAIN, domain)?;
    // The last dot with two letters behind it ends the address; a full stop is not part of it.
    let end = domain.rmatch_indices('.').find_map(|(dot, _)| {
        let letters = domain
            .bytes()
            .skip(dot + 1)
            .take_while(u8::is_ascii_alphabetic)
            .count();
        (dot > 0 && letters >= 2).then_some(dot + 1 + letters)
    });
    let end = end.ok_or(Stop::Absent)?;
    at.back_to(start);
    at.skip(end);
    Ok(())
}

/// At least eight digits, which spaces and hyphens may part, with a `+` or without.
fn number(at: &mut Cursor<'_>) -> Result<(), Stop> {
    if at.before().is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return Err(Stop::Absent);
    }
    at.run(0..=1, |c| c == '+')?;
    at.run(1..=1, |c| c.is_ascii_digit())?;
    (1..8).try_for_each(|_| next_digit(at))
}

fn next_digit(at: &mut Cursor<'_>) -> Result<(), Stop> {
    at.run(0..=2, |c| matches!(c, ' ' | '\t' | '-'))?;
    at.run(1..=1, |c| c.is_ascii_digit()).map(drop)
}
