//! Starting a migration, and what Proxmox has against one.
//!
//! Done with a token of its own, whose file is read anew each time: without it evenkeel can only look. Proxmox' own
//! preconditions know storages, devices and guests that must stay apart, and nothing of node rules, CPU types, memory or
//! maintenance, which are judged before. What differs between versions is not sent: where to, and that it may run on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use serde::Deserialize;
use serde_json::Value;

use super::client::{Caller, PveClient};
use super::error::PveError;
use super::lenient;
use super::permissions;
use super::tasks::Upid;

/// The way to start migrations in one cluster.
#[derive(Clone, Debug)]
pub struct Migrator {
    client: Arc<PveClient>,
    token_file: PathBuf,
}

/// What is to be moved, and where to.
#[derive(Clone, Debug)]
pub struct Move<'a> {
    /// Where the guest is.
    pub source: &'a NodeId,
    /// Its kind.
    pub kind: GuestKind,
    /// Its number.
    pub guest: Vmid,
    /// Where it is to go.
    pub target: &'a NodeId,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// Taken.
    Task(Upid),
    /// Certainly not taken.
    Refused(PveError),
    /// Nobody can say.
    Unclear(PveError),
}

#[derive(Deserialize)]
struct Replication {
    #[serde(deserialize_with = "lenient::required")]
    guest: u32,
    #[serde(deserialize_with = "lenient::required")]
    target: String,
}

/// Answers for VMs use underscores, those for containers hyphens.
#[derive(Deserialize)]
struct Preconditions {
    #[serde(alias = "allowed-nodes", default)]
    allowed_nodes: Vec<String>,
    #[serde(alias = "not-allowed-nodes", default)]
    not_allowed_nodes: BTreeMap<String, Value>,
    #[serde(default)]
    local_resources: Vec<String>,
    #[serde(default)]
    local_disks: Vec<Value>,
}

impl Migrator {
    /// Does not look at the file yet.
    #[must_use]
    pub fn new(client: Arc<PveClient>, token_file: &Path) -> Self {
        Self { client, token_file: token_file.to_owned() }
    }

    /// The name of the token, as its file has it now.
    ///
    /// # Errors
    /// [`PveError::File`], [`PveError::Config`].
    pub fn token_id(&self) -> Result<String, PveError> {
        self.caller().map(|caller| caller.token_id)
    }

    fn caller(&self) -> Result<Caller, PveError> {
        let broken = |problem: &str| PveError::Config { option: "token_file", problem: problem.to_owned() };
        if self.token_file.as_os_str().is_empty() {
            return Err(broken("no file is named for the token that starts migrations"));
        }
        let (caller, _) = Caller::read("token_file", &self.token_file)?;
        if caller.token_id == self.client.token_id() {
            return Err(broken("the token that starts migrations has to be another than the one that reads"));
        }
        Ok(caller)
    }

    /// What the token may do beyond migrating and looking, which it should not; empty when all is well.
    ///
    /// # Errors
    /// As [`PveClient::get`].
    pub async fn excess(&self) -> Result<Vec<String>, PveError> {
        let caller = self.caller()?;
        permissions::excess(&self.client, &caller).await
    }

    /// Why Proxmox would not move a guest there, in words; `None` when it would.
    ///
    /// # Errors
    /// As [`PveClient::get`]: the token lacks VM.Migrate, the guest is locked or has gone, nobody answers.
    pub async fn objection(&self, wanted: &Move<'_>) -> Result<Option<String>, PveError> {
        let caller = self.caller()?;
        let answer: Preconditions = self.client.get_as(&caller, &path(wanted), &[]).await?;
        if let Some(objection) = answer.objection(wanted.target) {
            return Ok(Some(objection));
        }
        let jobs: Vec<Replication> = self.client.get("/cluster/replication", &[]).await?;
        let own = jobs.iter().filter(|job| job.guest == wanted.guest.get());
        let targets: BTreeSet<&str> = own.map(|job| job.target.as_str()).collect();
        let elsewhere = !targets.is_empty() && !targets.contains(wanted.target.as_str());
        Ok(elsewhere.then(|| {
            let targets: Vec<&str> = targets.into_iter().collect();
            format!("it is replicated to {} and can only move there while it runs", targets.join(", "))
        }))
    }

    /// Asks Proxmox to start a migration of a guest that runs, as the token named, once.
    pub async fn start(&self, wanted: &Move<'_>, token_id: &str) -> Started {
        let caller = match self.caller() {
            Ok(caller) if caller.token_id == token_id => caller,
            Ok(_) => {
                let problem = "its token has changed a moment ago".to_owned();
                return Started::Refused(PveError::Config { option: "token_file", problem });
            }
            Err(error) => return Started::Refused(error),
        };
        let runs_on = match wanted.kind {
            GuestKind::Qemu => "online",
            GuestKind::Lxc => "restart",
        };
        let form = [("target", wanted.target.as_str()), (runs_on, "1")];
        let answer: Result<String, PveError> = self.client.post_once(&caller, &path(wanted), &form).await;
        match answer {
            Ok(text) => match text.parse() {
                Ok(upid) => Started::Task(upid),
                Err(_) => Started::Unclear(self.client.misunderstood(&path(wanted), "no task id came back")),
            },
            Err(error) if certain(&error) => Started::Refused(error),
            Err(error) => Started::Unclear(error),
        }
    }
}

/// Whether an error says for certain that nothing was started. Of a 500 that can not be said, however clear its words.
fn certain(error: &PveError) -> bool {
    matches!(
        error,
        PveError::Config { .. }
            | PveError::File { .. }
            | PveError::Unauthorized { .. }
            | PveError::Forbidden { .. }
            | PveError::BadRequest { .. }
            | PveError::NotImplemented { .. }
            | PveError::Tls { .. }
    )
}

fn path(wanted: &Move<'_>) -> String {
    let kind = match wanted.kind {
        GuestKind::Qemu => "qemu",
        GuestKind::Lxc => "lxc",
    };
    format!("/nodes/{}/{kind}/{}/migrate", wanted.source, wanted.guest)
}

impl Preconditions {
    fn objection(&self, target: &NodeId) -> Option<String> {
        let name = target.as_str();
        // Nodes that are allowed stand among the others too, with nothing said against them.
        let against =
            self.not_allowed_nodes.get(name).filter(|why| why.as_object().is_none_or(|o| !o.is_empty()));
        if let Some(why) = against {
            return Some(format!("{name} is not allowed: {}", super::error::plain(&why.to_string())));
        }
        if !self.allowed_nodes.iter().any(|node| node == name) {
            return Some(format!(
                "{name} is not among the nodes allowed ({})",
                self.allowed_nodes.join(", ")
            ));
        }
        if !self.local_resources.is_empty() {
            return Some(format!("it uses devices of its node: {}", self.local_resources.join(", ")));
        }
        let disk = |disk: &&Value| !lenient_flag(&disk["cdrom"]) && !lenient_flag(&disk["is_unused"]);
        let disks = self.local_disks.iter().filter(disk).count();
        (disks > 0).then(|| format!("{disks} of its disks are on storage of its node"))
    }
}

fn lenient_flag(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_u64().is_some_and(|n| n != 0) || value.as_str() == Some("1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn objection(json: &str, target: &str) -> Option<String> {
        serde_json::from_str::<Preconditions>(json).unwrap().objection(&node(target))
    }

    #[test]
    fn what_proxmox_lists_is_read_as_it_means_it() {
        let vm = r#"{"running":1,"allowed_nodes":["b"],"not_allowed_nodes":{"b":{},"c":{"unavailable_storages":["x"]}},
            "local_disks":[{"volid":"local:iso/a.iso","cdrom":1},{"volid":"l:1","is_unused":"1"}],"local_resources":[]}"#;
        assert_eq!(objection(vm, "b"), None);
        assert!(objection(vm, "c").unwrap().contains("unavailable_storages"));
        assert!(objection(vm, "d").unwrap().contains("not among the nodes allowed (b)"));
        let ct =
            r#"{"running":1,"allowed-nodes":["b"],"not-allowed-nodes":{"c":{"blocking-ha-resources":[]}}}"#;
        assert_eq!(objection(ct, "b"), None);
        assert!(objection(ct, "c").is_some());
        let gpu = r#"{"allowed_nodes":["b"],"local_resources":["hostpci0"]}"#;
        assert!(objection(gpu, "b").unwrap().contains("hostpci0"));
        let disk = r#"{"allowed_nodes":["b"],"local_disks":[{"volid":"l:1","cdrom":0}]}"#;
        assert!(objection(disk, "b").unwrap().contains("1 of its disks"));
        assert!(objection("{}", "b").is_some(), "what says nothing allows nothing");
    }
}
