//! Clean fleets are quiet, what all nodes do is silent, and what one does alone is told with its metric.

use super::*;
use crate::chance::Chance;

const NODES: usize = 6;
const CPU: usize = SevenMetric::CpuUsage as usize;
const DAY: usize = 86_400;
/// Seconds between looks of these tests: one in three of those in service, so that a week is soon over.
const STEP: usize = 30;

fn at(second: usize) -> Timestamp {
    Timestamp::from_millis(1_700_006_400_000 + second as i64 * 1000)
}

/// Six unequal nodes with working hours, noise of their own that wanders over a quarter of an hour, and bursts.
struct Cluster {
    chance: Chance,
    wander: [[f64; METRICS]; NODES],
    burst: [usize; NODES],
}

impl Cluster {
    fn new(seed: u64) -> Self {
        Self { chance: Chance::new(seed), wander: [[0.0; METRICS]; NODES], burst: [0; NODES] }
    }

    fn noise(&mut self) -> f64 {
        (0..4).map(|_| self.chance.unit() - 0.5).sum::<f64>() * 1.73
    }

    fn row(&mut self, n: usize, second: usize) -> [f64; METRICS] {
        let keep = 1.0 - STEP as f64 / 900.0;
        for metric in 0..METRICS {
            let fresh = self.noise() * (1.0 - keep * keep).sqrt();
            self.wander[n][metric] = keep * self.wander[n][metric] + fresh;
        }
        // Now and then a node works for some minutes: builds, imports, a guest that is started.
        if self.burst[n] == 0 && self.chance.unit() < STEP as f64 / 14_400.0 {
            self.burst[n] = 2 + (self.chance.unit() * 12.0) as usize;
        }
        let burst = if self.burst[n] > 0 { 18.0 } else { 0.0 };
        self.burst[n] = self.burst[n].saturating_sub(1);
        let hour = (second % DAY) as f64 / 3600.0;
        let busy = 12.0 * (1.0 + ((hour - 9.0) / 24.0 * std::f64::consts::TAU).sin());
        let (own, wander) = (n as f64, self.wander[n]);
        let positive = |value: f64| value.max(0.0);
        [
            (60.0 + 25.0 * own) * (0.3 * wander[0] + 0.1 * self.noise()).exp() + 10.0 * busy + 8.0 * burst,
            0.25 + 0.05 * own + 0.02 * wander[1].abs() + 0.01 * self.noise().abs(),
            positive(self.noise() - 2.4),
            0.05 + 0.01 * self.noise().abs(),
            (20.0 + 4.0 * own + busy + 3.0 * wander[4] + 1.5 * self.noise() + burst).clamp(0.0, 100.0),
            40.0 + 5.0 * own + 1.5 * wander[5] + 0.2 * self.noise(),
            0.0,
            positive(1.0 + wander[7] + 0.5 * burst * self.chance.unit()),
        ]
    }
}

/// When which node's anomaly opened (or closed).
type Turns = Vec<(usize, usize, bool)>;

/// A cluster for some days, where `change` may spoil it. Every change of a node's anomaly with its second, and the
/// answers while open.
fn watched(
    seed: u64,
    seconds: usize,
    mut change: impl FnMut(usize, usize, &mut [f64; METRICS]),
) -> (Turns, Vec<(usize, Unlike)>) {
    let (mut cluster, mut peers) = (Cluster::new(seed), Peers::new(PeersConfig::default()));
    let (mut open, mut turns, mut told) = ([false; NODES], Vec::new(), Vec::new());
    for second in (0..seconds).step_by(STEP) {
        let rows: BTreeMap<usize, [f64; METRICS]> = (0..NODES)
            .map(|n| {
                let mut row = cluster.row(n, second);
                change(n, second, &mut row);
                (n, row)
            })
            .collect();
        for (n, likeness) in peers.look(at(second), &rows) {
            if let Likeness::Unlike(unlike) = likeness {
                told.push((n, unlike));
            }
            let now = matches!(likeness, Likeness::Unlike(_));
            if now != open[n] {
                open[n] = now;
                turns.push((second, n, now));
            }
        }
    }
    (turns, told)
}

/// Days per seed that are counted and those before them that only teach.
const WEEK: usize = 8;

#[test]
#[allow(clippy::print_stdout)] // The figure of the documentation.
fn a_week_of_clean_data_keeps_the_budget_of_false_alarms() {
    let mut openings = 0;
    // Seeds that nothing was tuned on.
    for seed in 11..=13 {
        let (turns, _) = watched(seed, WEEK * DAY, |_, _, _| {});
        openings += turns.iter().filter(|(second, _, opens)| *opens && *second >= DAY).count();
    }
    let node_days = (3 * NODES * (WEEK - 1)) as f64;
    let per_day = openings as f64 / node_days;
    println!("{openings} openings in {node_days} node days: {per_day:.3} a node and day");
    assert!(per_day <= 0.1, "{openings} in {node_days} node days");
}

#[test]
fn what_all_nodes_do_is_silent_and_what_one_does_alone_is_told_once() {
    const FROM: usize = 2 * DAY + 3600;
    const TO: usize = FROM + 2 * 3600;
    let all = |_: usize, second: usize, row: &mut [f64; METRICS]| {
        if (FROM..TO).contains(&second) {
            row[CPU] = (row[CPU] + 10.0).min(100.0);
            row[0] *= 3.0;
        }
    };
    let (turns, _) = watched(7, 3 * DAY, all);
    assert_eq!(turns.iter().filter(|(second, ..)| *second >= FROM).count(), 0, "{turns:?}");
    let alone = |n: usize, second: usize, row: &mut [f64; METRICS]| {
        all(n, second, row);
        if n == 4 && (FROM..TO).contains(&second) {
            // It drifts away, two points every ten minutes.
            row[CPU] = (row[CPU] + 4.0 * (second - FROM) as f64 / 600.0).min(100.0);
        }
    };
    let (turns, told) = watched(7, 3 * DAY, alone);
    let turns: Vec<_> = turns.into_iter().filter(|(second, ..)| *second >= FROM).collect();
    let [(opened, 4, true), (closed, 4, false)] = turns[..] else { panic!("{turns:?}") };
    assert!(opened < TO && (TO..TO + 1800).contains(&closed), "{turns:?}");
    let (_, worst) = told.iter().rfind(|(n, _)| *n == 4).unwrap();
    assert!(worst.metric == CPU && worst.compared == NODES - 1, "{worst:?}");
    let worst = told.iter().map(|(_, unlike)| unlike).max_by(|a, b| a.value.total_cmp(&b.value)).unwrap();
    assert!(worst.value > worst.expected + 15.0 && worst.deviation > LEAST, "{worst:?}");
}

/// What an anomaly has at least, in sigma.
const LEAST: f64 = 4.0;

#[test]
fn a_shift_that_stays_is_how_the_node_is_after_a_day_and_a_backup_is_a_habit_after_two_nights() {
    const FROM: usize = 2 * DAY;
    let (turns, _) = watched(5, 5 * DAY, |n, second, row| {
        if n == 2 && second >= FROM {
            row[5] += 30.0;
        }
    });
    let own: Vec<_> = turns.iter().filter(|(second, n, _)| *n == 2 && *second >= FROM).collect();
    let [(opened, _, true), (closed, _, false)] = own[..] else { panic!("{turns:?}") };
    assert!(*opened < FROM + 1200 && closed - opened >= 86_000 && closed - opened < 90_000, "{own:?}");

    let (turns, _) = watched(5, 7 * DAY, |n, second, row| {
        if n == 1 && second > DAY && (7200..8400).contains(&(second % DAY)) {
            row[0] += 3000.0;
        }
    });
    let nights: Vec<usize> = turns
        .iter()
        .filter(|(second, n, opens)| *opens && *n == 1 && (7200..9000).contains(&(second % DAY)))
        .map(|(second, ..)| second / DAY)
        .collect();
    assert_eq!(nights, [1, 2], "{turns:?}");
}

#[test]
fn few_peers_rubbish_and_silence_are_no_reason() {
    let mut peers = Peers::new(PeersConfig::default());
    let row = |cpu: f64| {
        let mut row = [f64::NAN; METRICS];
        row[CPU] = cpu;
        row
    };
    for second in (0..2 * DAY).step_by(60) {
        let few: BTreeMap<usize, _> = (0..4).map(|n| (n, row(if n == 0 { 99.0 } else { 1.0 }))).collect();
        let answers = peers.look(at(second), &few);
        assert!(answers.values().all(|likeness| *likeness == Likeness::Unknown), "{answers:?}");
    }
    let mut peers = Peers::new(PeersConfig::default());
    for second in (0..2 * DAY).step_by(60) {
        let odd = [f64::NAN, f64::INFINITY, -5.0, 1e300][second / 60 % 4];
        let rows: BTreeMap<usize, _> = (0..6).map(|n| (n, row(if n == 0 { odd } else { 10.0 }))).collect();
        let answers = peers.look(at(second), &rows);
        assert!(answers.iter().all(|(n, l)| *n == 0 || !matches!(l, Likeness::Unlike(_))), "{answers:?}");
    }
    assert_eq!(
        Peers::<u8>::new(PeersConfig { enabled: false, ..PeersConfig::default() })
            .look(at(0), &BTreeMap::new()),
        BTreeMap::new()
    );
}

#[test]
fn the_median_leaves_out_the_node_itself_and_every_option_is_documented() {
    let ranked = Ranked::of([5.0, 1.0, 9.0, 3.0, 7.0].into_iter());
    let medians: Vec<f64> = (0..5).map(|i| ranked.median_without(i)).collect();
    assert_eq!(medians, [5.0, 6.0, 4.0, 6.0, 4.0]);
    evenkeel_common::config::assert_documented::<PeersConfig>();
}
