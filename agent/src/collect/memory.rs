//! Memory and swap of the node from `/proc/meminfo`.

use std::path::Path;

use evenkeel_common::sample::Metric;

use super::file::{CollectError, KeptFile};
use super::parse::numbers;
use super::round::{Collector, Round, Series};

/// Memory of the node in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    used: u64,
    swap_used: u64,
}

/// Reads [`Metric::MemUsed`], [`Metric::MemUsedBytes`] and [`Metric::SwapUsedBytes`].
#[derive(Debug)]
pub(crate) struct MemoryUse {
    file: KeptFile,
    share: Series,
    bytes: Series,
    swap: Series,
}

impl MemoryUse {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            file: KeptFile::record(root.join("proc/meminfo")),
            share: Series::node(Metric::MemUsed),
            bytes: Series::node(Metric::MemUsedBytes),
            swap: Series::node(Metric::SwapUsedBytes),
        }
    }
}

impl Collector for MemoryUse {
    const NAME: &'static str = "memory";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        let text = files.need(&mut self.file, now.uptime)?;
        let memory = parse(text)
            .ok_or_else(|| self.file.malformed("lines MemTotal, MemAvailable, SwapTotal, SwapFree in kB"))?;
        out.put(&mut self.share, memory.used as f64 / memory.total as f64 * 100.0);
        out.put(&mut self.bytes, memory.used as f64);
        out.put(&mut self.swap, memory.swap_used as f64);
        Ok(())
    }
}

pub(super) fn parse(text: &[u8]) -> Option<Memory> {
    let kib = numbers(text, [b"MemTotal:", b"MemAvailable:", b"SwapTotal:", b"SwapFree:"])?;
    let bytes = |n: Option<u64>| n?.checked_mul(1024);
    let (total, available) = (bytes(kib[0])?, bytes(kib[1])?);
    let swap_used = bytes(kib[2])?.checked_sub(bytes(kib[3])?)?;
    (total > 0).then_some(Memory { total, used: total.checked_sub(available)?, swap_used })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn used_is_what_is_not_available() {
        let text =
            b"MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\nSwapTotal: 100 kB\nSwapFree: 70 kB\n";
        assert_eq!(parse(text), Some(Memory { total: 1_024_000, used: 614_400, swap_used: 30_720 }));
    }

    #[test]
    fn impossible_memory_is_none() {
        for bad in [
            "MemTotal: 0 kB\nMemAvailable: 0 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            "MemTotal: 10 kB\nMemAvailable: 11 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            "MemTotal: 10 kB\nMemAvailable: 1 kB\nSwapTotal: 0 kB\nSwapFree: 1 kB\n",
            "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            "MemTotal: 10 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            prop_assert!(parse(&text).is_none_or(|memory| memory.used <= memory.total));
        }
    }
}
