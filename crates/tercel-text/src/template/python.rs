//! What templates expect of Python: JSON, dates, white space.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::limits;

/// How `json.dumps` is asked to write.
pub(super) struct JsonStyle {
    pub(super) ascii: bool,
    pub(super) sort_keys: bool,
    /// One level of indentation; everything on one line without.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
}

/// Writes a value as Python's `json.dumps` does.
pub(super) fn json(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    write_json(value, style, 0, &mut out)?;
    Ok(out)
}

/// What Python makes of a floating-point number as text; nothing for any other value.
pub(super) fn float_text(value: &Value) -> Option<String> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    let number = is_float.then(|| f64::try_from(value.clone()).ok())??;
    Some(float(number))
}

/// Python's `str.isspace`, for one character: Unicode white space and the four separators that
/// Unicode calls controls.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `strftime` for `seconds` since 1970 on the local clock, for the directives that do not depend
/// on a locale or a zone.
pub(super) fn strftime(format: &str, seconds: i64) -> Result<String, Error> {
    const DAYS: [&str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let days = seconds.div_euclid(86_400);
    let clock = seconds.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    // 1970-01-01 was a Thursday.
    let weekday = DAYS[(days + 3).rem_euclid(7) as usize];
    let month_name = MONTHS[(month - 1) as usize];
    let hour12 = (hour + 11) % 12 + 1;
    let year_day = days - days_from_civil(year, 1, 1) + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let unpadded = directive == Some('-');
        if unpadded {
            directive = chars.next();
        }
        let number = |out: &mut String, value: i64, width: usize| {
            let width = if unpadded { 0 } else { width };
            write!(out, "{value:0width$}")
        };
        let done = match directive {
            Some('d') => number(&mut out, day, 2),
            Some('e') => write!(out, "{day:2}"),
            Some('m') => number(&mut out, month, 2),
            Some('y') => number(&mut out, year.rem_euclid(100), 2),
            Some('Y') => write!(out, "{year}"),
            Some('H') => number(&mut out, hour, 2),
            Some('I') => number(&mut out, hour12, 2),
            Some('M') => number(&mut out, minute, 2),
            Some('S') => number(&mut out, second, 2),
            Some('j') => number(&mut out, year_day, 3),
            Some('p') => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            Some('A') => out.write_str(weekday),
            Some('a') => out.write_str(&weekday[..3]),
            Some('B') => out.write_str(month_name),
            Some('b' | 'h') => out.write_str(&month_name[..3]),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('R') => write!(out, "{hour:02}:{minute:02}"),
            Some('D') => write!(out, "{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
            Some('n') => out.write_str("\n"),
            Some('t') => out.write_str("\t"),
            Some('%') => out.write_str("%"),
            other => {
                let name = other.map_or("%".into(), |c| format!("%{c}"));
                let detail = format!("strftime_now does not know the directive {name}");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        };
        done.map_err(|_| Error::from(ErrorKind::WriteFailure))?;
    }
    Ok(out)
}

fn write_json(
    value: &Value,
    style: &JsonStyle,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    let refuse = |detail: String| Err(Error::new(ErrorKind::InvalidOperation, detail));
    if depth > limits::JSON_DEPTH {
        return refuse(format!("tojson: nested deeper than {}", limits::JSON_DEPTH));
    }
    if out.len() > limits::OUTPUT_BYTES {
        return refuse(format!(
            "tojson: longer than {} bytes",
            limits::OUTPUT_BYTES
        ));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if number.is_finite() => out.push_str(&float(number)),
            Ok(number) if number.is_nan() => out.push_str("NaN"),
            Ok(number) if number > 0.0 => out.push_str("Infinity"),
            _ => out.push_str("-Infinity"),
        },
        ValueKind::String => write_string(value.as_str().unwrap_or_default(), style.ascii, out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut empty = true;
            for item in value.try_iter()? {
                separate(style, depth, &mut empty, out);
                write_json(&item, style, depth + 1, out)?;
            }
            close(style, depth, empty, out);
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            let mut empty = true;
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            for key in keys {
                separate(style, depth, &mut empty, out);
                match key.kind() {
                    ValueKind::String => {
                        write_string(key.as_str().unwrap_or_default(), style.ascii, out);
                    }
                    ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                        out.push('"');
                        write_json(&key, style, depth + 1, out)?;
                        out.push('"');
                    }
                    other => return refuse(format!("tojson: a key of type {other}")),
                }
                out.push_str(&style.key_separator);
                write_json(&value.get_item(&key)?, style, depth + 1, out)?;
            }
            close(style, depth, empty, out);
            out.push('}');
        }
        other => return refuse(format!("tojson: a value of type {other} has no JSON form")),
    }
    Ok(())
}

fn separate(style: &JsonStyle, depth: usize, empty: &mut bool, out: &mut String) {
    if !std::mem::replace(empty, false) {
        out.push_str(&style.item_separator);
    }
    new_line(style, depth + 1, out);
}

fn close(style: &JsonStyle, depth: usize, empty: bool, out: &mut String) {
    if !empty {
        new_line(style, depth, out);
    }
}

fn new_line(style: &JsonStyle, depth: usize, out: &mut String) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(indent.as_str(), depth));
    }
}

fn write_string(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Python's `repr` of a float: the shortest digits, an exponent outside 1e-4 to 1e16.
fn float(value: f64) -> String {
    if !value.is_finite() {
        // `nan`, `inf`, `-inf`
        return value.to_string().to_lowercase();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let plain = value.to_string();
        if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

/// Year, month and day of a day number since 1970 (Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_in_python() {
        // datetime.fromtimestamp(s, UTC).strftime(..)
        let cases = [
            (0, "%Y-%m-%d %H:%M:%S %a %j", "1970-01-01 00:00:00 Thu 001"),
            (
                1_709_210_096,
                "%d %b %Y, %A %-d %I %p",
                "29 Feb 2024, Thursday 29 12 PM",
            ),
            (
                4_102_444_799,
                "%F %T %B %y %e %%",
                "2099-12-31 23:59:59 December 99 31 %",
            ),
            (-1, "%D %R", "12/31/69 23:59"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(strftime(format, seconds).expect("a known format"), expected);
        }
        assert!(strftime("%Q", 0).is_err());
        assert!(strftime("%", 0).is_err());
    }

    #[test]
    fn floats_read_as_in_python() {
        let cases = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1.5e-5, "1.5e-05"),
            (1e-4, "0.0001"),
            (1e300, "1e+300"),
        ];
        for (value, expected) in cases {
            assert_eq!(float(value), expected);
        }
    }
}
