//! The vote's arithmetic, abstentions, the consensus metric, and what must hold for any input.

use super::*;
use crate::chance::Chance;
use crate::model::fixture;
use crate::seven::SevenMetric;
use proptest::prelude::*;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(1_700_006_400_000 + minute * 60_000)
}

/// A node with a working day, and noise.
fn node(minute: i64, chance: &mut Chance) -> SevenMetrics {
    let busy = if (480..1080).contains(&(minute % 1440)) { 30.0 } else { 10.0 };
    let mut noise = |width: f64| width * (chance.unit() + chance.unit() + chance.unit() - 1.5);
    SevenMetrics([
        100.0 + 5.0 * busy + noise(20.0),
        1.0 + noise(0.2),
        0.0,
        0.3 + noise(0.1),
        busy + noise(4.0),
        50.0 + 0.2 * busy + noise(1.0),
        0.0,
    ])
}

fn config() -> EnsembleConfig {
    EnsembleConfig {
        check_interval_s: 60,
        lstm_autoencoder: crate::lstm_autoencoder::LstmConfig {
            hidden: 8,
            latent: 3,
            windows: 200,
            epochs: 4,
            ..Default::default()
        },
        ..EnsembleConfig::default()
    }
}

fn history(days: i64, chance: &mut Chance) -> Vec<TrainingRow> {
    (0..days * 288)
        .map(|i| TrainingRow { at: at(i * 5), metrics: node(i * 5, chance), anomalous: false })
        .collect()
}

/// A trained ensemble, eight days old, and the minute it is at.
fn trained(fusion: Fusion) -> (EnsembleDetector, i64, Chance) {
    let mut chance = Chance::new(11);
    let rows = history(8, &mut chance);
    let config = EnsembleConfig { fusion, check_interval_s: 300, ..config() };
    let models = train(&rows, &config, at(0), &mut |_| true).unwrap();
    let mut detector = EnsembleDetector::new(config);
    models.apply(&mut detector).unwrap();
    let mut minute = 8 * 1440;
    for _ in 0..60 {
        detector.observe(at(minute), &node(minute, &mut chance));
        minute += 5;
    }
    (detector, minute, chance)
}

#[test]
fn a_trained_ensemble_finds_a_burst_and_names_its_metric() {
    for fusion in [Fusion::Vote, Fusion::Calibrated] {
        let (mut detector, minute, mut chance) = trained(fusion);
        let calm = detector.observe(at(minute), &node(minute, &mut chance));
        assert!(!calm.alert && calm.abstained.is_empty() && calm.votes.len() == 4, "{calm:?}");
        let mut burst = node(minute + 5, &mut chance);
        burst.0[SevenMetric::PacketLoss.index()] = 40.0;
        let verdict = detector.observe(at(minute + 5), &burst);
        assert!(verdict.alert, "{verdict:?}");
        assert_eq!(verdict.consensus_metric, Some(SevenMetric::PacketLoss));
        assert_eq!(verdict.fusion, fusion);
    }
}

fn opinion(per_day: f64, metric: SevenMetric) -> Opinion {
    let mut shares = [0.0; SEVEN];
    shares[metric.index()] = 1.0;
    Opinion { statistic: 1.0, per_day, beyond: true, shares }
}

/// The source's own example: 0.8 and 0.9 at 30 % each, and two that see nothing, are 0.51: no alert.
#[test]
fn the_vote_is_the_weighted_sum_of_confidences() {
    let odds = |confidence: f64| 0.1 * (1.0 - confidence) / confidence;
    let nothing = Opinion { beyond: false, ..opinion(144.0, SevenMetric::CpuUsage) };
    let opinions = [
        (FleetDetector::IsolationForest, 0.3, opinion(odds(0.8), SevenMetric::Bandwidth)),
        (FleetDetector::LstmAutoencoder, 0.3, opinion(odds(0.9), SevenMetric::Bandwidth)),
        (FleetDetector::ZScore, 0.2, nothing),
        (FleetDetector::SeasonalEsd, 0.2, nothing),
    ];
    let fused = fuse::fuse(&opinions, Fusion::Vote, &Tail::default(), 0.1);
    assert!((fused.score - 0.51).abs() < 1e-9, "{}", fused.score);
    assert_eq!(fused.metric, Some(SevenMetric::Bandwidth));
    // Without the last two their weight goes to the first two.
    let fused = fuse::fuse(&opinions[..2], Fusion::Vote, &Tail::default(), 0.1);
    assert!((fused.score - 0.85).abs() < 1e-9);
    assert_eq!(fused.votes.iter().map(|v| v.weight_used).collect::<Vec<_>>(), [0.5, 0.5]);
}

#[test]
fn the_metric_with_most_behind_it_wins() {
    let opinions = [
        (FleetDetector::IsolationForest, 0.3, opinion(0.001, SevenMetric::Latency)),
        (FleetDetector::ZScore, 0.2, opinion(0.001, SevenMetric::Jitter)),
        (FleetDetector::SeasonalEsd, 0.2, opinion(0.001, SevenMetric::Jitter)),
    ];
    for fusion in [Fusion::Vote, Fusion::Calibrated] {
        let fused = fuse::fuse(&opinions, fusion, &Tail::default(), 0.1);
        assert_eq!(fused.metric, Some(SevenMetric::Jitter));
        assert!(fused.score > 0.9);
    }
}

#[test]
fn detectors_say_why_they_abstain() {
    let mut detector = EnsembleDetector::new(EnsembleConfig {
        fusion: Fusion::Vote,
        weights: Weights { seasonal_esd: 0.0, ..Weights::default() },
        ..config()
    });
    let verdict = detector.observe(at(0), &SevenMetrics([1.0; SEVEN]));
    let reasons: Vec<AbstainReason> = verdict.abstained.iter().map(|a| a.reason).collect();
    let young = AbstainReason::TooLittleData { known: 0, needed: 20 };
    assert_eq!(reasons, [AbstainReason::NoModel, AbstainReason::NoModel, young, AbstainReason::Disabled]);
    assert!(verdict.votes.is_empty() && verdict.score == 0.0 && !verdict.alert);
    let again = detector.observe(at(0), &SevenMetrics([9.0; SEVEN]));
    assert!(again.abstained.iter().all(|a| a.reason == AbstainReason::OutOfOrder));
    let unseen = detector.observe(at(1), &SevenMetrics::MISSING);
    assert_eq!(unseen.abstained[2].reason, AbstainReason::NoValues);
}

#[test]
fn a_refused_model_is_an_abstention_and_not_a_guess() {
    let mut detector = EnsembleDetector::new(config());
    let wrong = detector.set_model(ModelKind::IsolationForest, fixture::z_score());
    let expected = ModelError::WrongKind { expected: ModelKind::IsolationForest, found: ModelKind::ZScore };
    assert_eq!(wrong, Err(expected));
    let verdict = detector.observe(at(0), &SevenMetrics([1.0; SEVEN]));
    assert_eq!(verdict.abstained[0].reason, AbstainReason::ModelRefused);
    detector.set_model(ModelKind::IsolationForest, fixture::forest()).unwrap();
    let verdict = detector.observe(at(1), &SevenMetrics([1.0; SEVEN]));
    assert!(verdict.votes.iter().any(|vote| vote.detector == FleetDetector::IsolationForest), "{verdict:?}");
}

#[test]
fn the_same_looks_give_the_same_verdicts() {
    let run = || {
        let mut chance = Chance::new(4);
        let mut detector = EnsembleDetector::new(config());
        detector.set_model(ModelKind::IsolationForest, fixture::forest()).unwrap();
        (0..2000).map(|m| detector.observe(at(m), &node(m, &mut chance))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_raised_threshold_needs_rarer_findings() {
    let confidence = |multiplier| {
        let mut chance = Chance::new(4);
        let mut detector = EnsembleDetector::new(config());
        detector.set_multiplier(FleetDetector::ZScore, multiplier);
        (0..1000).for_each(|m| drop(detector.observe(at(m), &node(m, &mut chance))));
        let mut high = node(1000, &mut chance);
        high.0[SevenMetric::CpuUsage.index()] = 70.0;
        detector.observe(at(1000), &high).votes[0].confidence
    };
    assert!(confidence(2.0) < confidence(1.0) && confidence(1.0) < confidence(0.5));
    assert_eq!(confidence(1e9), confidence(2.0));
    assert_eq!(confidence(f64::NAN), confidence(1.0));
}

#[test]
fn training_says_what_is_missing() {
    let mut chance = Chance::new(1);
    let rows = history(8, &mut chance);
    let attempt = |rows: &[TrainingRow]| train(rows, &config(), at(0), &mut |_| true).unwrap_err();
    assert_eq!(attempt(&rows[..100]), TrainError::TooFewRows { rows: 100, anomalous: 0, needed: 2000 });
    let dense: Vec<_> = (0..3000).map(|m| TrainingRow { at: at(m), ..rows[0] }).collect();
    assert!(matches!(attempt(&dense), TrainError::TooShort { .. }));
    let marked: Vec<_> = rows.iter().map(|row| TrainingRow { anomalous: true, ..*row }).collect();
    assert_eq!(attempt(&marked), TrainError::TooFewRows { rows: 0, anomalous: 2304, needed: 2000 });
    let mut turned = rows.clone();
    turned.swap(5, 6);
    assert_eq!(attempt(&turned), TrainError::NotInOrder { row: 6 });
    let cancelled = train(&rows, &config(), at(0), &mut |_| false).unwrap_err();
    assert_eq!(cancelled, TrainError::Cancelled);
    assert!(attempt(&rows[..100]).to_string().contains("min_rows"));
}

#[test]
fn marked_stretches_are_not_learned() {
    let mut chance = Chance::new(2);
    let mut rows = history(8, &mut chance);
    let clean = rows.clone();
    for row in &mut rows[300..400] {
        row.metrics = SevenMetrics([1e5, 500.0, 90.0, 90.0, 100.0, 100.0, 90.0]);
        row.anomalous = true;
    }
    let means = |rows: &[TrainingRow]| {
        let models = train(rows, &config(), at(0), &mut |_| true).unwrap();
        let about = models.get(ModelKind::IsolationForest).unwrap().about.clone();
        (about.rows, about.means[SevenMetric::CpuUsage.index()])
    };
    let ((fewer, marked), (all, whole)) = (means(&rows), means(&clean));
    assert!(fewer == all - 100 && (marked - whole).abs() < 1.0, "{marked} {whole}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever is measured: figures are finite and within their ranges, and weights sum to 1.
    #[test]
    fn verdicts_are_finite_for_any_input(
        looks in prop::collection::vec((1_i64..2000, prop::array::uniform7(prop::num::f64::ANY)), 60..120),
        vote: bool,
    ) {
        let fusion = if vote { Fusion::Vote } else { Fusion::Calibrated };
        let mut detector = EnsembleDetector::new(EnsembleConfig { fusion, ..config() });
        for model in [fixture::forest(), fixture::autoencoder(), fixture::z_score()] {
            detector.set_model(model.kind(), model).unwrap();
        }
        let mut minute = 0;
        for (gap, values) in looks {
            minute += if gap < 1800 { 1 } else { gap };
            let verdict = detector.observe(at(minute), &SevenMetrics(values));
            prop_assert!((0.0..=1.0).contains(&verdict.score));
            prop_assert_eq!(verdict.votes.len() + verdict.abstained.len(), 4);
            let sum: f64 = verdict.votes.iter().map(|v| v.weight_used).sum();
            prop_assert!(verdict.votes.is_empty() || (sum - 1.0).abs() < 1e-9);
            for vote in &verdict.votes {
                prop_assert!((0.0..=1.0).contains(&vote.confidence) && vote.statistic.is_finite());
                prop_assert!((0.0..=144.0 + 1e-9).contains(&vote.per_day));
            }
        }
    }
}
