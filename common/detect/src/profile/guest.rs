//! The profile of one guest, as its node's agent keeps it.

use std::time::Duration;

use evenkeel_common::guest::{GuestProfile, MAX_PIECES, PieceOrigin, ProfilePiece, overlap};
use evenkeel_common::id::Vmid;
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::class::classify;
use super::outlook::outlook;
use super::summary::{LARGEST, Summary};

/// A thousandth of a core and a mebibyte: what less than that is, is nothing.
pub(super) const CPU_UNIT: f64 = 0.001;
pub(super) const MEMORY_UNIT: f64 = 1_048_576.0;
/// The longest time one sample speaks for; beyond, there was a gap.
const LONGEST: Duration = Duration::from_secs(120);

/// Pieces that ended this long before the newest are out of every summary.
const FADED: Duration = Duration::from_secs(15 * 24 * 3600);

/// CPU and memory summaries of one guest, and the pieces they are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestProfiler {
    pub(super) cpu: Summary,
    pub(super) memory: Summary,
    /// By the time they began; at most [`MAX_PIECES`].
    pub(super) pieces: Vec<ProfilePiece>,
    /// When the piece began that is being added to, once there is a sample.
    pub(super) own: Option<Timestamp>,
}

impl Default for GuestProfiler {
    fn default() -> Self {
        Self { cpu: Summary::new(CPU_UNIT), memory: Summary::new(MEMORY_UNIT), pieces: Vec::new(), own: None }
    }
}

impl GuestProfiler {
    /// Adds a reading: CPU in cores, memory in bytes. A value that is not a finite number of at least 0 is left out.
    pub fn observe(&mut self, at: Timestamp, cpu_cores: f64, memory_bytes: f64) {
        let own = *self.own.get_or_insert(at);
        let is_own = |piece: &&mut ProfilePiece| piece.began == own && piece.origin == PieceOrigin::Agent;
        match self.pieces.iter_mut().find(is_own) {
            Some(piece) => {
                let gone = at.since(piece.until);
                if gone <= LONGEST {
                    piece.observed_ms = piece.observed_ms.saturating_add(gone.as_millis() as u64);
                }
                piece.until = at;
            }
            None => {
                // Also when a merge has let go of it, because another's clock is weeks ahead.
                self.own = Some(at);
                self.add(ProfilePiece { began: at, until: at, observed_ms: 0, origin: PieceOrigin::Agent });
            }
        }
        for (summary, value) in [(&mut self.cpu, cpu_cores), (&mut self.memory, memory_bytes)] {
            if (0.0..=LARGEST).contains(&value) {
                summary.observe(at, value);
            }
        }
    }

    /// What Proxmox's RRD tells of a guest: means of stretches, oldest first. `None` when there are none.
    #[must_use]
    pub fn of_rrd(points: impl IntoIterator<Item = RrdMean>) -> Option<Self> {
        let mut this = Self::default();
        let mut whole: Option<ProfilePiece> = None;
        for RrdMean { at, seconds, cpu_cores, memory_bytes } in points {
            let origin = PieceOrigin::Rrd;
            let piece = whole.get_or_insert(ProfilePiece { began: at, until: at, observed_ms: 0, origin });
            piece.until = at.after(Duration::from_secs(seconds.into()));
            piece.observed_ms = piece.observed_ms.saturating_add(u64::from(seconds) * 1000);
            for (summary, value) in [(&mut this.cpu, cpu_cores), (&mut this.memory, memory_bytes)] {
                if (0.0..=LARGEST).contains(&value) {
                    summary.observe_span(at, seconds, value);
                }
            }
        }
        this.pieces.extend(whole);
        (!this.pieces.is_empty()).then_some(this)
    }

    /// Adds what another node, or Proxmox's RRD, knows of the same guest at other times. False, and nothing is added,
    /// when they have a piece in common: nothing may count twice.
    pub fn merge(&mut self, other: &Self) -> bool {
        if overlap(&self.pieces, &other.pieces) {
            return false;
        }
        self.cpu.merge(&other.cpu);
        self.memory.merge(&other.memory);
        other.pieces.iter().for_each(|piece| self.add(*piece));
        let newest = self.until();
        self.pieces.retain(|piece| newest.is_none_or(|newest| newest.since(piece.until) < FADED));
        true
    }

    /// The stretches it is made of, by the time they began.
    #[must_use]
    pub fn pieces(&self) -> &[ProfilePiece] {
        &self.pieces
    }

    /// Time of its last sample.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.pieces.iter().map(|piece| piece.until).max()
    }

    fn add(&mut self, piece: ProfilePiece) {
        let at =
            self.pieces.partition_point(|known| (known.began, known.origin) <= (piece.began, piece.origin));
        self.pieces.insert(at, piece);
        if self.pieces.len() > MAX_PIECES {
            self.join_oldest();
        }
    }

    /// Makes one of the two oldest pieces of agents, for room: the younger one's name is forgotten.
    fn join_oldest(&mut self) {
        let mut agents = (0..self.pieces.len()).filter(|&i| self.pieces[i].origin == PieceOrigin::Agent);
        if let (Some(first), Some(second)) = (agents.next(), agents.next()) {
            let joined = self.pieces.remove(second);
            let oldest = &mut self.pieces[first];
            oldest.until = oldest.until.max(joined.until);
            oldest.observed_ms = oldest.observed_ms.saturating_add(joined.observed_ms);
        }
    }

    /// The profile in figures.
    #[must_use]
    pub fn profile(&self, vmid: Vmid) -> GuestProfile {
        let cpu = self.cpu.usage();
        let observed_ms = self.pieces.iter().fold(0_u64, |sum, piece| sum.saturating_add(piece.observed_ms));
        let observed_s = observed_ms / 1000;
        GuestProfile {
            vmid,
            class: classify(observed_s, &cpu, self.cpu.hours()),
            observed_s,
            cpu,
            memory: self.memory.usage(),
            cpu_by_hour: self.cpu.hours().by_hour_of_day(),
            outlook: outlook(self.cpu.hours()),
            pieces: self.pieces.clone(),
        }
    }

    /// Summary of the CPU, in cores.
    #[must_use]
    pub fn cpu(&self) -> &Summary {
        &self.cpu
    }

    /// Summary of the memory, in bytes.
    #[must_use]
    pub fn memory(&self) -> &Summary {
        &self.memory
    }

    /// Bytes of state, heap included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pieces = self.pieces.capacity() * size_of::<ProfilePiece>();
        size_of::<Self>() + self.cpu.heap_bytes() + self.memory.heap_bytes() + pieces
    }
}

/// A mean of Proxmox's RRD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RrdMean {
    /// Start of the stretch.
    pub at: Timestamp,
    /// Its length.
    pub seconds: u32,
    /// CPU in cores; NaN where it is not told.
    pub cpu_cores: f64,
    /// Memory in bytes; NaN where it is not told.
    pub memory_bytes: f64,
}
