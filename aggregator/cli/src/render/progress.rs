//! A line on standard error that says how far a transfer is, where a person can see it.

use std::io::{self, IsTerminal as _, Write as _};

use super::bytes;

/// It is written anew every so many bytes.
const STEP: u64 = 1 << 20;

/// How far a transfer is.
pub struct Progress {
    what: &'static str,
    total: Option<u64>,
    watched: bool,
    next: u64,
}

impl Progress {
    /// Of something that is "exported", say; of how many bytes, where that is known.
    #[must_use]
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        Self {
            what,
            total: total.filter(|total| *total > 0),
            watched: io::stderr().is_terminal(),
            next: STEP,
        }
    }

    /// So many bytes are done.
    pub fn show(&mut self, done: u64) {
        if !self.watched || done < self.next {
            return;
        }
        self.next = done + STEP;
        let line = match self.total {
            None => format!("{} {}", self.what, bytes(done)),
            Some(total) => format!("{} {} {} of {}", bar(done, total), self.what, bytes(done), bytes(total)),
        };
        _ = write!(io::stderr().lock(), "\r{line}   ");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.watched && self.next > STEP {
            _ = writeln!(io::stderr().lock());
        }
    }
}

/// A bar of twenty characters, and the share in percent.
fn bar(done: u64, total: u64) -> String {
    const WIDTH: u64 = 20;
    let done = u128::from(done.min(total));
    let of = |whole: u64| usize::try_from(done * u128::from(whole) / u128::from(total.max(1))).unwrap_or(0);
    format!("[{:<20}] {:>3} %", "#".repeat(of(WIDTH)), of(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(bar(0, 10), "[                    ]   0 %");
        assert_eq!(bar(5, 10), "[##########          ]  50 %");
        assert_eq!([bar(10, 10), bar(11, 10), bar(u64::MAX, 7)], ["[####################] 100 %"; 3]);
        assert_eq!(bar(0, 0), "[                    ]   0 %");
    }
}
