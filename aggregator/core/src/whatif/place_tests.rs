//! Which node a new guest gets, and what bars the others.

use super::*;
use crate::fixture;

fn small() -> NewGuest {
    NewGuest { vcpus: 4.0, memory: Bytes::gib(8), ..NewGuest::default() }
}

fn told(fleet: &str, guest: &NewGuest) -> String {
    let answer = place(&fixture::snapshot(fleet), &Policy::default(), guest).unwrap();
    let mut lines: Vec<String> =
        answer.problems.iter().map(|reason| format!("no answer: {reason}")).collect();
    assert_eq!(answer.best.as_ref(), answer.nodes.iter().find(|node| node.fits).map(|node| &node.node));
    lines.extend(answer.nodes.iter().map(|choice| {
        let reason = choice.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{} {}{reason}", choice.node, if choice.fits { "fits" } else { "out" })
    }));
    lines.extend(answer.cautions.iter().map(|reason| format!("mind: {reason}")));
    lines.join("\n")
}

const FLEET: &str = "
    pve1 cpu=16 ram=64 storages=nfs | 101 cpu=8 mem=20 tags=evenkeel-anti-web,evenkeel-with-db
    pve2 cpu=16 ram=64 storages=nfs | 201 cpu=2 mem=20
    pve3 cpu=16 ram=64 storages=nfs | 301 cpu=4 mem=52
    pve4 cpu=2 ram=64
    pve5 cpu=16 ram=64 maintenance
    pve6 cpu=16 ram=64 offline age=900";

#[test]
fn nodes_are_ranked_by_what_the_guest_would_do_to_the_cluster_and_the_rest_say_why_they_are_out() {
    let told = told(FLEET, &small());
    let (fit, mut out) = told.lines().partition::<Vec<_>, _>(|line| line.ends_with("fits"));
    assert_eq!(fit, ["pve2 fits", "pve1 fits"]);
    out.sort_unstable();
    assert_eq!(
        out,
        [
            "pve3 out: pve3 would keep 2.0 GiB of memory free; its reserve is 6.4 GiB",
            "pve4 out: has 4 vCPUs, pve4 only 2 cores",
            "pve5 out: pve5 is in maintenance",
            "pve6 out: pve6 is not online",
        ]
    );
}

#[test]
fn figures_are_of_the_node_with_the_guest_on_it() {
    let answer = place(&fixture::snapshot(FLEET), &Policy::default(), &small()).unwrap();
    assert_eq!(answer.cpu_load, 2.0, "half of its vCPUs");
    let best = &answer.nodes[0];
    let (before, after) = best.scores.unwrap();
    assert!(after > before, "{best:?}");
    // 64 - 20 - 2 (host) - 8 (guest) - 6.4 (reserve) GiB.
    let free = best.free_after_reserve.unwrap() / Bytes::gib(1).as_f64();
    assert!((free - 27.6).abs() < 1e-6, "{free}");
    let offline = answer.nodes.iter().find(|choice| choice.node.as_str() == "pve6").unwrap();
    assert_eq!((offline.scores, offline.free_after_reserve), (None, None), "no data is not zero");
}

#[test]
fn tags_and_storage_are_followed() {
    let tagged = |tag: &str| NewGuest { tags: vec![tag.to_owned()], ..small() };
    let fits = |guest: &NewGuest| -> Vec<String> {
        let answer = place(&fixture::snapshot(FLEET), &Policy::default(), guest).unwrap();
        answer.nodes.iter().filter(|choice| choice.fits).map(|choice| choice.node.to_string()).collect()
    };
    assert_eq!(fits(&tagged("plb_pin_pve1")), ["pve1"]);
    assert_eq!(fits(&tagged("evenkeel-anti-web")), ["pve2"]);
    assert_eq!(fits(&tagged("evenkeel-with-db")), ["pve1"]);
    assert_eq!(fits(&tagged("evenkeel-with-nobody")), ["pve2", "pve1"]);
    // What keeps a guest where it is does not say where it begins.
    assert_eq!(fits(&tagged("evenkeel-pin")), ["pve2", "pve1"]);
    assert_eq!(fits(&tagged("evenkeel-ignore")), ["pve2", "pve1"]);
    assert_eq!(fits(&NewGuest { disk_storage: Some("nfs".into()), ..small() }), ["pve2", "pve1"]);
    assert_eq!(fits(&NewGuest { disk_storage: Some("ceph".into()), ..small() }), [""; 0]);
    let told = told(FLEET, &tagged("plb_pin_pve77"));
    assert!(told.contains("pve2 out: pinned to no node of this cluster by tag plb_pin_pve77"), "{told}");
    assert!(told.contains("mind: ") && told.contains("no node has that name"), "{told}");
}

#[test]
fn the_expected_load_decides_and_a_node_without_the_cpu_is_out() {
    let fleet = "pve1 cpu=16 ram=64 | 101 cpu=11\npve2 cpu=16 ram=64 | 201 cpu=6";
    let with = |load: f64| NewGuest { vcpus: 8.0, cpu_load: Some(load), ..small() };
    assert!(
        told(fleet, &with(0.1))
            .starts_with("pve2 fits\npve1 fits: pve1 would reach 72 % cpu; its limit is 70 %")
    );
    assert_eq!(
        told(fleet, &with(8.0)),
        "pve2 fits: pve2 would reach 91 % cpu; its limit is 70 %\npve1 out: pve1 would reach 122 % cpu; its limit is 100 %"
    );
}

#[test]
fn stale_data_gives_no_answer_and_a_node_alone_does() {
    let stale = told("pve1\npve2 age=77", &small());
    assert_eq!(stale, "no answer: the data of pve2 is 77 s old; at most 30 s is trusted");
    assert_eq!(told("pve1", &small()), "pve1 fits");
}

#[test]
fn a_guest_that_can_not_be_is_refused_with_what_can() {
    let fleet = fixture::snapshot("pve1\npve2");
    for (guest, expected) in [
        (NewGuest { vcpus: f64::NAN, ..small() }, "vcpus NaN can not be: above 0, to 8192"),
        (NewGuest { vcpus: 0.0, ..small() }, "vcpus 0 can not be: above 0, to 8192"),
        (NewGuest { memory: Bytes(0), ..small() }, "memory 0 B can not be: above 0, to 64.0 TiB"),
        (NewGuest { cpu_load: Some(5.0), ..small() }, "cpu-load 5 can not be: 0 to its 4 vCPUs, in cores"),
        (NewGuest { cpu_load: Some(-1.0), ..small() }, "cpu-load -1 can not be: 0 to its 4 vCPUs, in cores"),
        (NewGuest { tags: vec![String::new()], ..small() }, "tags 1 can not be: 64 of 1 to 128 bytes"),
    ] {
        let error = place(&fleet, &Policy::default(), &guest).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
