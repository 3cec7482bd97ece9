//! Trained models as files: a header, a checksum, and what was learned, with where it came from.
//!
//! ```text
//! "EKMODEL\n"  format u16  kind u8  0 u8  length u32  CRC-32 u32  postcard(metadata, payload)
//! ```
//!
//! Numbers are little-endian. A file that is cut, damaged, foreign, newer, of another kind or does not make sense
//! is refused with an error that names the remedy. Nothing is allocated by a length that a file claims, and what
//! is decoded is checked before it is used: forests can be walked, networks have the size of their shape.

mod drift;

use std::fmt;

use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use drift::{Drift, DriftVerdict, MetricDrift, drift};

use crate::ensemble::{FOREST_FEATURES, FleetDetector, Rollups};
use crate::isolation_forest::IsolationForest;
use crate::lstm_autoencoder::LstmAutoencoder;
use crate::seven::SEVEN;
use crate::tail::Tail;

/// The newest format this version reads and the one it writes.
pub const FORMAT: u16 = 1;
/// Largest model file.
pub const MAX_BYTES: usize = 8 << 20;
const MAGIC: &[u8; 8] = b"EKMODEL\n";
const HEADER: usize = 20;
/// Edges of the ten bins of a metric's training values, from the smallest to the largest.
pub(crate) const DECILES: usize = 11;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The isolation forest.
    IsolationForest,
    /// The LSTM autoencoder.
    LstmAutoencoder,
    /// The z-score: the tail of its statistic.
    ZScore,
    /// Seasonal ESD: roll-ups of the last weeks.
    SeasonalEsd,
    /// The fusion: the tail of the joint surprise.
    Fusion,
}

impl ModelKind {
    /// All, in the order of their numbers in files.
    pub const ALL: [Self; 5] =
        [Self::IsolationForest, Self::LstmAutoencoder, Self::ZScore, Self::SeasonalEsd, Self::Fusion];

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.detector() {
            Some(detector) => detector.name(),
            None => "fusion",
        }
    }

    /// The detector it is for; `None` for the fusion.
    #[must_use]
    pub const fn detector(self) -> Option<FleetDetector> {
        match self {
            Self::IsolationForest => Some(FleetDetector::IsolationForest),
            Self::LstmAutoencoder => Some(FleetDetector::LstmAutoencoder),
            Self::ZScore => Some(FleetDetector::ZScore),
            Self::SeasonalEsd => Some(FleetDetector::SeasonalEsd),
            Self::Fusion => None,
        }
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// When it was trained.
    pub trained_at: Timestamp,
    /// Rows it was trained on, without those left out.
    pub rows: u32,
    /// Time of the first row.
    pub from: Timestamp,
    /// Time of the last row.
    pub to: Timestamp,
    /// Seconds between rows.
    pub step_s: u32,
    /// Fingerprint of the options it was trained with.
    pub config_hash: u64,
    /// Largest statistic of each ten minutes without anomalies: its quantiles at 0.5, 0.9, 0.99, 0.999 and 1.
    pub error_quantiles: [f32; 5],
    /// Mean of each metric in its domain; 0 where it had no values.
    pub means: [f32; SEVEN],
    /// Standard deviation of each metric in its domain.
    pub deviations: [f32; SEVEN],
    /// Edges of ten equally full bins of each metric's values in its domain.
    pub deciles: [[f32; DECILES]; SEVEN],
}

/// What was learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    /// See [`ModelKind::IsolationForest`].
    IsolationForest {
        /// The trees.
        forest: IsolationForest,
        /// Scores on days it did not learn from.
        tail: Tail,
    },
    /// See [`ModelKind::LstmAutoencoder`].
    LstmAutoencoder {
        /// The network.
        autoencoder: LstmAutoencoder,
        /// Errors on days it did not learn from.
        tail: Tail,
    },
    /// See [`ModelKind::ZScore`].
    ZScore {
        /// Largest `|z|`.
        tail: Tail,
    },
    /// See [`ModelKind::SeasonalEsd`].
    SeasonalEsd {
        /// The last weeks.
        rollups: Rollups,
        /// Largest `R`.
        tail: Tail,
    },
    /// See [`ModelKind::Fusion`].
    Fusion {
        /// Joint surprises.
        tail: Tail,
    },
}

impl Payload {
    /// How large the statistic is when nothing is wrong.
    #[must_use]
    pub const fn tail(&self) -> &Tail {
        match self {
            Self::IsolationForest { tail, .. }
            | Self::LstmAutoencoder { tail, .. }
            | Self::ZScore { tail }
            | Self::SeasonalEsd { tail, .. }
            | Self::Fusion { tail } => tail,
        }
    }
}

/// A trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Where it comes from.
    pub about: ModelMetadata,
    /// What it learned.
    pub payload: Payload,
}

/// Why a model is refused. Each message ends with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// The file is something else.
    NotAModel,
    /// A later version wrote it.
    Newer {
        /// Its format.
        found: u16,
    },
    /// The file ends early, or goes on after its end.
    WrongLength {
        /// Bytes it should have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// It is larger than a model can be.
    TooLarge {
        /// Bytes it claims or has.
        found: usize,
    },
    /// The checksum does not match.
    Damaged,
    /// It is for another detector.
    WrongKind {
        /// What was asked for.
        expected: ModelKind,
        /// What it is.
        found: ModelKind,
    },
    /// Its content does not make sense, or not with this configuration.
    Unusable {
        /// What it is.
        kind: ModelKind,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AGAIN: &str = "activate an earlier version with `evenkeelctl model activate`, or train anew with `evenkeelctl model train`";
        match self {
            Self::NotAModel => {
                write!(f, "this is no model file; name one that `evenkeelctl model train` wrote")
            }
            Self::Newer { found } => {
                write!(
                    f,
                    "the model has format {found}, this version reads up to {FORMAT}; upgrade, or train anew"
                )
            }
            Self::WrongLength { expected, found } => {
                write!(f, "the model file has {found} bytes instead of {expected}; {AGAIN}")
            }
            Self::TooLarge { found } => {
                write!(f, "the model has {found} bytes, more than the {MAX_BYTES} allowed; {AGAIN}")
            }
            Self::Damaged => write!(f, "the model is damaged, its checksum does not match; {AGAIN}"),
            Self::WrongKind { expected, found } => {
                write!(f, "this is a model for {found}, not for {expected}; name the other file")
            }
            Self::Unusable { kind } => {
                write!(
                    f,
                    "the content of the {kind} model does not fit this version or configuration; {AGAIN}"
                )
            }
        }
    }
}

impl std::error::Error for ModelError {}

impl Model {
    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> ModelKind {
        match self.payload {
            Payload::IsolationForest { .. } => ModelKind::IsolationForest,
            Payload::LstmAutoencoder { .. } => ModelKind::LstmAutoencoder,
            Payload::ZScore { .. } => ModelKind::ZScore,
            Payload::SeasonalEsd { .. } => ModelKind::SeasonalEsd,
            Payload::Fusion { .. } => ModelKind::Fusion,
        }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] or [`ModelError::Unusable`] when it could not be read again.
    pub fn encode(&self) -> Result<Vec<u8>, ModelError> {
        let kind = self.kind();
        let body = postcard::to_allocvec(self).map_err(|_| ModelError::Unusable { kind })?;
        if body.len() > MAX_BYTES - HEADER {
            return Err(ModelError::TooLarge { found: body.len() });
        }
        let mut file = Vec::with_capacity(HEADER + body.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&FORMAT.to_le_bytes());
        file.extend_from_slice(&[kind as u8, 0]);
        file.extend_from_slice(&(body.len() as u32).to_le_bytes());
        file.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        file.extend_from_slice(&body);
        Ok(file)
    }

    /// Reads a file for `kind`. Any bytes may come in.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn decode(bytes: &[u8], kind: ModelKind) -> Result<Self, ModelError> {
        if bytes.len() > MAX_BYTES {
            return Err(ModelError::TooLarge { found: bytes.len() });
        }
        let header = bytes.get(..HEADER).filter(|h| h.starts_with(MAGIC)).ok_or(ModelError::NotAModel)?;
        let format = u16::from_le_bytes([header[8], header[9]]);
        if format > FORMAT {
            return Err(ModelError::Newer { found: format });
        }
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (expected, body) = (HEADER + number(12) as usize, &bytes[HEADER..]);
        if expected != bytes.len() {
            return Err(ModelError::WrongLength { expected, found: bytes.len() });
        }
        if crc32fast::hash(body) != number(16) {
            return Err(ModelError::Damaged);
        }
        let found = *ModelKind::ALL.get(usize::from(header[10])).ok_or(ModelError::Damaged)?;
        if found != kind {
            return Err(ModelError::WrongKind { expected: kind, found });
        }
        let model: Self = postcard::from_bytes(body).map_err(|_| ModelError::Unusable { kind })?;
        if model.kind() == kind && model.is_sound() { Ok(model) } else { Err(ModelError::Unusable { kind }) }
    }

    /// Whether its content can be used.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let about = &self.about;
        let figures = about.means.iter().chain(&about.deviations).chain(about.deciles.iter().flatten());
        let sound = (1..=86_400).contains(&about.step_s)
            && figures.chain(&about.error_quantiles).all(|v| v.is_finite());
        let usable = match &self.payload {
            Payload::IsolationForest { forest, .. } => {
                forest.is_sound() && forest.features() == FOREST_FEATURES
            }
            Payload::LstmAutoencoder { autoencoder, .. } => {
                autoencoder.is_sound() && autoencoder.inputs() == SEVEN
            }
            Payload::SeasonalEsd { rollups, .. } => rollups.is_sound(),
            Payload::ZScore { .. } | Payload::Fusion { .. } => true,
        };
        sound && usable && self.payload.tail().is_sound()
    }
}

/// A fingerprint (FNV-1a) of anything that can be stored; 0 when it can not.
pub(crate) fn fingerprint(value: &impl Serialize) -> u64 {
    postcard::to_allocvec(value).map_or(0, |bytes| {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    })
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
