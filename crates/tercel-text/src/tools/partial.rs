//! A call that is still coming, as far as it can be told.

/// What is known of `{"name": .., "arguments": ..}`, the beginning of which is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Partial<'t> {
    pub(super) name: Option<String>,
    /// The arguments as they are written, so far.
    pub(super) arguments: Option<&'t str>,
    /// Whether there are keys that calls do not have.
    pub(super) has_others: bool,
}

/// Reads the beginning of a call. What is no such object gives nothing.
pub(super) fn read(text: &str) -> Partial<'_> {
    let mut found = Partial::default();
    let mut scan = Scan { text, at: 0 };
    if !scan.take(b'{') {
        return found;
    }
    loop {
        let Some(key) = scan.string() else {
            return found;
        };
        if !scan.take(b':') {
            return found;
        }
        let (value, is_whole) = scan.value();
        match key.as_str() {
            // Of what is said twice the first counts here; whoever reads the whole finds out.
            "name" if is_whole && found.name.is_none() => {
                found.name = serde_json::from_str(value).ok();
            }
            "arguments" | "parameters" if found.arguments.is_none() && value.starts_with('{') => {
                found.arguments = Some(value);
            }
            "name" | "arguments" | "parameters" | "type" | "id" => {}
            _ => found.has_others = true,
        }
        if !is_whole || !scan.take(b',') {
            return found;
        }
    }
}

/// Whether a JSON text ends in one of its strings. Texts of other forms do not.
pub(super) fn ends_in_string(text: &str) -> bool {
    if !text.trim_start().starts_with(['{', '[']) {
        return false;
    }
    let mut scan = Scan { text, at: 0 };
    while let Some(byte) = scan.peek() {
        if byte == b'"' {
            if !scan.pass_string() {
                return true;
            }
        } else {
            scan.at += 1;
        }
    }
    false
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// A whole string.
    fn string(&mut self) -> Option<String> {
        self.skip_space();
        let start = self.at;
        if self.peek() != Some(b'"') || !self.pass_string() {
            return None;
        }
        serde_json::from_str(&self.text[start..self.at]).ok()
    }

    /// Goes behind a string; whether it has an end.
    fn pass_string(&mut self) -> bool {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => return true,
                _ => {}
            }
        }
        self.at = self.text.len();
        false
    }

    /// A value, and whether it is whole.
    fn value(&mut self) -> (&'t str, bool) {
        self.skip_space();
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    if !self.pass_string() {
                        return (&self.text[start..], false);
                    }
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' | b',' if depth == 0 => return (&self.text[start..self.at], true),
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            let is_closed = matches!(byte, b'"' | b'}' | b']');
            if depth == 0 && is_closed {
                return (&self.text[start..self.at], true);
            }
        }
        (&self.text[start..], false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_call_is_told() {
        for (text, name, arguments) in [
            ("", None, None),
            (r#"{"na"#, None, None),
            (r#"{"name": "we"#, None, None),
            (r#"{"name": "weather""#, Some("weather"), None),
            (
                r#"{"name": "weather", "arguments": "#,
                Some("weather"),
                None,
            ),
            (
                r#"{"name": "weather", "arguments": {"ci"#,
                Some("weather"),
                Some(r#"{"ci"#),
            ),
            (
                r#"{"name":"a","arguments":{"b":"}\""}} x"#,
                Some("a"),
                Some(r#"{"b":"}\""}"#),
            ),
            (
                r#"{"parameters": {"x": [1, {}]}, "name": "b"}"#,
                Some("b"),
                Some(r#"{"x": [1, {}]}"#),
            ),
            (
                r#"{"id": 7, "name": "b", "arguments": {}}"#,
                Some("b"),
                Some("{}"),
            ),
            (r#"{"name": "b", "arguments": "text"}"#, Some("b"), None),
            (
                r#"{"name": "b", "arguments": {"a": 1}, "parameters": {"#,
                Some("b"),
                Some(r#"{"a": 1}"#),
            ),
            (r#"{"name": "b", "name": "c""#, Some("b"), None),
            ("[1]", None, None),
            (r#"{"name": "b\"#, None, None),
        ] {
            let found = read(text);
            assert_eq!(
                (found.name.as_deref(), found.arguments),
                (name, arguments),
                "{text}"
            );
        }
    }
}
