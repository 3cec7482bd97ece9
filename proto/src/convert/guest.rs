//! Guests: facts and profiles.

use evenkeel_common::guest::{
    GuestFacts, GuestKind, GuestProfile, MAX_PIECES, Outlook, PieceOrigin, ProfileClass, ProfilePiece,
    UsageSummary,
};
use evenkeel_common::id::Vmid;
use evenkeel_common::units::Bytes;

use super::{
    InvalidMessage, MAX_NAME_CHARS, MAX_TAGS, MAX_WORD_CHARS, Problem, at_most, finite, invalid, present,
    text, time,
};
use crate::v1;

/// Checks a vmid of a message.
pub(super) fn vmid(field: &'static str, value: u32) -> Result<Vmid, InvalidMessage> {
    Vmid::new(value).map_err(|_| invalid(field, Problem::OutOfRange))
}

impl From<GuestFacts> for v1::GuestFacts {
    fn from(facts: GuestFacts) -> Self {
        let GuestFacts { vmid, kind, name, vcpus, memory_max, tags, started_at } = facts;
        let kind = match kind {
            GuestKind::Qemu => v1::GuestKind::Qemu,
            GuestKind::Lxc => v1::GuestKind::Lxc,
        };
        Self {
            vmid: vmid.get(),
            kind: kind.into(),
            name,
            vcpus,
            memory_max_bytes: memory_max.map(|bytes| bytes.0),
            tags,
            started_at_ms: started_at.as_millis(),
        }
    }
}

impl TryFrom<v1::GuestFacts> for GuestFacts {
    type Error = InvalidMessage;

    fn try_from(wire: v1::GuestFacts) -> Result<Self, InvalidMessage> {
        let kind = match v1::GuestKind::try_from(wire.kind) {
            Ok(v1::GuestKind::Qemu) => GuestKind::Qemu,
            Ok(v1::GuestKind::Lxc) => GuestKind::Lxc,
            Ok(v1::GuestKind::Unspecified) | Err(_) => return Err(invalid("guest.kind", Problem::Unknown)),
        };
        if wire.vcpus.is_some_and(|n| !(0.0..=65_536.0).contains(&n)) {
            return Err(invalid("guest.vcpus", Problem::OutOfRange));
        }
        Ok(Self {
            vmid: vmid("guest.vmid", wire.vmid)?,
            kind,
            name: wire.name.map(|name| text("guest.name", name, MAX_NAME_CHARS)).transpose()?,
            vcpus: wire.vcpus,
            memory_max: wire.memory_max_bytes.map(Bytes),
            tags: at_most("guest.tags", wire.tags, MAX_TAGS)?
                .into_iter()
                .map(|tag| text("guest.tags", tag, MAX_WORD_CHARS))
                .collect::<Result<_, _>>()?,
            started_at: time(wire.started_at_ms),
        })
    }
}

impl From<GuestProfile> for v1::GuestProfile {
    fn from(profile: GuestProfile) -> Self {
        let GuestProfile { vmid, class, observed_s, cpu, memory, cpu_by_hour, outlook, pieces } = profile;
        let class = match class {
            ProfileClass::Unknown => v1::ProfileClass::Unknown,
            ProfileClass::Steady => v1::ProfileClass::Steady,
            ProfileClass::Bursty => v1::ProfileClass::Bursty,
            ProfileClass::Growing => v1::ProfileClass::Growing,
            ProfileClass::Cyclical => v1::ProfileClass::Cyclical,
        };
        Self {
            vmid: vmid.get(),
            class: class.into(),
            observed_s,
            cpu: Some(cpu.into()),
            memory: Some(memory.into()),
            cpu_by_hour: cpu_by_hour.into_iter().map(|mean| mean.unwrap_or(f64::NAN)).collect(),
            outlook: outlook.map(|o| v1::Outlook {
                recent_mean: o.recent_mean,
                daily_share: o.daily_share,
                persistence: o.persistence,
                spread: o.spread,
            }),
            pieces: pieces.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::GuestProfile> for GuestProfile {
    type Error = InvalidMessage;

    fn try_from(wire: v1::GuestProfile) -> Result<Self, InvalidMessage> {
        let class = match v1::ProfileClass::try_from(wire.class) {
            Ok(v1::ProfileClass::Steady) => ProfileClass::Steady,
            Ok(v1::ProfileClass::Bursty) => ProfileClass::Bursty,
            Ok(v1::ProfileClass::Growing) => ProfileClass::Growing,
            Ok(v1::ProfileClass::Cyclical) => ProfileClass::Cyclical,
            Ok(v1::ProfileClass::Unknown) => ProfileClass::Unknown,
            Err(_) => return Err(invalid("profile.class", Problem::Unknown)),
        };
        if !matches!(wire.cpu_by_hour.len(), 0 | 24) {
            return Err(invalid("profile.cpu_by_hour", Problem::OutOfRange));
        }
        let hour = |mean: f64| match mean {
            mean if mean.is_nan() => Ok(None),
            mean => finite("profile.cpu_by_hour", mean).map(Some),
        };
        Ok(Self {
            vmid: vmid("profile.vmid", wire.vmid)?,
            class,
            observed_s: wire.observed_s,
            cpu: usage("profile.cpu", present("profile.cpu", wire.cpu)?)?,
            memory: usage("profile.memory", present("profile.memory", wire.memory)?)?,
            cpu_by_hour: match wire.cpu_by_hour.len() {
                0 => vec![None; 24],
                _ => wire.cpu_by_hour.into_iter().map(hour).collect::<Result<_, _>>()?,
            },
            outlook: wire.outlook.map(outlook).transpose()?,
            pieces: at_most("profile.pieces", wire.pieces, MAX_PIECES)?.into_iter().map(Into::into).collect(),
        })
    }
}

fn outlook(wire: v1::Outlook) -> Result<Outlook, InvalidMessage> {
    let share = |field, value| match value {
        share if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(invalid(field, Problem::OutOfRange)),
    };
    Ok(Outlook {
        recent_mean: finite("profile.outlook.recent_mean", wire.recent_mean)?,
        daily_share: share("profile.outlook.daily_share", wire.daily_share)?,
        persistence: share("profile.outlook.persistence", wire.persistence)?,
        spread: finite("profile.outlook.spread", wire.spread)?,
    })
}

impl From<ProfilePiece> for v1::ProfilePiece {
    fn from(piece: ProfilePiece) -> Self {
        let ProfilePiece { began, until, observed_ms, origin } = piece;
        let rrd = origin == PieceOrigin::Rrd;
        Self { began_ms: began.as_millis(), until_ms: until.as_millis(), observed_ms, rrd }
    }
}

impl From<v1::ProfilePiece> for ProfilePiece {
    fn from(wire: v1::ProfilePiece) -> Self {
        let origin = if wire.rrd { PieceOrigin::Rrd } else { PieceOrigin::Agent };
        let (began, until) = (time(wire.began_ms), time(wire.until_ms));
        Self { began, until, observed_ms: wire.observed_ms, origin }
    }
}

impl From<UsageSummary> for v1::UsageSummary {
    fn from(usage: UsageSummary) -> Self {
        let UsageSummary { min, max, mean, std_dev, p95, slope_per_hour } = usage;
        Self { min, max, mean, std_dev, p95, slope_per_hour }
    }
}

fn usage(field: &'static str, wire: v1::UsageSummary) -> Result<UsageSummary, InvalidMessage> {
    let v1::UsageSummary { min, max, mean, std_dev, p95, slope_per_hour } = wire;
    for value in [min, max, mean, std_dev, p95, slope_per_hour] {
        finite(field, value)?;
    }
    Ok(UsageSummary { min, max, mean, std_dev, p95, slope_per_hour })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::convert::strategies;
    use proptest::option;
    use proptest::prelude::*;

    pub(in crate::convert) fn facts() -> impl Strategy<Value = GuestFacts> {
        (
            strategies::vmid(),
            prop::sample::select(vec![GuestKind::Qemu, GuestKind::Lxc]),
            option::of(strategies::text(MAX_NAME_CHARS)),
            option::of(0.0..=1024.0),
            option::of(any::<u64>().prop_map(Bytes)),
            prop::collection::vec(strategies::text(12), 0..5),
            strategies::timestamp(),
        )
            .prop_map(|(vmid, kind, name, vcpus, memory_max, tags, started_at)| GuestFacts {
                vmid,
                kind,
                name,
                vcpus,
                memory_max,
                tags,
                started_at,
            })
    }

    fn summary() -> impl Strategy<Value = UsageSummary> {
        prop::array::uniform6(strategies::finite()).prop_map(
            |[min, max, mean, std_dev, p95, slope_per_hour]| UsageSummary {
                min,
                max,
                mean,
                std_dev,
                p95,
                slope_per_hour,
            },
        )
    }

    pub(in crate::convert) fn profile() -> impl Strategy<Value = GuestProfile> {
        let classes = [
            ProfileClass::Steady,
            ProfileClass::Bursty,
            ProfileClass::Growing,
            ProfileClass::Cyclical,
            ProfileClass::Unknown,
        ];
        (
            strategies::vmid(),
            prop::sample::select(classes.to_vec()),
            any::<u64>(),
            summary(),
            summary(),
            prop::collection::vec(option::of(strategies::finite()), 24),
            option::of(outlook()),
            prop::collection::vec(piece(), 0..=MAX_PIECES),
        )
            .prop_map(|(vmid, class, observed_s, cpu, memory, cpu_by_hour, outlook, pieces)| {
                GuestProfile { vmid, class, observed_s, cpu, memory, cpu_by_hour, outlook, pieces }
            })
    }

    fn outlook() -> impl Strategy<Value = Outlook> {
        (strategies::finite(), 0.0..=1.0, 0.0..=1.0, strategies::finite()).prop_map(
            |(recent_mean, daily_share, persistence, spread)| Outlook {
                recent_mean,
                daily_share,
                persistence,
                spread,
            },
        )
    }

    fn piece() -> impl Strategy<Value = ProfilePiece> {
        let origin = prop::sample::select(vec![PieceOrigin::Rrd, PieceOrigin::Agent]);
        (strategies::timestamp(), strategies::timestamp(), any::<u64>(), origin).prop_map(
            |(began, until, observed_ms, origin)| ProfilePiece { began, until, observed_ms, origin },
        )
    }

    proptest! {
        #[test]
        fn facts_come_back(facts in facts()) {
            prop_assert_eq!(GuestFacts::try_from(v1::GuestFacts::from(facts.clone())), Ok(facts));
        }

        #[test]
        fn profiles_come_back(profile in profile()) {
            prop_assert_eq!(GuestProfile::try_from(v1::GuestProfile::from(profile.clone())), Ok(profile));
        }
    }

    #[test]
    fn the_bad_field_is_named() {
        let good = v1::GuestFacts { vmid: 100, kind: 1, ..v1::GuestFacts::default() };
        let long = vec![String::new(); 65];
        for (wire, field, problem) in [
            (v1::GuestFacts { vmid: 99, ..good.clone() }, "guest.vmid", Problem::OutOfRange),
            (v1::GuestFacts { kind: 0, ..good.clone() }, "guest.kind", Problem::Unknown),
            (v1::GuestFacts { kind: 7, ..good.clone() }, "guest.kind", Problem::Unknown),
            (v1::GuestFacts { vcpus: Some(f64::NAN), ..good.clone() }, "guest.vcpus", Problem::OutOfRange),
            (
                v1::GuestFacts { name: Some("é".repeat(129)), ..good.clone() },
                "guest.name",
                Problem::TooLong(128),
            ),
            (v1::GuestFacts { tags: long, ..good.clone() }, "guest.tags", Problem::TooLong(64)),
            (v1::GuestFacts { tags: vec!["x".repeat(65)], ..good }, "guest.tags", Problem::TooLong(64)),
        ] {
            assert_eq!(GuestFacts::try_from(wire), Err(InvalidMessage { field, problem }));
        }
    }

    #[test]
    fn a_profile_with_a_number_that_is_none_is_refused() {
        let zero = Some(v1::UsageSummary::default());
        let good = v1::GuestProfile { vmid: 100, cpu: zero, memory: zero, ..v1::GuestProfile::default() };
        let nan = Some(v1::UsageSummary { p95: f64::NAN, ..v1::UsageSummary::default() });
        assert_eq!(GuestProfile::try_from(good.clone()).unwrap().cpu_by_hour, vec![None; 24]);
        for (wire, field, problem) in [
            (v1::GuestProfile { cpu: None, ..good.clone() }, "profile.cpu", Problem::Missing),
            (v1::GuestProfile { memory: nan, ..good.clone() }, "profile.memory", Problem::OutOfRange),
            (v1::GuestProfile { class: 9, ..good.clone() }, "profile.class", Problem::Unknown),
            (
                v1::GuestProfile { pieces: vec![v1::ProfilePiece::default(); 17], ..good.clone() },
                "profile.pieces",
                Problem::TooLong(16),
            ),
            (
                v1::GuestProfile { cpu_by_hour: vec![1.0; 23], ..good.clone() },
                "profile.cpu_by_hour",
                Problem::OutOfRange,
            ),
            (
                v1::GuestProfile {
                    outlook: Some(v1::Outlook { persistence: 1.01, ..v1::Outlook::default() }),
                    ..good.clone()
                },
                "profile.outlook.persistence",
                Problem::OutOfRange,
            ),
            (
                v1::GuestProfile { cpu_by_hour: vec![f64::INFINITY; 24], ..good },
                "profile.cpu_by_hour",
                Problem::OutOfRange,
            ),
        ] {
            assert_eq!(GuestProfile::try_from(wire), Err(InvalidMessage { field, problem }));
        }
    }
}
