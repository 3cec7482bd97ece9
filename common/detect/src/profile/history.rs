//! A profiler as bytes, to travel from node to aggregator to node: a header, a checksum, and the summaries.
//!
//! ```text
//! "EKH" format u8  CRC-32 u32  postcard(cpu, memory, pieces)
//! ```
//!
//! The number is little-endian. What is cut, damaged, foreign or newer, does not make sense, or tells of a time to
//! come is refused; nothing of it is used then.

use evenkeel_common::guest::{MAX_HISTORY_BYTES, MAX_PIECES, PieceOrigin, ProfilePiece};
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::guest::{CPU_UNIT, GuestProfiler, MEMORY_UNIT};
use super::summary::Summary;

/// The format written, and the newest read.
const FORMAT: u8 = 1;
const MAGIC: &[u8; 3] = b"EKH";
const HEADER: usize = 8;
/// Another node's clock may be ahead by less than this.
const AHEAD: std::time::Duration = std::time::Duration::from_secs(3600);
/// More of a piece than any node was up.
const LONGEST_MS: u64 = 100 * 366 * 24 * 3_600_000;

/// Why a history is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryError {
    /// It is something else.
    Foreign,
    /// A later version wrote it.
    Newer,
    /// It has more than [`MAX_HISTORY_BYTES`].
    TooLarge,
    /// Its checksum does not match, or it is cut.
    Damaged,
    /// Its content does not make sense, or tells of a time to come.
    Unusable,
}

impl std::fmt::Display for HistoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Foreign => "it is no history of a guest",
            Self::Newer => "a later version of evenkeel wrote it; upgrade the older of agent and aggregator",
            Self::TooLarge => "it is larger than a history can be",
            Self::Damaged => "its checksum does not match",
            Self::Unusable => "its content does not make sense; do the clocks of the nodes agree?",
        })
    }
}

impl std::error::Error for HistoryError {}

#[derive(Serialize, Deserialize)]
struct Body {
    cpu: Summary,
    memory: Summary,
    pieces: Vec<ProfilePiece>,
}

impl GuestProfiler {
    /// The bytes of its history.
    ///
    /// # Errors
    /// [`HistoryError`] when it could not be read again.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HistoryError> {
        let body = (&self.cpu, &self.memory, &self.pieces);
        let bytes = [MAGIC.as_slice(), &[FORMAT, 0, 0, 0, 0]].concat();
        let mut bytes = postcard::to_extend(&body, bytes).map_err(|_| HistoryError::Unusable)?;
        let checksum = crc32fast::hash(bytes.get(HEADER..).unwrap_or_default());
        bytes[4..HEADER].copy_from_slice(&checksum.to_le_bytes());
        if bytes.len() > MAX_HISTORY_BYTES { Err(HistoryError::TooLarge) } else { Ok(bytes) }
    }

    /// Reads a history that arrived at `now`; it can be merged, and goes on with a piece of its own. Any bytes may
    /// come in.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn from_bytes(bytes: &[u8], now: Timestamp) -> Result<Self, HistoryError> {
        if bytes.len() > MAX_HISTORY_BYTES {
            return Err(HistoryError::TooLarge);
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER).filter(|(h, _)| h.starts_with(MAGIC))
        else {
            return Err(HistoryError::Foreign);
        };
        if header[3] != FORMAT {
            return Err(HistoryError::Newer);
        }
        if crc32fast::hash(body).to_le_bytes() != header[4..] {
            return Err(HistoryError::Damaged);
        }
        let body: Body = postcard::from_bytes(body).map_err(|_| HistoryError::Unusable)?;
        let Body { cpu, memory, pieces } = body;
        let latest = now.after(AHEAD);
        let sound = cpu.is_sound(CPU_UNIT, latest) && memory.is_sound(MEMORY_UNIT, latest);
        if !sound || !are_sound(&pieces, latest) {
            return Err(HistoryError::Unusable);
        }
        Ok(Self { cpu, memory, pieces, own: None })
    }
}

fn are_sound(pieces: &[ProfilePiece], latest: Timestamp) -> bool {
    let each = |piece: &ProfilePiece| {
        let (first, last) = (piece.began.min(piece.until), piece.began.max(piece.until));
        first.as_millis() >= 0 && last <= latest && piece.observed_ms <= LONGEST_MS
    };
    (1..=MAX_PIECES).contains(&pieces.len())
        && pieces.iter().all(each)
        && pieces.is_sorted_by_key(|piece| (piece.began, piece.origin))
        && pieces.windows(2).all(|pair| !pair[0].is_of(&pair[1]))
        && pieces.iter().filter(|piece| piece.origin == PieceOrigin::Rrd).count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::RrdMean;
    use evenkeel_common::guest::ProfileClass;
    use evenkeel_common::id::Vmid;
    use proptest::prelude::*;

    /// Samples every minute for some hours from an hour on; a day's rhythm.
    fn seen(first_hour: i64, hours: i64) -> GuestProfiler {
        let mut profiler = GuestProfiler::default();
        for minute in first_hour * 60..(first_hour + hours) * 60 {
            profiler.observe(Timestamp::from_millis(minute * 60_000), rhythm(minute), 2e9 + minute as f64);
        }
        profiler
    }

    fn rhythm(minute: i64) -> f64 {
        2.0 + (minute as f64 / 1440.0 * std::f64::consts::TAU).sin() + 0.01 * (minute % 7) as f64
    }

    fn now(hour: i64) -> Timestamp {
        Timestamp::from_millis(hour * 3_600_000)
    }

    fn class(profiler: &GuestProfiler) -> ProfileClass {
        profiler.profile(Vmid::new(100).unwrap()).class
    }

    /// Hours of 2024, so that weeks change at all places.
    const START: i64 = 473_400;

    proptest! {
        #[test]
        fn what_was_seen_comes_back_and_fits(first in START..START + 400, hours in 1_i64..400) {
            let profiler = seen(first, hours);
            let bytes = profiler.to_bytes().unwrap();
            prop_assert!(bytes.len() <= MAX_HISTORY_BYTES);
            let back = GuestProfiler::from_bytes(&bytes, now(first + hours)).unwrap();
            let vmid = Vmid::new(100).unwrap();
            prop_assert_eq!(back.profile(vmid), profiler.profile(vmid));
            prop_assert_eq!(back.to_bytes().unwrap(), bytes);
        }

        #[test]
        fn a_wrong_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = seen(START, 30).to_bytes().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(GuestProfiler::from_bytes(&bytes, now(START + 30)).is_err(), "byte {}", at);
        }

        #[test]
        fn no_bytes_get_through_by_a_right_checksum(body in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..300, flip in 1_u8..) {
            let wrap = |body: &[u8]| {
                [b"EKH\x01".as_slice(), &crc32fast::hash(body).to_le_bytes(), body].concat()
            };
            prop_assert!(GuestProfiler::from_bytes(&wrap(&body), now(START)).is_err());
            // And one that is nearly right must at least be of use afterwards.
            let mut bytes = seen(START, 30).to_bytes().unwrap().split_off(8);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok(mut read) = GuestProfiler::from_bytes(&wrap(&bytes), now(START + 30)) {
                read.merge(&seen(START + 30, 5));
                let usage = read.profile(Vmid::new(100).unwrap()).cpu;
                let figures = [usage.min, usage.max, usage.mean, usage.std_dev, usage.p95, usage.slope_per_hour];
                prop_assert!(figures.iter().all(|f| f.is_finite()), "{usage:?}");
            }
        }
    }

    #[test]
    fn each_refusal_by_its_cause() {
        let bytes = seen(START, 30).to_bytes().unwrap();
        let read = |bytes: &[u8], hour| GuestProfiler::from_bytes(bytes, now(hour)).map(drop);
        assert_eq!(read(&bytes, START + 30), Ok(()));
        assert_eq!(read(&bytes, START + 5), Err(HistoryError::Unusable), "of a time to come");
        assert_eq!(read(&bytes[..bytes.len() - 1], START + 30), Err(HistoryError::Damaged));
        assert_eq!(read(b"EKH", START), Err(HistoryError::Foreign));
        assert_eq!(
            read(&[b"EKH\x02".as_slice(), &bytes[4..]].concat(), START + 30),
            Err(HistoryError::Newer)
        );
        assert_eq!(read(&[0; MAX_HISTORY_BYTES + 1], START), Err(HistoryError::TooLarge));
        assert_eq!(
            GuestProfiler::default().to_bytes().map(|b| read(&b, START)),
            Ok(Err(HistoryError::Unusable))
        );
    }

    #[test]
    fn nothing_counts_twice_however_often_and_from_where_it_comes() {
        let (first, second) = (seen(START, 60), seen(START + 60, 10));
        let mut here = second.clone();
        assert!(here.merge(&first));
        let once = here.clone();
        assert!(!here.merge(&first) && !here.merge(&once) && !here.merge(&second));
        assert_eq!(here, once);
        assert_eq!(once.profile(Vmid::new(100).unwrap()).observed_s, (60 + 10) * 3600 - 120);
        // It goes on with its own piece, and whoever gets it adds one.
        here.observe(now(START + 70), 1.0, 1e9);
        assert_eq!(here.pieces().len(), 2);
        let mut next = GuestProfiler::from_bytes(&here.to_bytes().unwrap(), now(START + 71)).unwrap();
        next.observe(now(START + 71), 1.0, 1e9);
        assert_eq!(next.pieces().len(), 3);
    }

    #[test]
    fn the_rhythm_that_a_young_profile_does_not_know_comes_with_the_history() {
        let mut here = seen(START + 80, 1);
        assert_ne!(class(&here), ProfileClass::Cyclical);
        here.merge(&seen(START, 79));
        assert_eq!(class(&here), ProfileClass::Cyclical);
    }

    #[test]
    fn rrd_means_count_as_the_seconds_they_stand_for() {
        let mean = |hour: i64, seconds: u32| RrdMean {
            at: now(hour),
            seconds,
            cpu_cores: rhythm(hour * 60),
            memory_bytes: 2e9,
        };
        let hours = GuestProfiler::of_rrd((START..START + 72).map(|hour| mean(hour, 3600))).unwrap();
        assert_eq!(class(&hours), ProfileClass::Cyclical);
        let profile = hours.profile(Vmid::new(100).unwrap());
        assert_eq!((profile.observed_s, profile.origins()), (72 * 3600, (72 * 3600, 0, 0)));
        // Three hours in one, from the middle of an hour on: four hours have some of it.
        let long =
            GuestProfiler::of_rrd([RrdMean { at: now(START).after(AHEAD / 2), ..mean(START, 10_800) }])
                .unwrap();
        assert_eq!(
            long.cpu().hours().iter().map(|(_, m)| m.count).collect::<Vec<_>>(),
            [1800, 3600, 3600, 1800]
        );
        assert_eq!(GuestProfiler::of_rrd([]), None);
        // Of the RRD there is one piece, whatever time it was read at.
        let mut twice = hours.clone();
        assert!(!twice.merge(&long));
    }

    #[test]
    fn a_guest_that_moves_without_end_keeps_its_time_and_its_bounds() {
        let mut profiler = GuestProfiler::default();
        for n in 0..40 {
            assert!(profiler.merge(&seen(START + n, 1)));
        }
        assert_eq!(profiler.pieces().len(), MAX_PIECES);
        assert_eq!(profiler.profile(Vmid::new(100).unwrap()).observed_s, 40 * 59 * 60);
        assert!(profiler.to_bytes().unwrap().len() <= MAX_HISTORY_BYTES);
        // What is weeks past is in no summary and no piece.
        profiler.merge(&seen(START + 1000, 1));
        assert_eq!(profiler.pieces().len(), 1);
    }
}
