//! Load average of the node from `/proc/loadavg`.

use std::path::Path;

use evenkeel_common::sample::Metric;

use super::file::{CollectError, KeptFile};
use super::parse::{lines, number, words};
use super::round::{Collector, Round, Series};

/// Reads [`Metric::Load1`].
#[derive(Debug)]
pub(crate) struct Load {
    file: KeptFile,
    one: Series,
}

impl Load {
    pub(crate) fn new(root: &Path) -> Self {
        Self { file: KeptFile::record(root.join("proc/loadavg")), one: Series::node(Metric::Load1) }
    }
}

impl Collector for Load {
    const NAME: &'static str = "load";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        let text = files.need(&mut self.file, now.uptime)?;
        let one = parse(text).ok_or_else(|| self.file.malformed("three load averages, then tasks"))?;
        out.put(&mut self.one, one);
        Ok(())
    }
}

/// The one-minute average. The kernel writes it with exactly two decimals.
fn parse(text: &[u8]) -> Option<f64> {
    let mut words = words(lines(text)?.next()?);
    let word = words.next()?;
    words.nth(3)?; // two more averages, tasks, last pid: without them the line is cut off
    let point = word.iter().position(|&byte| byte == b'.')?;
    let (whole, hundredths) = (number(&word[..point])?, number(&word[point + 1..])?);
    (word.len() - point == 3).then(|| whole as f64 + hundredths as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_number_counts() {
        assert_eq!(parse(b"1.25 0.69 0.54 2/310 4711\n"), Some(1.25));
        for bad in [
            "",
            "1.25 0.69 0.54\n",
            "nan 1 1 1/2 3\n",
            "-1.00 1 1 1/2 3\n",
            "1.2 1 1 1/2 3\n",
            "1.25 0.69 0.54 2/310 4",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            prop_assert!(parse(&text).is_none_or(|load| load >= 0.0));
        }
    }
}
