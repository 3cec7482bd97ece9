//! Guests that come, go, move and return.

use super::*;
use evenkeel_common::guest::GuestKind;

const SCOPE: &str = "sys/fs/cgroup/qemu.slice/101.scope";

/// A place of a cgroup that takes the old one's, as the kernel would give it: with another inode.
fn replace_scope(node: &Node, change: impl FnOnce(&Path)) {
    let (old, new) = (node.path(SCOPE), node.path("new.scope"));
    copy(&old, &new);
    change(&new);
    fs::remove_dir_all(&old).unwrap();
    fs::rename(&new, &old).unwrap();
}

fn process(node: &Node, pid: u32, start_ticks: u64, arguments: &[&str]) {
    let stat = format!("{pid} (kvm) S 1 1 1 0 -1 0 0 0 0 0 100 0 0 0 20 0 9 0 {start_ticks} 1 1\n");
    node.write(&format!("proc/{pid}/stat"), stat);
    let line: String = ["/usr/bin/kvm"].iter().chain(arguments).flat_map(|word| [*word, "\0"]).collect();
    node.write(&format!("proc/{pid}/cmdline"), line);
}

fn scope(node: &Node, vmid: u32, pid: u32) {
    let scope = format!("sys/fs/cgroup/qemu.slice/{vmid}.scope");
    node.write(&format!("{scope}/cgroup.procs"), format!("{pid}\n"));
    node.write(&format!("{scope}/cgroup.events"), "populated 1\n");
    node.write(&format!("{scope}/cpu.stat"), "usage_usec 1000000\n");
}

#[test]
fn a_guest_appears_and_vanishes() {
    let mut node = Node::new("pve9");
    assert_eq!(node.read().vmids(), Some(vec![101, 205]));
    let live = node.registry.live();
    scope(&node, 150, 4150);
    process(&node, 4150, 500_000, &["-id", "150", "-name", "fresh"]);
    let seen = node.read();
    assert_eq!(seen.vmids(), Some(vec![101, 150, 205]));
    assert_eq!(seen.guest(150).name.as_deref(), Some("fresh"));
    assert!(seen.of_guest(150).is_empty(), "no rate at first");
    node.write("sys/fs/cgroup/qemu.slice/150.scope/cpu.stat", "usage_usec 2000000\n");
    let seen = node.read();
    assert_eq!((seen.values.get("150/guest_cpu"), &seen.guests), (Some(&0.5), &None));
    node.remove("sys/fs/cgroup/qemu.slice/150.scope");
    let seen = node.read();
    assert_eq!((seen.vmids(), seen.of_guest(150)), (Some(vec![101, 205]), vec![]));
    assert_eq!(seen.faults, []);
    // Rates of the others exist since the second reading; those of the guest are given up.
    assert!(node.registry.live() > live);
    assert!((0..node.registry.issued()).all(|n| {
        let key = node.registry.key(evenkeel_common::sample::SeriesId(n as u32));
        key.is_none_or(|key| !key.to_string().starts_with("150/"))
    }));
}

#[test]
fn a_restart_begins_a_new_life_whatever_its_counters() {
    for counters_of_new_life in ["usage_usec 5\n", "usage_usec 999999999999\n"] {
        let mut node = Node::new("pve9");
        let before = node.read().guest(101).started_at;
        node.advance("pve9");
        assert!(node.read().values.contains_key("101/guest_cpu"));
        process(&node, 4199, 600_000, &["-id", "101"]);
        node.write("var/run/qemu-server/101.pid", "4199\n");
        replace_scope(&node, |scope| {
            fs::write(scope.join("cpu.stat"), counters_of_new_life).unwrap();
            fs::write(scope.join("cgroup.procs"), "4199\n").unwrap();
        });
        node.remove("proc/4101");
        let seen = node.read();
        assert!(seen.guest(101).started_at > before);
        assert_eq!(seen.of_guest(101), ["guest_mem"], "no rate may span two lives");
        let seen = node.read();
        assert_eq!((seen.values.get("101/guest_cpu"), &seen.guests), (Some(&0.0), &None));
    }
}

#[test]
fn another_process_in_the_same_scope_is_found_within_a_while() {
    let mut node = Node::new("pve9");
    let before = node.read().guest(101).started_at;
    process(&node, 4199, 600_000, &["-id", "101"]);
    node.write("var/run/qemu-server/101.pid", "4199\n");
    node.remove("proc/4101");
    let seen = node.read_after(Duration::from_secs(20));
    assert!(seen.guest(101).started_at > before);
    assert!(!seen.values.contains_key("101/guest_cpu"));
}

#[test]
fn a_vmid_used_again_for_a_container_is_another_guest() {
    let mut node = Node::new("pve9");
    node.read();
    fs::rename(node.path(SCOPE), node.path("sys/fs/cgroup/lxc/101")).unwrap();
    let seen = node.read();
    assert_eq!(seen.guest(101).kind, GuestKind::Lxc);
    assert!(!seen.values.contains_key("101/guest_cpu"));
    assert_eq!(seen.vmids(), Some(vec![101, 205]));
}

#[test]
fn a_migration_counts_from_the_moment_it_has_arrived() {
    let mut node = Node::new("pve9");
    node.read();
    scope(&node, 160, 4160);
    process(&node, 4160, 500_000, &["-id", "160", "-name", "roamer", "-incoming", "unix:/run/x"]);
    let seen = node.read();
    assert_eq!((&seen.guests, seen.of_guest(160)), (&None, vec![]));
    node.write("etc/pve/qemu-server/160.conf", "name: roamer\ncores: 2\n");
    let seen = node.read();
    assert_eq!(seen.vmids(), Some(vec![101, 160, 205]));
    assert_eq!(seen.guest(160).vcpus, Some(2.0));
}

#[test]
fn a_guest_that_leaves_keeps_its_facts_until_it_is_gone() {
    let mut node = Node::new("pve9");
    node.read();
    node.remove("etc/pve/qemu-server/101.conf");
    assert_eq!(node.read_after(Duration::from_secs(30)).guests, None);
    node.write(&format!("{SCOPE}/cgroup.events"), "populated 0\nfrozen 0\n");
    let seen = node.read();
    assert_eq!((seen.vmids(), seen.of_guest(101)), (Some(vec![205]), vec![]));
    node.remove(SCOPE);
    assert_eq!(node.read().guests, None);
}

#[test]
fn a_changed_configuration_changes_the_facts() {
    let mut node = Node::new("pve9");
    node.read();
    node.write("etc/pve/qemu-server/101.conf", "name: renamed\ncores: 8\nmemory: 8192\n");
    let seen = node.read_after(Duration::from_secs(20));
    assert_eq!((seen.guest(101).name.as_deref(), seen.guest(101).vcpus), (Some("renamed"), Some(8.0)));
    node.write("etc/pve/qemu-server/101.conf", "name: renamed\ncores: eight\n");
    for _ in 0..2 {
        let seen = node.read_after(Duration::from_secs(20));
        assert_eq!(seen.faults.len(), 1, "told while it lasts");
        assert!(seen.faults[0].collector == "guest_config" && seen.faults[0].message.contains("cores"));
    }
}

#[test]
fn a_guest_outside_the_slice_is_found_by_its_pid_file() {
    let mut node = Node::new("no-psi");
    node.remove("sys/fs/cgroup/unified/qemu.slice");
    node.write("var/run/qemu-server/120.pid", "3120\n");
    node.write("var/run/qemu-server/121.pid", "3121\n"); // left over from a guest that was killed
    assert_eq!(node.read().vmids(), Some(vec![120]));
    node.advance("no-psi");
    let seen = node.read();
    assert_eq!(seen.values.get("120/guest_cpu"), Some(&0.8));
    node.write("proc/3120/stat", "3120 (kvm) S 1 1 1 0 -1 0 0 0 0 0 900 0 0 0 20 0 9 0 999999 1 1\n");
    let seen = node.read();
    assert_eq!((seen.vmids(), seen.of_guest(120)), (Some(vec![]), vec![]), "another process has its pid now");
}

#[test]
fn a_scope_that_joins_later_takes_over_from_the_pid_file() {
    let mut node = Node::new("no-psi");
    fs::rename(node.path("sys/fs/cgroup/unified/qemu.slice"), node.path("aside")).unwrap();
    node.write("var/run/qemu-server/120.pid", "3120\n");
    assert_eq!(node.read().vmids(), Some(vec![120]));
    fs::rename(node.path("aside"), node.path("sys/fs/cgroup/unified/qemu.slice")).unwrap();
    node.write("sys/fs/cgroup/unified/qemu.slice/120.scope/cpu.stat", "usage_usec 500000\n");
    assert_eq!(node.read().vmids(), Some(vec![120]));
    node.write("sys/fs/cgroup/unified/qemu.slice/120.scope/cpu.stat", "usage_usec 2500000\n");
    let seen = node.read_after(Duration::from_secs(20));
    assert_eq!((seen.values.get("120/guest_cpu"), &seen.guests), (Some(&0.1), &None));
}

#[test]
fn a_guest_is_not_gone_because_the_slice_can_not_be_listed() {
    let mut node = Node::new("pve9");
    node.read();
    node.remove("sys/fs/cgroup/qemu.slice");
    node.write("sys/fs/cgroup/qemu.slice", "not a directory");
    let seen = node.read();
    assert_eq!(seen.faults.len(), 1);
    assert_eq!(seen.faults[0].collector, "guest_qemu");
}

#[test]
fn guests_nics_and_disks_beyond_the_limits_are_not_watched_and_that_is_said() {
    let config = CollectConfig {
        max_guests: 1,
        max_nics: 1,
        max_disks: 1,
        max_filesystems: 0,
        ..CollectConfig::default()
    };
    let mut node = Node::with("pve9", config);
    for round in 0..3 {
        let seen = node.read();
        let mut blamed: Vec<_> = seen.faults.iter().map(|fault| fault.collector).collect();
        blamed.sort_unstable();
        assert_eq!(blamed, ["disk", "filesystem", "guest_lxc", "net"], "round {round}");
        assert_eq!(seen.vmids(), (round == 0).then(|| vec![101]));
        assert!(!seen.values.keys().any(|key| key.contains("[eno2]") || key.contains("[sda]")));
    }
    // A place becomes free.
    node.remove(SCOPE);
    node.read();
    assert_eq!(node.read().vmids(), Some(vec![205]));
}

#[test]
fn a_reading_that_failed_leaves_a_gap_not_a_double_rate() {
    let mut node = Node::new("pve9");
    node.read();
    node.write("proc/net/dev", "cut o");
    node.write(&format!("{SCOPE}/cpu.stat"), "usage_usec 88");
    let seen = node.read();
    let blamed: Vec<_> = seen.faults.iter().map(|fault| fault.collector).collect();
    assert_eq!(blamed, ["net", "guest_qemu"]);
    node.advance("pve9");
    let seen = node.read();
    assert_eq!(seen.faults, []);
    assert!(!seen.values.keys().any(|key| key.starts_with("net_") || key.contains("guest_net")));
    assert!(!seen.values.contains_key("101/guest_cpu"));
    let seen = node.read();
    assert_eq!((seen.values.get("101/guest_cpu"), seen.values.get("net_rx[eno1]")), (Some(&0.0), Some(&0.0)));
}

#[test]
fn a_device_that_is_pulled_gives_up_its_series() {
    let mut node = Node::new("pve9");
    node.read();
    node.advance("pve9");
    node.read();
    let live = node.registry.live();
    let without = |path: &str, name: &str| {
        let text = fs::read_to_string(node.path(path)).unwrap();
        let kept: String =
            text.lines().filter(|line| !line.contains(name)).flat_map(|line| [line, "\n"]).collect();
        node.write(path, kept);
    };
    without("proc/net/dev", "eno2:");
    without("proc/diskstats", " sda ");
    let seen = node.read();
    assert_eq!(seen.faults, []);
    assert!(!seen.values.keys().any(|key| key.contains("[eno2]") || key.contains("[sda]")));
    assert_eq!(node.registry.live(), live - 6 - 3); // the disk did nothing, so it never had an await
}
