//! Self-check of the token's privileges.
//!
//! Proxmox does not refuse a list to a token that may not see its entries: it leaves them out and answers 200.
//! A cluster that looks small may therefore be a cluster half seen, and only the permissions themselves tell.

use std::collections::BTreeMap;
use std::fmt;

use super::client::{Caller, PveClient};
use super::error::PveError;
use super::lenient::{FromScalar, Scalar};

/// Privileges by path, as `GET /access/permissions` answers; the value tells whether it reaches deeper paths.
type Granted = BTreeMap<String, BTreeMap<String, Scalar>>;

/// What the read side needs: path, privilege, and what it does not see without.
const NEEDED: [(&str, &str, &str); 5] = [
    ("/", "Sys.Audit", "quorum, HA and cluster options are refused"),
    ("/nodes", "Sys.Audit", "load of nodes and tasks of others are left out"),
    ("/vms", "VM.Audit", "guests are left out"),
    ("/storage", "Datastore.Audit", "storages are left out, so every disk counts as local"),
    ("/pool", "Pool.Audit", "pools of guests are left out"),
];

/// All privileges of [`NEEDED`], as `pveum` wants them.
const AUDIT: &str = "VM.Audit Sys.Audit Datastore.Audit Pool.Audit";

/// A privilege that the token should have and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// Where.
    pub path: &'static str,
    /// Which.
    pub privilege: &'static str,
    /// What is not seen without it.
    pub effect: &'static str,
    /// Deeper paths that do have it: then the view is partial rather than empty.
    pub only_on: Vec<String>,
    /// Shell commands, for any node as root, that grant it.
    pub repair: String,
}

impl fmt::Display for MissingPrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, privilege, effect, only_on, repair } = self;
        write!(f, "the API token lacks {privilege} on {path}")?;
        if !only_on.is_empty() {
            write!(f, " (it has it on {} only)", only_on.join(", "))?;
        }
        write!(f, ": {effect} without an error; run `{repair}`")
    }
}

/// Asks what the token may do. An empty list: all that is needed.
///
/// # Errors
/// As [`PveClient::get`].
pub async fn check(client: &PveClient) -> Result<Vec<MissingPrivilege>, PveError> {
    let granted: Granted = client.get("/access/permissions", &[]).await?;
    Ok(missing(&granted, client.token_id()))
}

/// Privileges that a token holds anywhere beyond migrating and looking, as `PRIVILEGE on PATH`.
///
/// # Errors
/// As [`PveClient::get`].
pub(super) async fn excess(client: &PveClient, caller: &Caller) -> Result<Vec<String>, PveError> {
    let granted: Granted = client.get_as(caller, "/access/permissions", &[]).await?;
    Ok(beyond_migrating(&granted))
}

fn beyond_migrating(granted: &Granted) -> Vec<String> {
    // What only looks does no harm, in whichever role it comes.
    let harmless = |privilege: &str| privilege == "VM.Migrate" || privilege.ends_with(".Audit");
    let of_path = |(path, privileges): (&String, &BTreeMap<String, Scalar>)| {
        let held = privileges.keys().filter(|privilege| !harmless(privilege));
        held.map(|privilege| format!("{privilege} on {path}")).collect::<Vec<_>>()
    };
    granted.iter().flat_map(of_path).collect()
}

fn missing(granted: &Granted, token: &str) -> Vec<MissingPrivilege> {
    let lacking = NEEDED.iter().filter(|(path, privilege, _)| !holds(granted, path, privilege));
    lacking
        .map(|&(path, privilege, effect)| {
            let inside = format!("{}/", path.trim_end_matches('/'));
            let deeper = granted.iter().filter(|(p, privileges)| {
                p.starts_with(&inside) && p.as_str() != path && privileges.contains_key(privilege)
            });
            // A role on a deeper path replaces the inherited one, so the repair is at the path that lacks it;
            // but where the root lacks it too, one grant at the root serves all.
            let at = if holds(granted, "/", privilege) { path } else { "/" };
            MissingPrivilege {
                path,
                privilege,
                effect,
                only_on: deeper.take(5).map(|(p, _)| p.clone()).collect(),
                repair: repair(token, at, "EvenkeelAudit", AUDIT),
            }
        })
        .collect()
}

/// Whether `privilege` holds on `path` and what lies below. A path that is not listed inherits.
fn holds(granted: &Granted, path: &str, privilege: &str) -> bool {
    let explicit = granted.get(path).or_else(|| granted.get("/"));
    explicit.and_then(|p| p.get(privilege)).and_then(bool::from_scalar).unwrap_or(false)
}

/// Makes sure of the role, then gives it to user and token: a token has only what both have.
fn repair(token: &str, path: &str, role: &str, privileges: &str) -> String {
    let user = token.split('!').next().unwrap_or(token);
    format!(
        "pveum role add {role} --privs \"{privileges}\" || pveum role modify {role} --append --privs \"{privileges}\"; \
         pveum acl modify {path} --users '{user}' --roles {role}; \
         pveum acl modify {path} --tokens '{token}' --roles {role}"
    )
}

/// The repair for a refusal `Permission check failed (/vms/101, VM.Migrate)`.
pub(super) fn repair_denied(token: &str, message: &str) -> String {
    let denied = message.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    let (path, privileges) = denied.and_then(|inside| inside.split_once(", ")).unwrap_or(("/", AUDIT));
    let privilege = privileges.split('|').next().unwrap_or(privileges);
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._- ".contains(c));
    if !plain(path) || !plain(privilege) {
        // What came over the network is not offered to a shell unless it looks like a path and a privilege.
        return repair(token, "/", "EvenkeelAudit", AUDIT);
    }
    match privilege {
        "VM.Migrate" => repair(token, path, "EvenkeelMigrate", privilege),
        audit if AUDIT.contains(audit) => repair(token, path, "EvenkeelAudit", AUDIT),
        other => repair(token, path, "EvenkeelExtra", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(json: &str) -> Granted {
        serde_json::from_str(json).unwrap()
    }

    const ALL: &str = r#"{"VM.Audit":1,"Sys.Audit":1,"Datastore.Audit":1,"Pool.Audit":1}"#;

    #[test]
    fn a_full_grant_lacks_nothing_whether_inherited_or_spelled_out() {
        for json in [
            format!(r#"{{"/":{ALL}}}"#),
            format!(
                r#"{{"/":{ALL},"/vms":{ALL},"/nodes":{ALL},"/storage":{ALL},"/pool":{ALL},"/sdn":{{}}}}"#
            ),
            format!(r#"{{"/":{}}}"#, ALL.replace(":1", ":\"1\"")),
        ] {
            assert_eq!(missing(&granted(&json), "ek@pve!ro"), [], "{json}");
        }
    }

    #[test]
    fn a_role_on_vms_that_replaced_the_inherited_one_is_found_and_repaired_there() {
        let lacking = missing(&granted(&format!(r#"{{"/":{ALL},"/vms":{{"VM.Migrate":1}}}}"#)), "ek@pve!ro");
        assert_eq!(lacking.len(), 1);
        assert_eq!((lacking[0].path, lacking[0].privilege), ("/vms", "VM.Audit"));
        assert!(lacking[0].repair.contains("pveum acl modify /vms --users 'ek@pve' --roles EvenkeelAudit"));
        assert!(
            lacking[0].repair.contains("pveum acl modify /vms --tokens 'ek@pve!ro' --roles EvenkeelAudit")
        );
    }

    #[test]
    fn an_empty_or_partial_grant_says_what_is_not_seen() {
        let nothing = missing(&granted("{}"), "ek@pve!ro");
        assert_eq!(nothing.len(), NEEDED.len());
        assert!(nothing.iter().all(|m| m.repair.contains("acl modify / --tokens")));
        let pool = missing(
            &granted(&format!(r#"{{"/":{{"Sys.Audit":1}},"/vms/101":{ALL},"/vms/102":{ALL}}}"#)),
            "t",
        );
        let guests = pool.iter().find(|m| m.privilege == "VM.Audit").unwrap();
        assert!(guests.to_string().contains("(it has it on /vms/101, /vms/102 only): guests are left out"));
    }

    #[test]
    fn a_token_that_may_do_more_than_migrate_is_told_what() {
        let fine = granted(&format!(r#"{{"/":{ALL},"/vms":{{"VM.Migrate":1,"VM.GuestAgent.Audit":1}}}}"#));
        assert_eq!(beyond_migrating(&fine), [""; 0]);
        let more =
            granted(r#"{"/":{"VM.Audit":1,"Sys.Modify":1},"/vms/101":{"VM.Migrate":1,"VM.PowerMgmt":0}}"#);
        assert_eq!(beyond_migrating(&more), ["Sys.Modify on /", "VM.PowerMgmt on /vms/101"]);
    }

    #[test]
    fn a_grant_that_does_not_propagate_is_no_grant() {
        let lacking = missing(&granted(&format!(r#"{{"/":{}}}"#, ALL.replace(":1", ":0"))), "ek@pve!ro");
        assert_eq!(lacking.len(), NEEDED.len());
    }

    #[test]
    fn a_refusal_names_its_repair_and_network_text_never_reaches_a_shell() {
        let repair = repair_denied("ek@pve!rw", "Permission check failed (/vms/101, VM.Migrate)");
        assert!(repair.contains("role add EvenkeelMigrate --privs \"VM.Migrate\""), "{repair}");
        assert!(repair.contains("pveum acl modify /vms/101 --tokens 'ek@pve!rw' --roles EvenkeelMigrate"));
        let hostile = repair_denied("ek@pve!rw", "Permission check failed (/vms/1; rm -rf /, VM.Audit`id`)");
        assert!(!hostile.contains("rm -rf") && !hostile.contains('`'), "{hostile}");
    }
}
