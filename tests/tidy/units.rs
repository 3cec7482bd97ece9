//! The systemd units: systemd must accept them, and the hardening must hold its mark. Skipped, and said so, where
//! systemd's tools are not installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::source::root;

const UNITS: [(&str, &str); 2] =
    [("evenkeel-agent", "/usr/bin/evenkeel-agent"), ("evenkeel-aggregator", "/usr/bin/evenkeel-aggregator")];

/// Highest exposure, in tenths, that `systemd-analyze security` may find: 1.5.
const MAX_EXPOSURE: &str = "15";

/// The unit in a directory of its own, with a program that exists in place of ours, which need not be installed.
fn copy(name: &str, program: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = dir.path().join(name);
    fs::write(&stand_in, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    let text = fs::read_to_string(root().join(format!("packaging/systemd/{name}.service"))).unwrap();
    assert!(text.contains(&format!("={program} ")), "{name}.service does not start {program}");
    let unit = dir.path().join(format!("{name}.service"));
    fs::write(&unit, text.replace(program, stand_in.to_str().unwrap())).unwrap();
    (dir, unit)
}

#[allow(clippy::print_stderr)] // What was skipped is said.
fn analyze(arguments: &[&str], unit: &std::path::Path) -> Option<(bool, String)> {
    let Ok(output) = Command::new("systemd-analyze").args(arguments).arg(unit).output() else {
        eprintln!("skipped: systemd-analyze is not installed (apt-get install systemd)");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn systemd_accepts_the_units() {
    for (name, program) in UNITS {
        let (_dir, unit) = copy(name, program);
        let Some((ok, said)) = analyze(&["verify", "--man=no"], &unit) else { return };
        let complaints: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(ok && complaints.is_empty(), "{name}.service: {said}");
    }
}

#[test]
fn the_units_are_hardened() {
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    for (name, program) in UNITS {
        let (_dir, unit) = copy(name, program);
        let Some((ok, said)) = analyze(&["security", "--offline=true", "--no-pager", &threshold], &unit)
        else {
            return;
        };
        assert!(ok, "{name}.service is exposed above {MAX_EXPOSURE} tenths:\n{said}");
    }
}
