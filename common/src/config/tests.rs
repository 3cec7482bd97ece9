//! Tests of loading and of the rendered manual, on one configuration that has every shape in use.

use super::*;
use crate::units::Percent;
use serde::{Deserialize, Serialize};

/// The whole configuration.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Where to listen.
    listen: String,
    /// What is collected.
    collect: Collect,
    /// Clusters to watch.
    cluster: Vec<Cluster>,
    /// How much is logged.
    level: Level,
}

/// What is collected.
#[derive(Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Collect {
    /// Seconds between two ticks. With a long sentence that
    /// goes on in a second line, and on, and on, until it has to be wrapped somewhere.
    #[schemars(range(min = 1, max = 60))]
    interval_s: u8,
    /// Share of memory to leave free, in percent.
    reserve: Percent,
    /// Where the machine's files are, for tests.
    root: Option<String>,
    /// Devices | partitions to leave out.
    ignore: Vec<String>,
    /// Weight of a vote.
    #[schemars(range(min = 0.0, max = 1.0))]
    weight: f64,
}

impl Default for Collect {
    fn default() -> Self {
        let reserve = Percent::clamped(15.0);
        Self { interval_s: 1, reserve, root: None, ignore: vec!["loop".into()], weight: 0.5 }
    }
}

/// One cluster.
#[derive(Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cluster {
    /// Its name.
    name: String,
    /// Address of its API.
    #[serde(default = "default_port")]
    port: u16,
}

fn default_port() -> u16 {
    8006
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// The usual.
    #[default]
    Info,
    /// A lot.
    Debug,
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut violations = Vec::new();
        if self.listen == "nowhere" {
            violations.push(Violation::new("listen", &self.listen, "ADDRESS:PORT"));
        }
        if self.collect.ignore.is_empty() {
            violations.push(Violation::new("ignore", "[]", "at least one").within("collect"));
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    match parse_valid::<Config>(text, "c.toml") {
        Ok(config) => panic!("was accepted: {config:?}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

#[test]
fn good_text_is_read_and_the_rest_takes_its_default() {
    let text = "listen = ':1'\n[collect]\nweight = 1\nreserve = 20\n[[cluster]]\nname = 'lab'\n";
    let config: Config = parse_valid(text, "c.toml").unwrap();
    assert_eq!((config.collect.interval_s, config.collect.weight), (1, 1.0));
    assert_eq!(config.collect.reserve, Percent::clamped(20.0));
    assert_eq!(config.cluster, [Cluster { name: "lab".into(), port: 8006 }]);
    assert_eq!(parse::<Config>("", "c.toml").unwrap(), Config::default());
}

#[test]
fn an_unknown_key_is_named_with_line_section_and_nearest_key() {
    check(
        "\n[collect]\nintervall = 5\n",
        r#"c.toml:3: unknown option "intervall" in [collect]; did you mean "interval_s"?"#,
    );
    check(
        "[collekt]\ninterval_s = 5\n",
        r#"c.toml:1: unknown option "collekt" at the top level; did you mean "collect"?"#,
    );
    check("Listen = ':1'\n", r#"c.toml:1: unknown option "Listen" at the top level; did you mean "listen"?"#);
    check(
        "weight = 0.3\n",
        r#"c.toml:1: unknown option "weight" at the top level; did you mean "collect.weight", in another section?"#,
    );
    check(
        "[[cluster]]\nname = 'a'\n[[cluster]]\nname = 'b'\nqqqqqq = 1\n",
        r#"c.toml:5: unknown option "qqqqqq" in [cluster[1]]; known there: name, port"#,
    );
}

#[test]
fn a_bad_value_is_named_with_what_was_given_and_what_is_allowed() {
    let collect = |line: &str, expected: &str| {
        check(&format!("[collect]\n{line}\n"), &format!("c.toml:2: collect.{expected}"));
    };
    for given in ["0", "61", "'5'", "2.5", "-1", "0xff"] {
        collect(
            &format!("interval_s = {given}"),
            &format!("interval_s = {given} is not valid: expected a whole number from 1 to 60"),
        );
    }
    for given in ["nan", "inf", "1.01", "-0.1", "true"] {
        collect(
            &format!("weight = {given}"),
            &format!("weight = {given} is not valid: expected a number from 0 to 1"),
        );
    }
    collect("ignore = 'sda'", "ignore = 'sda' is not valid: expected a list");
    collect("ignore = ['a', 1]", "ignore[1] = 1 is not valid: expected text in quotes");
    collect("reserve = 101", "reserve: 101 is not a valid percentage: expected 0 to 100");
    check("level = 'trace'\n", r#"c.toml:1: level = 'trace' is not valid: expected "info" or "debug""#);
    check("collect = 1\n", "c.toml:1: collect = 1 is not valid: expected a section");
    check(
        "[[cluster]]\nname = 'a'\nport = 70000\n",
        "c.toml:3: cluster[0].port = 70000 is not valid: expected a whole number from 0 to 65535",
    );
    check("[[cluster]]\nport = 1\n", "c.toml:1: option cluster[0].name is missing and has no default");
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_text() {
    check(
        "lisen = 1\n[collect]\nweight = 2\nroot = 3\n",
        "c.toml:1: unknown option \"lisen\" at the top level; did you mean \"listen\"?\n\
         c.toml:3: collect.weight = 2 is not valid: expected a number from 0 to 1\n\
         c.toml:4: collect.root = 3 is not valid: expected text in quotes",
    );
    let many: String = (0..30).map(|n| format!("key{n} = 1\n")).collect();
    let error = parse::<Config>(&many, "c.toml").unwrap_err().to_string();
    assert_eq!(error.lines().count(), MAX_PROBLEMS + 1);
    assert!(error.ends_with("c.toml: and 10 more"), "{error}");
}

#[test]
fn violations_name_the_line_where_there_is_one() {
    check("# a\nlisten = 'nowhere'", "c.toml:2: listen = nowhere is not valid: expected ADDRESS:PORT");
    check("[collect]\nignore = []", "c.toml:2: collect.ignore = [] is not valid: expected at least one");
    let unset = Violation::new("other.thing", 1, "2");
    assert_eq!(line_of_option("[collect]\n", &unset.option), None);
}

#[test]
fn text_that_is_no_toml_is_named_with_its_line() {
    let error = parse::<Config>("listen = ':1'\nlevel = \n", "c.toml").unwrap_err().to_string();
    assert!(error.starts_with("c.toml:2: not valid TOML: "), "{error}");
    let error = parse::<Config>("level = 'info'\nlevel = 'debug'\n", "c.toml").unwrap_err().to_string();
    assert!(error.starts_with("c.toml:2: not valid TOML: duplicate key"), "{error}");
}

#[test]
fn hostile_text_is_cut_and_stays_on_one_line() {
    let error = parse::<Config>(&format!("\"{}\\n\\u001b[31m\" = 1", "x".repeat(5000)), "c").unwrap_err();
    let shown = error.to_string();
    assert!(shown.len() < 300 && !shown.contains('\n') && !shown.contains('\u{1b}'), "{shown}");
    let nested = format!("a = {}", "[".repeat(10_000));
    parse::<Config>(&nested, "c").unwrap_err();
}

const REFERENCE: &str = r#"# Options

The whole configuration.

| option | type | default | description |
|---|---|---|---|
| `level` | "info" or "debug" | `"info"` | How much is logged. `info`: The usual. `debug`: A lot. |
| `listen` | text in quotes | `""` | Where to listen. |

## `[[cluster]]`

Clusters to watch.

| option | type | default | description |
|---|---|---|---|
| `name` | text in quotes | required | Its name. |
| `port` | a whole number from 0 to 65535 | `8006` | Address of its API. |

## `[collect]`

What is collected.

| option | type | default | description |
|---|---|---|---|
| `ignore` | list of: text in quotes | `["loop"]` | Devices \| partitions to leave out. |
| `interval_s` | a whole number from 1 to 60 | `1` | Seconds between two ticks. With a long sentence that goes on in a second line, and on, and on, until it has to be wrapped somewhere. |
| `reserve` | a number | `15.0` | Share of memory to leave free, in percent. |
| `root` | text in quotes | unset | Where the machine's files are, for tests. |
| `weight` | a number from 0 to 1 | `0.5` | Weight of a vote. |
"#;

const EXAMPLE: &str = r#"# The whole configuration.

# How much is logged.
# "info": The usual.
# "debug": A lot.
# Accepts "info" or "debug".
#level = "info"

# Where to listen.
# Accepts text in quotes.
#listen = ""

# Clusters to watch.
#[[cluster]]

# Its name.
# Accepts text in quotes. Required.
#name =

# Address of its API.
# Accepts a whole number from 0 to 65535.
#port = 8006

# What is collected.
[collect]

# Devices | partitions to leave out.
# Accepts list of: text in quotes.
#ignore = ["loop"]

# Seconds between two ticks. With a long sentence that goes on in a second line, and on, and on,
# until it has to be wrapped somewhere.
# Accepts a whole number from 1 to 60.
#interval_s = 1

# Share of memory to leave free, in percent.
# Accepts a number.
#reserve = 15.0

# Where the machine's files are, for tests.
# Accepts text in quotes. Unset by default.
#root =

# Weight of a vote.
# Accepts a number from 0 to 1.
#weight = 0.5
"#;

#[test]
fn the_manual_comes_from_the_struct() {
    assert_eq!(render_reference::<Config>("Options"), REFERENCE);
    assert_eq!(render_example::<Config>(), EXAMPLE);
    assert_documented::<Config>();
}

#[test]
fn the_example_reads_as_the_default_commented_or_not() {
    let example = render_example::<Config>();
    assert_eq!(parse::<Config>(&example, "example").unwrap(), Config::default());
    let set = |line: &str| match line.strip_prefix('#') {
        Some(option) if !option.starts_with(' ') && !option.ends_with('=') => option.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<_> =
        example.lines().map(set).filter(|line| !line.contains("cluster") && !line.contains("port")).collect();
    assert_eq!(parse::<Config>(&all.join("\n"), "example").unwrap(), Config::default());
}

#[test]
fn undocumented_options_are_found() {
    /// Something.
    #[derive(Default, Serialize, JsonSchema)]
    #[serde(default)]
    struct Silent {
        quiet: u8,
        /// Fine.
        loud: u8,
    }
    let message = std::panic::catch_unwind(assert_documented::<Silent>).unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert_eq!(message, "option quiet of section \"\" has no description");
}
