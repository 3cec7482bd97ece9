//! `rrddata`: a point per step, newest last. The fake has one figure per subject and repeats it, but for the CPU of
//! guests that a test has given a past.

use evenkeel_common::time::Timestamp;
use serde_json::{Value, json};

use super::api::Context;
use super::cluster::{FakeGuest, FakeNode, PveVersion};
use super::render::Put;

/// Step in seconds and number of points; Proxmox 9 keeps finer ones than 8.
fn steps(version: PveVersion, timeframe: &str) -> (i64, i64) {
    match (version, timeframe) {
        (_, "hour") => (60, 60),
        (PveVersion::V9, "day") => (60, 1440),
        (PveVersion::V9, "week") => (1800, 336),
        (PveVersion::V9, "month") => (1800, 1440),
        (PveVersion::V9, "year") => (21_600, 1460),
        (PveVersion::V9, _) => (604_800, 520),
        (PveVersion::V8, "day") => (1800, 48),
        (PveVersion::V8, "week") => (10_800, 56),
        (PveVersion::V8, "month") => (43_200, 60),
        (PveVersion::V8, _) => (604_800, 52),
    }
}

/// Points from `since` on carry figures, earlier ones only their time.
fn points(
    context: &Context<'_>,
    timeframe: &str,
    since: Timestamp,
    figures: impl Fn(i64, i64) -> Value,
) -> Value {
    let (step, count) = steps(context.cluster.version, timeframe);
    let last = context.cluster.now.as_secs() / step * step;
    let point = |back: i64| {
        let time = last - back * step;
        let mut point = if time >= since.as_secs() { figures(time, step) } else { json!({}) };
        point.put("time", json!(time));
        point
    };
    (0..count).rev().map(point).collect()
}

pub(super) fn of_node(context: &Context<'_>, node: &FakeNode, timeframe: &str) -> Value {
    let mut figures = json!({
        "cpu": node.cpu, "maxcpu": node.max_cpu, "iowait": 0.0, "loadavg": node.load[0],
        "memtotal": node.max_mem, "memused": node.mem, "swaptotal": 0, "swapused": 0,
        "roottotal": 107_374_182_400_u64, "rootused": 21_474_836_480_u64, "netin": 0.0, "netout": 0.0,
    });
    if context.cluster.version == PveVersion::V9 {
        figures.put("memavailable", json!(node.max_mem.saturating_sub(node.mem)));
        figures.put("arcsize", json!(0));
        for key in ["cpusome", "iosome", "iofull", "memorysome", "memoryfull"] {
            figures.put(&format!("pressure{key}"), json!(0.0));
        }
    }
    points(context, timeframe, node.booted_at, |_, _| figures.clone())
}

pub(super) fn of_guest(context: &Context<'_>, guest: &FakeGuest, timeframe: &str) -> Value {
    let mut figures =
        json!({ "maxcpu": guest.max_cpu, "maxmem": guest.max_mem, "maxdisk": guest.max_disk, "disk": 0 });
    if guest.runs() {
        figures.put("cpu", json!(guest.cpu));
        figures.put("mem", json!(guest.mem));
        for key in ["netin", "netout", "diskread", "diskwrite"] {
            figures.put(key, json!(0.0));
        }
        if context.cluster.version == PveVersion::V9 {
            figures.put("memhost", json!(guest.mem));
            for key in ["cpusome", "cpufull", "iosome", "iofull", "memorysome", "memoryfull"] {
                figures.put(&format!("pressure{key}"), json!(0.0));
            }
        }
    }
    let since = guest.recorded.map_or(guest.started_at, |(since, _)| since);
    points(context, timeframe, since, |time, step| {
        let mut figures = figures.clone();
        if let Some((_, cpu)) = guest.recorded.filter(|_| guest.runs()) {
            figures.put("cpu", json!(cpu(time + step / 2)));
        }
        figures
    })
}
