//! What difference an admin would care about, per metric: the floor under every sigma.
//!
//! A flat series has a standard deviation near zero, so that its first blip scores infinity. The floor is the
//! smallest sigma a series is granted. With the shipped calibration an anomaly needs about 6 sigma on a calm
//! series that is known for a day and about 10 on one known for minutes, so a floor of 4 points means: a jump
//! of 25 points is news, later; of 40 points, at once; from 0.1 to 1.5 % never.

use evenkeel_common::sample::Metric;

/// How the values of a metric are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Domain {
    /// By difference, in the metric's unit.
    Linear,
    /// By ratio: `ln(1 + value / unit)`. For rates and times, which are near log-normal: their noise grows with
    /// their level. Below `unit` (in the metric's unit) the comparison is by difference again.
    Log {
        /// Level below which nobody cares about ratios.
        unit: f64,
    },
}

/// Which deviations are trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// Too high only: no admin minds that errors, waits or pressure fall.
    High,
    /// Too low as well: work or traffic that stopped is news.
    Both,
}

/// How a metric is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// How its values are compared.
    pub domain: Domain,
    /// Smallest sigma: in the metric's unit when linear, in nepers (natural log of a ratio) otherwise.
    pub floor: f64,
    /// Smallest sigma as a share of the level; 0 in the logarithmic domain, which is relative already.
    pub relative: f64,
    /// Which deviations are trouble.
    pub sides: Sides,
    /// Whether bursts are this metric's nature, so that nothing is judged before two hours of them are known: of bursts
    /// that come every quarter of an hour, one hour alone too often holds too few.
    pub bursty: bool,
}

impl Scale {
    /// A value in the domain in which the detectors compare.
    #[must_use]
    pub fn enter(&self, value: f64) -> f64 {
        match self.domain {
            Domain::Linear => value,
            Domain::Log { unit } => (value.max(0.0) / unit).ln_1p(),
        }
    }

    /// Back to the metric's unit.
    #[must_use]
    pub fn leave(&self, value: f64) -> f64 {
        match self.domain {
            Domain::Linear => value,
            Domain::Log { unit } => value.max(0.0).exp_m1() * unit,
        }
    }

    /// The smallest sigma at a level (both in the domain).
    #[must_use]
    pub fn floor_at(&self, level: f64) -> f64 {
        self.floor.max(self.relative * level.abs())
    }
}

/// A ratio of 1.5 is one sigma: throughput is no news below three times the usual.
const RATE_FLOOR: f64 = 0.4;
const MIB: f64 = 1_048_576.0;

/// How `metric` is judged, with the reasons.
#[must_use]
pub fn scale_floor(metric: Metric) -> Scale {
    use Metric as M;
    match metric {
        // A fraction of one core on a small host; package updates and cron stay below.
        M::CpuUsed => linear(4.0, 0.0, Sides::Both, false),
        // Its detector has a threshold of its own.
        M::NodeAnomaly => linear(0.1, 0.0, Sides::High, false),
        // Also a fraction of a core; a tenth of the level for guests with many.
        // Guests work in bursts (builds, queries, backups), which are news to nobody who knows the guest.
        M::GuestCpu => linear(0.25, 0.1, Sides::Both, true),
        // A runnable task more or less; the load of a busy host swings by a tenth of itself.
        M::Load1 => linear(1.0, 0.1, Sides::High, false),
        // Waits come in bursts by nature; below a tenth of the time nobody notices them.
        M::CpuIowait | M::CpuSteal => linear(3.0, 0.0, Sides::High, true),
        M::PsiCpuSome | M::PsiIoSome | M::PsiIoFull | M::GuestPsiCpuSome | M::GuestPsiIoSome => {
            linear(4.0, 0.0, Sides::High, true)
        }
        // Memory pressure hurts at shares at which CPU pressure does not.
        M::PsiMemSome | M::PsiMemFull | M::GuestPsiMemSome => linear(2.0, 0.0, Sides::High, true),
        // Memory moves slowly and in steps; a guest started or stopped is some points.
        M::MemUsed => linear(2.0, 0.0, Sides::Both, false),
        M::MemUsedBytes => linear(256.0 * MIB, 0.05, Sides::Both, false),
        M::GuestMem => linear(128.0 * MIB, 0.05, Sides::Both, false),
        M::SwapUsedBytes => linear(256.0 * MIB, 0.05, Sides::High, false),
        // The ARC grows and shrinks by design; only a collapse or a leap of it tells something.
        M::ZfsArcBytes => linear(1024.0 * MIB, 0.1, Sides::Both, false),
        // Full is full: points of a file system, which otherwise hardly moves.
        M::FsUsed => linear(1.0, 0.0, Sides::High, false),
        // A disk that is busy is doing its work; only sustained saturation is news.
        M::DiskUtil => linear(6.0, 0.0, Sides::High, true),
        // What an ordinary disk does in the background; a spinning disk answers in about 5 ms.
        M::DiskRead | M::DiskWrite | M::GuestDiskRead | M::GuestDiskWrite => rate(4.0 * MIB, Sides::High),
        M::DiskAwait => rate(5.0, Sides::High),
        // 8 Mbit/s, and the packets of about that; traffic that stops is news too.
        M::NetRx | M::NetTx | M::GuestNetIn | M::GuestNetOut => rate(MIB, Sides::Both),
        M::NetRxPackets | M::NetTxPackets => rate(1000.0, Sides::Both),
        // Normally none at all: a few a second, sustained, are worth a word.
        M::NetErrors | M::NetDrops => rate(1.0, Sides::High),
        // A local network answers within a millisecond, and migrations and backups double that.
        M::ProbeLatency | M::ProbeJitter => rate(1.0, Sides::High),
        M::ProbeLoss => linear(2.0, 0.0, Sides::High, true),
        // A mark, not a measurement: agents do not watch it.
        M::DrillActive => linear(1.0, 0.0, Sides::High, false),
        // Made by the aggregator, which judges them by rules of its own; a check interval, a task in a hundred, a
        // packet in a thousand and 8 Mbit/s are what an admin would begin to care about.
        M::Silence => linear(10_000.0, 0.0, Sides::High, true),
        M::TaskErrorRate => linear(1.0, 0.0, Sides::High, true),
        M::ErrorRate => linear(0.1, 0.0, Sides::High, true),
        M::Bandwidth => rate(8.0, Sides::Both),
    }
}

const fn linear(floor: f64, relative: f64, sides: Sides, bursty: bool) -> Scale {
    Scale { domain: Domain::Linear, floor, relative, sides, bursty }
}

const fn rate(unit: f64, sides: Sides) -> Scale {
    Scale { domain: Domain::Log { unit }, floor: RATE_FLOOR, relative: 0.0, sides, bursty: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_positive_above_the_resolution_and_domains_invertible() {
        for &metric in Metric::ALL {
            let scale = scale_floor(metric);
            // Near zero a floor in the domain is `floor * unit` in the metric's unit.
            let near_zero = scale.leave(scale.floor);
            assert!(near_zero >= metric.resolution() * 0.5 && scale.floor > 0.0, "{metric}");
            for value in [0.0, 1.0, 3.7e6] {
                assert!((scale.leave(scale.enter(value)) - value).abs() <= value * 1e-9, "{metric} {value}");
            }
        }
    }
}
