//! Synthetic 1 s series of a normal host: autocorrelated, heavy-tailed, with a daily swing and short spikes.
//! Seeded, so that a count of false alarms is a figure and not an anecdote.

use evenkeel_common::sample::Metric;

/// SplitMix64 (Steele, Lea and Flood 2014): enough chance for a workload, without a dependency.
pub struct Chance(u64);

impl Chance {
    /// Multiplied by another constant than the one the sequence advances by: with the same, neighbouring seeds
    /// give the same numbers, one place apart.
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// Uniform in (0, 1].
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// First-order autoregressive noise with unit variance and a correlation time in seconds.
struct Red {
    keep: f64,
    level: f64,
}

impl Red {
    fn new(correlation_s: f64) -> Self {
        Self { keep: (-1.0 / correlation_s).exp(), level: 0.0 }
    }

    fn next(&mut self, chance: &mut Chance) -> f64 {
        self.level = self.keep * self.level + (1.0 - self.keep * self.keep).sqrt() * chance.normal();
        self.level
    }
}

/// Something that starts now and then and goes on for a while.
struct Burst {
    every_s: f64,
    shortest_s: f64,
    /// Pareto index of the length; the smaller, the longer the longest.
    index: f64,
    longest_s: f64,
    left: f64,
    size: f64,
}

impl Burst {
    fn new(every_s: f64, shortest_s: f64, index: f64, longest_s: f64) -> Self {
        Self { every_s, shortest_s, index, longest_s, left: 0.0, size: 0.0 }
    }

    /// 0 while quiet, else a size that is drawn per burst, between 0 and 1.
    fn next(&mut self, chance: &mut Chance) -> f64 {
        if self.left <= 0.0 && chance.uniform() < 1.0 / self.every_s {
            self.left = (self.shortest_s * chance.uniform().powf(-1.0 / self.index)).min(self.longest_s);
            self.size = chance.uniform();
        }
        self.left -= 1.0;
        if self.left >= -0.5 { self.size } else { 0.0 }
    }
}

/// A normal host. All series come from the same activity, as they do in life.
pub struct Host {
    chance: Chance,
    second: u64,
    slow: Red,
    quick: Red,
    spike: Burst,
    job: Burst,
    disk: Red,
    flush: Burst,
    net: Red,
    transfer: Burst,
    load: f64,
    memory: f64,
    jobs: bool,
}

/// The series of [`Host::next`], in its order.
pub const METRICS: [Metric; 7] = [
    Metric::CpuUsed,
    Metric::Load1,
    Metric::MemUsed,
    Metric::PsiCpuSome,
    Metric::DiskWrite,
    Metric::NetRx,
    Metric::GuestCpu,
];

impl Host {
    /// `jobs`: besides spikes of 1 to 3 s there are jobs of 15 to 180 s about every 20 minutes.
    pub fn new(seed: u64, jobs: bool) -> Self {
        Self {
            chance: Chance::new(seed),
            second: 0,
            slow: Red::new(300.0),
            quick: Red::new(15.0),
            spike: Burst::new(120.0, 1.0, 20.0, 3.0),
            job: Burst::new(1200.0, 15.0, 1.5, 180.0),
            disk: Red::new(20.0),
            flush: Burst::new(90.0, 1.0, 1.2, 60.0),
            net: Red::new(30.0),
            transfer: Burst::new(600.0, 2.0, 1.1, 300.0),
            load: 0.5,
            memory: 45.0,
            jobs,
        }
    }

    /// CPU of the next second in percent, at most 20 apart from spikes and jobs: the first of [`METRICS`].
    pub fn next(&mut self) -> [f64; 7] {
        let c = &mut self.chance;
        let day = (self.second as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        self.second += 1;
        let job = if self.jobs { self.job.next(c) } else { 0.0 };
        let spike = self.spike.next(c);
        let calm =
            (12.0 + 5.0 * day + 1.5 * self.slow.next(c) + 1.5 * self.quick.next(c) + c.normal()).max(0.3);
        let cpu = (calm + 40.0 * job + if spike > 0.0 { 30.0 + 60.0 * spike } else { 0.0 }).min(100.0);
        let runnable = cpu / 100.0 * 8.0;
        self.load += (runnable - self.load) / 60.0;
        self.memory = (self.memory + 0.02 * c.normal() - 0.0005 * (self.memory - 45.0)).clamp(20.0, 80.0);
        let pressure = (0.02 * calm * c.uniform().powi(4) * 10.0 + cpu * 0.2 * spike).min(100.0);
        let flush = self.flush.next(c);
        let disk = (13.0 + 1.2 * self.disk.next(c) + 0.5 * c.normal() + 0.4 * day).exp()
            + 150e6 * flush * (0.5 + c.uniform());
        let net = (12.5 + 0.8 * self.net.next(c) + 0.4 * c.normal() + 0.8 * day).exp()
            + 60e6 * self.transfer.next(c) * (0.7 + 0.3 * c.uniform());
        let guest = calm / 100.0 * 4.0 * (0.5 + 0.5 * c.uniform()) + 1.5 * job + spike;
        [cpu, (self.load * 100.0).round() / 100.0, self.memory, pressure, disk, net, guest]
    }
}
