//! Codes, sentences and fields of reasons.

use super::*;

#[test]
fn codes_are_unique_and_equal_to_json() {
    let mut codes = Reason::CODES.to_vec();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Reason::CODES.len());
    let reason = Reason::Observing { seen: 2, needed: 3 };
    assert_eq!(serde_json::to_value(&reason).unwrap()["code"], reason.code());
}

#[test]
fn sentences_read_well_and_fields_are_complete() {
    let node = |name: &str| NodeId::new(name).unwrap();
    let cycle = Reason::Cycle { path: vec![node("A"), node("B"), node("C"), node("A")], window_h: 48.0 };
    assert_eq!(cycle.to_string(), "cycle detected A->B->C->A within 48 h");
    assert_eq!(cycle.fields()["path"], r#"["A","B","C","A"]"#);
    let hot =
        Reason::NodeHot { node: node("pve1"), resource: Resource::Cpu, percent: 93.2, cluster_percent: 34.1 };
    assert_eq!(hot.to_string(), "pve1 CPU 93 % against the cluster's 34 %");
    assert_eq!(hot.fields()["node"], "pve1");
    assert_eq!(hot.fields().len(), 4);
}

#[test]
fn a_reason_in_a_reason_survives_json() {
    let target = NodeId::new("pve2").unwrap();
    let reason = Reason::BestMoveHeld {
        guest: Vmid::new(101).unwrap(),
        target: target.clone(),
        improvement: 1.0 / 3.0,
        filter: Step::Affinity,
        objection: Box::new(Reason::TargetMaintenance { target }),
    };
    let text = serde_json::to_string(&reason).unwrap();
    assert_eq!(serde_json::from_str::<Reason>(&text).unwrap(), reason);
    assert_eq!(
        reason.to_string(),
        "best move is guest 101 to pve2 (better by 0.33 points), held by affinity: pve2 is in maintenance"
    );
}
