//! `moves`, `approve`, `reject`, `rearm` and `whatif drain --propose`.

use super::golden::{check, shown};
use super::support::{Aggregator, VIEWER, execution};

#[test]
fn moves() {
    shown("moves", &["moves"]);
    shown("moves_none", &["moves", "--guest", "999"]);
}

#[test]
fn one_move_in_full() {
    let id = execution::done().id;
    shown("move", &["moves", &id, "--utc"]);
}

#[test]
fn what_an_operator_says_is_said_back() {
    let aggregator = Aggregator::start();
    let proposed = aggregator.run(&["moves", "--state", "proposed", "--output", "json"]).succeeds().out;
    let json: serde_json::Value = serde_json::from_str(&proposed).unwrap();
    let id = json["moves"][0]["id"].as_str().unwrap().to_owned();
    let mut text = String::new();
    for words in [
        vec!["approve", &id],
        vec!["approve", "--all-from", "pve3"],
        vec!["reject", &id, "--why", "not tonight"],
        vec!["rearm", "--why", "the switch was replaced"],
        vec!["whatif", "drain", "pve3", "--propose"],
    ] {
        let out = aggregator.run(&words).succeeds().out;
        text.push_str(&format!("==== evenkeelctl {}\n{out}", words.join(" ")));
    }
    check("steering", &text);
    let json = aggregator.run(&["approve", &id, "--output", "json"]).succeeds().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["moves"][0]["state"], "approved");
}

#[test]
fn what_can_not_be_is_refused_in_words() {
    let aggregator = Aggregator::start();
    let id = execution::done().id;
    aggregator.run(&["approve", &id]).fails(1, &["is done already"]);
    aggregator.run(&["approve", "lab-1-1"]).fails(1, &["waits for nobody's approval"]);
    let number = aggregator.run(&["approve", "101"]);
    assert!(number.code == Some(2) && number.err.contains("101"), "{number:?}");
    let none = aggregator.run(&["approve"]);
    assert_eq!(none.code, Some(2), "{none:?}");
    let both = aggregator.run(&["approve", &id, "--all-from", "pve3"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    aggregator.run(&["approve", "--all-from", "pve1"]).fails(1, &["no proposal leaves pve1", "--propose"]);
    aggregator.run(&["whatif", "drain", "pve1", "--propose"]).fails(1, &["no plan for pve1"]);
    let wrong = aggregator.run(&["moves", "--state", "gone"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("possible values"), "{wrong:?}");
    aggregator.use_token(VIEWER);
    for words in [
        vec!["approve", &id],
        vec!["reject", &id],
        vec!["rearm"],
        vec!["whatif", "drain", "pve3", "--propose"],
    ] {
        aggregator.run(&words).fails(4, &["operator"]);
    }
}
