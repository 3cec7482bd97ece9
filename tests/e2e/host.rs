//! What a stranger sees on a real machine: the lab behind `cargo up`, then evenkeelctl. A real agent on a real host, a
//! real QEMU process as a guest, a real load. Runs alone (`tests/run host`), since other work on the machine is load too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

const SCOPE: &str = "/sys/fs/cgroup/unified/qemu.slice/190.scope";
const PID_FILE: &str = "/var/run/qemu-server/190.pid";
/// Percent of CPU from which on the machine is too busy for a load of ours to tell anything.
const TOO_BUSY: f64 = 35.0;

/// Ends what it holds, however the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Lab {
    ctl: PathBuf,
    config: PathBuf,
    _process: Running,
}

impl Lab {
    fn start(dir: &Path) -> Self {
        let lab = Path::new(env!("CARGO_BIN_EXE_lab"));
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--quiet", "--package", "evenkeel-cli"]);
        assert!(build.status().unwrap().success(), "evenkeelctl does not build");
        let mut command = Command::new(lab);
        command.args(["--port", "0", "--for", "15m", "--data"]).arg(dir);
        let process = Running(command.env_remove("CARGO").stdout(Stdio::null()).spawn().unwrap());
        let ctl = lab.with_file_name("evenkeelctl");
        Self { ctl, config: dir.join("ctl.toml"), _process: process }
    }

    /// The answer to a question, as JSON; `None` while there is none.
    fn ask(&self, question: &[&str]) -> Option<Value> {
        let mut command = Command::new(&self.ctl);
        command.arg("--config").arg(&self.config).args(["--output", "json"]).args(question);
        let output = command.output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Asks once a second until `good` finds what it looks for.
    fn until<T>(&self, what: &str, seconds: u32, question: &[&str], good: impl Fn(&Value) -> Option<T>) -> T {
        for _ in 0..seconds {
            if let Some(found) = self.ask(question).as_ref().and_then(&good) {
                return found;
            }
            sleep(Duration::from_secs(1));
        }
        panic!("{what}: not within {seconds} s; last answer {:?}", self.ask(question))
    }

    fn local_cpu_anomalies(&self) -> Vec<Value> {
        let all = self.ask(&["--cluster", "local", "anomalies", "--since", "1h"]).unwrap();
        let all = all["anomalies"].as_array().unwrap().clone();
        all.into_iter().filter(|a| a["metric"] == "cpu_used").collect()
    }
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Busy and total CPU time so far, in ticks, by the definition of the metric `cpu_used`.
fn cpu_times() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().next().unwrap();
    let times: Vec<f64> = line.split_whitespace().skip(1).take(8).map(|t| t.parse().unwrap()).collect();
    let total: f64 = times.iter().sum();
    (total - times[3] - times[4], total)
}

fn cpu_percent(during: Duration) -> f64 {
    let (busy, total) = cpu_times();
    sleep(during);
    let (busy_after, total_after) = cpu_times();
    100.0 * (busy_after - busy) / (total_after - total)
}

fn process_cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A QEMU process as Proxmox starts one, that keeps its one CPU busy: its boot sector jumps to itself.
fn start_guest(dir: &Path) -> Option<Running> {
    let image = dir.join("busy.img");
    let mut sector = vec![0u8; 512];
    sector[..2].copy_from_slice(&[0xEB, 0xFE]);
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    fs::write(&image, sector).unwrap();
    fs::create_dir_all(Path::new(PID_FILE).parent().unwrap()).ok()?;
    fs::create_dir_all(SCOPE).ok()?;
    let drive = format!("file={},format=raw,if=ide", image.display());
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-name", "guest=vm190,debug-threads=on", "-pidfile", PID_FILE, "-accel", "tcg"]);
    command.args(["-smp", "1", "-m", "64", "-display", "none", "-monitor", "none", "-serial", "none"]);
    command.args(["-nic", "none", "-drive", &drive]);
    let guest = Running(command.spawn().ok()?);
    fs::write(Path::new(SCOPE).join("cgroup.procs"), guest.0.id().to_string()).ok()?;
    Some(guest)
}

#[test]
#[ignore = "takes six minutes and wants the machine for itself: tests/run host"]
fn a_real_host_is_seen_as_it_is() {
    for program in ["qemu-system-x86_64", "stress-ng"] {
        if !has(program) {
            println!("SKIPPED: {program} is not installed; tests/run installs it where it may");
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let online = |answer: &Value| {
        let nodes = answer["nodes"].as_array()?;
        let count = |c| nodes.iter().filter(|n| n["cluster"] == c && n["status"] == "online").count();
        (count("lab") == 8 && count("local") == 1).then_some(())
    };
    lab.until("nine nodes online", 60, &["nodes"], online);
    cpu_is_told_right(&lab);
    a_load_opens_one_anomaly_and_closes_it(&lab);
    a_qemu_process_is_a_guest(&lab, dir.path());
}

fn cpu_is_told_right(lab: &Lab) {
    sleep(Duration::from_secs(2));
    let real = cpu_percent(Duration::from_secs(60));
    let nodes = lab.ask(&["--cluster", "local", "nodes"]).unwrap();
    let told = nodes["nodes"][0]["cpu_percent"].as_f64().unwrap();
    println!("CPU of this host over a minute: /proc/stat {real:.1} %, evenkeel {told:.1} %");
    assert!((real - told).abs() <= 3.0, "/proc/stat says {real:.1} %, evenkeel {told:.1} %");
}

fn a_load_opens_one_anomaly_and_closes_it(lab: &Lab) {
    let before = cpu_percent(Duration::from_secs(60));
    let earlier = lab.local_cpu_anomalies();
    if before > TOO_BUSY || !earlier.is_empty() {
        println!(
            "SKIPPED: the machine is {before:.0} % busy with other work, so a load of ours tells nothing"
        );
        return;
    }
    let cpus = std::thread::available_parallelism().unwrap().to_string();
    let mut load = Command::new("stress-ng");
    load.args(["--cpu", &cpus, "--timeout", "60", "--quiet"]);
    assert!(load.status().unwrap().success());
    let closed = |answer: &Value| {
        let anomalies = answer["anomalies"].as_array()?;
        anomalies.iter().find(|a| a["metric"] == "cpu_used" && a["state"] == "closed").cloned()
    };
    let question = ["--cluster", "local", "anomalies", "--since", "1h"];
    let anomaly = lab.until("the load's anomaly closed", 90, &question, closed);
    println!("stress-ng: {} {}", anomaly["id"], anomaly["severity"]);
    let all = lab.local_cpu_anomalies();
    assert_eq!(all.len(), 1, "one load is one anomaly: {all:?}");
    assert!(["warning", "critical"].contains(&anomaly["severity"].as_str().unwrap()), "{anomaly}");
}

fn a_qemu_process_is_a_guest(lab: &Lab, dir: &Path) {
    let Some(guest) = start_guest(dir) else {
        println!("SKIPPED: no cgroup or pid file for a guest can be made here");
        return;
    };
    let question = ["--cluster", "local", "guests", "190"];
    let cores = |answer: &Value| answer["guests"][0]["cpu_cores"].as_f64();
    lab.until("the guest", 20, &question, cores);
    let used = process_cpu(guest.0.id());
    sleep(Duration::from_secs(60));
    let real = (process_cpu(guest.0.id()) - used) / 60.0;
    let told = lab.ask(&question).as_ref().and_then(cores).unwrap();
    println!("CPU of the guest over a minute: /proc {real:.2} cores, evenkeel {told:.2} cores");
    assert!((real - told).abs() <= 0.1, "/proc says {real:.2} cores, evenkeel {told:.2}");
    drop(guest);
    let _ = fs::remove_file(PID_FILE);
    let gone = |answer: &Value| answer["guests"].as_array()?.is_empty().then_some(());
    lab.until("the guest gone", 30, &["--cluster", "local", "guests"], gone);
    let _ = fs::remove_dir(SCOPE);
}
