//! Numbers and tables for people.

use tercel::cores::{self, CoreSet};
use tercel::{Reply, TokenId, Tokenizer};

/// A size with a unit: 1 KB is 1024 bytes.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} bytes"),
    }
}

/// A count such as `134.5 M`.
pub(crate) fn count(number: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("B", 1_000_000_000), ("M", 1_000_000), ("K", 1_000)];
    match UNITS.iter().find(|(_, size)| number >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", number as f64 / *size as f64),
        None => number.to_string(),
    }
}

/// A duration with two meaningful digits.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

/// The statistics of a reply in one line.
pub(crate) fn statistics(reply: &Reply) -> String {
    let rate = |rate: f64| match rate {
        r if r <= 0.0 => "-".to_owned(),
        r if r < 10.0 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    };
    let (usage, timings) = (&reply.usage, &reply.timings);
    let cached = match usage.cached_tokens {
        0 => String::new(),
        cached => format!(" ({cached} cached)"),
    };
    let first = match usage.generated_tokens {
        0 => "-".to_owned(),
        _ => seconds(timings.time_to_first_token),
    };
    let thinking = match usage.thinking_tokens {
        0 => String::new(),
        thinking => format!(" ({thinking} thinking)"),
    };
    format!(
        "{} prompt{cached} + {} generated tokens{thinking} | ttft {first} | prefill {}, decode {} tok/s | \
         {} | {}, {} | seed {}",
        usage.prompt_tokens,
        usage.generated_tokens,
        rate(timings.prefill_tokens_per_second()),
        rate(timings.tokens_per_second()),
        reply.stop_reason,
        reply.backend,
        threads(reply.threads),
        reply.settings.seed,
    )
}

/// `2 threads`, and on which processors where the process may not use all.
pub(crate) fn threads(count: usize) -> String {
    let threads = plural(count, "thread");
    match (cores::of_process(), cores::online()) {
        (Some(own), Some(all)) if own.count() < all.count() => threads_on(count, &own),
        _ => threads,
    }
}

/// `2 threads on cores 0-1`.
pub(crate) fn threads_on(count: usize, cores: &CoreSet) -> String {
    let threads = plural(count, "thread");
    match cores.count() {
        1 => format!("{threads} on core {cores}"),
        _ => format!("{threads} on cores {cores}"),
    }
}

/// `1 thread`, `2 threads`.
pub(crate) fn plural(count: usize, thing: &str) -> String {
    if count == 1 {
        format!("{count} {thing}")
    } else {
        format!("{count} {thing}s")
    }
}

/// What a token stands for: its text, or the name of a token that stands for none.
pub(crate) fn piece(tokenizer: &Tokenizer, id: TokenId) -> String {
    let piece = tokenizer.piece(id);
    if piece.is_empty() {
        return tokenizer.token(id).unwrap_or_default().to_owned();
    }
    let mut text = String::new();
    for chunk in piece.utf8_chunks() {
        text.push_str(chunk.valid());
        // A part of a character.
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// Rows under a header, in columns as wide as they need to be. The columns named in
/// `right`, by index, are aligned to the right, as numbers are.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    right: &[usize],
    rows: &[[String; N]],
) -> Vec<String> {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let cells: Vec<String> = cells
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(at, (cell, width))| {
                if right.contains(&at) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(header)];
    lines.extend(
        rows.iter()
            .map(|row| line(row.each_ref().map(String::as_str))),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_have_units() {
        assert_eq!([bytes(1023), bytes(1536)], ["1023 bytes", "1.5 KB"]);
        assert_eq!([bytes(98_362_432), bytes(3 << 30)], ["93.8 MB", "3.0 GB"]);
        assert_eq!([count(999), count(134_515_008)], ["999", "134.5 M"]);
        assert_eq!(
            [seconds(0.214), seconds(61.7), seconds(600.0)],
            ["0.21 s", "62 s", "10 min"]
        );
        assert_eq!(
            [plural(1, "thread"), plural(2, "thread")],
            ["1 thread", "2 threads"]
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["long name".to_owned(), "100".to_owned()],
        ];
        let lines = table(["name", "n"], &[1], &rows);
        assert_eq!(
            lines,
            ["name         n", "a            1", "long name  100"]
        );
    }
}
