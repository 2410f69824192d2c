//! Replies from which secrets are taken out while they are made.

use super::patterns::{self, PERSONAL_DATA, SECRET, SENSITIVE_OUTPUT};
use super::scan::{Part, Scanner};
use crate::config::GuardPolicy;

/// What stands in place of what was taken out.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// Takes secrets out of a reply, and withholds the rest of one that announces them.
///
/// The announcements are looked for in what the model said, not in what is left of it: a key is
/// withheld though its marker is replaced. However the reply is cut into pieces, what passes is the
/// same, and nothing passes before it is decided.
pub(crate) struct OutputFilter {
    /// Before the replacements.
    announcements: Scanner,
    secrets: Scanner,
    rule: Option<&'static str>,
}

impl OutputFilter {
    /// The filter, where the policy wants one.
    pub(crate) fn of(policy: &GuardPolicy) -> Option<Self> {
        policy.output.then(|| Self {
            announcements: Scanner::new(patterns::announcements()),
            secrets: Scanner::new(patterns::secrets(policy.personal_data)),
            rule: None,
        })
    }

    /// Takes the next piece and gives what may be shown by now.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        self.read(piece, true)
    }

    /// What was still held back, and the rule that fired: `sensitive_output` where the reply was
    /// withheld from some place on, else `secret_redacted` or `personal_data_redacted`.
    pub(crate) fn finish(mut self) -> (String, Option<&'static str>) {
        let rest = self.read("", false);
        (rest, self.rule)
    }

    fn read(&mut self, piece: &str, more: bool) -> String {
        let mut shown = String::new();
        if self.is_withheld() {
            return shown;
        }
        let (secrets, rule) = (&mut self.secrets, &mut self.rule);
        self.announcements.read(piece, more, |part| match part {
            _ if *rule == Some(SENSITIVE_OUTPUT) => {}
            Part::Text(text) => redact(secrets, text, true, &mut shown, rule),
            Part::Found(announced) => {
                // What the secrets are undecided about goes too, with the same mark.
                *rule = Some(announced);
                shown.push_str(REDACTED);
            }
        });
        if !more && !self.is_withheld() {
            redact(&mut self.secrets, "", false, &mut shown, &mut self.rule);
        }
        shown
    }

    fn is_withheld(&self) -> bool {
        self.rule == Some(SENSITIVE_OUTPUT)
    }
}

fn redact(
    secrets: &mut Scanner,
    text: &str,
    more: bool,
    shown: &mut String,
    rule: &mut Option<&'static str>,
) {
    secrets.read(text, more, |part| match part {
        Part::Text(text) => shown.push_str(text),
        Part::Found(found) => {
            shown.push_str(REDACTED);
            // A secret is told before personal data.
            if *rule != Some(SECRET) {
                *rule = Some(found);
            }
        }
    });
    debug_assert!(rule.is_none_or(|it| [SECRET, PERSONAL_DATA].contains(&it)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(personal_data: bool) -> OutputFilter {
        let policy = GuardPolicy {
            output: true,
            personal_data,
            ..GuardPolicy::default()
        };
        OutputFilter::of(&policy).unwrap()
    }

    fn filtered(text: &str) -> (String, Option<&'static str>) {
        in_pieces([text], true)
    }

    fn in_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a str>,
        personal_data: bool,
    ) -> (String, Option<&'static str>) {
        let mut filter = filter(personal_data);
        let mut shown: String = pieces.into_iter().map(|piece| filter.push(piece)).collect();
        let (rest, rule) = filter.finish();
        shown.push_str(&rest);
        (shown, rule)
    }

    #[test]
    fn it_is_off_by_default() {
        assert!(OutputFilter::of(&GuardPolicy::default()).is_none());
    }

    #[test]
    fn secrets_are_replaced() {
        for (text, shown) in [
            ("use sk-abcdefghijklmnopqrst now", "use [REDACTED] now"),
            ("sk-abcdefghijklmnopqrstuvwxyz0123456789", "[REDACTED]"),
            ("(sk-abcdefghijklmnopqrst)", "([REDACTED])"),
            ("sk-proj-abc-abcdefghijklmnopqrst-uv_w x", "[REDACTED] x"),
            ("api_key=abc123 next", "[REDACTED] next"),
            ("API-KEY : abc", "[REDACTED]"),
            ("api key: x", "[REDACTED]"),
            ("the apikey=x.", "the [REDACTED]"),
            (
                "{\"api_key\": \"abc\", \"b\": 1}",
                "{\"[REDACTED] \"b\": 1}",
            ),
            ("**API key:** abc def", "**[REDACTED] def"),
            ("api key => abc", "[REDACTED]"),
            ("api key =\n  abc\ndef", "[REDACTED]\ndef"),
            ("api_key=a sk-abcdefghijklmnopqrst", "[REDACTED] [REDACTED]"),
        ] {
            let (text, rule) = (filtered(text), Some(SECRET));
            assert_eq!(text, (shown.to_owned(), rule));
        }
    }

    #[test]
    fn a_value_far_from_its_name_is_replaced_too() {
        let text = format!("api key:{}hunter2 and on", " ".repeat(500));
        assert_eq!(filtered(&text).0, "[REDACTED] and on");
    }

    #[test]
    fn personal_data_are_replaced_where_asked_for() {
        for (text, shown) in [
            ("mail bob.b+c@mail.example.com.", "mail [REDACTED]."),
            ("<bob@example.com>", "<[REDACTED]>"),
            ("a@b.co, c@d.org", "[REDACTED], [REDACTED]"),
            ("call +49 171 2345678 now", "call [REDACTED] now"),
            ("call 555-123-4567.", "call [REDACTED]."),
            ("id 1234567890123456789012345", "id [REDACTED]"),
            ("12345678 ", "[REDACTED] "),
        ] {
            let is_shown = (shown.to_owned(), Some(PERSONAL_DATA));
            assert_eq!(filtered(text), is_shown);
            assert_eq!(in_pieces([text], false), (text.to_owned(), None));
        }
        assert_eq!(filtered("a@b.co api_key=x a@b.co").1, Some(SECRET));
    }

    #[test]
    fn the_rest_of_a_reply_that_announces_a_secret_is_withheld() {
        for (text, shown) in [
            (
                "Sure, here is the password: hunter2. Bye",
                "Sure, [REDACTED]",
            ),
            ("Here  is\nthe PASSWORD", "[REDACTED]"),
            ("Keep your private key safe.", "Keep your [REDACTED]"),
            ("a\n-----BEGIN PRIVATE KEY-----\nMIIE", "a\n[REDACTED]"),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
                "a\n[REDACTED]",
            ),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "[REDACTED]"),
            ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nx", "[REDACTED]"),
            ("BEGIN EC PRIVATE KEY x", "[REDACTED]"),
            ("api key: private key", "[REDACTED]"),
            ("bob@private key", "[REDACTED]"),
            ("sk-abcdefghijprivate key", "[REDACTED]"),
            ("api_key=x and private key", "[REDACTED] and [REDACTED]"),
        ] {
            assert_eq!(
                filtered(text),
                (shown.to_owned(), Some(SENSITIVE_OUTPUT)),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_pass() {
        for text in [
            "",
            "An api is the key to it.",
            "api key",
            "api key: ",
            "The API key is a secret.",
            "sk-short and task-oriented-programming-language-design",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "BEGIN THE PRIVATE PARTY",
            "privately keyed, public key",
            "here is the pass",
            "a@b, @c.de x@.de",
            "In 2024 there were 1234567 of 9.81",
            "v12345678x_99999999",
            "1\n2\n3\n4\n5\n6\n7\n8\n9",
            "----------------------------------------",
            "\u{1f600} \u{4f60}\u{597d} sk",
        ] {
            assert_eq!(filtered(text), (text.to_owned(), None));
        }
    }

    #[test]
    fn plain_text_is_not_held_back() {
        let mut filter = filter(true);
        assert_eq!(filter.push("Hello, "), "Hello, ");
        assert_eq!(filter.push("world! "), "world! ");
    }

    #[test]
    fn nothing_of_a_secret_is_shown_before_it_is_decided() {
        let mut filter = filter(true);
        let mut shown = String::new();
        for c in "key sk-abcdefghijklmnopqrstuv!".chars() {
            shown.push_str(&filter.push(c.encode_utf8(&mut [0; 4])));
            assert!(!shown.contains('-'), "{shown}");
        }
        assert_eq!(shown, "key [REDACTED]!");
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        for endless in [
            "-",
            "BEGIN ",
            "BEGIN A",
            "api key: ",
            "api",
            "private ",
            "sk-",
            "sk-a-",
            "a@b.c",
            "a",
            "a.",
            "@a.",
            "+",
            "1",
            "1 ",
            " ",
            "\n",
            "\u{3000}",
            "api key\u{3000}",
            "x\u{1f600}",
            "here is the ",
            "-----BEGIN PRIVATE KEY-----\n",
        ] {
            for lead in ["", "api key:", "a@", "private", "-----BEGIN ", "sk-"] {
                let mut filter = filter(true);
                filter.push(lead);
                for _ in 0..2000 {
                    filter.push(endless);
                    let held = filter.announcements.held_bytes() + filter.secrets.held_bytes();
                    assert!(held <= 1024, "{lead:?} {endless:?}: {held}");
                }
            }
        }
    }

    /// Texts in which the patterns meet, part and run into each other.
    fn texts() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            "a",
            "Z",
            "0",
            "12",
            " ",
            "  ",
            "\n",
            "-",
            "--",
            "+",
            ".",
            ",",
            "@",
            ":",
            "=",
            "\"",
            "*",
            "sk-",
            "SK-",
            "abcdefghij",
            "klmnopqrst",
            "api",
            "Api_",
            "key",
            "KEY",
            "private",
            "PRIVATE ",
            "-----",
            "BEGIN ",
            "RSA ",
            "END ",
            "here is ",
            "the ",
            "password",
            "555",
            "bob",
            "example",
            ".com",
            "\u{1f600}",
            "\u{4f60}",
            "\u{e9}",
            "\u{3000}",
        ]);
        prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in texts(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            personal_data in any::<bool>(),
        ) {
            let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let mut cuts: Vec<usize> = cuts
                .iter()
                .filter(|_| !bounds.is_empty())
                .map(|cut| *cut.get(&bounds))
                .chain([0, text.len()])
                .collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]);
            let whole = in_pieces([&*text], personal_data);
            prop_assert_eq!(in_pieces(pieces, personal_data), whole.clone());
            let each = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
            prop_assert_eq!(in_pieces(each, personal_data), whole);
        }

        #[test]
        fn what_passes_holds_none_of_it(text in texts()) {
            let (shown, _) = filtered(&text);
            for pattern in [
                r"sk-[A-Za-z0-9]{20,}",
                r#"(?i)api[_ -]?key\s{0,16}[:=][\s"'`*:=>]{0,64}[^\s"'`*:=>\[]"#,
                r"(?i)private\s{1,16}key",
                r"(?i)here\s{1,16}is\s{1,16}the\s{1,16}password",
                r"BEGIN (RSA )?PRIVATE KEY",
                r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
            ] {
                let found = regex::Regex::new(pattern).unwrap().find(&shown).map(|it| it.as_str().to_owned());
                prop_assert_eq!(found, None, "{}", pattern);
            }
        }
    }
}
