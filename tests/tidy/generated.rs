//! Documents that come from the code. `EVENKEEL_BLESS=1 cargo test -p evenkeel-tests --test tidy` writes them anew;
//! without it a difference is a failure.

use std::fs;

use evenkeel_agent::config::AgentConfig;
use evenkeel_aggregator::config::AggregatorConfig;
use evenkeel_common::config::{parse_valid, render_example, render_reference};
use evenkeel_core::{Mode, Preset};

use crate::source::root;

const BLESS: &str = "EVENKEEL_BLESS";
const GENERATED: &str = "Generated from the config structs by tests/tidy; do not edit.";

const AGENT_INTRO: &str = "\
# Configuration of evenkeel-agent. Only aggregator.address must be given.
# Check it with: evenkeel-agent check
";
const AGGREGATOR_INTRO: &str = "\
# Configuration of evenkeel-aggregator. It runs as it stands: agents are taken in and shown. To have migrations judged,
# take the # away from [[clusters]], its name, [clusters.pve] with endpoints and token_file, and [clusters.policy] with
# preset and mode. With preset \"full\" every rule is on; mode \"advise\" only shows what it would do.
# Check it with: evenkeel-aggregator check
";

/// The preset a package suggests is not the default of an empty section: every rule on, nothing executed.
fn packaged_aggregator() -> String {
    let text = render_example::<AggregatorConfig>();
    assert_eq!(text.matches("#preset = \"off\"").count(), 1, "the example has another form; adapt this test");
    assert_eq!(
        text.matches("#mode = \"advise\"").count(),
        1,
        "the example has another form; adapt this test"
    );
    format!("{AGGREGATOR_INTRO}# {GENERATED}\n\n{}", text.replace("#preset = \"off\"", "#preset = \"full\""))
}

fn packaged_agent() -> String {
    format!("{AGENT_INTRO}# {GENERATED}\n\n{}", render_example::<AgentConfig>())
}

fn marked(reference: &str) -> String {
    reference.replacen('\n', &format!("\n\n<!-- {GENERATED} -->\n"), 1)
}

#[track_caller]
fn same(path: &str, expected: &str) {
    let place = root().join(path);
    if std::env::var_os(BLESS).is_some() {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        return fs::write(place, expected).unwrap();
    }
    let found = fs::read_to_string(&place).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| found.lines().count().min(expected.lines().count())) + 1;
    assert!(
        found == expected,
        "{path}:{line}: not what the code says; run {BLESS}=1 cargo test -p evenkeel-tests --test tidy\n found:    {:?}\n expected: {:?}",
        found.lines().nth(line - 1).unwrap_or_default(),
        expected.lines().nth(line - 1).unwrap_or_default(),
    );
}

#[test]
fn packaged_configurations_and_references_are_in_sync() {
    same("packaging/config/agent.toml", &packaged_agent());
    same("packaging/config/aggregator.toml", &packaged_aggregator());
    let agent = render_reference::<AgentConfig>("Configuration of evenkeel-agent");
    same("packaging/doc/config-agent.md", &marked(&agent));
    let aggregator = render_reference::<AggregatorConfig>("Configuration of evenkeel-aggregator");
    same("packaging/doc/config-aggregator.md", &marked(&aggregator));
}

/// As installed it means the defaults; what the agent lacks it says.
#[test]
fn packaged_configurations_are_valid() {
    let aggregator = parse_valid::<AggregatorConfig>(&packaged_aggregator(), "aggregator.toml").unwrap();
    assert_eq!(aggregator, AggregatorConfig::default());
    let refusal = parse_valid::<AgentConfig>(&packaged_agent(), "agent.toml").unwrap_err().to_string();
    assert!(refusal.contains("aggregator.address"), "{refusal}");
    let address = packaged_agent().replace("#address = \"\"", "address = \"aggregator.example:7443\"");
    parse_valid::<AgentConfig>(&address, "agent.toml").unwrap();
}

/// Taking the # away, as the intro tells, switches the rules on and executes nothing.
#[test]
fn the_packaged_cluster_suggests_every_rule_and_no_execution() {
    let text = packaged_aggregator();
    let wanted = ["#[[clusters]]", "#name = ", "#[clusters.policy]", "#preset = ", "#mode = "];
    let line = |line: &str| {
        let on = wanted.iter().any(|start| line.starts_with(start));
        format!("{}\n", if on { &line[1..] } else { line })
    };
    let text: String = text.lines().map(line).collect();
    let config = parse_valid::<AggregatorConfig>(&text, "aggregator.toml").unwrap();
    let policy = &config.clusters[0].policy;
    assert_eq!((policy.preset, policy.mode), (Preset::Full, Mode::Advise));
}
