//! From token bytes to text that can be shown: whole characters, and no part of a stop string.

/// What a push to a [`TextStream`] sets free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// Text that is safe to show now; may be empty.
    pub text: String,
    /// The index of the stop string that ended the text, in the list given to
    /// [`TextStream::new`].
    pub stopped: Option<usize>,
}

/// Assembles streamed bytes into text.
///
/// Bytes of an unfinished character and text that may yet turn out to be a stop string are held
/// back. However the bytes are cut into pushes, the concatenated text is the same: without a stop
/// it equals `String::from_utf8_lossy` of all bytes, with one it ends right before the stop string
/// whose last character came first (the longest, where several end there).
#[derive(Debug, Clone)]
pub struct TextStream {
    stops: Vec<StopString>,
    /// Bytes that may yet become a character: at most 3.
    partial: Vec<u8>,
    /// Decoded text that may yet become a stop string.
    held: String,
    stopped: Option<usize>,
}

/// A stop string with its Knuth-Morris-Pratt automaton.
#[derive(Debug, Clone)]
struct StopString {
    index: usize,
    bytes: Vec<u8>,
    /// `fallback[n]`: the longest proper border of the first `n + 1` bytes.
    fallback: Vec<usize>,
    matched: usize,
}

impl TextStream {
    /// A stream that ends before any of the strings in `stop`. Empty strings stop nothing.
    pub fn new(stop: &[String]) -> Self {
        let stops = stop.iter().enumerate().filter(|(_, text)| !text.is_empty());
        Self {
            stops: stops
                .map(|(index, text)| StopString::new(index, text))
                .collect(),
            partial: Vec::new(),
            held: String::new(),
            stopped: None,
        }
    }

    /// Takes the bytes of one or more tokens. After a stop string nothing more comes out.
    pub fn push(&mut self, bytes: &[u8]) -> Piece {
        self.partial.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.partial);
        let mut rest = input.as_slice();
        let mut text = String::new();
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.accept(valid, &mut text);
                    break;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.accept(&String::from_utf8_lossy(valid), &mut text);
            let Some(bad) = error.error_len() else {
                self.partial = after.to_vec();
                break;
            };
            self.accept("\u{fffd}", &mut text);
            rest = &after[bad..];
        }
        Piece {
            text,
            stopped: self.stopped,
        }
    }

    /// Ends the stream: whatever was held back, with U+FFFD for an unfinished character. The
    /// stream is empty afterwards.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        if !std::mem::take(&mut self.partial).is_empty() {
            self.accept("\u{fffd}", &mut text);
        }
        text.push_str(&std::mem::take(&mut self.held));
        text
    }

    /// Runs whole characters through the automata; `out` gets what no stop string can claim.
    fn accept(&mut self, text: &str, out: &mut String) {
        if self.stopped.is_some() {
            return;
        }
        for (position, byte) in text.bytes().enumerate() {
            let mut hit: Option<(usize, usize)> = None;
            for stop in &mut self.stops {
                let complete = stop.step(byte);
                if complete && hit.is_none_or(|(length, _)| stop.bytes.len() > length) {
                    hit = Some((stop.bytes.len(), stop.index));
                }
            }
            if let Some((length, index)) = hit {
                self.held.push_str(&text[..=position]);
                self.held.truncate(self.held.len() - length);
                out.push_str(&std::mem::take(&mut self.held));
                self.stopped = Some(index);
                return;
            }
        }
        self.held.push_str(text);
        let withheld = self
            .stops
            .iter()
            .map(|stop| stop.matched)
            .max()
            .unwrap_or(0);
        out.extend(self.held.drain(..self.held.len() - withheld));
    }
}

impl StopString {
    fn new(index: usize, text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        let mut fallback = vec![0; bytes.len()];
        let mut border = 0;
        for at in 1..bytes.len() {
            while border > 0 && bytes[at] != bytes[border] {
                border = fallback[border - 1];
            }
            border += usize::from(bytes[at] == bytes[border]);
            fallback[at] = border;
        }
        Self {
            index,
            bytes,
            fallback,
            matched: 0,
        }
    }

    /// Advances by one byte; true when the whole string has just been seen.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}
