//! The configuration in effect: the packaged one but for [`DIFFERENCES`], and what was asked for on the command line.

use anyhow::{Context as _, Result, bail};
use evenkeel_common::config::parse_valid;
use evenkeel_core::{Mode, Policy, Preset};
use toml::{Table, Value};

/// Where it differs from the packaged file, and why.
pub const DIFFERENCES: &[(&str, &str)] = &[("mode", "there is nobody to follow advice or to approve")];

/// What the sources of figures decide beside it.
pub const CIRCUMSTANCES: &[&str] = &[
    "a simulated step of 300 s stands for five decision runs on the same figures, so a recommendation persists within one",
    "migration_link_mbps is that of the simulated cluster's slowest link",
    "a plan for one snapshot has neither limits of what is moved at a time nor persistence",
];

/// The packaged configuration with every rule on and nobody to ask, and `set` on top: `option=value`, each as in TOML.
pub fn effective(set: &[String]) -> Result<Policy> {
    let base = Policy { preset: Preset::Full, mode: Mode::Auto, ..Policy::default() };
    let mut table = Table::try_from(&base)?;
    for assignment in set {
        let (option, value) = assignment
            .split_once('=')
            .with_context(|| format!("{assignment:?} is not OPTION=VALUE, like min_improvement=1.5"))?;
        let value: Table = toml::from_str(&format!("value = {value}"))
            .with_context(|| format!("{value:?} is no TOML value; texts need quotes"))?;
        let Some(value) = value.get("value").cloned() else { bail!("{assignment:?} has no value") };
        put(&mut table, option.trim(), value)?;
    }
    Ok(parse_valid(&toml::to_string(&table)?, "--set")?)
}

fn put(table: &mut Table, option: &str, value: Value) -> Result<()> {
    let Some((section, rest)) = option.split_once('.') else {
        table.insert(option.to_owned(), value);
        return Ok(());
    };
    let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    put(inner.as_table_mut().with_context(|| format!("{section} is no section"))?, rest, value)
}

/// The configuration as TOML, with what else there is to know.
pub fn shown(policy: &Policy) -> Result<String> {
    let differences =
        DIFFERENCES.iter().map(|(option, why)| format!("# not as packaged: {option}, as {why}\n"));
    let notes = CIRCUMSTANCES.iter().map(|note| format!("# {note}\n"));
    Ok(differences.chain(notes).collect::<String>() + &toml::to_string(policy)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The policy of the packaged file, its options taken out of their comments.
    fn packaged() -> Policy {
        let file = include_str!("../../../packaging/config/aggregator.toml");
        let from = file.find("#[clusters.policy]").unwrap();
        let to = file.find("#[clusters.pve]").unwrap();
        // A toggle without a value follows the preset.
        let option = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && !line.ends_with('=');
        let lines =
            file[from..to].lines().filter(option).map(|line| line[1..].replace("clusters.policy.", ""));
        let text = lines.filter(|line| line != "[clusters.policy]").collect::<Vec<_>>().join("\n");
        parse_valid(&text, "packaged").unwrap()
    }

    /// Every option with its value, by its whole name.
    fn options(policy: &Policy) -> Vec<(String, String)> {
        fn walk(prefix: &str, table: &Table, out: &mut Vec<(String, String)>) {
            for (key, value) in table {
                match value {
                    Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, out),
                    value => out.push((format!("{prefix}{key}"), value.to_string())),
                }
            }
        }
        let mut out = Vec::new();
        walk("", &Table::try_from(policy).unwrap(), &mut out);
        out
    }

    #[test]
    fn it_is_the_packaged_one_but_for_what_is_listed() {
        let (ours, theirs) = (options(&effective(&[]).unwrap()), options(&packaged()));
        assert_eq!(ours.len(), theirs.len());
        let differing: Vec<_> =
            ours.iter().zip(&theirs).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect();
        assert_eq!(differing, DIFFERENCES.iter().map(|d| d.0).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_printed_reads_back_and_names_the_differences() {
        let policy = effective(&[]).unwrap();
        let text = shown(&policy).unwrap();
        assert_eq!(parse_valid::<Policy>(&text, "printed").unwrap(), policy);
        assert!(text.starts_with("# not as packaged: mode,"), "{text}");
    }

    #[test]
    fn options_can_be_set_and_wrong_ones_are_told() {
        let set = |text: &str| effective(&[text.to_owned()]);
        assert_eq!(set("min_improvement=2").unwrap().min_improvement, 2.0);
        let off = set("intelligent_migrations.trend_awareness_enabled=false").unwrap();
        assert!(!off.toggles().trend && off.toggles().pattern);
        for (wrong, told) in [
            ("min_improvement", "OPTION=VALUE"),
            ("min_improvement=99", "0.01 to 10"),
            ("minimum=1", "minimum"),
            ("preset=full", "quotes"),
        ] {
            let error = format!("{:#}", set(wrong).unwrap_err());
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }
}
