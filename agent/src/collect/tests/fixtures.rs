//! What is read from the fixture trees, value by value.

use super::*;
use evenkeel_common::guest::GuestKind;
use evenkeel_common::units::Bytes;

#[test]
fn proxmox_9_with_everything_in_place() {
    let mut node = Node::new("pve9");
    let first = node.read();
    assert_eq!(first.faults, []);
    first.check(
        "load1 1.6
         mem_used 59.375
         mem_used_bytes 39845888000
         swap_used_bytes 0
         zfs_arc_bytes 8321499136
         101/guest_mem 3900000000
         205/guest_mem 210000000",
    );
    assert!(first.values.contains_key("fs_used[/]"));
    node.advance("pve9");
    let second = node.read();
    assert_eq!((second.faults.as_slice(), &second.guests), (&[][..], &None));
    second.check(
        "cpu_used 37.5
         cpu_iowait 2.5
         cpu_steal 1
         load1 1.75
         mem_used 62.5
         mem_used_bytes 41943040000
         swap_used_bytes 268435456
         zfs_arc_bytes 8589934592
         psi_cpu_some 10
         psi_mem_some 2
         psi_mem_full 1
         psi_io_some 25
         psi_io_full 15
         net_rx[eno1] 12500000
         net_tx[eno1] 2500000
         net_rx_packets[eno1] 10000
         net_tx_packets[eno1] 4000
         net_errors[eno1] 1
         net_drops[eno1] 2
         net_rx[eno2] 0
         net_tx[eno2] 0
         net_rx_packets[eno2] 0
         net_tx_packets[eno2] 0
         net_errors[eno2] 0
         net_drops[eno2] 0
         disk_read[nvme0n1] 2048000
         disk_write[nvme0n1] 10240000
         disk_util[nvme0n1] 25
         disk_await[nvme0n1] 1
         disk_read[sda] 0
         disk_write[sda] 0
         disk_util[sda] 0
         101/guest_cpu 1.5
         101/guest_mem 4030000000
         101/guest_disk_read 1024000
         101/guest_disk_write 2048000
         101/guest_net_in 3200000
         101/guest_net_out 600000
         101/guest_psi_cpu_some 5
         101/guest_psi_mem_some 0
         101/guest_psi_io_some 1.5
         205/guest_cpu 0.25
         205/guest_mem 211000000
         205/guest_disk_read 4096
         205/guest_disk_write 8192
         205/guest_net_in 10000
         205/guest_net_out 40000
         205/guest_psi_cpu_some 0.1
         205/guest_psi_mem_some 0
         205/guest_psi_io_some 0.2",
    );
}

#[test]
fn facts_of_guests_come_from_their_configuration() {
    let seen = Node::new("pve9").read();
    let vm = seen.guest(101);
    assert_eq!((vm.kind, vm.name.as_deref()), (GuestKind::Qemu, Some("web-front")));
    assert_eq!((vm.vcpus, vm.memory_max), (Some(4.0), Some(Bytes::gib(4))));
    assert_eq!(vm.tags, ["prod", "shop"]);
    assert_eq!(vm.started_at, Timestamp::from_millis(1_763_700_300_000));
    let ct = seen.guest(205);
    assert_eq!((ct.kind, ct.name.as_deref()), (GuestKind::Lxc, Some("dns")));
    // Without a limit a container sees all CPUs of its host.
    assert_eq!((ct.vcpus, ct.memory_max), (Some(4.0), Some(Bytes::mib(512))));
    assert_eq!(ct.started_at, Timestamp::from_millis(1_763_700_650_500));
}

#[test]
fn facts_of_the_node() {
    let mut node = Node::new("pve9");
    node.read();
    node.advance("pve9");
    node.read();
    let facts = node.source.facts();
    assert_eq!((facts.hostname.as_str(), facts.kernel.as_str()), ("quartz", "6.14.8-2-pve"));
    assert_eq!((facts.cpus, facts.memory), (4, Bytes(65_536_000 * 1024)));
    assert_eq!((facts.pve_version.as_str(), facts.psi), ("9.0.3", true));
    assert_eq!(facts.boot_id, "5d0c9f1e-7a43-4a8e-9c36-0b1f5f0e7d21");
    assert!(facts.blind_spots.is_empty(), "{:?}", facts.blind_spots);
}

#[test]
fn proxmox_8_falls_back_on_the_process_and_counts_layers_once() {
    let mut node = Node::new("pve8");
    let first = node.read();
    assert_eq!(first.faults, []);
    assert_eq!(first.vmids(), Some(vec![110, 111, 210]));
    // Not configured here: the command line tells.
    assert_eq!(first.guest(111).name.as_deref(), Some("build-agent"));
    assert_eq!((first.guest(111).vcpus, first.guest(111).memory_max), (Some(2.0), Some(Bytes::mib(1536))));
    // The scope's first process is another one; the container's init is its oldest.
    assert_eq!(first.guest(110).started_at, Timestamp::from_millis(1_763_000_001_000));
    assert_eq!(first.guest(210).started_at, Timestamp::from_millis(1_763_000_500_000));
    node.advance("pve8");
    let second = node.read();
    assert_eq!(second.faults, []);
    second.check(&format!(
        "cpu_used 25
         cpu_iowait 5
         cpu_steal 0
         load1 0.42
         mem_used 50
         mem_used_bytes 8388608000
         swap_used_bytes 0
         psi_cpu_some 0
         psi_mem_some 0
         psi_mem_full 0
         psi_io_some 1
         psi_io_full 0.5
         net_rx[ens18] 1000
         net_tx[ens18] 2000
         net_rx_packets[ens18] 1
         net_tx_packets[ens18] 2
         net_errors[ens18] 0
         net_drops[ens18] 0
         disk_read[sda] 204800
         disk_write[sda] 409600
         disk_util[sda] 50
         disk_await[sda] 2
         110/guest_cpu 0.1
         110/guest_mem 2000000000
         110/guest_disk_read 2000
         110/guest_disk_write 4000
         110/guest_net_in 400
         110/guest_net_out 300
         110/guest_psi_cpu_some 0
         110/guest_psi_mem_some 0
         110/guest_psi_io_some 0
         111/guest_cpu 0.01
         111/guest_mem {}
         111/guest_disk_read 2048
         111/guest_disk_write 4096
         111/guest_net_in 0
         111/guest_net_out 0
         111/guest_psi_cpu_some 0
         210/guest_cpu 0.01
         210/guest_mem 40000000
         210/guest_disk_read 100
         210/guest_disk_write 200
         210/guest_net_in 5
         210/guest_net_out 0",
        101_000 * rustix::param::page_size(),
    ));
}

#[test]
fn without_pressure_controllers_and_proxmox_the_rest_still_works() {
    let mut node = Node::new("no-psi");
    let first = node.read();
    assert_eq!((first.faults.as_slice(), first.vmids()), (&[][..], Some(vec![120])));
    assert_eq!(first.guest(120).name.as_deref(), Some("vm120"));
    assert_eq!(first.guest(120).started_at, Timestamp::from_millis(1_763_500_040_000));
    node.advance("no-psi");
    let second = node.read();
    assert_eq!(second.faults, []);
    // No value for what eth0 received: that counter was reset.
    second.check(&format!(
        "cpu_used 50
         cpu_iowait 0
         cpu_steal 0
         load1 0
         mem_used 50
         mem_used_bytes 2097152000
         swap_used_bytes 0
         net_tx[eth0] 1000
         net_rx_packets[eth0] 0
         net_tx_packets[eth0] 1
         net_errors[eth0] 0
         net_drops[eth0] 0
         disk_read[vda] 0
         disk_write[vda] 0
         disk_util[vda] 0
         120/guest_cpu 0.8
         120/guest_mem {}",
        100_000 * rustix::param::page_size(),
    ));
    let facts = node.source.facts();
    assert!(!facts.psi && facts.pve_version.is_empty());
    let has = |text: &str| facts.blind_spots.iter().any(|spot| spot.contains(text));
    assert!(has("psi=1") && has("/etc/pve") && has("guests 120"), "{:?}", facts.blind_spots);
    assert_eq!(facts.blind_spots.len(), 3);
}

#[test]
fn a_tree_without_cgroups_and_processes_says_what_is_not_seen() {
    let mut node = Node::new("no-psi");
    node.remove("proc/mounts");
    node.remove("proc/1");
    let seen = node.read();
    assert_eq!(seen.vmids(), Some(vec![]));
    let spots = node.source.facts().blind_spots.join("\n");
    assert!(spots.contains("unified_cgroup_hierarchy") && spots.contains("hidepid"), "{spots}");
}
