//! Cost of one reading of a node with 0, 10, 100 and 500 guests, from a generated tree.
//!
//! The tree holds plain files: this is the agent's own work and its system calls. What the kernel adds for
//! writing the contents of a real cgroup's files is not in it.

#![allow(clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use evenkeel_agent::collect::source::{Registry, Source};
use evenkeel_agent::collect::{CollectConfig, NodeSource};
use evenkeel_common::time::Timestamp;

fn write(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
    fs::write(path, text).expect("a file");
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the fixture tree").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("a folder");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

/// The Proxmox VE 9 fixture's host with so many virtual machines, each with a NIC behind a firewall bridge.
fn tree(guests: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (root, fixture) = (dir.path(), Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pve9/t0"));
    copy(&fixture, root);
    fs::remove_dir_all(root.join("sys/fs/cgroup/lxc")).expect("the container");
    let model = fixture.join("sys/fs/cgroup/qemu.slice/101.scope");
    let mut net = fs::read_to_string(fixture.join("proc/net/dev")).expect("the NICs");
    fs::remove_dir_all(root.join("sys/fs/cgroup/qemu.slice")).expect("the virtual machine");
    for vmid in 1000..1000 + guests {
        let (scope, pid) = (root.join(format!("sys/fs/cgroup/qemu.slice/{vmid}.scope")), vmid + 10_000);
        fs::create_dir_all(&scope).expect("a scope");
        copy(&model, &scope);
        write(root, &format!("sys/fs/cgroup/qemu.slice/{vmid}.scope/cgroup.procs"), format!("{pid}\n"));
        let stat = format!("{pid} (kvm) S 1 1 1 0 -1 0 0 0 0 0 1 0 0 0 20 0 9 0 100 1 1\n");
        write(root, &format!("proc/{pid}/stat"), stat);
        write(root, &format!("proc/{pid}/cmdline"), format!("kvm\0-id\0{vmid}\0"));
        write(root, &format!("etc/pve/qemu-server/{vmid}.conf"), format!("name: vm{vmid}\ncores: 2\n"));
        for name in [
            format!("tap{vmid}i0"),
            format!("fwbr{vmid}i0"),
            format!("fwpr{vmid}p0"),
            format!("fwln{vmid}i0"),
        ] {
            net.push_str(&format!(
                "{name:>10}: 123456789 1234567 0 0 0 0 0 0 987654321 7654321 0 0 0 0 0 0\n"
            ));
        }
    }
    write(root, "proc/net/dev", net);
    dir
}

fn tick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick");
    for guests in [0, 10, 100, 500] {
        let dir = tree(guests);
        let config = CollectConfig { root: dir.path().to_owned(), ..CollectConfig::default() };
        let (mut source, mut registry) = (NodeSource::new(config), Registry::new(100_000));
        let mut uptime = Duration::ZERO;
        group.bench_function(BenchmarkId::from_parameter(guests), |bencher| {
            bencher.iter(|| {
                uptime += Duration::from_secs(1);
                source.read(Timestamp::default(), uptime, &mut registry)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tick);
criterion_main!(benches);
