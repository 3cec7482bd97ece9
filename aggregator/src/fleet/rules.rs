//! What fleet detection watches for by rule: silence, error spikes, slow answers. Pure: a look at a node becomes
//! signs, and [`super::book`] makes anomalies of signs that last.

use std::time::Duration;

use evenkeel_common::anomaly::{DetectorKind, Vote};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::units::Probability;

use super::observe::{GuestSeen, LATENCY, Observation};
use super::tasks::{FEWEST_TASKS, TaskShare};

/// What a rule says about a series now.
#[derive(Clone, Debug, PartialEq)]
pub enum Sign {
    /// Something is wrong.
    Present(Box<Evidence>),
    /// It looks right.
    Absent,
    /// It can not be told; whatever is open stays as it is.
    Abstain,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The value, in the series' unit.
    pub value: f64,
    /// What is usual.
    pub expected: f64,
    /// Distance from that in sigma, or what comes closest.
    pub deviation: f64,
    /// Probability that this is no normal variation.
    pub confidence: f64,
    /// Who says so.
    pub votes: Vec<Vote>,
    /// A sentence for people.
    pub text: String,
    /// Messages behind it.
    pub samples: Vec<String>,
    /// Who had no say, and why.
    pub abstained: Vec<String>,
}

impl Evidence {
    /// What one detector found: value, what is usual, deviation; confidence; a sentence.
    pub(super) fn new(
        by: DetectorKind,
        [value, expected, deviation]: [f64; 3],
        confidence: f64,
        text: String,
    ) -> Self {
        let vote = Vote { detector: by, score: deviation, confidence: Probability::clamped(confidence) };
        let (samples, abstained) = Default::default();
        Self { value, expected, deviation, confidence, votes: vec![vote], text, samples, abstained }
    }
}

/// A sign with its series.
pub type Signed = (SeriesKey, Sign);

/// Silence of a node: `silent_for` since its last sample. `gone` = Proxmox no longer lists it.
#[must_use]
pub fn node_silence(silent_for: Duration, after: Duration, gone: bool) -> Signed {
    let sign = if silent_for <= after || gone {
        Sign::Absent
    } else {
        // 0.99: data that stops for longer than a reconnect takes is hardly ever anything else.
        silence(silent_for, after, 0.99, "the agent of this node has stopped answering".into())
    };
    (SeriesKey::node(Metric::Silence), sign)
}

/// Silence of a guest whose node speaks. A guest that was stopped, migrated or deleted is not in the agent's list any
/// more and has no sign at all; one without traffic has samples and is not silent.
#[must_use]
pub fn guest_silence(guest: &GuestSeen, after: Duration, running: bool) -> Signed {
    let sign = match guest.silent_for {
        None => Sign::Abstain,
        Some(silent_for) if silent_for > after && running => {
            let text = format!(
                "guest {} runs, but its figures have stopped while those of its node go on",
                guest.vmid
            );
            silence(silent_for, after, 0.9, text)
        }
        Some(_) => Sign::Absent,
    };
    (SeriesKey::guest(guest.vmid, Metric::Silence), sign)
}

/// Silence of a peer as this node's probes see it: not one answer in a minute. `peer_speaks` = the peer's own agent reports;
/// where it does not, that is told once, at the peer.
#[must_use]
pub fn probe_silence(peer: &str, loss: f64, peer_speaks: bool) -> Signed {
    let sign = match loss {
        _ if !peer_speaks => Sign::Absent,
        loss if loss >= 99.9 => {
            let minute = Duration::from_secs(60);
            silence(
                minute,
                minute,
                0.9,
                format!("{peer} answers none of this node's probes, though its agent reports"),
            )
        }
        _ => Sign::Absent,
    };
    (SeriesKey { instance: peer.to_owned(), ..SeriesKey::node(Metric::Silence) }, sign)
}

fn silence(silent_for: Duration, after: Duration, confidence: f64, text: String) -> Sign {
    let ms = silent_for.as_millis() as f64;
    // Five at the limit, where severities change, and growing with the time.
    let deviation = (5.0 * ms / after.as_millis().max(1) as f64).clamp(5.01, 1000.0);
    Sign::Present(Box::new(Evidence::new(DetectorKind::Silence, [ms, 1000.0, deviation], confidence, text)))
}

/// Failed tasks of a node.
#[must_use]
pub fn task_errors(share: Option<&TaskShare>) -> Signed {
    let sign = match share {
        None => Sign::Absent,
        Some(share) if share.is_spike() => {
            let text = format!(
                "{} of {} tasks failed within an hour ({:.0} %); usual are {:.1} %",
                share.failed, share.tasks, share.percent, share.usual
            );
            let numbers = [share.percent, share.usual, share.sigma];
            let mut evidence = Evidence::new(DetectorKind::ErrorShare, numbers, 1.0 - share.chance, text);
            evidence.samples.clone_from(&share.samples);
            Sign::Present(Box::new(evidence))
        }
        Some(share) if share.tasks < FEWEST_TASKS => Sign::Abstain,
        Some(_) => Sign::Absent,
    };
    (SeriesKey::node(Metric::TaskErrorRate), sign)
}

/// Packets lost to errors and drops: at least one in a hundred, and five times the usual.
#[must_use]
pub fn packet_errors(seen: &Observation, usual: Option<f64>) -> Signed {
    let sign = match (seen.packet_errors, usual) {
        (Some(share), Some(usual)) if share >= 1.0 && share >= 5.0 * usual => {
            let text =
                format!("{share:.1} % of packets are lost to errors and drops; usual are {usual:.2} %");
            let deviation = (share - usual) / usual.max(0.2);
            let confidence = if share >= 10.0 { 0.99 } else { 0.9 };
            let numbers = [share, usual, deviation];
            Sign::Present(Box::new(Evidence::new(DetectorKind::ErrorShare, numbers, confidence, text)))
        }
        (Some(_), Some(_)) => Sign::Absent,
        _ => Sign::Abstain,
    };
    (SeriesKey::node(Metric::ErrorRate), sign)
}

/// Answers that take more than three times as long as usual at this hour, and at least a millisecond longer.
/// `usual`: median and spread (1.48 times the median distance from it), milliseconds.
#[must_use]
pub fn slow_answers(seen: &Observation, usual: Option<(f64, f64)>, by_hour: bool) -> Signed {
    let latency = seen.seven[LATENCY];
    let sign = match usual {
        Some((usual, spread)) if latency.is_finite() => {
            if latency > 3.0 * usual && latency - usual > 1.0 {
                let when = if by_hour { "at this hour" } else { "lately" };
                let text = format!(
                    "answers take {latency:.2} ms, {:.1} times what is usual {when} ({usual:.2} ms)",
                    latency / usual.max(0.001)
                );
                let deviation = (latency - usual) / spread.max(0.1 * usual).max(0.2);
                let confidence = if latency > 5.0 * usual { 0.99 } else { 0.9 };
                let numbers = [latency, usual, deviation];
                Sign::Present(Box::new(Evidence::new(
                    DetectorKind::LatencyBaseline,
                    numbers,
                    confidence,
                    text,
                )))
            } else {
                Sign::Absent
            }
        }
        _ => Sign::Abstain,
    };
    (SeriesKey::node(Metric::ProbeLatency), sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::anomaly::Severity;
    use evenkeel_common::id::Vmid;

    const AFTER: Duration = Duration::from_secs(20);

    #[track_caller]
    fn severity(sign: &Sign) -> Option<Severity> {
        match sign {
            Sign::Present(e) => Some(Severity::classify(Probability::clamped(e.confidence), e.deviation)),
            Sign::Absent | Sign::Abstain => None,
        }
    }

    fn guest(silent_s: Option<u64>) -> GuestSeen {
        let silent_for = silent_s.map(Duration::from_secs);
        GuestSeen {
            vmid: Vmid::new(101).unwrap(),
            name: String::new(),
            silent_for,
            pressure: None,
            memory: None,
        }
    }

    #[test]
    fn silence_is_told_apart_from_what_is_no_silence() {
        let secs = Duration::from_secs;
        assert_eq!(severity(&node_silence(secs(21), AFTER, false).1), Some(Severity::Critical));
        assert_eq!(node_silence(secs(20), AFTER, false).1, Sign::Absent);
        assert_eq!(node_silence(secs(90), AFTER, true).1, Sign::Absent, "taken out of the cluster");
        assert_eq!(severity(&guest_silence(&guest(Some(21)), AFTER, true).1), Some(Severity::Warning));
        assert_eq!(guest_silence(&guest(Some(90)), AFTER, false).1, Sign::Absent, "stopped on purpose");
        assert_eq!(
            guest_silence(&guest(Some(0)), AFTER, true).1,
            Sign::Absent,
            "samples of zero are samples"
        );
        assert_eq!(guest_silence(&guest(None), AFTER, true).1, Sign::Abstain, "it has not begun to speak");
        assert_eq!(severity(&probe_silence("pve2", 100.0, true).1), Some(Severity::Warning));
        assert_eq!(probe_silence("pve2", 100.0, false).1, Sign::Absent, "told at pve2");
        assert_eq!(probe_silence("pve2", 60.0, true).1, Sign::Absent, "loss is not silence");
    }

    #[test]
    fn errors_and_latency_are_judged_against_their_usual_level() {
        let seen = |errors, latency| {
            let mut seven = [f64::NAN; 7];
            seven[LATENCY] = latency;
            Observation { seven, packet_errors: errors, ..Observation::default() }
        };
        let none = f64::NAN;
        assert_eq!(severity(&packet_errors(&seen(Some(12.0), none), Some(0.1)).1), Some(Severity::Critical));
        assert_eq!(severity(&packet_errors(&seen(Some(2.0), none), Some(0.0)).1), Some(Severity::Warning));
        assert_eq!(packet_errors(&seen(Some(2.0), none), Some(1.0)).1, Sign::Absent, "twice the usual");
        assert_eq!(packet_errors(&seen(None, none), Some(0.0)).1, Sign::Abstain);
        let usual = Some((0.5, 0.05));
        assert_eq!(severity(&slow_answers(&seen(None, 4.0), usual, true).1), Some(Severity::Critical));
        assert_eq!(severity(&slow_answers(&seen(None, 2.0), usual, true).1), Some(Severity::Warning));
        assert_eq!(
            slow_answers(&seen(None, 1.4), usual, true).1,
            Sign::Absent,
            "less than a millisecond more"
        );
        assert_eq!(slow_answers(&seen(None, 4.0), None, true).1, Sign::Abstain, "no baseline yet");
        assert_eq!(slow_answers(&seen(None, f64::NAN), usual, true).1, Sign::Abstain, "no probes");
    }
}
