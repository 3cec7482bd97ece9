//! How things look: what the screen can show, foreign text made harmless, numbers and times as people read them.

pub mod page;
pub mod progress;
pub mod table;
pub mod tone;

use std::io::{self, IsTerminal as _, Write as _};

use evenkeel_common::units::Bytes;
use jiff::tz::TimeZone;

use crate::error::CliError;

/// Shown where there is no data: never a zero.
pub const NO_DATA: &str = "-";

/// Width of running text where the output is no terminal.
const TEXT_WIDTH: usize = 80;

/// What the place the output goes to can show.
#[derive(Clone, Debug)]
pub struct Screen {
    /// Columns; `None` = no limit, the output goes to a file or a pipe.
    pub width: Option<usize>,
    /// Whether colours are welcome.
    pub colour: bool,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
    /// The zone times are shown in.
    pub zone: TimeZone,
}

impl Screen {
    /// Asks the environment: terminal, `COLUMNS` (where there is none), `NO_COLOR`, locale, time zone.
    #[must_use]
    pub fn detect(utc: bool) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal();
        let width = comfy_table::Table::new().width().map(usize::from);
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            width: width
                .or_else(|| set("COLUMNS")?.parse().ok())
                .filter(|columns| *columns > 0)
                .map(|w| w.clamp(40, 1000)),
            colour: terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            zone: if utc { TimeZone::UTC } else { TimeZone::system() },
        }
    }

    /// Columns for running text: the screen's, within reason.
    #[must_use]
    pub fn text_width(&self) -> usize {
        self.width.unwrap_or(TEXT_WIDTH).min(110)
    }

    /// Text made harmless, see [`plain`], and plain ASCII where the screen shows no more.
    #[must_use]
    pub fn plain(&self, text: &str) -> String {
        let text = plain(text);
        if self.unicode { text } else { ascii(&text) }
    }

    /// A point in time with its zone; `-` outside the calendar.
    #[must_use]
    pub fn at(&self, ms: i64) -> String {
        let format = "%Y-%m-%d %H:%M:%S %Z";
        jiff::Timestamp::from_millisecond(ms)
            .map(|at| at.to_zoned(self.zone.clone()).strftime(format).to_string())
            .unwrap_or_else(|_| NO_DATA.to_owned())
    }

    /// A point in time with its zone, and how long ago that is.
    #[must_use]
    pub fn at_and_ago(&self, ms: i64, now_ms: i64) -> String {
        format!("{} ({})", self.at(ms), ago(ms, now_ms))
    }
}

/// Foreign text made harmless for a terminal: names, tags and messages come from guests and their owners.
///
/// Every control character, and every character that turns the direction of text or can not be seen, is
/// replaced by a visible mark rather than removed, so that no name can pass for another one.
/// Line ends and tabs become spaces.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() || is_invisible(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// Characters that show nothing themselves but change what is around them.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The nearest ASCII text; `?` where there is none.
fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_ascii() => plain.push(c),
            '→' => plain.push_str("->"),
            '–' | '—' | '−' => plain.push('-'),
            '‘' | '’' => plain.push('\''),
            '“' | '”' => plain.push('"'),
            '…' => plain.push_str("..."),
            '×' => plain.push('x'),
            '±' => plain.push_str("+-"),
            '≤' => plain.push_str("<="),
            '≥' => plain.push_str(">="),
            '\u{a0}' | '\u{202f}' => plain.push(' '),
            _ => plain.push('?'),
        }
    }
    plain
}

/// A number with fixed decimals; `-` where there is none.
#[must_use]
pub fn number(value: impl Into<Option<f64>>, decimals: usize) -> String {
    match value.into() {
        Some(value) if value.is_finite() => {
            let text = format!("{value:.decimals$}");
            // A tiny negative number rounds to "-0.0", which reads like an error.
            if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
                text.trim_start_matches('-').to_owned()
            } else {
                text
            }
        }
        _ => NO_DATA.to_owned(),
    }
}

/// An amount of data; `-` where there is none.
#[must_use]
pub fn bytes(value: impl Into<Option<u64>>) -> String {
    value.into().map_or_else(|| NO_DATA.to_owned(), |n| Bytes(n).to_string())
}

/// An amount of data that came as a float; `-` where there is none.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn float_bytes(value: impl Into<Option<f64>>) -> String {
    match value.into() {
        Some(value) if value.is_finite() => {
            let sign = if value <= -0.5 { "-" } else { "" };
            format!("{sign}{}", Bytes(value.abs().round() as u64))
        }
        _ => NO_DATA.to_owned(),
    }
}

/// A value in the unit of its metric, as messages name it.
#[must_use]
pub fn in_unit(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => float_bytes(value),
        "bytes_per_second" if value.is_finite() => format!("{}/s", float_bytes(value)),
        "percent" => with_unit(value, 1, "%"),
        // From minutes on it is a length of time, as silence is, and nobody counts it in milliseconds.
        "milliseconds" if (60_000.0..=1e15).contains(&value) => span(value as i64),
        "milliseconds" if value >= 1000.0 => with_unit(value / 1000.0, 1, "s"),
        "milliseconds" => with_unit(value, 2, "ms"),
        "megabits_per_second" => with_unit(value, 2, "Mbit/s"),
        "cores" => with_unit(value, 2, "cores"),
        "per_second" => with_unit(value, 1, "/s"),
        "" | "count" => number(value, 2),
        other => with_unit(value, 2, other),
    }
}

/// A number with decimals and the name of its unit; `-` where there is none.
#[must_use]
pub fn with_unit(value: impl Into<Option<f64>>, decimals: usize, unit: &str) -> String {
    match value.into() {
        Some(value) if value.is_finite() => format!("{} {unit}", number(value, decimals)),
        _ => NO_DATA.to_owned(),
    }
}

/// A large count with its thousands set apart.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// "1 node", "3 nodes".
#[must_use]
pub fn counted(value: impl Into<u64>, noun: &str) -> String {
    let value = value.into();
    let plural = match noun.strip_suffix('y') {
        _ if value == 1 => noun.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{noun}s"),
    };
    format!("{} {plural}", count(value))
}

/// A length of time in its largest sensible unit.
#[must_use]
pub fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago a point in time is.
#[must_use]
pub fn ago(ms: i64, now_ms: i64) -> String {
    let passed = now_ms.saturating_sub(ms);
    match passed {
        ..-1000 => format!("in {}", span(-passed)),
        -1000..1000 => "just now".to_owned(),
        _ => format!("{} ago", span(passed)),
    }
}

/// Writes to standard output and makes sure it is out.
///
/// # Errors
/// [`CliError::OutputClosed`] when the reader went away, [`CliError::Failed`] for all else, like a full disk.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::from_output)
}

/// Says something on standard error; a closed one is no reason to stop.
pub fn note(text: &str) {
    _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_or_hidden_character_survives() {
        let hostile = "\u{1b}]0;owned\u{7}web\u{1b}[31m-1\u{202e}gpj\u{200b}\u{9b}2J\u{e0041}\r\nx\0";
        let harmless = plain(hostile);
        assert!(!harmless.chars().any(|c| c.is_control() || is_invisible(c)), "{harmless:?}");
        assert_ne!(harmless, plain("web-1gpj x"), "a hidden character must not let a name pass for another");
        for c in (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| c.is_control()) {
            assert!(!plain(&c.to_string()).contains(c), "{c:?}");
        }
        assert_eq!(plain("Zürich-数据 ok"), "Zürich-数据 ok");
    }

    #[test]
    fn ascii_screens_get_ascii() {
        let screen = Screen { width: None, colour: false, unicode: false, zone: TimeZone::UTC };
        assert_eq!(screen.plain("A→B ≥ 2 × 数\u{202e}"), "A->B >= 2 x ??");
    }

    #[test]
    fn no_data_is_never_zero() {
        assert_eq!([number(None, 1), number(f64::NAN, 1), bytes(None), float_bytes(None)], ["-"; 4]);
        assert_eq!(in_unit(f64::INFINITY, "percent"), "-");
        let told = [0.21, 1500.0, 600_500.0].map(|ms| in_unit(ms, "milliseconds"));
        assert_eq!(told, ["0.21 ms", "1.5 s", "10 min"]);
        assert_eq!(number(-0.01, 1), "0.0");
        assert_eq!(float_bytes(-2048.0), "-2.0 KiB");
    }

    #[test]
    fn times_read_like_speech() {
        for (passed_s, text) in [
            (0, "just now"),
            (59, "59 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7200, "2 h ago"),
            (172_800, "2 d ago"),
            (-5, "in 5 s"),
        ] {
            assert_eq!(ago(1_000_000_000 - passed_s * 1000, 1_000_000_000), text);
        }
        assert_eq!(ago(i64::MIN, i64::MAX), ago(0, i64::MAX), "extremes do not overflow");
        let screen = Screen { width: None, colour: false, unicode: true, zone: TimeZone::UTC };
        assert_eq!(screen.at(1_795_223_935_000), "2026-11-21 01:18:55 UTC");
        assert_eq!(screen.at(i64::MAX), NO_DATA);
        assert_eq!(
            [counted(1_u64, "node"), counted(0_u64, "anomaly"), counted(12_345_u64, "event")],
            ["1 node", "0 anomalies", "12 345 events"]
        );
    }
}
