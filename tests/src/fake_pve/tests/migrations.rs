//! What becomes of migrations as time passes, with and without HA, well and otherwise.

use http::Method;

use super::super::recorded::ask;
use super::*;

/// 4 GiB at the usual speed.
const USUAL: Duration = Duration::from_secs(36);

fn secs(seconds: u64) -> Timestamp {
    START.after(Duration::from_secs(seconds))
}

/// The small cluster in which VM 401 has been ordered from pve1 to pve2.
fn ordered(behaviour: impl Into<Behaviour>) -> (FakeCluster, String) {
    let mut cluster = small_cluster();
    cluster.behaviours.insert(vmid(401), behaviour.into());
    let upid = cluster.order(vmid(401), &node("pve2"));
    (cluster, upid)
}

fn place(cluster: &FakeCluster) -> (&str, Option<&str>) {
    let guest = &cluster.guests[&vmid(401)];
    (guest.node.as_str(), guest.lock.as_deref())
}

fn exit<'a>(cluster: &'a FakeCluster, upid: &str) -> Option<(Timestamp, &'a str)> {
    let task = cluster.tasks.iter().find(|task| task.upid == upid).unwrap();
    task.ended.as_ref().map(|(at, text)| (*at, text.as_str()))
}

#[test]
fn a_migration_takes_as_long_as_its_memory_and_nothing_moves_unless_time_does() {
    let (mut cluster, upid) = ordered(Course::Succeeds);
    cluster.now = secs(3600);
    assert_eq!((place(&cluster), exit(&cluster, &upid)), (("pve1", Some("migrate")), None));
    cluster.now = START;
    cluster.advance(secs(35));
    assert_eq!((place(&cluster), exit(&cluster, &upid)), (("pve1", Some("migrate")), None));
    assert_eq!(cluster.take_changed(), []);
    cluster.advance(secs(3600));
    assert_eq!(place(&cluster), ("pve2", None));
    let (at, text) = exit(&cluster, &upid).unwrap();
    assert!(
        text == "OK" && at > secs(35) && at < START.after(USUAL),
        "it ended when it did, not when it was seen"
    );
    assert_eq!((cluster.guests[&vmid(401)].started_at, cluster.now), (at, secs(3600)));
    assert_eq!((cluster.take_changed(), cluster.take_changed()), (vec![vmid(401)], vec![]));
    // Faster than three seconds is none.
    cluster.migration_mb_s = 1e6;
    cluster.order(vmid(402), &node("pve3"));
    cluster.advance(secs(3602));
    assert_eq!(cluster.guests[&vmid(402)].node, node("pve2"));
    cluster.advance(secs(3603));
    assert_eq!(cluster.guests[&vmid(402)].node, node("pve3"));
}

#[test]
fn a_migration_that_fails_leaves_the_guest_free_or_locked_where_it_was() {
    let fails = || Behaviour::from(Course::FailsHalfway("migration aborted".into()));
    for (behaviour, lock) in [(fails(), None), (fails().locked(), Some("migrate"))] {
        let (mut cluster, upid) = ordered(behaviour);
        cluster.advance(secs(17));
        assert_eq!(exit(&cluster, &upid), None);
        cluster.advance(secs(18));
        assert_eq!(exit(&cluster, &upid).unwrap().1, "migration aborted");
        cluster.advance(secs(3600));
        assert_eq!((cluster.take_changed(), place(&cluster)), (vec![], ("pve1", lock)));
    }
}

#[test]
fn problems_are_told_of_a_guest_that_has_moved() {
    let problems = || Behaviour::from(Course::ProblemsButMoves).after(Duration::from_secs(5));
    for (behaviour, lock) in [(problems(), None), (problems().locked(), Some("migrate"))] {
        let (mut cluster, upid) = ordered(behaviour);
        cluster.advance(secs(5));
        assert_eq!(exit(&cluster, &upid), Some((secs(5), "migration problems")));
        assert_eq!((cluster.take_changed(), place(&cluster)), (vec![vmid(401)], ("pve2", lock)));
    }
}

#[test]
fn a_task_that_hangs_does_so_until_somebody_ends_it() {
    let (mut cluster, upid) = ordered(Course::Hangs);
    cluster.advance(secs(86_400));
    assert_eq!((place(&cluster), exit(&cluster, &upid)), (("pve1", Some("migrate")), None));
    cluster.end_task(&upid, "interrupted by signal", None);
    cluster.behaviours.clear();
    cluster.advance(secs(90_000));
    assert_eq!(place(&cluster), ("pve1", None), "it is not played on");
}

#[test]
fn a_guest_may_vanish_or_become_another_or_land_elsewhere() {
    let (mut cluster, upid) = ordered(Course::VanishesMidway);
    cluster.advance(secs(18));
    assert!(
        !cluster.guests.contains_key(&vmid(401)) && exit(&cluster, &upid).unwrap().1 == "migration aborted"
    );
    assert_eq!(cluster.take_changed(), [vmid(401)]);

    let (mut cluster, upid) = ordered(Course::Reused);
    let before = cluster.guests[&vmid(401)].clone();
    cluster.advance(secs(18));
    let after = &cluster.guests[&vmid(401)];
    assert_ne!(before.name, after.name);
    assert!(after.options["smbios1"].as_str().unwrap().starts_with("uuid=ffffffff"));
    assert!(after.options["net0"].as_str().unwrap().contains("BC:24:11:FE:"));
    assert_eq!((place(&cluster), exit(&cluster, &upid).unwrap().1), (("pve1", None), "migration aborted"));

    let (mut cluster, upid) = ordered(Course::LandsElsewhere(node("pve3")));
    cluster.advance(secs(60));
    assert_eq!((place(&cluster), exit(&cluster, &upid).unwrap().1), (("pve3", None), "OK"));
}

#[test]
fn a_target_that_goes_away_is_not_moved_to_and_a_source_that_does_ends_nothing() {
    let (mut cluster, upid) = ordered(Course::Succeeds);
    cluster.set_online(&node("pve1"), false);
    cluster.advance(secs(60));
    assert_eq!((place(&cluster), exit(&cluster, &upid)), (("pve1", Some("migrate")), None));
    cluster.set_online(&node("pve1"), true);
    cluster.set_online(&node("pve2"), false);
    cluster.advance(secs(61));
    assert_eq!(
        (place(&cluster), exit(&cluster, &upid)),
        (("pve1", None), Some((secs(60), "migration aborted")))
    );
}

#[test]
fn what_only_the_task_looks_at_fails_in_the_task() {
    let with = |key: &str, value: &str| {
        let mut cluster = small_cluster();
        cluster.guests.get_mut(&vmid(401)).unwrap().options.insert(key.into(), json!(value));
        let upid = cluster.order(vmid(401), &node("pve2"));
        assert_eq!((place(&cluster), exit(&cluster, &upid)), (("pve1", Some("migrate")), None));
        cluster.advance(secs(1));
        assert_eq!(
            (place(&cluster), exit(&cluster, &upid).unwrap().1),
            (("pve1", None), "migration aborted")
        );
        cluster.tasks[0].log.join("\n")
    };
    for (key, value) in [("hostpci0", "0000:01:00.0"), ("usb0", "host=1234:5678")] {
        let log = with(key, value);
        assert!(log.contains(&format!("can't migrate VM which uses local devices: {key}")), "{log}");
    }
    assert!(with("scsi1", "local:401/vm-401-disk-1.raw,size=8G").contains("attached local disks"));
}

#[test]
fn a_container_is_stopped_meanwhile_and_live_is_not_for_it() {
    let mut cluster = small_cluster();
    cluster.order(vmid(501), &node("pve1"));
    assert_eq!(cluster.guests[&vmid(501)].status, "stopped");
    cluster.advance(secs(10));
    let container = &cluster.guests[&vmid(501)];
    assert_eq!((container.status.as_str(), container.node.as_str()), ("running", "pve1"));
    let fails = Behaviour::from(Course::FailsHalfway("migration aborted".into()));
    cluster.behaviours.insert(vmid(501), fails);
    cluster.order(vmid(501), &node("pve2"));
    cluster.advance(secs(30));
    let container = &cluster.guests[&vmid(501)];
    assert_eq!((container.status.as_str(), container.node.as_str()), ("running", "pve1"));
}

#[tokio::test]
async fn a_container_that_is_to_move_live_fails_in_its_task() {
    let rig = Rig::small().await;
    let (token, path) = (rig.server.exec_token(), "/nodes/pve3/lxc/501/migrate?target=pve1&online=1");
    let (line, body) = ask(&rig.server, &token, Method::POST, path).await;
    let upid = body["data"].as_str().unwrap().to_owned();
    rig.change(|c| c.advance(secs(5)));
    assert_eq!(
        (line.as_str(), rig.change(|c| exit(c, &upid).unwrap().1.to_owned())),
        ("200 OK", "migration aborted".into())
    );
    let container = rig.change(|c| c.guests[&vmid(501)].clone());
    assert_eq!((container.status.as_str(), container.node.as_str()), ("running", "pve3"));
    // The log says why.
    let name = percent_encoding::utf8_percent_encode(&upid, percent_encoding::NON_ALPHANUMERIC);
    let (_, log) =
        ask(&rig.server, &token, Method::GET, &format!("/nodes/pve3/tasks/{name}/log?start=1")).await;
    let why = "ERROR: migration aborted (duration 00:00:00): lxc live migration is currently not implemented";
    assert_eq!(
        log,
        json!({ "data": [{ "n": 2, "t": why }, { "n": 3, "t": "TASK ERROR: migration aborted" }], "total": 3 })
    );
}

/// The small cluster with VM 401 in HA, ordered to pve2 over the wire.
async fn queued(change: impl FnOnce(&mut FakeCluster)) -> (Rig, String) {
    let mut cluster = small_cluster();
    cluster.ha_resources.insert(vmid(401), FakeHaResource { state: "started".into(), group: None });
    change(&mut cluster);
    let rig = Rig::of(cluster).await;
    let path = "/nodes/pve1/qemu/401/migrate?target=pve2&online=1";
    let (line, body) = ask(&rig.server, &rig.server.exec_token(), Method::POST, path).await;
    assert_eq!(line, "200 OK");
    let upid = body["data"].as_str().unwrap().to_owned();
    (rig, upid)
}

/// What the manager says of VM 401, in every place that says it.
async fn ha_state(rig: &Rig) -> String {
    let get = async |path| ask(&rig.server, &rig.server.token(), Method::GET, path).await.1["data"].take();
    let manager = get("/cluster/ha/status/manager_status").await;
    let service = &manager["manager_status"]["service_status"]["vm:401"];
    let state = service["state"].as_str().unwrap().to_owned();
    assert_eq!(service["target"].as_str(), (state == "migrate").then_some("pve2"));
    let rows = [get("/cluster/ha/status/current").await, get("/cluster/resources?type=vm").await];
    let find = |rows: &Value, key: &str, value: &str| {
        rows.as_array().unwrap().iter().find(|row| row[key] == value).unwrap().clone()
    };
    let current = find(&rows[0], "sid", "vm:401");
    assert_eq!(
        (current["state"].as_str(), current["request_state"].as_str()),
        (Some(&*state), Some("started"))
    );
    assert_eq!(find(&rows[1], "id", "qemu/401")["hastate"], state);
    state
}

#[tokio::test]
async fn ha_queues_first_and_moves_later_by_a_task_of_its_own() {
    let (rig, request) = queued(|_| {}).await;
    assert!(request.contains(":hamigrate:401:evenkeel@pve!rw:"), "{request}");
    assert_eq!(
        (rig.change(|c| place(c).1.map(str::to_owned)), ha_state(&rig).await),
        (None, "migrate".into())
    );
    rig.change(|c| c.advance(secs(2)));
    assert_eq!(
        rig.change(|c| exit(c, &request).unwrap().1.to_owned()),
        "OK",
        "which only says that it is queued"
    );
    rig.change(|c| c.advance(secs(19)));
    assert_eq!((rig.change(|c| c.tasks.len()), ha_state(&rig).await), (1, "migrate".into()));
    rig.change(|c| c.advance(secs(20)));
    let (kind, user) = rig.change(|c| (c.tasks[1].kind.clone(), c.tasks[1].user.clone()));
    assert_eq!((kind.as_str(), user.as_str()), ("qmigrate", "root@pam"));
    rig.change(|c| assert_eq!(place(c), ("pve1", Some("migrate"))));
    rig.change(|c| c.advance(secs(60)));
    rig.change(|c| assert_eq!(place(c), ("pve2", None)));
    assert_eq!(ha_state(&rig).await, "started");
    assert_eq!(rig.change(|c| c.accepted().len()), 1, "HA's own task is nobody's order");
}

#[tokio::test]
async fn ha_forgets_without_a_word() {
    let drops: [fn(&mut FakeCluster); 3] = [
        |c| drop(c.behaviours.insert(vmid(401), Course::HaDrops.into())),
        |c| c.nodes.get_mut(&node("pve2")).unwrap().maintenance = true,
        |c| drop(c.behaviours.insert(vmid(401), Behaviour::from(Course::HaDrops).locked())),
    ];
    for change in drops {
        let (rig, request) = queued(change).await;
        assert_eq!(ha_state(&rig).await, "started", "what is dropped has never begun");
        rig.change(|c| c.advance(secs(3600)));
        rig.change(|c| {
            assert_eq!((exit(c, &request).unwrap().1, c.tasks.len(), place(c)), ("OK", 1, ("pve1", None)));
        });
    }
}

#[tokio::test]
async fn ha_refuses_in_its_task_what_is_to_be_kept_apart() {
    let apart = vec![vmid(401), vmid(402)];
    let rule = FakeRule { id: "apart".into(), guests: apart, kind: FakeRuleKind::Negative };
    let (rig, request) = queued(|c| {
        c.ha_resources.insert(vmid(402), FakeHaResource { state: "started".into(), group: None });
        c.ha_rules.push(rule);
    })
    .await;
    rig.change(|c| c.advance(secs(3600)));
    let text = "command 'ha-manager migrate vm:401 pve2' failed: exit code 2";
    rig.change(|c| assert_eq!((exit(c, &request).unwrap().1, c.tasks.len()), (text, 1)));
}

#[tokio::test]
async fn ha_finds_a_guest_that_somebody_holds_by_then_and_leaves_it() {
    let (rig, _) = queued(|_| {}).await;
    let backup = rig.change(|c| {
        c.advance(secs(10));
        c.start_backup(vmid(401), "root@pam").unwrap()
    });
    rig.change(|c| c.advance(secs(60)));
    rig.change(|c| {
        assert_eq!(
            (place(c), c.tasks[2].ended.as_ref().unwrap().1.as_str()),
            (("pve1", Some("backup")), "migration aborted")
        );
        assert_eq!((c.tasks[1].kind.as_str(), c.tasks[1].id.as_str()), ("vzdump", "401"));
        c.end_task(&backup, "OK", None);
        assert_eq!(place(c), ("pve1", None));
    });
}

#[tokio::test]
async fn a_guest_that_ha_ignores_is_moved_at_once() {
    let ignored = FakeHaResource { state: "ignored".into(), group: None };
    let (rig, upid) = queued(|c| drop(c.ha_resources.insert(vmid(401), ignored))).await;
    assert!(upid.contains(":qmigrate:"), "{upid}");
    rig.change(|c| assert_eq!(place(c), ("pve1", Some("migrate"))));
}

#[test]
fn a_backup_of_a_whole_node_names_no_guest_and_locks_none() {
    let mut cluster = small_cluster();
    let upid = cluster.start_node_backup(&node("pve1"), "root@pam");
    assert!(upid.contains(":vzdump::root@pam:") && cluster.guests.values().all(|guest| guest.lock.is_none()));
    cluster.end_task(&upid, "OK", None);
    assert_eq!(exit(&cluster, &upid), Some((START, "OK")));
}
