//! Who may call what: one table of every call, held against the protocol's descriptors by a test.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a token may do. Each role may do all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything but secrets, changes nothing.
    Viewer,
    /// Runs the daily business: pauses, resumes, approves and rejects migrations, imports histories, orders fault drills where agents allow them.
    Operator,
    /// Everything, the whole store's content included.
    Admin,
}

impl Role {
    /// All roles, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Not the name of a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role: expected viewer, operator or admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        let unknown = || UnknownRole(name.chars().take(64).collect());
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or_else(unknown)
    }
}

/// What a call asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: for load balancers and probes.
    Open,
    /// A token with at least this role.
    Token(Role),
    /// An agent's certificate. No token can stand in for it.
    Agent,
}

/// Every call there is. A call that is not here is denied.
pub const CALLS: &[(&str, Access)] = &[
    ("/evenkeel.v1.Agent/Stream", Access::Agent),
    ("/evenkeel.v1.Control/GetStatus", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/ListNodes", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/ListGuests", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/ListProfiles", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/ListAnomalies", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/WatchAnomalies", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/ListDecisions", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/WatchDecisions", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/Explain", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/Replay", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Control/Pause", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Control/Resume", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Control/Export", Access::Token(Role::Admin)),
    ("/evenkeel.v1.Control/Simulate", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Control/ClearDrills", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Control/ListDrills", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Execution/Approve", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Execution/Reject", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Execution/Rearm", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Execution/Evacuate", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Execution/ListMoves", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Fleet/ListScores", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Fleet/ListForecasts", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Fleet/ListDetectors", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Fleet/GiveFeedback", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Fleet/TrainModel", Access::Token(Role::Operator)),
    ("/evenkeel.v1.Fleet/ListModels", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Fleet/ActivateModel", Access::Token(Role::Operator)),
    ("/evenkeel.v1.History/Import", Access::Token(Role::Operator)),
    ("/evenkeel.v1.History/Failures", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.History/Scores", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.History/Summary", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.History/Correlation", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.History/Heatmap", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.History/Report", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Whatif/Balance", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Whatif/Drain", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Whatif/Place", Access::Token(Role::Viewer)),
    ("/evenkeel.v1.Whatif/ReplayPolicy", Access::Token(Role::Viewer)),
    ("/grpc.health.v1.Health/Check", Access::Open),
    ("/grpc.health.v1.Health/Watch", Access::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Token(Role::Viewer)),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Token(Role::Viewer)),
];

/// What the call asks of its caller, by its gRPC path; `None` for a call that does not exist.
#[must_use]
pub fn access(path: &str) -> Option<Access> {
    CALLS.iter().find(|(call, _)| *call == path).map(|(_, access)| *access)
}

/// The least role whose token may make the call; `None` where no token is asked for or none would do.
#[must_use]
pub fn required(path: &str) -> Option<Role> {
    match access(path)? {
        Access::Token(role) => Some(role),
        Access::Open | Access::Agent => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use std::collections::BTreeSet;

    fn calls_of(descriptors: &[u8]) -> Vec<String> {
        let set = FileDescriptorSet::decode(descriptors).unwrap();
        let of_file = |file: &prost_types::FileDescriptorProto| {
            let package = file.package().to_owned();
            let services = file.service.clone().into_iter();
            services.flat_map(move |service| {
                let prefix = format!("/{package}.{}", service.name());
                let calls = service.method.into_iter();
                calls.map(move |call| format!("{prefix}/{}", call.name())).collect::<Vec<_>>()
            })
        };
        set.file.iter().flat_map(of_file).collect()
    }

    #[test]
    fn every_call_has_a_row_and_every_row_a_call() {
        let served: BTreeSet<_> = [
            evenkeel_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ]
        .into_iter()
        .flat_map(calls_of)
        .collect();
        let listed: BTreeSet<_> = CALLS.iter().map(|(call, _)| (*call).to_owned()).collect();
        assert!(served.len() > 10, "the descriptors were read");
        let without_row: Vec<_> = served.difference(&listed).collect();
        let without_call: Vec<_> = listed.difference(&served).collect();
        assert!(without_row.is_empty(), "give these calls a row in CALLS: {without_row:?}");
        assert!(without_call.is_empty(), "these rows of CALLS have no call: {without_call:?}");
        assert_eq!(listed.len(), CALLS.len(), "a call is listed twice");
    }

    #[test]
    fn what_changes_the_system_is_not_for_viewers() {
        assert_eq!(required("/evenkeel.v1.Control/GetStatus"), Some(Role::Viewer));
        assert_eq!(required("/evenkeel.v1.Control/Pause"), Some(Role::Operator));
        assert_eq!(required("/evenkeel.v1.Control/Resume"), Some(Role::Operator));
        assert_eq!(required("/evenkeel.v1.Control/Export"), Some(Role::Admin));
        assert_eq!(required("/evenkeel.v1.Agent/Stream"), None);
        for unknown in
            ["", "/", "/evenkeel.v1.Control/", "/evenkeel.v1.control/Pause", "/evenkeel.v1.Control/Pause/"]
        {
            assert_eq!(access(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn roles_are_ordered_and_read_back() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("viewer, operator or admin"));
    }
}
