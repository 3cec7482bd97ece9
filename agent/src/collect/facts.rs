//! What the node is, and what the agent can not see on it.

use std::io::ErrorKind;
use std::path::Path;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::node::NodeFacts;
use evenkeel_common::units::Bytes;

use super::cpu;
use super::file::{Files, RECORD_LIMIT, TABLE_LIMIT};
use super::guest_life::config_folder;
use super::guests::Guests;
use super::memory;
use super::net;
use super::parse::{lines, shown};

/// Longest name or version kept, in characters.
const MAX_TEXT: usize = 128;
/// Guests named in a sentence; more are counted.
const NAMED_GUESTS: usize = 5;

/// Reads the facts. Nothing here fails: what can not be read is empty or zero.
pub(super) fn read(root: &Path, files: &mut Files, guests: &mut Guests) -> NodeFacts {
    let mut kernel = |name: &str| text(files, &root.join("proc/sys/kernel").join(name));
    let (hostname, release, boot_id) = (kernel("hostname"), kernel("osrelease"), kernel("random/boot_id"));
    let stat = files.read_once(&root.join("proc/stat"), TABLE_LIMIT).ok().flatten();
    let cpus = stat.map_or(0, cpu::count);
    let meminfo = files.read_once(&root.join("proc/meminfo"), RECORD_LIMIT).ok().flatten();
    let memory = meminfo.and_then(memory::parse).map_or(0, |memory| memory.total);
    NodeFacts {
        hostname,
        cpus,
        memory: Bytes(memory),
        kernel: release,
        pve_version: pve_version(root, files),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id,
        psi: has_psi(root, files),
        link_mbps: net::speed(root, files),
        blind_spots: blind_spots(root, files, guests),
    }
}

fn text(files: &mut Files, path: &Path) -> String {
    files.read_once(path, RECORD_LIMIT).ok().flatten().map_or_else(String::new, |text| shown(text, MAX_TEXT))
}

fn has_psi(root: &Path, files: &mut Files) -> bool {
    files.read_once(&root.join("proc/pressure/cpu"), RECORD_LIMIT).is_ok_and(|text| text.is_some())
}

/// The version of `pve-manager`, from a small Perl module that its package generates: a kilobyte, where the
/// database of dpkg would be megabytes.
fn pve_version(root: &Path, files: &mut Files) -> String {
    let module = files.read_once(&root.join("usr/share/perl5/PVE/pvecfg.pm"), RECORD_LIMIT).ok().flatten();
    module.and_then(parse_pve_version).unwrap_or_default()
}

/// The first text in quotes after `sub version`.
fn parse_pve_version(module: &[u8]) -> Option<String> {
    const HEAD: &[u8] = b"sub version";
    let start = module.windows(HEAD.len()).position(|part| part == HEAD)? + HEAD.len();
    let body = module[start..].split(|&byte| byte == b'}').next()?;
    let mut quoted = body.split(|byte| matches!(byte, b'\'' | b'"')).skip(1);
    let version = shown(quoted.next()?, MAX_TEXT);
    quoted.next()?; // the closing quote was there
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(version)
}

/// A sentence, with the remedy, for each thing that is not seen.
fn blind_spots(root: &Path, files: &mut Files, guests: &mut Guests) -> Vec<String> {
    let mut spots = Vec::new();
    let mut spot = |is_one: bool, sentence: String| {
        if is_one {
            spots.push(sentence);
        }
    };
    spot(!has_psi(root, files), "no pressure information (PSI): boot the kernel with psi=1".into());
    spot(
        hides_processes(files, root),
        "processes of other users are hidden, so guests have no start time and no process figures: mount /proc \
         without hidepid and leave ProtectProc= out of the agent's unit"
            .into(),
    );
    spot(
        guests.cgroup_root(files).is_none(),
        "no cgroup v2 tree is mounted, so containers are not seen and virtual machines only by their pid files: \
         boot with systemd.unified_cgroup_hierarchy=1"
            .into(),
    );
    let unreadable = |kind| std::fs::read_dir(config_folder(root, kind)).err().map(|error| error.kind());
    match unreadable(GuestKind::Qemu).or(unreadable(GuestKind::Lxc)) {
        None => {}
        Some(ErrorKind::NotFound) => spot(
            true,
            "no guest configurations in /etc/pve, so no tags and names only from command lines: run the agent \
             on a Proxmox VE node and check `systemctl status pve-cluster`"
                .into(),
        ),
        Some(_) => spot(
            true,
            "can not read guest configurations in /etc/pve, so no tags and names only from command lines: add \
             the agent's user to group www-data"
                .into(),
        ),
    }
    spot(
        files.short_of_handles,
        "too few open files are allowed to keep all guests' files open, so each reading costs more CPU: set \
         LimitNOFILE=16384 in the agent's unit"
            .into(),
    );
    let without_disk: Vec<_> =
        guests.running().filter(|life| !life.has_disk).map(|life| life.facts.vmid).collect();
    if !without_disk.is_empty() {
        let mut names: Vec<_> = without_disk.iter().take(NAMED_GUESTS).map(ToString::to_string).collect();
        if without_disk.len() > NAMED_GUESTS {
            names.push(format!("{} more", without_disk.len() - NAMED_GUESTS));
        }
        spots.push(format!(
            "no disk throughput of guests {}: either they did no I/O on this node's disks (network storage), or \
             their cgroups lack io.stat: set DefaultIOAccounting=yes in /etc/systemd/system.conf and restart them",
            names.join(", ")
        ));
    }
    spots
}

/// Process 1 always exists; where it does not show, `/proc` shows only the agent's own.
fn hides_processes(files: &mut Files, root: &Path) -> bool {
    let stat = files.read_once(&root.join("proc/1/stat"), RECORD_LIMIT).ok().flatten();
    stat.and_then(lines).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_version_is_found_in_the_module() {
        let module = b"package PVE::pvecfg;\nsub package {\n    return 'pve-manager';\n}\nsub version {\n    return '9.0.3';\n}\n";
        assert_eq!(parse_pve_version(module).as_deref(), Some("9.0.3"));
        for bad in [
            "",
            "sub version {",
            "sub version { return 'x'; }",
            "sub version {}\nsub release { return '9.0'; }",
            "sub version { return '9.0",
        ] {
            assert_eq!(parse_pve_version(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = (parse_pve_version(&text), parse_pve_version(&[b"sub version", text.as_slice()].concat()));
        }
    }
}
