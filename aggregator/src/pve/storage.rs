//! Storages as each node sees them. Whether one is shared decides whether a disk binds its guest to a node.

use evenkeel_common::id::NodeId;
use evenkeel_common::units::Bytes;

use super::resources::{Row, node_id};

/// A storage on a node. A shared one has a row on each node that can reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// The node.
    pub node: NodeId,
    /// Name of the storage, the part of a volume before the colon.
    pub id: String,
    /// Whether all nodes that have it see the same content.
    pub shared: bool,
    /// Whether it can be used now.
    pub available: bool,
    /// Type: dir, zfspool, rbd, nfs, lvmthin, ...
    pub kind: String,
    /// What may be kept on it: images, rootdir, iso, backup, ...
    pub content: Vec<String>,
    /// Size.
    pub size: Option<Bytes>,
    /// In use.
    pub used: Option<Bytes>,
}

impl Storage {
    pub(super) fn from_row(row: Row) -> Result<Self, String> {
        Ok(Self {
            node: node_id(row.node)?,
            id: row.storage.ok_or("a storage without name")?,
            shared: row.shared,
            available: row.status.as_deref() == Some("available"),
            kind: row.plugintype.unwrap_or_default(),
            content: row
                .content
                .unwrap_or_default()
                .split(',')
                .filter(|c| !c.is_empty())
                .map(str::to_owned)
                .collect(),
            size: row.maxdisk.map(Bytes),
            used: row.disk.map(Bytes),
        })
    }
}
