//! Points and stretches of wall-clock time. Nothing here asks what time it is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point in wall-clock time: milliseconds since 1970-01-01 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01 UTC, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This much later; stays at the end of time instead of overflowing.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier; stays at the start of time instead of overflowing.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time since `earlier`; zero when `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds, by the proleptic Gregorian calendar.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms_of_day) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (s, ms) = (ms_of_day / 1000, ms_of_day % 1000);
        let (hour, minute, second) = (s / 3600, s / 60 % 60, s % 60);
        f.pad(&format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"))
    }
}

/// Year, month and day of a day number counted from 1970-01-01, by counting 400-year cycles from 0000-03-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_CYCLE: i64 = 146_097;
    let shifted = days + 719_468;
    let (cycle, day_of_cycle) = (shifted.div_euclid(DAYS_PER_CYCLE), shifted.rem_euclid(DAYS_PER_CYCLE));
    let leap_days = day_of_cycle / 1460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // March-based months repeat a 153-day pattern of five.
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (cycle * 400 + year_of_cycle + i64::from(month <= 2), month, day)
}

/// The day number counted from 1970-01-01 of a date; the reverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let march_year = year - i64::from(month <= 2);
    let (cycle, year_of_cycle) = (march_year.div_euclid(400), march_year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * 146_097 + day_of_cycle - 719_468
}

/// Not a point in time as RFC 3339 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time in RFC 3339, like 2026-11-21T14:00:00Z or 2026-11-21T15:00:00+01:00")]
pub struct InvalidTime;

impl FromStr for Timestamp {
    type Err = InvalidTime;

    /// RFC 3339 with any offset. What is finer than a millisecond is cut off; a leap second is the second after it.
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        rfc3339(text.as_bytes()).ok_or(InvalidTime)
    }
}

fn rfc3339(text: &[u8]) -> Option<Timestamp> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        let value = |sum: i64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'));
        digits.iter().try_fold(0, value)
    };
    let mark = |at: usize, marks: &[u8]| text.get(at).filter(|byte| marks.contains(byte)).copied();
    let within = |value: i64, low: i64, high: i64| (low..=high).contains(&value).then_some(value);
    for (at, marks) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
        mark(at, marks)?;
    }
    let (year, month) = (number(0, 4)?, within(number(5, 7)?, 1, 12)?);
    let day = number(8, 10)?;
    let days = days_from_civil(year, month, day);
    // The 31st of a shorter month would be another day.
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let (hour, minute) = (within(number(11, 13)?, 0, 23)?, within(number(14, 16)?, 0, 59)?);
    let second = within(number(17, 19)?, 0, 60)?;
    let mut at = 19;
    let mut ms = 0;
    if mark(at, b".").is_some() {
        let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kept = digits.min(3);
        ms = number(at + 1, at + 1 + kept)? * [0, 100, 10, 1][kept];
        at += 1 + within(i64::try_from(digits).ok()?, 1, 64).map(|_| digits)?;
    }
    let offset_min = match mark(at, b"Zz+-")? {
        b'Z' | b'z' => {
            at += 1;
            0
        }
        sign => {
            mark(at + 3, b":")?;
            let ahead =
                within(number(at + 1, at + 3)?, 0, 23)? * 60 + within(number(at + 4, at + 6)?, 0, 59)?;
            at += 6;
            if sign == b'-' { -ahead } else { ahead }
        }
    };
    let seconds = ((days * 24 + hour) * 60 + minute - offset_min) * 60 + second;
    (at == text.len()).then_some(Timestamp(seconds * 1000 + ms))
}

/// A stretch of time: `from` inclusive, `to` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First instant inside.
    pub from: Timestamp,
    /// First instant after.
    pub to: Timestamp,
}

impl Window {
    /// The stretch of length `span` that ends at `to`.
    #[must_use]
    pub fn ending(to: Timestamp, span: Duration) -> Self {
        Self { from: to.before(span), to }
    }

    /// Whether `at` lies inside.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// How long it is; zero when it ends before it starts.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.to.since(self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_rfc3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_826_154_321, "2000-02-29T12:09:14.321Z"),
            (1_795_223_935_000, "2026-11-21T01:18:55.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(ms).to_string(), text);
        }
    }

    #[test]
    fn reads_rfc3339_and_nothing_else() {
        for (text, ms) in [
            ("2025-01-02T14:23:11Z", 1_735_827_791_000),
            ("2025-01-02t15:23:11+01:00", 1_735_827_791_000),
            ("2025-01-02 08:53:11.5-05:30", 1_735_827_791_500),
            ("2000-02-29T12:09:14.3219999z", 951_826_154_321),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "2025-01-02",
            "2025-01-02T14:23Z",
            "2025-01-02T14:23:11",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "2025-01-02T24:00:00Z",
            "2025-01-02T14:60:00Z",
            "2025-01-02T14:23:61Z",
            "2025-01-02T14:23:11.Z",
            "2025-01-02T14:23:11Zx",
            "2025-01-02T14:23:11+1:00",
            "2025-01-02T14:23:11+24:00",
            "+2025-01-02T14:23:11Z",
            "2025-01-02T14:23:11+01:0é",
            "1735827791",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(InvalidTime), "{bad}");
        }
        for ms in (-100_000..100_000).map(|n| n * 31_540_123_457_i64 / 100) {
            let at = Timestamp::from_millis(ms);
            let shown = at.to_string();
            if shown.len() == 24 {
                assert_eq!(shown.parse(), Ok(at));
            }
        }
    }

    #[test]
    fn windows_are_half_open() {
        let w = Window::ending(Timestamp::from_millis(1000), Duration::from_millis(400));
        assert!(w.contains(Timestamp::from_millis(600)) && !w.contains(Timestamp::from_millis(1000)));
        assert_eq!(w.span(), Duration::from_millis(400));
    }
}
