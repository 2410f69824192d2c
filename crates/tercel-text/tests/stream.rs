//! Streamed text: whole characters, no part of a stop string, the same however it was cut.

use proptest::prelude::*;
use tercel_text::TextStream;

/// All that comes out of a stream, and which stop string ended it. After each piece, what has
/// come out must not end with a held-back character.
fn run(stop: &[String], pieces: &[&[u8]]) -> (String, Option<usize>) {
    let mut stream = TextStream::new(stop);
    let (mut text, mut stopped) = (String::new(), None);
    for piece in pieces {
        let out = stream.push(piece);
        text.push_str(&out.text);
        stopped = out.stopped;
    }
    text.push_str(&stream.finish());
    (text, stopped)
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn text_ends_before_the_stop_string() {
    /// Stop strings, pieces, the text that comes out, and which string stopped it.
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<usize>);
    let cases: &[Case<'_>] = &[
        (&[], &["Hello", " world"], "Hello world", None),
        (&["END"], &["one E", "N", "D two"], "one ", Some(0)),
        (&["END"], &["one EN", "E", "ND"], "one EN", Some(0)),
        (&["aab"], &["a", "a", "a", "b"], "a", Some(0)),
        (&["abab", "c"], &["aba", "c"], "aba", Some(1)),
        (&["x", "yx"], &["a y", "x b"], "a ", Some(1)),
        (&["\n\n"], &["a\n", "b\n", "\nc"], "a\nb", Some(0)),
        (&["", "b"], &["a", "b"], "a", Some(1)),
        (&["stop"], &["sto"], "sto", None),
        (&["\u{e9}"], &["caf\u{e9}s"], "caf", Some(0)),
        (&["a"], &["a", "more", "a"], "", Some(0)),
    ];
    for (stop, pieces, text, stopped) in cases {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        assert_eq!(
            run(&strings(stop), &pieces),
            ((*text).to_owned(), *stopped),
            "{stop:?} {pieces:?}"
        );
    }
}

#[test]
fn characters_are_never_split() {
    let mut stream = TextStream::new(&[]);
    let mut seen = Vec::new();
    for byte in "\u{e9}\u{1f600}z".bytes() {
        seen.push(stream.push(&[byte]).text);
    }
    assert_eq!(seen, ["", "\u{e9}", "", "", "", "\u{1f600}", "z"]);
    assert_eq!(stream.push(&[0xf0, 0x9f]).text, "");
    assert_eq!(stream.push(b"a").text, "\u{fffd}a");
    assert_eq!(stream.push(&[0xff, 0xe4]).text, "\u{fffd}");
    assert_eq!(stream.finish(), "\u{fffd}");
    assert_eq!(stream.finish(), "");
}

#[test]
fn a_prefix_is_held_until_it_is_refuted() {
    let mut stream = TextStream::new(&strings(&["<end>"]));
    let texts = ["a<e", "n", "x<", "end", ">b"].map(|piece| stream.push(piece.as_bytes()).text);
    assert_eq!(texts, ["a", "", "<enx", "", ""]);
    assert_eq!(stream.push(b"more").stopped, Some(0));
}

proptest! {
    #[test]
    fn the_cut_does_not_matter(
        text in "(a|b|ab|\u{e9}|\u{1f600}|\n|[\\x00-\\x7f]){0,30}",
        noise in prop::collection::vec(any::<u8>(), 0..6),
        stop in prop::collection::vec("(a|b|\u{e9}|\n){0,4}", 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = text.into_bytes();
        bytes.extend(noise);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let whole = run(&stop, &[&bytes]);
        prop_assert_eq!(&run(&stop, &pieces), &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(run(&stop, &single).0, whole.0.clone());
        let lossy = String::from_utf8_lossy(&bytes);
        match whole.1 {
            None => prop_assert_eq!(&whole.0, &lossy),
            Some(index) => {
                let start = whole.0.clone() + &stop[index];
                prop_assert!(lossy.starts_with(&start));
            }
        }
        for stop in stop.iter().filter(|stop| !stop.is_empty()) {
            prop_assert!(!whole.0.contains(stop.as_str()));
        }
    }
}
