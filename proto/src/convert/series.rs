//! Identity of a series. The node is not in it: that comes from the sender's certificate.

use evenkeel_common::id::Vmid;
use evenkeel_common::sample::{MAX_INSTANCE_LEN, Metric, SeriesKey, Subject};

use super::{InvalidMessage, Problem, invalid};
use crate::v1;

impl From<&SeriesKey> for v1::SeriesDef {
    fn from(key: &SeriesKey) -> Self {
        let vmid = match key.subject {
            Subject::Node => 0,
            Subject::Guest(vmid) => vmid.get(),
        };
        Self { metric: key.metric as u32, vmid, instance: key.instance.clone() }
    }
}

impl TryFrom<v1::SeriesDef> for SeriesKey {
    type Error = InvalidMessage;

    /// # Errors
    /// `series.metric` is [`Problem::Unknown`] for a metric of a newer agent: such a series can be stored, not
    /// interpreted. Anything else is a malformed message.
    fn try_from(wire: v1::SeriesDef) -> Result<Self, InvalidMessage> {
        let v1::SeriesDef { metric, vmid, instance } = wire;
        let subject = match vmid {
            0 => Subject::Node,
            n => Subject::Guest(Vmid::new(n).map_err(|_| invalid("series.vmid", Problem::OutOfRange))?),
        };
        if instance.len() > MAX_INSTANCE_LEN {
            return Err(invalid("series.instance", Problem::TooLong(MAX_INSTANCE_LEN)));
        }
        // Last, so that an unknown metric is told only of a series that is sound otherwise.
        let metric = Metric::from_wire(metric).ok_or(invalid("series.metric", Problem::Unknown))?;
        Ok(Self { subject, metric, instance })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::convert::strategies::vmid;
    use proptest::prelude::*;

    pub(in crate::convert) fn key() -> impl Strategy<Value = SeriesKey> {
        let subject = prop_oneof![Just(Subject::Node), vmid().prop_map(Subject::Guest)];
        (subject, prop::sample::select(Metric::ALL), "[ -~]{0,64}")
            .prop_map(|(subject, metric, instance)| SeriesKey { subject, metric, instance })
    }

    proptest! {
        #[test]
        fn keys_come_back(key in key()) {
            prop_assert_eq!(SeriesKey::try_from(v1::SeriesDef::from(&key)), Ok(key));
        }
    }

    #[test]
    fn the_bad_field_is_named() {
        let good = v1::SeriesDef { metric: 1, vmid: 0, instance: String::new() };
        for (wire, field, problem) in [
            (v1::SeriesDef { metric: 9999, ..good.clone() }, "series.metric", Problem::Unknown),
            (v1::SeriesDef { vmid: 99, ..good.clone() }, "series.vmid", Problem::OutOfRange),
            (v1::SeriesDef { instance: "x".repeat(65), ..good }, "series.instance", Problem::TooLong(64)),
        ] {
            assert_eq!(SeriesKey::try_from(wire), Err(InvalidMessage { field, problem }));
        }
    }
}
