//! Answers of the filters that learn from the past or weigh figures, and of the seasonal baseline.

use super::*;
use crate::Preset;

fn full() -> Policy {
    Policy { preset: Preset::Full, ..Policy::default() }
}

#[track_caller]
fn check_full(step: Step, fleet: &str, migration: &str, expected: &str) {
    assert_eq!(judge(step, &full(), fleet, migration), expected);
}

#[test]
fn what_is_switched_off_says_so() {
    for step in [Step::Risk, Step::Trend, Step::Outcome, Step::Pattern, Step::CostBenefit, Step::GuestSuccess]
    {
        check(step, TWO, "101 -> pve2", "not_enabled");
        assert_ne!(judge(step, &full(), TWO, "101 -> pve2"), "not_enabled", "{step}");
    }
}

#[test]
fn confidence() {
    let step = Step::Confidence;
    check(step, TWO, "101 -> pve2", "pass: confidence 91 of the 75 that is needed");
    check(
        step,
        &TWO.replace("101 cpu=5", "101 cpu=0.5"),
        "101 -> pve2",
        "filtered: confidence 0, 75 is needed",
    );
    let with = |confidence_threshold| Policy { confidence_threshold, ..Policy::default() };
    assert_eq!(judge(step, &with(95.0), TWO, "101 -> pve2"), "filtered: confidence 91, 95 is needed");
    assert_eq!(judge(step, &with(0.0), TWO, "101 -> pve2"), "pass: confidence 91 of the 0 that is needed");
}

#[test]
fn risk() {
    let step = Step::Risk;
    let fleet = |guest: &str, other: f64| {
        format!("pve1 cpu=16 ram=256 | 101 {guest} | 102 cpu={other} mem=4\npve2 cpu=32 ram=256")
    };
    let large = |guest: &str| fleet(&format!("cpu=7 {guest}"), 8.0);
    let small = |guest: &str| fleet(&format!("cpu=2 {guest}"), 13.0);
    check_full(step, &large("mem=4"), "101 -> pve2", "pass");
    check_full(step, &large("mem=20"), "101 -> pve2", "pass: risk medium: 20.0 GiB of memory");
    check_full(
        step,
        &small("mem=4 max=80 vcpus=16"),
        "101 -> pve2",
        "filtered: high risk (80.0 GiB of memory, 16 vCPUs) needs confidence 90; it has 87",
    );
    check_full(
        step,
        &large("mem=4 max=80 vcpus=16"),
        "101 -> pve2",
        "pass: high risk (80.0 GiB of memory, 16 vCPUs), and confidence 92 of the 90 that this needs",
    );
    // Twice 75 is no figure that anything has; 92 is asked for at most, but never less than of all other moves.
    let mut policy = full();
    policy.intelligent_migrations.risk_confidence_multiplier = 2.0;
    let risky = small("mem=4 max=80");
    assert_eq!(
        judge(step, &policy, &risky, "101 -> pve2"),
        "filtered: high risk (80.0 GiB of memory) needs confidence 92; it has 86"
    );
    policy.confidence_threshold = 98.0;
    assert!(judge(step, &policy, &risky, "101 -> pve2").contains("needs confidence 98"));
    policy = full();
    policy.risk.memory_gib = 81.0;
    assert_eq!(judge(step, &policy, &risky, "101 -> pve2"), "pass: risk medium: 80.0 GiB of memory");
}

#[test]
fn evidence_names_what_makes_a_move_risky() {
    let run =
        run("pve1 cpu=16 ram=256 | 101 cpu=7 mem=4 max=80 vcpus=16 | 102 cpu=8 mem=70\npve2 cpu=16 ram=64")
            .run;
    let evidence: Vec<_> = run.decisions[0].recommendation.evidence.iter().map(ToString::to_string).collect();
    assert!(evidence.contains(&"risk high: 80.0 GiB of memory, 16 vCPUs".to_owned()), "{evidence:?}");
}

#[test]
fn trend() {
    let step = Step::Trend;
    let fleet = |more: &str, trail: &str| {
        format!(
            "pve1 cpu=16 ram=64 {more} trail={trail} | 101 cpu=6 mem=4 | 102 cpu=6 mem=4
             pve2 cpu=16 ram=64"
        )
    };
    let falling = "97,96,93,92,89,88,85,84,81,80,79,77";
    let deferred = "deferred: CPU demand of pve1 (76 %) falls by itself by 23 points an hour: 65 % in 30 min, the limit is 70 %";
    check_full(step, &fleet("", falling), "101 -> pve2", deferred);
    check_full(
        step,
        &fleet("", "97,96,96,95,94,94,93,92,92,91,90,90"),
        "101 -> pve2",
        "pass: CPU demand of pve1 falls by 8 points an hour, too slowly: still 86 % in 30 min, the limit is 70 %",
    );
    check_full(step, &fleet("", "77,79,80,81,84,85,88,89,92,93,96,97"), "101 -> pve2", "pass");
    check_full(step, &fleet("", "97,60,93,70,89,66,95,84,61,90,69,77"), "101 -> pve2", "pass");
    check_full(step, &TWO.replace("trail", ""), "101 -> pve2", "pass");
    // Who waits now, runs out of memory, or has to leave, is not told to wait.
    check_full(
        step,
        &fleet("psi=21", falling),
        "101 -> pve2",
        "pass: pve1 can not wait: 21 % pressure, the limit is 20 %",
    );
    check_full(step, &fleet("psi=20", falling), "101 -> pve2", deferred);
    check_full(
        step,
        &fleet("basemem=50", falling),
        "101 -> pve2",
        "pass: pve1 can not wait: 91 % memory, the limit is 80 %",
    );
    check_full(
        step,
        &fleet("maintenance", falling),
        "101 -> pve2",
        "pass: pve1 is in maintenance and has to be emptied",
    );
    // A step that a move made is no trend; one that came before all of the trail is no step in it.
    let moved = |minutes: u32| format!("{}\nmoved 103 pve1->pve2 {minutes}m", fleet("", falling));
    check_full(step, &moved(30), "101 -> pve2", "pass");
    check_full(step, &moved(56), "101 -> pve2", deferred);
}

#[test]
fn a_trend_defers_every_guest_of_the_source_at_once() {
    let run = run_with(
        "pve1 cpu=16 ram=64 trail=99,98,95,94,91,90,87,86,83,82,81,79 | 101 cpu=7 mem=4 | 102 cpu=7 mem=4
         pve2 cpu=16 ram=64
         pve3 cpu=16 ram=64",
        &full(),
    )
    .run;
    let actions: Vec<_> = run.decisions.iter().map(|d| (d.action, d.filter)).collect();
    assert_eq!(actions, [(Action::Deferred, Some(Step::Trend)); 2], "{}", told(&run));
}

#[test]
fn outcome() {
    let step = Step::Outcome;
    let with = |how: &[&str]| {
        let moved =
            how.iter().enumerate().map(|(i, how)| format!("moved 90{i} pve1->pve2 {}m {how}", 100 + i));
        two(&moved.collect::<Vec<_>>().join("\n"))
    };
    check_full(step, TWO, "101 -> pve2", "pass");
    let poor = with(&["failed", "useless", "helped", "useless"]);
    check_full(
        step,
        &poor,
        "101 -> pve2",
        "filtered: 3 of 4 moves pve1->pve2 failed or gained nothing: expected success rate 33 %",
    );
    check_full(step, &poor, "101 -> pve3", "pass");
    check_full(step, &poor.replace("pve1->pve2", "pve2->pve1"), "101 -> pve2", "pass");
    check_full(
        step,
        &with(&["failed", "useless", "helped", "helped"]),
        "101 -> pve2",
        "pass: 2 of 4 moves pve1->pve2 failed or gained nothing: expected success rate 50 %, which is enough",
    );
    check_full(
        step,
        &with(&["failed", "useless"]),
        "101 -> pve2",
        "pass: 2 of 2 moves pve1->pve2 failed or gained nothing: expected success rate 25 %, which is enough",
    );
    check_full(step, &with(&["", "", ""]), "101 -> pve2", "pass");
}

#[test]
fn a_failed_attempt_is_not_repeated_at_once() {
    let step = Step::Cooldown;
    let failed = |minutes: u32| two(&format!("moved 101 pve1->pve2 {minutes}m failed"));
    check_full(
        step,
        &failed(59),
        "101 -> pve2",
        "filtered: its last attempt pve1->pve2 failed 59 min ago; not tried again within 60 min",
    );
    assert!(judge(step, &full(), &failed(60), "101 -> pve2").starts_with("pass"));
    check_full(step, &failed(59), "101 -> pve3", "pass");
    assert!(judge(step, &full(), &failed(59), "102 -> pve2").starts_with("pass"));
}

#[test]
fn guest_success() {
    let step = Step::GuestSuccess;
    let with = |how: &[&str]| {
        let moved = how
            .iter()
            .enumerate()
            .map(|(i, how)| format!("moved 101 pve{}->pve1 {}m {how}", 2 + i % 2, 3000 + i));
        two(&moved.collect::<Vec<_>>().join("\n"))
    };
    check_full(step, TWO, "101 -> pve2", "pass");
    let poor = with(&["failed", "useless", "useless"]);
    check_full(
        step,
        &poor,
        "101 -> pve2",
        "filtered: 3 of 3 moves of this guest failed or gained nothing: expected success rate 21 %",
    );
    check_full(step, &poor, "102 -> pve2", "pass");
    check_full(
        step,
        &with(&["failed", "useless", "helped"]),
        "101 -> pve2",
        "pass: 2 of 3 moves of this guest failed or gained nothing: ranked at 81 % of its improvement",
    );
    check_full(step, &with(&["helped", "helped", "helped"]), "101 -> pve2", "pass");
}

/// One guest with a day of its own on an otherwise idle node; the time is 8:00 UTC.
fn day(source: &str, target: &str, more: &str) -> String {
    format!(
        "pve1 cpu=16 ram=64 | 101 cpu=8 mem=4 {source} | 102 cpu=0.5 mem=4 profile=steady
         pve2 cpu=16 ram=64 | 103 cpu=1 mem=4 {target}
         {more}"
    )
}

#[test]
fn pattern() {
    let step = Step::Pattern;
    let hill = "profile=bursty mean=2 day=7-11:8";
    check_full(step, &day("", "", ""), "102 -> pve2", "pass");
    check_full(
        step,
        &day(hill, "", ""),
        "102 -> pve2",
        "deferred: the source pve1 is in its daily peak (8.0 cores, 3.0 on average); next good window 11:00 to 07:00",
    );
    check_full(
        step,
        &day(hill, "", "utc+7200"),
        "102 -> pve2",
        "deferred: the source pve1 is in its daily peak (8.0 cores, 3.0 on average); next good window 13:00 to 09:00",
    );
    check_full(
        step,
        &day(hill, "", "utc-12600"),
        "102 -> pve2",
        "deferred: the source pve1 is in its daily peak (8.0 cores, 3.0 on average); next good window 07:30 to 03:30",
    );
    check_full(
        step,
        &day("", &hill.replace("cpu=1", "cpu=8"), ""),
        "102 -> pve2",
        "deferred: the target pve2 is in its daily peak (8.0 cores, 3.0 on average); next good window 11:00 to 07:00",
    );
    check_full(
        step,
        &day(&hill.replace("bursty", "cyclical"), "", ""),
        "101 -> pve2",
        "deferred: is in its daily peak (8.0 cores, 3.0 on average); next good window 11:00 to 07:00",
    );
    for (why, source) in [
        ("the peak is over", "profile=bursty mean=2 day=2-8:8"),
        ("the peak is to come", "profile=bursty mean=2 day=9-12:8"),
        ("three days are not full", "profile=bursty mean=2 day=7-11:8 hours=71"),
        ("an hour is not known", "profile=bursty mean=2"),
        ("it grows, so its hours tell nothing", "profile=growing mean=2 day=7-11:8"),
        ("no hill: 1.2 times the mean", "profile=bursty mean=6 day=7-11:7.5"),
        ("most of the demand has no known day", "profile=bursty mean=2 day=7-11:8 wait=0 |  104 cpu=5 mem=1"),
        ("nobody feels it", "profile=bursty mean=0.2 day=7-11:1"),
    ] {
        assert_eq!(judge(step, &full(), &day(source, "", ""), "102 -> pve2"), "pass", "{why}");
    }
    check_full(
        step,
        &day(&format!("{hill} hours=72"), "", ""),
        "102 -> pve2",
        "deferred: the source pve1 is in its daily peak (8.0 cores, 3.0 on average); next good window 11:00 to 07:00",
    );
    check_full(
        step,
        &day(hill, "", "").replace("ram=64 | 101", "ram=64 psi=30 | 101"),
        "102 -> pve2",
        "pass: pve1 can not wait: 30 % pressure, the limit is 20 %",
    );
}

#[test]
fn cost_benefit() {
    let step = Step::CostBenefit;
    let fleet = |more: &str| {
        format!("pve1 cpu=16 ram=256 {more} | 101 cpu=7 mem=60 | 102 cpu=8 mem=4\npve2 cpu=16 ram=256")
    };
    // 60 GiB, sent 1.3 times, at 1 Gbit/s: 11.3 min.
    check_full(
        step,
        &fleet(""),
        "101 -> pve2",
        "filtered: better by 10.01 points for 11.3 min of migration: ratio 0.89, 1.00 is needed",
    );
    let mut policy = full();
    policy.migration_link_mbps = 10_000;
    assert_eq!(
        judge(step, &policy, &fleet(""), "101 -> pve2"),
        "pass: better by 10.01 points for 1.2 min of migration: ratio 8.22 of the 1.00 that is needed"
    );
    policy = full();
    policy.intelligent_migrations.min_cost_benefit_ratio = 0.8;
    assert!(judge(step, &policy, &fleet(""), "101 -> pve2").starts_with("pass: better by"));
    check_full(
        step,
        &fleet("maintenance"),
        "101 -> pve2",
        "pass: pve1 is in maintenance and has to be emptied",
    );
}

/// Demand at 8:00, when 12.5 of 16 cores are usual.
fn season(now: f64, more: &str) -> Explained {
    let fleet = format!(
        "pve1 cpu=16 ram=64 {more} | 101 cpu={now} vcpus=20 mem=4 profile=bursty mean=4 p95=12 day=7-11:12 dev-cpu=3.2 | 102 cpu=0.5 mem=4
         pve2 cpu=16 ram=64"
    );
    run_with(&fleet, &full())
}

#[test]
fn what_is_usual_at_this_hour_is_no_reason_and_what_is_not_is_one() {
    let usual = season(12.0, "");
    assert_eq!(usual.run.suppressed, None);
    assert_eq!(
        told(&usual.run).lines().next(),
        Some("pve1: pve1 at 81 % CPU is as usual at this hour (81 %, give or take 7), and nobody waits")
    );
    // The same demand is a reason when the baseline is off, when guests wait, and on a day that is full throughout.
    let sources = |explained: &Explained| !explained.run.decisions.is_empty();
    let mut off = full();
    off.penalty_config.seasonal_baseline.enabled = Some(false);
    let fleet = "pve1 cpu=16 ram=64 | 101 cpu=12 vcpus=20 mem=4 profile=bursty mean=4 p95=12 day=7-11:12 dev-cpu=3.2 | 102 cpu=0.5 mem=4
         pve2 cpu=16 ram=64";
    assert!(sources(&run_with(fleet, &off)));
    assert!(sources(&season(12.0, "psi=30")));
    // Two deviations of 1.16 cores above the 12 that are usual.
    assert!(!sources(&season(14.2, "")) && sources(&season(14.4, "")));
    assert!(sources(&run_with(&fleet.replace("mean=4", "mean=12"), &full())));
}

#[test]
fn balanced_nodes_over_the_threshold_as_usual_are_left_alone_and_told() {
    let node = |n: u32| {
        format!(
            "pve{n} cpu=16 ram=64 | {n}01 cpu=12 vcpus=16 mem=4 profile=bursty mean=4 p95=12 day=7-11:12 dev-cpu=3.2\n"
        )
    };
    let run = run_with(&format!("{}{}", node(1), node(2)), &full()).run;
    assert_eq!(
        run.suppressed.map(|reason| reason.to_string()).as_deref(),
        Some("pve1 at 78 % CPU is as usual at this hour (78 %, give or take 7), and nobody waits")
    );
    let off = run_with(&format!("{}{}", node(1), node(2)), &Policy::default()).run;
    assert_eq!(off.suppressed, None, "{}", told(&off));
}

#[test]
fn demand_beyond_the_usual_is_a_reason_below_the_threshold_too() {
    // 65 % at an hour at which 25 % is usual, everything within the convergence threshold.
    let node = |n: u32, cpu: f64| {
        format!(
            "pve{n} cpu=16 ram=64 | {n}01 cpu={cpu} vcpus=16 mem=4 profile=bursty mean=4 p95=12 day=18-22:12 dev-cpu=3.2\n"
        )
    };
    let nodes = |cpu: f64| crate::fixture::snapshot(&format!("{}{}", node(1, cpu), node(2, cpu))).sorted();
    let counts = |cpu: f64, policy: &Policy| {
        let snapshot = nodes(cpu);
        let fleet = Fleet::of(&snapshot, policy);
        crate::search::over_threshold(&snapshot, &fleet, policy)[0]
    };
    assert!(counts(10.0, &full()));
    assert!(!counts(4.0, &full()));
    let snapshot = nodes(10.0);
    let fleet = Fleet::of(&snapshot, &full());
    let reason = crate::score::season::beyond(0, &snapshot, &fleet, &full()).map(|reason| reason.to_string());
    assert_eq!(
        reason.as_deref(),
        Some(
            "pve1 at 66 % CPU is beyond its usual 28 % at this hour by 5.2 standard deviations (sigma_threshold 2.0)"
        )
    );
}
