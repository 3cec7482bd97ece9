//! What Proxmox has recorded of a guest, at the resolutions of both versions, and what it may answer instead.

use evenkeel_aggregator::pve::rrd::{self, RrdPoint};

use super::*;

async fn of(rig: &Rig, kind: GuestKind, number: u32, on: &str) -> Result<Vec<RrdPoint>, PveError> {
    rrd::of_guest(&rig.client(), &node(on), kind, vmid(number)).await
}

/// Steps in seconds, from the oldest on, and how many points of each.
fn steps(points: &[RrdPoint]) -> Vec<(u32, usize)> {
    let runs = points.chunk_by(|one, other| one.step_s == other.step_s);
    runs.map(|run| (run[0].step_s, run.len())).collect()
}

fn recorded(version: PveVersion, days: u64) -> FakeCluster {
    let mut cluster = small_cluster();
    cluster.version = version;
    cluster.now = START;
    let guest = cluster.guests.get_mut(&vmid(401)).unwrap();
    guest.recorded = Some((START.before(Duration::from_hours(24 * days)), |_| 0.25));
    cluster
}

#[tokio::test]
async fn the_finest_that_each_version_keeps_is_read_and_empty_points_are_left_out() {
    for (version, expected) in [
        (PveVersion::V9, vec![(1800, 29 * 48), (60, 1440)]),
        (PveVersion::V8, vec![(10_800, 48), (1800, 48)]),
    ] {
        let rig = Rig::of(recorded(version, 40)).await;
        let points = of(&rig, GuestKind::Qemu, 401, "pve1").await.unwrap();
        let found = steps(&points);
        assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [expected[0].0, expected[1].0]);
        assert!(found.iter().zip(&expected).all(|((_, n), (_, m))| n.abs_diff(*m) <= 2), "{found:?}");
        assert!(points.windows(2).all(|pair| pair[0].end() <= pair[1].at));
        assert!(
            points.iter().all(|p| p.cpu_cores == Some(0.5) && p.memory_bytes == Some(2e9 * 1.073_741_824))
        );
        // An hour only.
        rig.change(|c| {
            c.guests.get_mut(&vmid(401)).unwrap().recorded =
                Some((START.before(Duration::from_hours(1)), |_| 0.1))
        });
        let points = of(&rig, GuestKind::Qemu, 401, "pve1").await.unwrap();
        assert!(points.first().is_some_and(|p| p.at >= START.before(Duration::from_hours(3))), "{version:?}");
        assert!(!points.is_empty() && points.len() <= 61);
    }
}

#[tokio::test]
async fn each_refusal_is_an_error_of_its_own() {
    let rig = Rig::of(recorded(PveVersion::V9, 40)).await;
    let error = of(&rig, GuestKind::Qemu, 401, "pve2").await.unwrap_err();
    assert_eq!(error.cause(), "not_found", "it has moved: {error}");
    for (fault, cause) in [
        (Fault::Forbidden("Permission check failed (/vms/401, VM.Audit)".into()), "forbidden"),
        (Fault::NodeUnreachable, "node_unreachable"),
        (Fault::Internal("no such file".into()), "refused"),
        (Fault::InvalidJson, "decode"),
        (Fault::Unauthorized, "unauthorized"),
    ] {
        rig.change(|c| {
            c.heal();
            c.fail("/nodes/pve1/qemu/401/rrddata", fault.clone());
        });
        let error = of(&rig, GuestKind::Qemu, 401, "pve1").await.unwrap_err();
        assert_eq!(error.cause(), cause, "{fault:?}: {error}");
    }
    rig.change(|c| {
        c.heal();
        c.fail("/nodes/pve1/qemu/401/rrddata", Fault::EmptyList);
    });
    assert_eq!(of(&rig, GuestKind::Qemu, 401, "pve1").await.unwrap(), []);
}

#[tokio::test]
async fn local_time_is_asked_for_now_and_then_and_what_was_known_stands() {
    let rig = Rig::small().await;
    let mut reader = rig.reader();
    let minutes = |minutes| START.after(Duration::from_mins(minutes));
    assert_eq!(reader.fetch(START).await.unwrap().utc_offset_s, 3600);
    rig.change(|c| c.utc_offset_s = 7200);
    assert_eq!(reader.fetch(minutes(14)).await.unwrap().utc_offset_s, 3600, "not asked again yet");
    assert_eq!(reader.fetch(minutes(15)).await.unwrap().utc_offset_s, 7200);
    assert_eq!(rig.asked("/nodes/pve1/time"), 2);
    rig.change(|c| c.fail("/nodes/pve1/time", Fault::Internal("no clock".into())));
    let later = reader.fetch(minutes(30)).await.unwrap();
    assert_eq!((later.utc_offset_s, later.warnings.as_slice()), (7200, &[][..]));
    let unknown = rig.fetch().await.unwrap();
    assert_eq!(unknown.utc_offset_s, 0);
    assert!(matches!(unknown.warnings.as_slice(), [Warning::LocalTime { .. }]), "{:?}", unknown.warnings);
}
