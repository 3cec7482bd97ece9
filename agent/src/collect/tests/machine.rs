//! The machine that runs the tests, against independent readings of it.
#![allow(clippy::print_stderr)] // A test that is skipped says so.

use super::*;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Instant;

/// Time since boot, to hundredths of a second.
fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
}

/// Ticks used and ticks in all since boot, by the machine's own `/proc/stat`.
fn cpu_ticks() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<f64> =
        text.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    let all: f64 = ticks[..8].iter().sum();
    (all - ticks[3] - ticks[4], all)
}

#[test]
fn cpu_of_this_machine_agrees_with_its_counters() {
    let mut source = NodeSource::new(CollectConfig::default());
    let mut registry = Registry::new(100_000);
    let mut read = || {
        let before = cpu_ticks();
        let reading = source.read(Timestamp::default(), uptime(), &mut registry);
        let used =
            reading.tick.values.iter().find(|(id, _)| registry.key(*id).unwrap().metric == Metric::CpuUsed);
        (before, used.map(|&(_, value)| value), cpu_ticks())
    };
    let (before_first, none, after_first) = read();
    assert_eq!(none, None);
    while cpu_ticks().1 < after_first.1 + 100.0 {
        std::hint::spin_loop();
    }
    let (before_second, used, after_second) = read();
    // Each reading lies between the two counts around it, so the share lies between these two.
    let low = (before_second.0 - after_first.0) / (after_second.1 - before_first.1);
    let high = (after_second.0 - before_first.0) / (before_second.1 - after_first.1);
    let used = used.unwrap() / 100.0;
    assert!(low - 1e-9 <= used && used <= high.min(1.0) + 1e-9, "{low} <= {used} <= {high}");
}

#[test]
fn facts_of_this_machine_agree_with_sysinfo() {
    let facts = NodeSource::new(CollectConfig::default()).facts();
    let mut system = sysinfo::System::new().unwrap();
    system.refresh_memory();
    system.refresh_cpu_usage();
    assert_eq!(facts.memory.0, system.total_memory());
    assert_eq!(facts.cpus as usize, system.cpus().len());
    assert_eq!(facts.kernel, sysinfo::System::kernel_version().unwrap());
    assert_eq!(facts.hostname, sysinfo::System::host_name().unwrap());
}

/// A cgroup of this machine with a busy process in it; both go when it is dropped.
struct Scope {
    top: PathBuf,
    dir: PathBuf,
    child: Child,
}

impl Scope {
    /// `None` where this process may not make cgroups.
    fn new(top: &Path, vmid: u32) -> Option<Self> {
        let dir = top.join(format!("qemu.slice/{vmid}.scope"));
        fs::create_dir_all(&dir).ok()?;
        let id = vmid.to_string();
        let mut busy = Command::new("sh");
        busy.arg0("/usr/bin/kvm").args(["-c", "while :; do :; done", "-id", &id, "-name", "busy"]);
        let scope = Self { top: top.to_owned(), dir, child: busy.spawn().unwrap() };
        fs::write(scope.dir.join("cgroup.procs"), scope.child.id().to_string()).ok()?;
        Some(scope)
    }

    fn cpu_us(&self) -> u64 {
        let text = fs::read_to_string(self.dir.join("cpu.stat")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
        let give_up = Instant::now() + Duration::from_secs(10);
        for dir in [self.dir.as_path(), &self.top.join("qemu.slice"), &self.top] {
            // A cgroup can be removed only when the kernel has let go of its last process.
            while fs::remove_dir(dir).is_err_and(|e| e.kind() == std::io::ErrorKind::ResourceBusy) {
                if Instant::now() > give_up {
                    return;
                }
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn a_real_cgroup_is_read_and_its_end_and_return_are_noticed() {
    let mounts = fs::read("/proc/mounts").unwrap();
    let Some(point) = super::super::filesystem::mount_point_of(&mounts, b"cgroup2") else {
        return eprintln!("skipped: no cgroup v2 is mounted here");
    };
    let point = PathBuf::from(String::from_utf8(point).unwrap());
    let top = point.join(format!("evenkeel-test-{}", std::process::id()));
    let Some(scope) = Scope::new(&top, 777) else {
        return eprintln!("skipped: this user may not make cgroups");
    };
    // This machine's processes, and in the place of its cgroups only those made here.
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join(point.strip_prefix("/").unwrap());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&top, &place).unwrap();
    std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();

    let mut source =
        NodeSource::new(CollectConfig { root: root.path().to_owned(), ..CollectConfig::default() });
    let mut registry = Registry::new(100_000);
    let mut read = |uptime: f64| {
        let reading = source.read(Timestamp::default(), Duration::from_secs_f64(uptime), &mut registry);
        let cpu =
            reading.tick.values.iter().find(|(id, _)| registry.key(*id).unwrap().metric == Metric::GuestCpu);
        (reading.guests.map(|guests| guests.len()), cpu.map(|&(_, value)| value))
    };
    let before = scope.cpu_us();
    assert_eq!(read(1.0), (Some(1), None));
    let after = scope.cpu_us();
    while scope.cpu_us() < after + 100_000 {
        std::thread::yield_now();
    }
    // As if a second had passed: then the rate is the time used, which lies between the counts around it.
    let (least, (guests, cpu)) = (scope.cpu_us() - after, read(2.0));
    let (most, cpu_us) = (scope.cpu_us() - before, cpu.unwrap() * 1e6);
    assert_eq!(guests, None);
    assert!(least as f64 <= cpu_us + 1.0 && cpu_us <= most as f64 + 1.0, "{least} <= {cpu_us} <= {most}");
    drop(scope);
    let again = Scope::new(&top, 777).unwrap();
    assert_eq!(read(3.0), (Some(1), None), "a new life has no rate yet");
    assert!(read(4.0).1.is_some());
    drop(again);
    assert_eq!(read(5.0), (Some(0), None));
}
