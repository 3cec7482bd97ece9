//! A table of values scored row by row: the shipped detector behind `evenkeelctl detect` and the evaluation.
//!
//! One column is judged by the detector of a single series, several by that of a node, so that what is measured
//! on labelled data is what an agent runs.

use std::time::Duration;

use evenkeel_common::time::Timestamp;

use crate::node::{NodeConfig, NodeDetector};
use crate::series::{SeriesConfig, SeriesDetector};

/// Scores rows of a table in order of time. Memory does not grow with the rows.
#[derive(Clone, Debug)]
pub struct TableDetector(Kind);

#[derive(Clone, Debug)]
enum Kind {
    One(Box<SeriesDetector>),
    Many(Box<NodeDetector>),
}

/// What the detector says of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowScore {
    /// 0 to 1, higher = less normal; 0 while it still warms up.
    pub score: f64,
    /// Whether the score reaches the shipped threshold.
    pub is_anomaly: bool,
    /// Columns by their share in the score, the largest first, each with its signed deviation in sigma.
    pub causes: Vec<(usize, f64)>,
}

impl TableDetector {
    /// Knows nothing yet. `columns`: values in a row, at least 1; `step`: usual time between rows.
    #[must_use]
    pub fn new(columns: usize, step: Duration) -> Self {
        Self(if columns == 1 {
            Kind::One(Box::new(SeriesDetector::new(step, SeriesConfig::default())))
        } else {
            Kind::Many(Box::new(NodeDetector::new(columns, step, NodeConfig::default())))
        })
    }

    /// Learns from a row that is taken for normal. What is missing in it is NaN.
    pub fn train(&mut self, at: Timestamp, row: &[f64]) {
        match &mut self.0 {
            Kind::One(series) => {
                series.observe(at, row.first().copied().unwrap_or(f64::NAN));
            }
            Kind::Many(node) => node.train(at, row),
        }
    }

    /// Judges a row by those before it, then learns from it. What is missing in it is NaN.
    pub fn score(&mut self, at: Timestamp, row: &[f64]) -> RowScore {
        let scored = match &mut self.0 {
            Kind::One(series) => {
                series.observe(at, row.first().copied().unwrap_or(f64::NAN)).map(|score| RowScore {
                    score: score.score,
                    is_anomaly: score.is_anomaly,
                    causes: vec![(0, score.deviation)],
                })
            }
            Kind::Many(node) => node.observe(at, row).map(|score| RowScore {
                score: score.score,
                is_anomaly: score.is_anomaly,
                causes: score.causes,
            }),
        };
        scored.unwrap_or(RowScore { score: 0.0, is_anomaly: false, causes: Vec::new() })
    }
}
