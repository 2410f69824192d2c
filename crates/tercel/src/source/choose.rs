//! Which GGUF file is the model, where a place holds several.

use super::layout::SplitName;

/// Quantizations from the one that suits most devices to the one that suits fewest.
const PREFERENCE: [&str; 18] = [
    "Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", "Q4_K", "IQ4_XS", "IQ4_NL", "Q5_K_M", "Q5_K_S", "Q5_0",
    "Q5_1", "Q6_K", "Q8_0", "Q3_K_M", "Q3_K_L", "Q2_K", "F16", "BF16",
];

/// Picks the model among the GGUF files of a repository: the only one, or the one with the wanted
/// quantization, or the most widely useful one. A split model is named by its first part.
///
/// The reason for a refusal continues a sentence that begins with the repository.
pub(super) fn among(files: &[String], wanted: Option<&str>) -> Result<String, String> {
    let whole: Vec<&String> = files
        .iter()
        .filter(|file| !is_companion(file))
        .filter(|file| SplitName::parse(file).is_none_or(|split| split.index == 1))
        .collect();
    if whole.is_empty() {
        return Err("has no GGUF file that is a language model".to_owned());
    }
    let of = |quantization: &str| {
        let mut matching: Vec<&&String> = whole
            .iter()
            .filter(|file| has_word(file, quantization))
            .collect();
        matching.sort();
        matching.first().map(|file| (**file).clone())
    };
    if let Some(wanted) = wanted {
        return of(wanted)
            .ok_or_else(|| format!("has no GGUF file named {wanted}; it has {}", listed(&whole)));
    }
    if let [one] = whole.as_slice() {
        return Ok((*one).clone());
    }
    PREFERENCE
        .iter()
        .find_map(|quantization| of(quantization))
        .ok_or_else(|| format!("has several GGUF files, name one of {}", listed(&whole)))
}

/// Projectors and importance matrices lie beside models and are none.
pub(super) fn is_companion(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
    name.contains("mmproj") || name.contains("imatrix")
}

/// Whether `word` stands in the file name with no letter, digit or `_` next to it, so that `Q4_K`
/// is not found in `Q4_K_M`, nor `F16` in `BF16`.
fn has_word(file: &str, word: &str) -> bool {
    let (file, word) = (file.to_lowercase(), word.to_lowercase());
    let part_of_a_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    file.match_indices(&word).any(|(at, _)| {
        !part_of_a_word(file[..at].chars().next_back())
            && !part_of_a_word(file[at + word.len()..].chars().next())
    })
}

fn listed(files: &[&String]) -> String {
    const MOST: usize = 12;
    let names: Vec<&str> = files.iter().take(MOST).map(|file| file.as_str()).collect();
    let more = if files.len() > MOST { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(files: &[&str], wanted: Option<&str>) -> Result<String, String> {
        among(
            &files
                .iter()
                .map(|file| (*file).to_owned())
                .collect::<Vec<_>>(),
            wanted,
        )
    }

    #[test]
    fn the_most_widely_useful_file_is_chosen() {
        for (files, wanted, expected) in [
            (&["any.gguf"][..], None, Ok("any.gguf")),
            (
                &["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-F16.gguf"],
                None,
                Ok("m-Q4_K_M.gguf"),
            ),
            (&["m.Q8_0.gguf", "m.Q4_0.gguf"], None, Ok("m.Q4_0.gguf")),
            (
                &["m-q4_k_s.gguf", "m-q4_k_m.gguf"],
                None,
                Ok("m-q4_k_m.gguf"),
            ),
            (&["m-bf16.gguf", "m-f16.gguf"], None, Ok("m-f16.gguf")),
            (
                &["m-Q4_K_M.gguf", "m-Q8_0.gguf"],
                Some("q8_0"),
                Ok("m-Q8_0.gguf"),
            ),
            (
                &["mmproj-Q4_K_M.gguf", "m-Q8_0.gguf"],
                None,
                Ok("m-Q8_0.gguf"),
            ),
            (
                &[
                    "m-Q4_K_M-00001-of-00002.gguf",
                    "m-Q4_K_M-00002-of-00002.gguf",
                ],
                None,
                Ok("m-Q4_K_M-00001-of-00002.gguf"),
            ),
            (
                &[
                    "Q8_0/m-Q8_0-00001-of-00002.gguf",
                    "Q8_0/m-Q8_0-00002-of-00002.gguf",
                    "m-Q6_K.gguf",
                ],
                Some("Q8_0"),
                Ok("Q8_0/m-Q8_0-00001-of-00002.gguf"),
            ),
            (
                &["m-00002-of-00002.gguf"],
                None,
                Err("no GGUF file that is a language model"),
            ),
            (
                &["mmproj.gguf"],
                None,
                Err("no GGUF file that is a language model"),
            ),
            (
                &["a.gguf", "b.gguf"],
                None,
                Err("name one of a.gguf, b.gguf"),
            ),
            (
                &["m-Q4_K_M.gguf"],
                Some("Q4_K"),
                Err("no GGUF file named Q4_K"),
            ),
        ] {
            match (choose(files, wanted), expected) {
                (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected),
                (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
                (other, _) => panic!("{files:?}: {other:?}"),
            }
        }
    }
}
