//! API tokens and what they may.

use std::collections::{BTreeMap, BTreeSet};

/// All privileges that reading needs.
pub const AUDIT: &str = "VM.Audit Sys.Audit Datastore.Audit Pool.Audit";

/// An API token with its privileges by path. A deeper path replaces what a higher one gives.
#[derive(Clone, Debug)]
pub struct FakeToken {
    /// `user@realm!tokenid`.
    pub id: String,
    /// Its value.
    pub secret: String,
    /// Privileges.
    pub acl: BTreeMap<String, BTreeSet<String>>,
}

impl FakeToken {
    /// A token with no privilege.
    #[must_use]
    pub fn new(id: &str, secret: &str) -> Self {
        Self { id: id.into(), secret: secret.into(), acl: BTreeMap::new() }
    }

    /// With these privileges (separated by blanks) on `path`.
    #[must_use]
    pub fn with(mut self, path: &str, privileges: &str) -> Self {
        self.acl.insert(path.into(), privileges.split(' ').map(str::to_owned).collect());
        self
    }

    /// Takes a privilege away everywhere, as when somebody edits the role.
    pub fn revoke(&mut self, privilege: &str) {
        for granted in self.acl.values_mut() {
            granted.remove(privilege);
        }
    }

    /// Privileges on `path`: those of the deepest path that has any.
    #[must_use]
    pub fn on(&self, path: &str) -> BTreeSet<String> {
        let mut path = path;
        loop {
            if let Some(found) = self.acl.get(if path.is_empty() { "/" } else { path }) {
                return found.clone();
            }
            match path.rfind('/') {
                Some(end) if !path.is_empty() && path != "/" => path = &path[..end],
                _ => return BTreeSet::new(),
            }
        }
    }
}
