//! Anomalies and votes.

use evenkeel_common::anomaly::{Anomaly, Cause, DetectorKind, Severity, Vote};

use super::{InvalidMessage, MAX_ITEMS, Problem, at_most, finite, invalid, present, probability, time};
use crate::v1;

impl From<Anomaly> for v1::Anomaly {
    fn from(anomaly: Anomaly) -> Self {
        let Anomaly {
            number,
            series,
            opened_at,
            closed_at,
            value,
            expected,
            deviation,
            confidence,
            severity,
            votes,
            causes,
            injected,
        } = anomaly;
        let severity = match severity {
            Severity::Info => v1::Severity::Info,
            Severity::Warning => v1::Severity::Warning,
            Severity::Critical => v1::Severity::Critical,
        };
        Self {
            number,
            series: Some((&series).into()),
            opened_at_ms: opened_at.as_millis(),
            closed_at_ms: closed_at.map(|at| at.as_millis()),
            value,
            expected,
            deviation,
            confidence: confidence.get(),
            severity: severity.into(),
            votes: votes.into_iter().map(Into::into).collect(),
            injected,
            causes: causes.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Anomaly> for Anomaly {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Anomaly) -> Result<Self, InvalidMessage> {
        let severity = match v1::Severity::try_from(wire.severity) {
            Ok(v1::Severity::Info) => Severity::Info,
            Ok(v1::Severity::Warning) => Severity::Warning,
            Ok(v1::Severity::Critical) => Severity::Critical,
            Ok(v1::Severity::Unspecified) | Err(_) => {
                return Err(invalid("anomaly.severity", Problem::Unknown));
            }
        };
        if wire.number == 0 {
            return Err(invalid("anomaly.number", Problem::OutOfRange));
        }
        Ok(Self {
            number: wire.number,
            series: present("anomaly.series", wire.series)?.try_into()?,
            opened_at: time(wire.opened_at_ms),
            closed_at: wire.closed_at_ms.map(time),
            value: finite("anomaly.value", wire.value)?,
            expected: finite("anomaly.expected", wire.expected)?,
            deviation: finite("anomaly.deviation", wire.deviation)?,
            confidence: probability("anomaly.confidence", wire.confidence)?,
            severity,
            votes: at_most("anomaly.votes", wire.votes, MAX_ITEMS)?
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            causes: at_most("anomaly.causes", wire.causes, MAX_ITEMS)?
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            injected: wire.injected,
        })
    }
}

impl From<Cause> for v1::Cause {
    fn from(cause: Cause) -> Self {
        Self { series: Some((&cause.series).into()), deviation: cause.deviation }
    }
}

impl TryFrom<v1::Cause> for Cause {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Cause) -> Result<Self, InvalidMessage> {
        Ok(Self {
            series: present("cause.series", wire.series)?.try_into()?,
            deviation: finite("cause.deviation", wire.deviation)?,
        })
    }
}

impl From<Vote> for v1::Vote {
    fn from(vote: Vote) -> Self {
        let detector = match vote.detector {
            DetectorKind::ZScore => v1::Detector::ZScore,
            DetectorKind::Ewma => v1::Detector::Ewma,
            DetectorKind::Percentile => v1::Detector::Percentile,
            DetectorKind::Multivariate => v1::Detector::Multivariate,
            DetectorKind::IsolationForest => v1::Detector::IsolationForest,
            DetectorKind::LstmAutoencoder => v1::Detector::LstmAutoencoder,
            DetectorKind::SeasonalEsd => v1::Detector::SeasonalEsd,
            DetectorKind::Silence => v1::Detector::Silence,
            DetectorKind::ErrorShare => v1::Detector::ErrorShare,
            DetectorKind::LatencyBaseline => v1::Detector::LatencyBaseline,
            DetectorKind::Peers => v1::Detector::Peers,
        };
        Self { detector: detector.into(), score: vote.score, confidence: vote.confidence.get() }
    }
}

impl TryFrom<v1::Vote> for Vote {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Vote) -> Result<Self, InvalidMessage> {
        let detector = match v1::Detector::try_from(wire.detector) {
            Ok(v1::Detector::ZScore) => DetectorKind::ZScore,
            Ok(v1::Detector::Ewma) => DetectorKind::Ewma,
            Ok(v1::Detector::Percentile) => DetectorKind::Percentile,
            Ok(v1::Detector::Multivariate) => DetectorKind::Multivariate,
            Ok(v1::Detector::IsolationForest) => DetectorKind::IsolationForest,
            Ok(v1::Detector::LstmAutoencoder) => DetectorKind::LstmAutoencoder,
            Ok(v1::Detector::SeasonalEsd) => DetectorKind::SeasonalEsd,
            Ok(v1::Detector::Silence) => DetectorKind::Silence,
            Ok(v1::Detector::ErrorShare) => DetectorKind::ErrorShare,
            Ok(v1::Detector::LatencyBaseline) => DetectorKind::LatencyBaseline,
            Ok(v1::Detector::Peers) => DetectorKind::Peers,
            Ok(v1::Detector::Unspecified) | Err(_) => return Err(invalid("vote.detector", Problem::Unknown)),
        };
        Ok(Self {
            detector,
            score: finite("vote.score", wire.score)?,
            confidence: probability("vote.confidence", wire.confidence)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::convert::series::tests::key;
    use crate::convert::strategies;
    use proptest::option;
    use proptest::prelude::*;

    pub(in crate::convert) fn anomaly() -> impl Strategy<Value = Anomaly> {
        let detector = prop::sample::select(DetectorKind::ALL.to_vec());
        let vote = (detector, strategies::finite(), strategies::probability())
            .prop_map(|(detector, score, confidence)| Vote { detector, score, confidence });
        (
            (1..=u64::MAX, key(), strategies::timestamp(), option::of(strategies::timestamp())),
            prop::array::uniform3(strategies::finite()),
            strategies::probability(),
            prop::sample::select(vec![Severity::Info, Severity::Warning, Severity::Critical]),
            prop::collection::vec(vote, 0..5),
            prop::collection::vec(
                (key(), strategies::finite()).prop_map(|(series, deviation)| Cause { series, deviation }),
                0..3,
            ),
            any::<bool>(),
        )
            .prop_map(
                |(
                    (number, series, opened_at, closed_at),
                    numbers,
                    confidence,
                    severity,
                    votes,
                    causes,
                    injected,
                )| {
                    let [value, expected, deviation] = numbers;
                    Anomaly {
                        number,
                        series,
                        opened_at,
                        closed_at,
                        value,
                        expected,
                        deviation,
                        confidence,
                        severity,
                        votes,
                        causes,
                        injected,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn anomalies_come_back(anomaly in anomaly()) {
            prop_assert_eq!(Anomaly::try_from(v1::Anomaly::from(anomaly.clone())), Ok(anomaly));
        }
    }

    #[test]
    fn the_bad_field_is_named() {
        let good = v1::Anomaly {
            number: 1,
            series: Some(v1::SeriesDef { metric: 1, vmid: 0, instance: String::new() }),
            severity: 2,
            ..v1::Anomaly::default()
        };
        assert!(Anomaly::try_from(good.clone()).is_ok());
        let vote = |detector, confidence| v1::Vote { detector, score: 1.0, confidence };
        for (wire, field, problem) in [
            (v1::Anomaly { number: 0, ..good.clone() }, "anomaly.number", Problem::OutOfRange),
            (v1::Anomaly { series: None, ..good.clone() }, "anomaly.series", Problem::Missing),
            (v1::Anomaly { severity: 0, ..good.clone() }, "anomaly.severity", Problem::Unknown),
            (v1::Anomaly { confidence: 1.1, ..good.clone() }, "anomaly.confidence", Problem::OutOfRange),
            (v1::Anomaly { confidence: f64::NAN, ..good.clone() }, "anomaly.confidence", Problem::OutOfRange),
            (
                v1::Anomaly { deviation: f64::INFINITY, ..good.clone() },
                "anomaly.deviation",
                Problem::OutOfRange,
            ),
            (
                v1::Anomaly { votes: vec![vote(1, 0.5); 65], ..good.clone() },
                "anomaly.votes",
                Problem::TooLong(64),
            ),
            (v1::Anomaly { votes: vec![vote(99, 0.5)], ..good.clone() }, "vote.detector", Problem::Unknown),
            (v1::Anomaly { votes: vec![vote(1, -0.1)], ..good }, "vote.confidence", Problem::OutOfRange),
        ] {
            assert_eq!(Anomaly::try_from(wire), Err(InvalidMessage { field, problem }));
        }
    }
}
