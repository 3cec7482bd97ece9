//! What is refused, what survives storing, and drift.

use super::fixture::{about, autoencoder, forest, z_score};
use super::*;
use crate::chance::Chance;
use crate::seven::{SevenMetric, SevenMetrics};
use proptest::prelude::*;

#[test]
fn stored_models_are_the_same() {
    for model in [forest(), autoencoder(), z_score()] {
        let file = model.encode().unwrap();
        assert_eq!(Model::decode(&file, model.kind()).unwrap(), model);
    }
}

#[test]
fn what_is_not_a_usable_model_is_refused_with_its_remedy() {
    let file = forest().encode().unwrap();
    let kind = ModelKind::IsolationForest;
    let refused = |bytes: &[u8]| Model::decode(bytes, kind).unwrap_err();
    assert_eq!(refused(b""), ModelError::NotAModel);
    assert_eq!(refused(b"timestamp,bandwidth,latency\n1,2,3\n"), ModelError::NotAModel);
    let cut = ModelError::WrongLength { expected: file.len(), found: file.len() - 1 };
    assert_eq!(refused(&file[..file.len() - 1]), cut);
    let mut damaged = file.clone();
    damaged[HEADER + 40] ^= 1;
    assert_eq!(refused(&damaged), ModelError::Damaged);
    let mut newer = file.clone();
    newer[8] = 9;
    assert_eq!(refused(&newer), ModelError::Newer { found: 9 });
    assert_eq!(refused(&vec![0; MAX_BYTES + 1]), ModelError::TooLarge { found: MAX_BYTES + 1 });
    let other = Model::decode(&file, ModelKind::ZScore).unwrap_err();
    assert_eq!(other, ModelError::WrongKind { expected: ModelKind::ZScore, found: kind });
    for error in [refused(b""), refused(&damaged), refused(&newer), cut, other] {
        let text = error.to_string();
        assert!(
            ["train", "activate", "upgrade", "name the other"].iter().any(|r| text.contains(r)),
            "{text}"
        );
    }
}

/// A file with a right checksum and wrong content: what a careless or hostile writer would make.
#[test]
fn a_valid_checksum_does_not_make_a_model_usable() {
    let mut model = z_score();
    model.about.means[0] = f32::NAN;
    let unusable = ModelError::Unusable { kind: ModelKind::ZScore };
    assert_eq!(Model::decode(&model.encode().unwrap(), ModelKind::ZScore), Err(unusable));
    let mut body = postcard::to_allocvec(&z_score()).unwrap();
    body.truncate(body.len() / 2);
    assert_eq!(Model::decode(&file_of(&body, ModelKind::ZScore), ModelKind::ZScore), Err(unusable));
}

fn file_of(body: &[u8], kind: ModelKind) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&FORMAT.to_le_bytes());
    file.extend_from_slice(&[kind as u8, 0]);
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    file.extend_from_slice(body);
    file
}

#[test]
fn the_checksum_is_the_standard_one() {}

fn looks(mean: f64, width: f64, seed: u64) -> Vec<SevenMetrics> {
    let mut chance = Chance::new(seed);
    let mut value = || mean + width * (chance.unit() + chance.unit() - 1.0);
    (0..2000).map(|_| SevenMetrics([value(), value(), 0.0, 1.0, value(), 50.0, f64::NAN])).collect()
}

#[test]
fn drift_is_seen_where_it_is_and_only_there() {
    let about = about(&looks(40.0, 10.0, 1));
    let same = drift(&about, &looks(40.0, 10.0, 2));
    assert_eq!(same.verdict, DriftVerdict::None);
    assert_eq!(same.metrics.len(), 6, "a metric without values says nothing");
    assert!(same.metrics.iter().all(|m| m.psi < 0.05), "{same:?}");
    let moved = drift(&about, &looks(60.0, 10.0, 3));
    let by = |drift: &Drift, metric| drift.metrics.iter().find(|m| m.metric == metric).unwrap().verdict;
    assert_eq!(by(&moved, SevenMetric::CpuUsage), DriftVerdict::Strong);
    assert_eq!(by(&moved, SevenMetric::MemoryUsage), DriftVerdict::None);
    let wider = drift(&about, &looks(40.0, 40.0, 4));
    assert_eq!(by(&wider, SevenMetric::CpuUsage), DriftVerdict::Strong);
    let slightly = drift(&about, &looks(43.0, 10.0, 5));
    assert_eq!(by(&slightly, SevenMetric::CpuUsage), DriftVerdict::Some);
    // A flat metric that moves by a hair has a huge index and no drift.
    let mut hair = looks(40.0, 10.0, 6);
    hair.iter_mut().for_each(|m| m.0[SevenMetric::MemoryUsage.index()] = 50.01);
    let hair = drift(&about, &hair);
    assert_eq!(by(&hair, SevenMetric::MemoryUsage), DriftVerdict::None);
    assert!(drift(&about, &looks(1.0, 1.0, 7)[..99]).metrics.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_refused_calmly(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..5_usize) {
        let kind = ModelKind::ALL[kind];
        prop_assert!(Model::decode(&bytes, kind).is_err());
        // Behind a right header and checksum as well.
        if let Ok(model) = Model::decode(&file_of(&bytes, kind), kind) {
            prop_assert!(model.is_sound());
        }
    }

    /// Changed bytes behind a right checksum: read, they must be usable; used, they must not panic.
    #[test]
    fn changed_models_are_refused_or_harmless(at in any::<prop::sample::Index>(), to: u8, which in 0..3_usize) {
        let model = [forest(), autoencoder(), z_score()][which].clone();
        let mut body = postcard::to_allocvec(&model).unwrap();
        let at = at.index(body.len());
        body[at] = to;
        let kind = model.kind();
        if let Ok(changed) = Model::decode(&file_of(&body, kind), kind) {
            let mut detector = crate::ensemble::EnsembleDetector::new(Default::default());
            if detector.set_model(kind, changed).is_ok() {
                for i in 0..40 {
                    let verdict = detector.observe(Timestamp::from_millis(i * 60_000), &SevenMetrics([5.0; SEVEN]));
                    prop_assert!(verdict.score.is_finite());
                }
            }
        }
    }
}
