//! What Proxmox has recorded of a guest: `GET /nodes/{n}/{qemu|lxc}/{vmid}/rrddata`.
//!
//! A point is the mean of a step. How long a step is depends on timeframe and version: of a month Proxmox 9 keeps half
//! hours, 8 and older half days, of which no rhythm of a day can be told; they keep three hours of a week, and half
//! hours of a day. So the answer itself is asked for its step. Where there is no data a point has only its time.
//!
//! The files are by vmid and stay when a guest is destroyed: what lies before the guest's creation is another's.

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use serde::Deserialize;

use super::client::PveClient;
use super::error::PveError;
use super::lenient;

/// Longest step that is of use.
const MAX_STEP_S: i64 = 3 * 3600;
/// Most points of one answer; Proxmox has 1460.
const MAX_POINTS: usize = 10_000;

/// The mean of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RrdPoint {
    /// Start of the step.
    pub at: Timestamp,
    /// Its length in seconds, at most three hours.
    pub step_s: u32,
    /// CPU in cores.
    pub cpu_cores: Option<f64>,
    /// Memory in bytes, as the node sees it where Proxmox tells that, otherwise as the guest does.
    pub memory_bytes: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Row {
    #[serde(deserialize_with = "lenient::required")]
    time: u64,
    /// Share of `maxcpu`.
    #[serde(default, deserialize_with = "lenient::opt")]
    cpu: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    maxcpu: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    mem: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    memhost: Option<f64>,
}

/// Reads what is recorded of a guest on `node`, oldest first, without steps that have no data: of the last day by the
/// minute where that is kept, of the time before in steps of at most three hours.
///
/// # Errors
/// As [`PveClient::get`].
pub async fn of_guest(
    client: &PveClient,
    node: &NodeId,
    kind: GuestKind,
    vmid: Vmid,
) -> Result<Vec<RrdPoint>, PveError> {
    let path = format!("/nodes/{node}/{kind}/{vmid}/rrddata");
    let ask = async |timeframe| {
        let query = [("timeframe", timeframe)];
        client.get::<Vec<Row>>(&path, &query).await.map(|rows| points(&rows))
    };
    let day = ask("day").await?;
    let mut before = ask("month").await?;
    if before.is_empty() {
        before = ask("week").await?;
    }
    Ok(joined(day, before))
}

/// The rows with data, unless their step is too long.
fn points(rows: &[Row]) -> Vec<RrdPoint> {
    let times = || rows.iter().take(MAX_POINTS).filter_map(|row| i64::try_from(row.time).ok());
    let steps = times().zip(times().skip(1)).map(|(one, next)| next.saturating_sub(one));
    let Some(step) = steps.filter(|step| *step > 0).min().filter(|step| *step <= MAX_STEP_S) else {
        return Vec::new();
    };
    let sound = |value: f64| (0.0..=1e18).contains(&value).then_some(value);
    let point = |row: &Row| {
        let at = Timestamp::from_millis(i64::try_from(row.time).ok()?.checked_mul(1000)?);
        let cpu_cores = row.cpu.zip(row.maxcpu).and_then(|(share, cores)| sound(share * cores));
        let memory_bytes = row.memhost.or(row.mem).and_then(sound);
        let some = cpu_cores.is_some() || memory_bytes.is_some();
        some.then_some(RrdPoint { at, step_s: u32::try_from(step).ok()?, cpu_cores, memory_bytes })
    };
    let mut points: Vec<RrdPoint> = rows.iter().take(MAX_POINTS).filter_map(point).collect();
    points.sort_by_key(|point| point.at);
    points.dedup_by_key(|point| point.at);
    points
}

/// Fine points, and before the first of them coarse ones that end by then.
fn joined(fine: Vec<RrdPoint>, mut coarse: Vec<RrdPoint>) -> Vec<RrdPoint> {
    if let Some(first) = fine.first() {
        coarse.retain(|point| point.end() <= first.at);
    }
    coarse.extend(fine);
    coarse
}

impl RrdPoint {
    /// End of the step.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.at.after(std::time::Duration::from_secs(self.step_s.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<RrdPoint> {
        points(&serde_json::from_str::<Vec<Row>>(json).unwrap())
    }

    #[test]
    fn points_are_cores_and_bytes_and_gaps_are_left_out() {
        let points = read(
            r#"[{"time":1800},{"time":3600,"cpu":0.25,"maxcpu":4,"mem":"1e9","netin":5.5},
                {"time":5400,"cpu":null,"maxcpu":4},{"time":7200,"maxcpu":4,"mem":3,"memhost":7},
                {"time":9000,"cpu":-1,"maxcpu":4},{"time":10800,"cpu":1e300,"maxcpu":1e300}]"#,
        );
        let seen: Vec<_> =
            points.iter().map(|p| (p.at.as_secs(), p.step_s, p.cpu_cores, p.memory_bytes)).collect();
        assert_eq!(seen, [(3600, 1800, Some(1.0), Some(1e9)), (7200, 1800, None, Some(7.0))]);
    }

    #[test]
    fn half_days_are_of_no_use_and_nothing_is_nothing() {
        let data = r#","cpu":0.5,"maxcpu":2"#;
        let rows = |step: i64| {
            let rows: Vec<String> = (1..5).map(|n| format!(r#"{{"time":{}{data}}}"#, n * step)).collect();
            format!("[{}]", rows.join(","))
        };
        assert_eq!(read(&rows(43_200)), []);
        assert_eq!(read(&rows(10_800)).len(), 4);
        assert_eq!(read("[]"), []);
        assert_eq!(read(r#"[{"time":5,"cpu":1,"maxcpu":1}]"#), [], "a point alone has no length");
        assert_eq!(read(r#"[{"time":18446744073709551615},{"time":1,"cpu":1,"maxcpu":1}]"#), []);
    }

    #[test]
    fn the_fine_part_takes_the_place_of_the_coarse() {
        let coarse = read(
            r#"[{"time":0,"cpu":1,"maxcpu":1},{"time":1800,"cpu":1,"maxcpu":1},{"time":3600,"cpu":1,"maxcpu":1}]"#,
        );
        let fine = read(r#"[{"time":3000,"cpu":1,"maxcpu":1},{"time":3060,"cpu":1,"maxcpu":1}]"#);
        let times = |points: Vec<RrdPoint>| points.iter().map(|p| p.at.as_secs()).collect::<Vec<_>>();
        assert_eq!(times(joined(fine, coarse.clone())), [0, 3000, 3060]);
        assert_eq!(times(joined(vec![], coarse)), [0, 1800, 3600]);
    }
}
