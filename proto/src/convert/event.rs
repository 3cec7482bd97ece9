//! Events of an agent.

use evenkeel_common::event::{AgentEvent, EventKind, Loss, LossKind};
use evenkeel_common::guest::MAX_HISTORY_BYTES;
use evenkeel_common::time::Window;

use super::guest::vmid;
use super::{
    InvalidMessage, MAX_MESSAGE_CHARS, MAX_NAME_CHARS, MAX_WORD_CHARS, Problem, invalid, present, text, time,
};
use crate::v1;
use crate::v1::event::Kind;

impl From<AgentEvent> for v1::Event {
    fn from(event: AgentEvent) -> Self {
        let AgentEvent { at, uptime_ms, kind } = event;
        let kind = match kind {
            EventKind::AgentStarted { version, clean } => {
                Kind::AgentStarted(v1::AgentStarted { version, clean })
            }
            EventKind::AnomalyOpened(anomaly) => Kind::AnomalyOpened(anomaly.into()),
            EventKind::AnomalyClosed(anomaly) => Kind::AnomalyClosed(anomaly.into()),
            EventKind::GuestAppeared(facts) => Kind::GuestAppeared(facts.into()),
            EventKind::GuestChanged(facts) => Kind::GuestChanged(facts.into()),
            EventKind::GuestVanished { vmid, profile, history } => Kind::GuestVanished(v1::GuestVanished {
                vmid: vmid.get(),
                profile: profile.map(|profile| (*profile).into()),
                history: history.unwrap_or_default(),
            }),
            EventKind::CollectorFailed { collector, message } => {
                Kind::CollectorFailed(v1::CollectorFailed { collector, message })
            }
            EventKind::CollectorRecovered { collector } => Kind::CollectorRecovered(collector),
            EventKind::SamplesLost(loss) => Kind::SamplesLost(loss.into()),
            EventKind::EventsLost(loss) => Kind::EventsLost(loss.into()),
            EventKind::ClockJumped { by_ms } => Kind::ClockJumpedMs(by_ms),
            EventKind::DrillStarted(drill) => Kind::DrillStarted(drill.into()),
            EventKind::DrillEnded { id, cleared } => Kind::DrillEnded(v1::DrillEnded { id, cleared }),
            EventKind::DrillRefused { id, why } => Kind::DrillRefused(v1::DrillRefused { id, why }),
        };
        Self { at_ms: at.as_millis(), uptime_ms, kind: Some(kind) }
    }
}

impl TryFrom<v1::Event> for AgentEvent {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Event) -> Result<Self, InvalidMessage> {
        // A kind of a newer agent arrives as no kind at all.
        let kind = match present("event.kind", wire.kind)? {
            Kind::AgentStarted(v1::AgentStarted { version, clean }) => EventKind::AgentStarted {
                version: text("agent_started.version", version, MAX_NAME_CHARS)?,
                clean,
            },
            Kind::AnomalyOpened(anomaly) => EventKind::AnomalyOpened(anomaly.try_into()?),
            Kind::AnomalyClosed(anomaly) => EventKind::AnomalyClosed(anomaly.try_into()?),
            Kind::GuestAppeared(facts) => EventKind::GuestAppeared(facts.try_into()?),
            Kind::GuestChanged(facts) => EventKind::GuestChanged(facts.try_into()?),
            Kind::GuestVanished(gone) => EventKind::GuestVanished {
                vmid: vmid("guest_vanished.vmid", gone.vmid)?,
                profile: gone.profile.map(TryInto::try_into).transpose()?.map(Box::new),
                // One that is too long is no history of ours; what else is wrong with it shows when it is used.
                history: Some(gone.history).filter(|h| (1..=MAX_HISTORY_BYTES).contains(&h.len())),
            },
            Kind::CollectorFailed(v1::CollectorFailed { collector, message }) => EventKind::CollectorFailed {
                collector: text("collector_failed.collector", collector, MAX_WORD_CHARS)?,
                message: text("collector_failed.message", message, MAX_MESSAGE_CHARS)?,
            },
            Kind::CollectorRecovered(collector) => EventKind::CollectorRecovered {
                collector: text("collector_recovered", collector, MAX_WORD_CHARS)?,
            },
            Kind::SamplesLost(loss) => EventKind::SamplesLost(loss.try_into()?),
            Kind::EventsLost(loss) => EventKind::EventsLost(loss.try_into()?),
            Kind::ClockJumpedMs(by_ms) => EventKind::ClockJumped { by_ms },
            Kind::DrillStarted(drill) => EventKind::DrillStarted(drill.try_into()?),
            Kind::DrillEnded(v1::DrillEnded { id, cleared }) => {
                EventKind::DrillEnded { id: text("drill_ended.id", id, MAX_WORD_CHARS)?, cleared }
            }
            Kind::DrillRefused(v1::DrillRefused { id, why }) => EventKind::DrillRefused {
                id: text("drill_refused.id", id, MAX_WORD_CHARS)?,
                why: text("drill_refused.why", why, MAX_MESSAGE_CHARS)?,
            },
        };
        Ok(Self { at: time(wire.at_ms), uptime_ms: wire.uptime_ms, kind })
    }
}

impl From<Loss> for v1::Loss {
    fn from(loss: Loss) -> Self {
        let how = match loss.how {
            LossKind::ThinnedTo10s => v1::LossKind::Thinned10s,
            LossKind::ThinnedTo60s => v1::LossKind::Thinned60s,
            LossKind::Dropped => v1::LossKind::Dropped,
            LossKind::Unwritten => v1::LossKind::Unwritten,
            LossKind::Damaged => v1::LossKind::Damaged,
        };
        Self {
            count: loss.count,
            from_ms: loss.window.from.as_millis(),
            to_ms: loss.window.to.as_millis(),
            how: how.into(),
        }
    }
}

impl TryFrom<v1::Loss> for Loss {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Loss) -> Result<Self, InvalidMessage> {
        let how = match v1::LossKind::try_from(wire.how) {
            Ok(v1::LossKind::Thinned10s) => LossKind::ThinnedTo10s,
            Ok(v1::LossKind::Thinned60s) => LossKind::ThinnedTo60s,
            Ok(v1::LossKind::Dropped) => LossKind::Dropped,
            Ok(v1::LossKind::Unwritten) => LossKind::Unwritten,
            Ok(v1::LossKind::Damaged) => LossKind::Damaged,
            Ok(v1::LossKind::Unspecified) | Err(_) => return Err(invalid("loss.how", Problem::Unknown)),
        };
        Ok(Self { count: wire.count, window: Window { from: time(wire.from_ms), to: time(wire.to_ms) }, how })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::strategies;
    use crate::convert::{anomaly, guest};
    use evenkeel_common::drill::{Drill, DrillKind};
    use proptest::prelude::*;
    use prost::Message as _;

    fn loss() -> impl Strategy<Value = Loss> {
        let how = prop::sample::select(vec![
            LossKind::ThinnedTo10s,
            LossKind::ThinnedTo60s,
            LossKind::Dropped,
            LossKind::Unwritten,
            LossKind::Damaged,
        ]);
        (any::<u64>(), strategies::timestamp(), strategies::timestamp(), how)
            .prop_map(|(count, from, to, how)| Loss { count, window: Window { from, to }, how })
    }

    fn kind() -> impl Strategy<Value = EventKind> {
        let word = || strategies::text(MAX_WORD_CHARS);
        prop_oneof![
            (word(), any::<bool>()).prop_map(|(version, clean)| EventKind::AgentStarted { version, clean }),
            anomaly::tests::anomaly().prop_map(EventKind::AnomalyOpened),
            anomaly::tests::anomaly().prop_map(EventKind::AnomalyClosed),
            guest::tests::facts().prop_map(EventKind::GuestAppeared),
            guest::tests::facts().prop_map(EventKind::GuestChanged),
            (
                strategies::vmid(),
                prop::option::of(guest::tests::profile().prop_map(Box::new)),
                prop::option::of(prop::collection::vec(any::<u8>(), 1..64))
            )
                .prop_map(|(vmid, profile, history)| EventKind::GuestVanished {
                    vmid,
                    profile,
                    history
                }),
            (word(), strategies::text(MAX_MESSAGE_CHARS))
                .prop_map(|(collector, message)| EventKind::CollectorFailed { collector, message }),
            word().prop_map(|collector| EventKind::CollectorRecovered { collector }),
            loss().prop_map(EventKind::SamplesLost),
            loss().prop_map(EventKind::EventsLost),
            any::<i64>().prop_map(|by_ms| EventKind::ClockJumped { by_ms }),
            (
                word(),
                prop::sample::select(DrillKind::ALL.to_vec()),
                prop::option::of(strategies::vmid()),
                -1e9..1e9,
                any::<u64>()
            )
                .prop_map(|(id, kind, guest, amount, ms)| EventKind::DrillStarted(Drill {
                    id,
                    kind,
                    guest,
                    amount,
                    ms
                })),
            (word(), any::<bool>()).prop_map(|(id, cleared)| EventKind::DrillEnded { id, cleared }),
            (word(), strategies::text(MAX_MESSAGE_CHARS))
                .prop_map(|(id, why)| EventKind::DrillRefused { id, why }),
        ]
    }

    proptest! {
        #[test]
        fn events_come_back_through_bytes(at in strategies::timestamp(), uptime_ms: u64, kind in kind()) {
            let event = AgentEvent { at, uptime_ms, kind };
            let bytes = v1::Event::from(event.clone()).encode_to_vec();
            prop_assert_eq!(AgentEvent::try_from(v1::Event::decode(&bytes[..]).unwrap()), Ok(event));
        }
    }

    #[test]
    fn the_bad_field_is_named() {
        let event = |kind| v1::Event { at_ms: 0, uptime_ms: 0, kind };
        let failed = |collector: usize, message: usize| {
            Some(Kind::CollectorFailed(v1::CollectorFailed {
                collector: "c".repeat(collector),
                message: "m".repeat(message),
            }))
        };
        for (kind, field, problem) in [
            (None, "event.kind", Problem::Missing),
            (failed(65, 1), "collector_failed.collector", Problem::TooLong(64)),
            (failed(1, 1025), "collector_failed.message", Problem::TooLong(1024)),
            (Some(Kind::SamplesLost(v1::Loss::default())), "loss.how", Problem::Unknown),
            (
                Some(Kind::GuestVanished(v1::GuestVanished::default())),
                "guest_vanished.vmid",
                Problem::OutOfRange,
            ),
        ] {
            assert_eq!(AgentEvent::try_from(event(kind)), Err(InvalidMessage { field, problem }));
        }
    }
}
