//! Pressure stall information (PSI) of the node from `/proc/pressure`.
//!
//! Taken from the `total` counters of microseconds, because the ready-made averages lag by ten seconds.
//! Some kernels are built or booted without it; then there are no values, and the node's facts say so.
//!
//! # Source
//! Linux `Documentation/accounting/psi.rst`.

use std::path::Path;

use evenkeel_common::sample::Metric;

use super::file::{CollectError, KeptFile};
use super::parse::{lines, number, words};
use super::round::{Collector, Counter, Round, Series};

/// Microseconds of stall since boot, or since the cgroup began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stalls {
    /// Some task waited.
    pub(super) some: u64,
    /// All tasks waited; not every kernel tells it for the CPU.
    pub(super) full: Option<u64>,
}

/// Reads the five PSI metrics of the node.
#[derive(Debug)]
pub(crate) struct Pressure {
    resources: [Resource; 3],
}

#[derive(Debug)]
struct Resource {
    file: KeptFile,
    some: (Series, Counter),
    /// "Full" has no meaning for the CPU of a whole node.
    full: Option<(Series, Counter)>,
}

impl Pressure {
    pub(crate) fn new(root: &Path) -> Self {
        let resource = |name: &str, some: Metric, full: Option<Metric>| Resource {
            file: KeptFile::record(root.join("proc/pressure").join(name)),
            some: (Series::node(some), Counter::default()),
            full: full.map(|metric| (Series::node(metric), Counter::default())),
        };
        Self {
            resources: [
                resource("cpu", Metric::PsiCpuSome, None),
                resource("memory", Metric::PsiMemSome, Some(Metric::PsiMemFull)),
                resource("io", Metric::PsiIoSome, Some(Metric::PsiIoFull)),
            ],
        }
    }
}

impl Collector for Pressure {
    const NAME: &'static str = "pressure";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        for Resource { file, some, full } in &mut self.resources {
            let Some(text) = files.read(file, now.uptime)? else { continue };
            let stalls = parse(text).ok_or_else(|| file.malformed(EXPECTED))?;
            out.put_some(&mut some.0, some.1.share(now, stalls.some, 1e6));
            if let (Some((series, counter)), Some(total)) = (full, stalls.full) {
                out.put_some(series, counter.share(now, total, 1e6));
            }
        }
        Ok(())
    }
}

/// What a pressure file should be.
pub(super) const EXPECTED: &str = "pressure lines `some` and `full` with a total";

pub(super) fn parse(text: &[u8]) -> Option<Stalls> {
    let (mut some, mut full) = (None, None);
    for line in lines(text)? {
        let mut words = words(line);
        let place = match words.next()? {
            b"some" => &mut some,
            b"full" => &mut full,
            _ => continue,
        };
        let total = words.find_map(|word| word.strip_prefix(b"total="))?;
        if place.replace(number(total)?).is_some() {
            return None;
        }
    }
    Some(Stalls { some: some?, full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn totals_are_found() {
        let text = b"some avg10=1.00 avg60=0.50 avg300=0.10 total=700\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(parse(text), Some(Stalls { some: 700, full: Some(5) }));
        assert_eq!(parse(b"some avg10=1.00 total=7\n"), Some(Stalls { some: 7, full: None }));
        for bad in [
            "",
            "some total=1",
            "full total=1\n",
            "some total=1\nsome total=1\n",
            "some total=-1\n",
            "some avg10=1\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = parse(&text);
        }
    }
}
