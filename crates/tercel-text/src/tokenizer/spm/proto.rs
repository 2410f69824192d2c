//! The few fields of a `tokenizer.model` that a tokenizer needs: protocol buffers, read by hand
//! (sentencepiece_model.proto; protobuf.dev, "Encoding").

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct ModelProto<'a> {
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) trainer: Trainer,
    pub(super) normalizer: NormalizerSpec<'a>,
}

#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) score: f32,
    /// Numbered as in GGUF.
    pub(super) kind: i32,
}

/// Ids are negative where the model has no such token.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) model_type: u64,
    pub(super) byte_fallback: bool,
    pub(super) whitespace_as_suffix: bool,
    pub(super) unk: i64,
    pub(super) bos: i64,
    pub(super) eos: i64,
    pub(super) pad: i64,
}

#[derive(Debug)]
pub(super) struct NormalizerSpec<'a> {
    pub(super) charsmap: &'a [u8],
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

impl Default for Trainer {
    fn default() -> Self {
        Self {
            model_type: 1,
            byte_fallback: false,
            whitespace_as_suffix: false,
            unk: 0,
            bos: 1,
            eos: 2,
            pad: -1,
        }
    }
}

impl Default for NormalizerSpec<'_> {
    fn default() -> Self {
        Self {
            charsmap: &[],
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    Fixed64,
}

impl<'a> ModelProto<'a> {
    /// # Errors
    /// Says what is wrong with the bytes.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut out = Self::default();
        each_field(bytes, |field, value| {
            match (field, value) {
                (1, Value::Bytes(bytes)) => out.pieces.push(piece(bytes)?),
                (2, Value::Bytes(bytes)) => trainer(bytes, &mut out.trainer)?,
                (3, Value::Bytes(bytes)) => normalizer(bytes, &mut out.normalizer)?,
                (1..=3, _) => return Err(format!("field {field} is no message")),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }
}

fn piece(bytes: &[u8]) -> Result<Piece<'_>, String> {
    let mut out = Piece {
        text: "",
        score: 0.0,
        kind: 1,
    };
    each_field(bytes, |field, value| {
        match (field, value) {
            (1, Value::Bytes(text)) => {
                out.text = std::str::from_utf8(text).map_err(|_| "a piece that is not UTF-8")?;
            }
            (2, Value::Fixed32(bits)) => out.score = f32::from_bits(bits),
            (3, Value::Number(kind)) => {
                out.kind = i32::try_from(kind).map_err(|_| format!("a piece of kind {kind}"))?;
            }
            (1..=3, _) => return Err(format!("field {field} of a piece has the wrong type")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

fn trainer(bytes: &[u8], out: &mut Trainer) -> Result<(), String> {
    each_field(bytes, |field, value| {
        let Value::Number(number) = value else {
            return Ok(());
        };
        // Negative numbers are written in 64 bits.
        let id = number.cast_signed();
        match field {
            3 => out.model_type = number,
            24 => out.whitespace_as_suffix = number != 0,
            35 => out.byte_fallback = number != 0,
            40 => out.unk = id,
            41 => out.bos = id,
            42 => out.eos = id,
            43 => out.pad = id,
            _ => {}
        }
        Ok(())
    })
}

fn normalizer<'a>(bytes: &'a [u8], out: &mut NormalizerSpec<'a>) -> Result<(), String> {
    each_field(bytes, |field, value| {
        match (field, value) {
            (2, Value::Bytes(map)) => out.charsmap = map,
            (3, Value::Number(flag)) => out.add_dummy_prefix = flag != 0,
            (4, Value::Number(flag)) => out.remove_extra_whitespaces = flag != 0,
            (5, Value::Number(flag)) => out.escape_whitespaces = flag != 0,
            _ => {}
        }
        Ok(())
    })
}

fn each_field<'a>(
    mut rest: &'a [u8],
    mut take: impl FnMut(u64, Value<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut rest)?),
            1 => {
                bytes(&mut rest, 8)?;
                Value::Fixed64
            }
            2 => {
                let length = varint(&mut rest)?;
                Value::Bytes(bytes(&mut rest, length)?)
            }
            5 => {
                let word = bytes(&mut rest, 4)?.first_chunk();
                Value::Fixed32(word.map_or(0, |word| u32::from_le_bytes(*word)))
            }
            other => return Err(format!("a field of the wire type {other}")),
        };
        take(key >> 3, value)?;
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or("it ends within a number")?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than ten bytes".into())
}

fn bytes<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let split = usize::try_from(length).ok();
    let (taken, after) = split
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| format!("a field of {length} bytes where {} are left", rest.len()))?;
    *rest = after;
    Ok(taken)
}
