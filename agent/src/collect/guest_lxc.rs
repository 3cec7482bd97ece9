//! Lxc guests: cgroups `lxc/<vmid>`; the container's own tree is `ns` below it.

use std::path::Path;

use super::file::{CollectError, Files, TABLE_LIMIT};
use super::process::{self, Process};

/// Processes that are looked at to find the oldest.
const MAX_PROCESSES: usize = 64;

/// The oldest process of the container, which is its init; `None` when the kernel does not show its
/// processes to the agent.
///
/// A container that runs systemd has it in `init.scope`; others keep init in `ns` itself.
pub(super) fn find(files: &mut Files, root: &Path, cgroup: &Path) -> Result<Option<Process>, CollectError> {
    for place in ["ns/init.scope", "ns", "."] {
        let path = cgroup.join(place).join("cgroup.procs");
        let Some(text) = files.read_once(&path, TABLE_LIMIT)? else { continue };
        let pids = process::parse_pids(text)
            .ok_or(CollectError::Format { path, expected: "a list of processes" })?;
        let mut oldest = None;
        for pid in pids.into_iter().take(MAX_PROCESSES) {
            if let Some(process) = process::find(files, root, pid)? {
                oldest = Some(oldest.map_or(process, |other: Process| other.min(process)));
            }
        }
        if oldest.is_some() {
            return Ok(oldest);
        }
    }
    Ok(None)
}
