//! The first message of a stream, checked.

use evenkeel_common::guest::GuestFacts;
use evenkeel_common::node::NodeFacts;
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use tonic::Status;

use super::live::Epoch;
use super::session::MAX_NUMBER;
use super::writer::Cursors;

/// A checked hello.
#[derive(Debug)]
pub struct Greeting {
    /// Epoch of the agent's spool.
    pub epoch: Epoch,
    /// What the node is.
    pub facts: NodeFacts,
    /// Guests that run on it now.
    pub guests: Vec<GuestFacts>,
    /// Lowest numbers that the agent still holds.
    pub first: Cursors,
    /// Number its next event will get: until everything below has arrived, the picture of its guests is old.
    pub next_event: u64,
    /// Capabilities that both sides have.
    pub capabilities: u64,
    /// Wall clock of the agent.
    pub wall: Timestamp,
    /// UDP port on which it answers probes, and how many peers it would ask; `None` when it takes no part.
    pub probe: Option<(u16, u32)>,
}

impl Greeting {
    /// Checks a hello.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for a version that is not spoken here, `INVALID_ARGUMENT` for anything malformed.
    pub fn check(hello: v1::Hello) -> Result<Self, Status> {
        let (ours_min, ours_max) = evenkeel_proto::VERSIONS;
        if hello.version_max < ours_min || hello.version_min > ours_max {
            return Err(Status::failed_precondition(format!(
                "the agent speaks protocol {} to {}, this aggregator {ours_min} to {ours_max}: upgrade the older one",
                hello.version_min, hello.version_max
            )));
        }
        let epoch = Epoch::try_from(hello.epoch.as_slice())
            .map_err(|_| Status::invalid_argument("hello.epoch must be 16 bytes"))?;
        let invalid =
            |error: evenkeel_proto::convert::InvalidMessage| Status::invalid_argument(error.to_string());
        let facts = hello.facts.ok_or_else(|| Status::invalid_argument("hello.facts is missing"))?;
        if hello.guests.len() > 10_000 {
            return Err(Status::invalid_argument("hello.guests is longer than 10000"));
        }
        if [hello.first_event, hello.next_event, hello.first_sample, hello.next_sample]
            .iter()
            .any(|n| *n > MAX_NUMBER)
        {
            return Err(Status::invalid_argument("hello: a number is beyond 2^62"));
        }
        Ok(Self {
            epoch,
            facts: facts.try_into().map_err(invalid)?,
            guests: hello
                .guests
                .into_iter()
                .map(GuestFacts::try_from)
                .collect::<Result<_, _>>()
                .map_err(invalid)?,
            first: Cursors { event: hello.first_event, sample: hello.first_sample },
            next_event: hello.next_event,
            capabilities: hello.capabilities & evenkeel_proto::CAPABILITY_ZSTD,
            wall: Timestamp::from_millis(hello.wall_ms),
            probe: u16::try_from(hello.probe_port)
                .ok()
                .filter(|port| *port > 0)
                .map(|port| (port, hello.probe_peers)),
        })
    }
}
