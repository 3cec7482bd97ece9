//! Three opinions, one verdict: news must be new on the short scale and on the long one.
//!
//! The z-score (minutes) and the EWMA chart (an hour) say whether something changed; the percentile (a day) says
//! whether the like has been there before. The confidence of the verdict is
//!
//! `min(percentile, max(z_score, ewma))` once the percentile knows the series (an hour), and until then that of
//! the z-score alone, for rises only: after a start-up a series may well calm down.
//!
//! At least two detectors must vote, that is, stand beyond their own threshold on the same side. A metric that is
//! bursty by nature is not judged before two hours of its bursts are known. Votes of a vote: Kittler et al. 1998 show the min
//! and max rules as bounds of the product and the sum of posteriors; both are safe where, as here, the opinions
//! are far from independent.

use evenkeel_common::anomaly::{DetectorKind, Vote};
use evenkeel_common::units::Probability;
use serde::{Deserialize, Serialize};

use crate::calibrate::{TailModel, beyond_record, confidence};
use crate::config::WatchConfig;
use crate::detector::{Detector, Finding};
use crate::ewma::Ewma;
use crate::percentile::Percentile;
use crate::scale::{Scale, Sides};
use crate::step::Step;
use crate::zscore::ZScore;

/// The detectors of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    z_score: ZScore,
    z_tail: TailModel,
    ewma: Ewma,
    ewma_tail: TailModel,
    percentile: Percentile,
    steps_per_minute: u16,
    minutes_per_day: f32,
}

/// What the panel made of one step, in the domain of the metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Probability that this is no normal variation; 0 when the panel does not agree on it.
    pub confidence: Probability,
    /// The finding of the more confident of z-score and EWMA.
    pub finding: Finding,
    /// The detectors that stand beyond their thresholds.
    pub votes: [Option<Vote>; 3],
    /// Scores of z-score and EWMA, for [`Panel::learn`].
    scores: [Option<f64>; 2],
}

impl Panel {
    /// Knows nothing yet. `step_s`: seconds in a step.
    #[must_use]
    pub fn new(config: &WatchConfig, step_s: f64) -> Self {
        let steps_per_minute = (60.0 / step_s).clamp(1.0, 60.0);
        Self {
            z_score: ZScore::new(config.z_score),
            z_tail: TailModel::default(),
            ewma: Ewma::new(config.ewma),
            ewma_tail: TailModel::default(),
            percentile: Percentile::new(config.percentile, step_s),
            steps_per_minute: steps_per_minute as u16,
            minutes_per_day: (86_400.0 / (step_s * steps_per_minute.floor())) as f32,
        }
    }

    /// Judges a step; `None` while neither z-score nor EWMA can.
    pub fn observe(&mut self, step: &Step, scale: &Scale) -> Option<Verdict> {
        let z = self.z_score.observe(step, scale);
        let ewma = self.ewma.observe(step, scale);
        let percentile = self.percentile.observe(step, scale);
        let minutes = f64::from(self.minutes_per_day);
        let z = z.map(|f| Opinion::new(ZScore::KIND, f, self.z_tail.per_day(f.score, minutes)));
        let ewma = ewma.map(|f| Opinion::new(Ewma::KIND, f, self.ewma_tail.per_day(f.score, minutes)));
        let percentile = percentile.map(|f| {
            Opinion::new(Percentile::KIND, f, beyond_record(self.percentile.known_per_day(), f.score))
        });
        let lead = match (z, ewma) {
            (Some(z), Some(ewma)) if ewma.confidence > z.confidence => ewma,
            (Some(z), _) => z,
            (None, Some(ewma)) => ewma,
            (None, None) => return None,
        };
        let high = lead.finding.score > 0.0;
        let agrees = |o: &Opinion| o.finding.score != 0.0 && (o.finding.score > 0.0) == high;
        let votes = [z, ewma, percentile].map(|o| o.filter(|o| agrees(o) && self.votes(o)).map(|o| o.vote()));
        let short_of_long = match (percentile, z, ewma) {
            (Some(_), ..) if scale.bursty && !self.percentile.knows_bursts() => 0.0,
            (Some(p), _, _) if agrees(&p) => p.confidence.min(lead.confidence),
            (None, Some(z), Some(_)) if high && !scale.bursty => z.confidence,
            _ => 0.0,
        };
        let admitted = votes.iter().flatten().count() >= 2 && (high || scale.sides == Sides::Both);
        Some(Verdict {
            confidence: Probability::clamped(if admitted { short_of_long } else { 0.0 }),
            finding: lead.finding,
            votes,
            scores: [z.map(|o| o.finding.score), ewma.map(|o| o.finding.score)],
        })
    }

    /// Learns a step that is taken for normal.
    pub fn learn(&mut self, step: &Step, verdict: Option<&Verdict>, scale: &Scale) {
        self.z_score.learn(step, scale);
        self.ewma.learn(step, scale);
        self.percentile.learn(step, scale);
        let [z, ewma] = verdict.map_or([None; 2], |v| v.scores);
        if let Some(score) = z {
            self.z_tail.learn(score, self.steps_per_minute);
        }
        if let Some(score) = ewma {
            self.ewma_tail.learn(score, self.steps_per_minute);
        }
    }

    /// Records a step of an open anomaly: only the percentile does, which can not be taught by less than four
    /// stretches of ten minutes.
    pub fn record(&mut self, step: &Step, scale: &Scale) {
        self.percentile.learn(step, scale);
        self.z_tail.end_minute();
        self.ewma_tail.end_minute();
    }

    /// A gap of `gap_s` seconds: the baselines stay as long as they mean something.
    pub fn rearm(&mut self, gap_s: f64) {
        self.z_score.rearm();
        self.ewma.rearm();
        self.percentile.rearm();
        if gap_s > 3600.0 {
            self.accept();
        }
        if gap_s > 86_400.0 {
            self.percentile.restart();
        }
    }

    /// The level has changed for good: z-score and EWMA begin again.
    pub fn accept(&mut self) {
        self.z_score.restart();
        self.ewma.restart();
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.z_score.heap_bytes() + self.percentile.heap_bytes()
    }

    fn votes(&self, opinion: &Opinion) -> bool {
        let score = opinion.finding.score;
        match opinion.detector {
            DetectorKind::ZScore => self.z_score.votes(score),
            DetectorKind::Ewma => self.ewma.votes(score),
            DetectorKind::Percentile => self.percentile.votes(score),
            // The aggregator's detectors do not vote here.
            _ => false,
        }
    }
}

/// What one detector thinks.
#[derive(Clone, Copy)]
struct Opinion {
    detector: DetectorKind,
    finding: Finding,
    confidence: f64,
}

impl Opinion {
    fn new(detector: DetectorKind, finding: Finding, per_day: f64) -> Self {
        Self { detector, finding, confidence: confidence(per_day).get() }
    }

    fn vote(&self) -> Vote {
        Vote {
            detector: self.detector,
            score: self.finding.score,
            confidence: Probability::clamped(self.confidence),
        }
    }
}
