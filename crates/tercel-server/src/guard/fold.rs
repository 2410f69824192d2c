//! The form of a text in which phrases are looked for.

/// Lower case, one space between words, and without what a reader does not see: invisible
/// characters, full-width forms and the letters of other alphabets that look like Latin ones.
///
/// A whole normalisation of Unicode this is not; it takes away the cheap disguises.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars().filter(|&c| !is_invisible(c)) {
        let c = look_alike(c);
        // `system-prompt` and `system_prompt` say what `system prompt` says.
        if c.is_whitespace() || matches!(c, '_' | '-' | '\u{2010}'..='\u{2015}') {
            if !folded.is_empty() && !folded.ends_with(' ') {
                folded.push(' ');
            }
        } else {
            folded.extend(c.to_lowercase());
        }
    }
    folded
}

/// Characters without a shape of their own.
fn is_invisible(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{E0000}'..='\u{E0FFF}')
}

/// The Latin letter that looks the same, where there is one.
fn look_alike(c: char) -> char {
    match c {
        // Full-width forms stand in the order of ASCII.
        '\u{FF01}'..='\u{FF5E}' => {
            char::from_u32(u32::from(c) - 0xFF01 + u32::from('!')).unwrap_or(c)
        }
        // Cyrillic and Greek.
        '\u{430}' | '\u{410}' | '\u{3B1}' | '\u{391}' => 'a',
        '\u{435}' | '\u{415}' | '\u{395}' => 'e',
        '\u{456}' | '\u{406}' | '\u{3B9}' | '\u{399}' | '\u{131}' => 'i',
        '\u{458}' | '\u{408}' => 'j',
        '\u{43A}' | '\u{41A}' | '\u{3BA}' | '\u{39A}' => 'k',
        '\u{41C}' | '\u{39C}' => 'm',
        '\u{39D}' => 'n',
        '\u{43E}' | '\u{41E}' | '\u{3BF}' | '\u{39F}' => 'o',
        '\u{440}' | '\u{420}' | '\u{3C1}' | '\u{3A1}' => 'p',
        '\u{441}' | '\u{421}' => 'c',
        '\u{455}' | '\u{405}' => 's',
        '\u{422}' | '\u{3A4}' => 't',
        '\u{3BD}' | '\u{475}' => 'v',
        '\u{443}' | '\u{423}' | '\u{3B3}' | '\u{3A5}' => 'y',
        '\u{501}' => 'd',
        '\u{445}' | '\u{425}' | '\u{3A7}' => 'x',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disguises_come_off() {
        for (text, folded) in [
            ("System  PROMPT", "system prompt"),
            ("system\n\tprompt", "system prompt"),
            ("\u{a0}system\u{3000}prompt", "system prompt"),
            ("system_prompt", "system prompt"),
            ("system\u{2011}- prompt", "system prompt"),
            ("sys\u{200b}tem pro\u{feff}m\u{ad}pt", "system prompt"),
            ("\u{ff33}ystem \u{ff50}rompt", "system prompt"),
            ("syst\u{435}m pr\u{43e}mpt", "system prompt"),
            ("s\u{0}ystem\u{7f} p\u{1b}rompt", "system prompt"),
            ("", ""),
            ("\u{4f60}\u{597d}", "\u{4f60}\u{597d}"),
        ] {
            assert_eq!(fold(text), folded, "{text:?}");
        }
    }
}
