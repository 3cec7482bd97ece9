//! Fault drills.

use evenkeel_common::drill::{Drill, DrillKind};

use super::guest::vmid;
use super::{InvalidMessage, MAX_WORD_CHARS, Problem, finite, invalid, text};
use crate::v1;

impl From<Drill> for v1::Drill {
    fn from(drill: Drill) -> Self {
        let Drill { id, kind, guest, amount, ms } = drill;
        let kind = match kind {
            DrillKind::Delay => v1::DrillKind::Delay,
            DrillKind::Error => v1::DrillKind::Error,
            DrillKind::Cpu => v1::DrillKind::Cpu,
            DrillKind::Memory => v1::DrillKind::Memory,
        };
        Self { id, kind: kind.into(), vmid: guest.map_or(0, |vmid| vmid.get()), amount, ms }
    }
}

impl TryFrom<v1::Drill> for Drill {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Drill) -> Result<Self, InvalidMessage> {
        let kind = match v1::DrillKind::try_from(wire.kind) {
            Ok(v1::DrillKind::Delay) => DrillKind::Delay,
            Ok(v1::DrillKind::Error) => DrillKind::Error,
            Ok(v1::DrillKind::Cpu) => DrillKind::Cpu,
            Ok(v1::DrillKind::Memory) => DrillKind::Memory,
            Ok(v1::DrillKind::Unspecified) | Err(_) => return Err(invalid("drill.kind", Problem::Unknown)),
        };
        let guest = if wire.vmid == 0 { None } else { Some(vmid("drill.vmid", wire.vmid)?) };
        Ok(Self {
            id: text("drill.id", wire.id, MAX_WORD_CHARS)?,
            kind,
            guest,
            amount: finite("drill.amount", wire.amount)?,
            ms: wire.ms,
        })
    }
}
