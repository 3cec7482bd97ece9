//! May this peer make this call? Pure; the server's layer asks it before any handler runs.

use evenkeel_runtime::tls::AgentIdentity;

use super::roles::{self, Access, Role};
use super::tokens::Principal;

/// Who is calling, as far as that was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// By the certificate of the connection.
    pub agent: Option<AgentIdentity>,
    /// By the token of the call.
    pub principal: Option<Principal>,
}

/// Why not, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The call needs a token and there was none.
    #[error(
        "this call needs a token with role {needed} or higher: set `token_file` in the file given to evenkeelctl --config, or send the header `authorization: Bearer ekt_...`"
    )]
    NoToken {
        /// The least role.
        needed: Role,
    },
    /// The token's role is too low.
    #[error(
        "this call needs role {needed}, and token {id} ({label}) has role {has}; ask an admin for a token with that role"
    )]
    RoleTooLow {
        /// The least role.
        needed: Role,
        /// The token's.
        has: Role,
        /// The token's id.
        id: String,
        /// The token's label.
        label: String,
    },
    /// The call is for agents.
    #[error(
        "this call is for agents: it needs the certificate of an agent, issued by this aggregator's own authority; a token does not help"
    )]
    NotAnAgent,
    /// There is no such call.
    #[error("there is no call {path:?} here; are client and server of the same version?")]
    UnknownCall {
        /// Its path, cut to 128 characters.
        path: String,
    },
}

impl Denied {
    /// Whether the caller could not be told at all, which gRPC calls unauthenticated; otherwise permission denied.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        match self {
            Self::NoToken { .. } | Self::NotAnAgent => true,
            Self::RoleTooLow { .. } | Self::UnknownCall { .. } => false,
        }
    }
}

/// Judges a call by its gRPC path.
///
/// # Errors
/// [`Denied`], with the remedy in its text.
pub fn authorise(path: &str, peer: &Peer) -> Result<(), Denied> {
    let unknown = || Denied::UnknownCall { path: path.chars().take(128).collect() };
    match (roles::access(path).ok_or_else(unknown)?, peer) {
        (Access::Open, _) | (Access::Agent, Peer { agent: Some(_), .. }) => Ok(()),
        (Access::Agent, Peer { agent: None, .. }) => Err(Denied::NotAnAgent),
        (Access::Token(needed), Peer { principal: None, .. }) => Err(Denied::NoToken { needed }),
        (Access::Token(needed), Peer { principal: Some(Principal { role, id, label }), .. }) => {
            if *role >= needed {
                return Ok(());
            }
            Err(Denied::RoleTooLow { needed, has: *role, id: id.clone(), label: label.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::roles::CALLS;
    use evenkeel_common::id::{ClusterId, NodeId};
    use evenkeel_common::time::Timestamp;

    fn agent() -> Option<AgentIdentity> {
        let (cluster, node) = (ClusterId::new("lab").unwrap(), NodeId::new("pve1").unwrap());
        Some(AgentIdentity { cluster, node, serial: "01".into(), not_after: Timestamp::default() })
    }

    fn person(role: Role) -> Option<Principal> {
        Some(Principal { role, id: "0011".into(), label: "anna".into() })
    }

    #[test]
    fn every_call_is_open_to_exactly_those_the_table_names() {
        for (path, access) in CALLS {
            for with_agent in [None, agent()] {
                for role in [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin)] {
                    let peer = Peer { agent: with_agent.clone(), principal: role.and_then(person) };
                    let expected = match access {
                        Access::Open => true,
                        Access::Agent => with_agent.is_some(),
                        Access::Token(needed) => role.is_some_and(|role| role >= *needed),
                    };
                    assert_eq!(authorise(path, &peer).is_ok(), expected, "{path} {peer:?}");
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_the_remedy() {
        let pause = "/evenkeel.v1.Control/Pause";
        let viewer = Peer { agent: agent(), principal: person(Role::Viewer) };
        let denied = authorise(pause, &viewer).unwrap_err();
        assert!(!denied.is_unauthenticated());
        assert_eq!(
            denied.to_string(),
            "this call needs role operator, and token 0011 (anna) has role viewer; ask an admin for a token with that role"
        );
        let denied = authorise(pause, &Peer { agent: agent(), principal: None }).unwrap_err();
        assert!(denied.is_unauthenticated() && denied.to_string().contains("Bearer ekt_"), "{denied}");
        let admin = Peer { agent: None, principal: person(Role::Admin) };
        assert_eq!(authorise("/evenkeel.v1.Agent/Stream", &admin), Err(Denied::NotAnAgent));
        let unknown = authorise(&"/x".repeat(500), &admin).unwrap_err();
        assert!(unknown.to_string().len() < 300 && !unknown.is_unauthenticated(), "{unknown}");
    }
}
