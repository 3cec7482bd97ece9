//! What came of a scenario, as text.

use std::collections::BTreeSet;
use std::fmt::Write;

use evenkeel_common::decision::Decision;
use evenkeel_common::id::NodeId;
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;
use evenkeel_core::whatif::drain::{Drain, drain};
use evenkeel_core::whatif::place::{NewGuest, Placement, place};
use evenkeel_core::{Explained, Run, RunRecord, explain};

use super::scenario::Scenario;

/// The runs one after the other, then what else was asked of the last one.
pub fn told(scenario: &Scenario) -> String {
    let mut text = String::new();
    let (mut last, records) = (String::new(), scenario.records());
    let first = records[0].run.at;
    for record in &records {
        let run = run(&record.run);
        if records.len() > 1 {
            let seconds = record.run.at.since(first).as_secs();
            let again = if run == last { " as before" } else { "" };
            writeln!(text, "run at {seconds} s:{again}").unwrap();
        }
        if run != last {
            text.push_str(&run);
        }
        last = run;
    }
    let record = &records[records.len() - 1];
    let explained = explained(record);
    for asked in &scenario.moves {
        let judged = explained.run.decisions.iter().find(|decision| {
            decision.recommendation.guest == asked.guest && decision.recommendation.target == asked.target
        });
        let told = judged.map_or_else(|| "is no move of this run\n".to_owned(), judgement);
        write!(text, "{} -> {}: {told}", asked.guest, asked.target).unwrap();
    }
    for stay in explained.guests.iter().filter(|_| scenario.guests) {
        writeln!(text, "{} stays: {}", stay.guest, stay.reason).unwrap();
    }
    drains(scenario, record).iter().for_each(|drain| text.push_str(&drained(drain)));
    places(scenario, record).iter().for_each(|placement| text.push_str(&placed(placement)));
    text
}

/// Every code in all that a scenario says.
pub fn codes(scenario: &Scenario) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for record in scenario.records() {
        collect(&serde_json::to_value(explained(&record)).unwrap(), &mut codes);
        let mut reasons: Vec<Reason> = Vec::new();
        for drain in drains(scenario, &record) {
            reasons.extend(drain.problems.into_iter().chain(drain.cautions));
            for blocked in drain.blocked {
                reasons.push(blocked.reason);
                reasons.extend(blocked.targets.into_iter().map(|(_, reason)| reason));
            }
        }
        for placement in places(scenario, &record) {
            reasons.extend(placement.problems.into_iter().chain(placement.cautions));
            reasons.extend(placement.nodes.into_iter().filter_map(|choice| choice.reason));
        }
        collect(&serde_json::to_value(reasons).unwrap(), &mut codes);
    }
    codes
}

fn collect(value: &serde_json::Value, codes: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            codes.extend(object.get("code").and_then(|code| code.as_str()).map(str::to_owned));
            object.values().for_each(|value| collect(value, codes));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|value| collect(value, codes)),
        _ => {}
    }
}

fn explained(record: &RunRecord) -> Explained {
    explain(&record.snapshot, &record.policy, &record.memory_in)
}

fn join(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A line per decision, with the answers of its filters that have a reason; a line per node.
fn run(run: &Run) -> String {
    let mut text = String::new();
    if let Some(reason) = &run.suppressed {
        writeln!(text, "suppressed: {reason}").unwrap();
    }
    for reason in &run.warnings {
        writeln!(text, "warning: {reason}").unwrap();
    }
    for decision in &run.decisions {
        let r = &decision.recommendation;
        let by = decision.filter.map_or_else(String::new, |step| format!(" by {step}"));
        let (action, reason) = (decision.action, &decision.reason);
        writeln!(text, "{} {}->{} {action}{by}: {reason}", r.guest, r.source, r.target).unwrap();
        for entry in &decision.trail.0 {
            if let Some(reason) = entry.verdict.reason().filter(|_| decision.filter != Some(entry.filter)) {
                writeln!(text, "    {} {}: {reason}", entry.filter, entry.verdict.name()).unwrap();
            }
        }
    }
    for stay in &run.stays {
        writeln!(text, "{}: {}", stay.node, join(&stay.reasons)).unwrap();
    }
    text
}

/// Everything about one move.
fn judgement(decision: &Decision) -> String {
    let r = &decision.recommendation;
    let (name, confidence, minutes) = (r.name.escape_debug(), r.confidence.get(), r.cost.minutes);
    let mut text = format!(
        "{name}, better by {:.2}, confidence {confidence:.0}, risk {}, {minutes:.1} min, {}\n",
        r.improvement, r.risk, r.cost.bytes
    );
    text.push_str(&decision.trail.to_string());
    r.evidence.iter().for_each(|reason| writeln!(text, "   evidence: {reason}").unwrap());
    r.conflict.iter().for_each(|reason| writeln!(text, "   conflict: {reason}").unwrap());
    text
}

fn drains(scenario: &Scenario, record: &RunRecord) -> Vec<Drain> {
    let node = |name: &String| NodeId::new(name.clone()).unwrap();
    let ask = |name| drain(&record.snapshot, &record.policy, &node(name)).unwrap();
    scenario.drains.iter().map(ask).collect()
}

fn drained(drain: &Drain) -> String {
    let mut text =
        format!("drain of {}: {}\n", drain.node, if drain.feasible { "feasible" } else { "not feasible" });
    drain.problems.iter().for_each(|reason| writeln!(text, "    problem: {reason}").unwrap());
    drain.cautions.iter().for_each(|reason| writeln!(text, "    caution: {reason}").unwrap());
    for going in &drain.moves {
        let restart = if going.restart { ", by restart" } else { "" };
        let r = &going.recommendation;
        writeln!(text, "    {} -> {}{restart}", r.guest, r.target).unwrap();
    }
    for blocked in &drain.blocked {
        writeln!(text, "    {} stays: {}", blocked.guest, blocked.reason).unwrap();
        blocked.targets.iter().for_each(|(node, why)| writeln!(text, "        {node}: {why}").unwrap());
    }
    for failure in &drain.failures {
        let (guests, memory) = (failure.guests, failure.memory);
        writeln!(text, "    if {} fails too: {guests} guest(s) without {memory}", failure.node).unwrap();
    }
    text
}

fn places(scenario: &Scenario, record: &RunRecord) -> Vec<Placement> {
    let ask = |text: &String| {
        let mut guest = NewGuest::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').expect(word);
            match key {
                "vcpus" => guest.vcpus = value.parse().expect(word),
                "load" => guest.cpu_load = Some(value.parse().expect(word)),
                "mem" => guest.memory = Bytes::gib(value.parse().expect(word)),
                "storage" => guest.disk_storage = Some(value.to_owned()),
                "tags" => guest.tags = value.split(',').map(str::to_owned).collect(),
                _ => panic!("place: {word}"),
            }
        }
        place(&record.snapshot, &record.policy, &guest).unwrap()
    };
    scenario.places.iter().map(ask).collect()
}

fn placed(placement: &Placement) -> String {
    let mut text = format!("place: {}\n", placement.best.as_ref().map_or("nowhere", NodeId::as_str));
    placement.problems.iter().for_each(|reason| writeln!(text, "    problem: {reason}").unwrap());
    placement.cautions.iter().for_each(|reason| writeln!(text, "    caution: {reason}").unwrap());
    for choice in &placement.nodes {
        let scores = choice.scores.map_or_else(String::new, |(a, b)| format!(", score {a:.0} -> {b:.0}"));
        let reason = choice.reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"));
        let fits = if choice.fits { "fits" } else { "out" };
        writeln!(text, "    {} {fits}{scores}{reason}", choice.node).unwrap();
    }
    text
}
