//! Times as files write them.

use evenkeel_common::time::Timestamp;

/// Largest number that is taken for seconds: beyond it lie milliseconds, microseconds, nanoseconds.
const LARGEST_SECONDS: f64 = 1e11;

/// A time: RFC 3339, `YYYY-MM-DD HH:MM[:SS[.fff]]` (taken as UTC), a date alone, or a number since 1970, whose
/// unit follows from its size.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number);
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_millis(instant.as_millisecond()));
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp::from_millis(zoned.timestamp().as_millisecond()))
}

#[allow(clippy::cast_possible_truncation)] // Bounded by the calendar's own range below.
fn from_number(mut number: f64) -> Option<Timestamp> {
    if !number.is_finite() {
        return None;
    }
    let mut unit_ms = 1000.0;
    while number.abs() >= LARGEST_SECONDS && unit_ms > 1e-6 {
        number /= 1000.0;
        unit_ms /= 1000.0;
    }
    (number.abs() < LARGEST_SECONDS).then(|| Timestamp::from_millis((number * 1000.0).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_forms_people_have() {
        for text in [
            "2026-11-21 14:00:00",
            "2026-11-21T14:00:00Z",
            "2026-11-21T15:00:00+01:00",
            "2026-11-21 14:00",
            "2026-11-21 14:00:00.000",
            "1795269600",
            "1795269600000",
            "1.7952696e9",
            "1795269600000000",
            "1795269600000000000",
        ] {
            assert_eq!(parse(text).map(Timestamp::as_millis), Some(1_795_269_600_000), "{text}");
        }
        assert_eq!(parse("2026-11-21").map(Timestamp::as_millis), Some(1_795_219_200_000));
        for bad in ["", "yesterday", "14:00", "21.11.2026", "NaN", "inf", "1e40", "2026-13-01 00:00:00"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
