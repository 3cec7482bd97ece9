//! CPU time of the node from `/proc/stat`.

use std::path::Path;

use evenkeel_common::sample::Metric;

use super::file::{CollectError, KeptFile, TABLE_LIMIT};
use super::parse::{lines, number, words};
use super::round::{Collector, Round, Series};

/// CPU time since boot in clock ticks, over all CPUs. Guest time is part of `user` and `nice` already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CpuTimes {
    /// user + nice + system + irq + softirq + steal.
    used: u64,
    idle: u64,
    iowait: u64,
    steal: u64,
}

/// Shares of the time between two readings, in percent of all CPUs.
#[derive(Debug, PartialEq)]
struct CpuShares {
    used: f64,
    iowait: f64,
    steal: f64,
}

/// Reads [`Metric::CpuUsed`], [`Metric::CpuIowait`] and [`Metric::CpuSteal`].
#[derive(Debug)]
pub(crate) struct Cpu {
    file: KeptFile,
    last: Option<CpuTimes>,
    used: Series,
    iowait: Series,
    steal: Series,
}

impl Cpu {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            file: KeptFile::record(root.join("proc/stat")).limited_to(TABLE_LIMIT),
            last: None,
            used: Series::node(Metric::CpuUsed),
            iowait: Series::node(Metric::CpuIowait),
            steal: Series::node(Metric::CpuSteal),
        }
    }
}

impl Collector for Cpu {
    const NAME: &'static str = "cpu";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        let last = self.last.take();
        let text = files.need(&mut self.file, now.uptime)?;
        let times =
            parse(text).ok_or_else(|| self.file.malformed("a line `cpu` with at least eight numbers"))?;
        if let Some(shares) = last.and_then(|last| shares(last, times)) {
            out.put(&mut self.used, shares.used);
            out.put(&mut self.iowait, shares.iowait);
            out.put(&mut self.steal, shares.steal);
        }
        self.last = Some(times);
        Ok(())
    }
}

fn parse(text: &[u8]) -> Option<CpuTimes> {
    let mut words = words(lines(text)?.next()?);
    if words.next()? != b"cpu" {
        return None;
    }
    let mut next = || words.next().and_then(number);
    let (user, nice, system, idle) = (next()?, next()?, next()?, next()?);
    let (iowait, irq, softirq, steal) = (next()?, next()?, next()?, next()?);
    let used =
        [user, nice, system, irq, softirq, steal].iter().try_fold(0_u64, |sum, &n| sum.checked_add(n))?;
    Some(CpuTimes { used, idle, iowait, steal })
}

/// `None` when no tick passed, or the counters stepped back (a CPU was taken offline).
fn shares(before: CpuTimes, after: CpuTimes) -> Option<CpuShares> {
    let used = after.used.checked_sub(before.used)?;
    let steal = after.steal.checked_sub(before.steal)?.min(used);
    // The kernel lets these two step back a little (man 5 proc); that is no reset.
    let idle = after.idle.saturating_sub(before.idle);
    let iowait = after.iowait.saturating_sub(before.iowait);
    let total = used.checked_add(idle)?.checked_add(iowait)?;
    let share = |part: u64| part as f64 / total as f64 * 100.0;
    (total > 0).then(|| CpuShares { used: share(used), iowait: share(iowait), steal: share(steal) })
}

/// Logical CPUs online, from the same file.
pub(super) fn count(stat: &[u8]) -> u32 {
    let is_cpu = |line: &&[u8]| {
        line.strip_prefix(b"cpu").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
    };
    let count = lines(stat).map_or(0, |lines| lines.skip(1).take_while(|line| is_cpu(line)).count());
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn guest_time_is_not_counted_twice_and_iowait_is_not_use() {
        let before = parse(b"cpu  100 0 0 100 0 0 0 0 50 0\n").unwrap();
        let after = parse(b"cpu  120 5 10 140 10 1 2 12 65 5\ncpu0 1 2 3\n").unwrap();
        let shares = shares(before, after).unwrap();
        assert_eq!(shares, CpuShares { used: 50.0, iowait: 10.0, steal: 12.0 });
    }

    #[test]
    fn no_time_and_steps_back_give_nothing() {
        let times = parse(b"cpu 10 0 0 10 10 0 0 0\n").unwrap();
        assert_eq!(shares(times, times), None);
        assert_eq!(shares(times, CpuTimes { used: 9, idle: 99, ..times }), None);
        let less_iowait = CpuTimes { iowait: 8, idle: 20, used: 20, ..times };
        assert_eq!(shares(times, less_iowait), Some(CpuShares { used: 50.0, iowait: 0.0, steal: 0.0 }));
    }

    #[test]
    fn damaged_lines_give_nothing() {
        for bad in
            ["", "cpu 1 2 3 4 5 6 7 8", "cpu 1 2 3\n", "cpux 1 2 3 4 5 6 7 8\n", "cpu -1 2 3 4 5 6 7 8\n"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        let max = format!("cpu {0} {0} 0 0 0 0 0 0\n", u64::MAX);
        assert_eq!(parse(max.as_bytes()), None);
    }

    #[test]
    fn cpus_are_counted() {
        assert_eq!(count(b"cpu 1\ncpu0 1\ncpu1 1\nintr 7\ncpu9 1\n"), 2);
    }

    proptest! {
        #[test]
        fn shares_are_percentages(a: [u32; 4], b: [u32; 4]) {
            let times = |n: [u32; 4]| CpuTimes {
                used: n[0].into(), idle: n[1].into(), iowait: n[2].into(), steal: n[3].into(),
            };
            if let Some(shares) = shares(times(a), times(b)) {
                for share in [shares.used, shares.iowait, shares.steal] {
                    prop_assert!((0.0..=100.0).contains(&share));
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = (parse(&text), count(&text), parse(&[b"cpu ", text.as_slice(), b"\n"].concat()));
        }
    }
}
