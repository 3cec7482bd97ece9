//! How configuration is read, checked and documented. The config structs are the manual: the parser's errors, the
//! reference and the example file all come from their schema, so they can not drift apart. No I/O here.
//!
//! A config struct derives `Deserialize, Serialize, JsonSchema`, has `#[serde(default, deny_unknown_fields)]`, a doc
//! comment on every option, a `Default`, and `#[schemars(range(min = 1, max = 60))]` where a number has bounds.

mod reference;
mod schema;

use std::fmt;
use std::ops::Range;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use reference::{assert_documented, render_example, render_reference};
use schema::{Kind, Root};

/// Problems shown at once; a file with more is the wrong file.
const MAX_PROBLEMS: usize = 20;

/// Everything that is wrong with a configuration. Shown as one line per problem, each naming origin and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the text came from, as for the messages: a file name.
    pub origin: String,
    /// At least one, in the order of the text.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().take(MAX_PROBLEMS).enumerate() {
            let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
            write!(f, "{}{}{line}: {}", if n == 0 { "" } else { "\n" }, self.origin, problem.fault)?;
        }
        match self.problems.len().saturating_sub(MAX_PROBLEMS) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more", self.origin),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the text, from 1; `None` when the option is not in it.
    pub line: Option<usize>,
    /// What.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key that no option has.
    #[error("unknown option {key:?} {section}; {hint}")]
    UnknownKey {
        /// The key, cut to 64 characters.
        key: String,
        /// Where it stands: "in [section]" or "at the top level".
        section: String,
        /// The nearest known key, or all keys known there.
        hint: String,
    },
    /// An option without default is not given.
    #[error("option {0} is missing and has no default")]
    Missing(String),
    /// A value of the wrong type or out of range.
    #[error("{option} = {given} is not valid: expected {allowed}")]
    Invalid {
        /// Path of the option: `section.key`.
        option: String,
        /// What was given, cut to 64 characters.
        given: String,
        /// What would be accepted.
        allowed: String,
    },
    /// Refused by the option's own type, which says what it accepts.
    #[error("{option}: {message}")]
    Refused {
        /// Path of the option: `section.key`.
        option: String,
        /// The type's message.
        message: String,
    },
}

/// A rule between options, or one that a schema can not express, that a configuration breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the option: `section.key`.
    pub option: String,
    /// What was given.
    pub given: String,
    /// What would be accepted, as it reads after "expected".
    pub allowed: String,
}

impl Violation {
    /// Of an option by its path within the validated struct.
    #[must_use]
    pub fn new(option: impl Into<String>, given: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Self { option: option.into(), given: given.to_string(), allowed: allowed.into() }
    }

    /// The same, seen from the struct that holds the validated one as `section`.
    #[must_use]
    pub fn within(mut self, section: &str) -> Self {
        self.option = format!("{section}.{}", self.option);
        self
    }
}

/// Rules that a schema can not express.
pub trait Validate {
    /// Checks them all.
    ///
    /// # Errors
    /// Every rule that is broken, so that an admin fixes the file once.
    fn validate(&self) -> Result<(), Vec<Violation>>;
}

/// Reads a configuration. `origin` names the text in errors.
///
/// # Errors
/// [`ConfigError`] with every unknown key and every value that does not fit the schema; of what only the types
/// themselves can tell, the first.
pub fn parse<T: DeserializeOwned + JsonSchema>(text: &str, origin: &str) -> Result<T, ConfigError> {
    let fail = |problems| Err(ConfigError { origin: origin.into(), problems });
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let line = error.span().map(|span| line_of(text, span.start));
            return fail(vec![Problem { line, fault: Fault::Syntax(one_line(error.message())) }]);
        }
    };
    let root = Root::of::<T>();
    let mut check = Check { text, root: &root, problems: Vec::new() };
    check.table(&table, root.node(), "", 1);
    if !check.problems.is_empty() {
        check.problems.sort_by_key(|problem| problem.line);
        return fail(check.problems);
    }
    toml::from_str(text).or_else(|error| {
        let (line, option) = match error.span() {
            Some(span) => (Some(line_of(text, span.start)), option_at(&table, &span)),
            None => (None, String::new()),
        };
        let option = if option.is_empty() { "the configuration".to_owned() } else { option };
        fail(vec![Problem { line, fault: Fault::Refused { option, message: one_line(error.message()) } }])
    })
}

/// Reads a configuration and holds it against its own rules.
///
/// # Errors
/// As [`parse`]; of a readable configuration, every violation.
pub fn parse_valid<T>(text: &str, origin: &str) -> Result<T, ConfigError>
where
    T: DeserializeOwned + JsonSchema + Validate,
{
    let config: T = parse(text, origin)?;
    let Err(violations) = config.validate() else { return Ok(config) };
    let problem = |Violation { option, given, allowed }| Problem {
        line: line_of_option(text, &option),
        fault: Fault::Invalid { option, given: cut(&given), allowed },
    };
    Err(ConfigError { origin: origin.into(), problems: violations.into_iter().map(problem).collect() })
}

/// Walks text and schema side by side.
struct Check<'a> {
    text: &'a str,
    root: &'a Root,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn table(&mut self, table: &DeTable<'_>, node: &Value, path: &str, line: usize) {
        let (properties, others) = match self.root.kind(node) {
            Kind::Table(properties) => (Some(properties), None),
            Kind::Map(values) => (None, Some(values)),
            _ => return,
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let option = join(path, name);
            if let Some(known) = properties.and_then(|known| known.get(name)).or(others) {
                self.value(value, known, &option);
            } else if let Some(known) = properties {
                let names: Vec<_> = known.keys().map(String::as_str).collect();
                let fault = Fault::UnknownKey {
                    key: cut(name),
                    section: if path.is_empty() { "at the top level".into() } else { format!("in [{path}]") },
                    hint: self.hint(name, &names, path),
                };
                self.problems.push(Problem { line: Some(line_of(self.text, key.span().start)), fault });
            }
        }
        for required in schema::required(self.root.resolve(node)) {
            if !table.contains_key(required) {
                let fault = Fault::Missing(join(path, required));
                self.problems.push(Problem { line: Some(line), fault });
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, node: &Value, option: &str) {
        let kind = self.root.kind(node);
        let line = line_of(self.text, value.span().start);
        match (value.get_ref(), &kind) {
            (DeValue::Table(table), Kind::Table(_) | Kind::Map(_)) => self.table(table, node, option, line),
            (DeValue::Array(array), Kind::Array(items)) => {
                for (n, item) in array.iter().enumerate() {
                    self.value(item, items, &format!("{option}[{n}]"));
                }
            }
            (given, kind) if !fits(given, kind) => {
                let given = cut(self.text.get(value.span()).unwrap_or_default());
                let fault = Fault::Invalid { option: option.into(), given, allowed: kind.to_string() };
                self.problems.push(Problem { line: Some(line), fault });
            }
            _ => {}
        }
    }

    fn hint(&self, key: &str, known: &[&str], path: &str) -> String {
        if let Some(nearest) = nearest(key, known.iter().copied(), 0.6) {
            return format!("did you mean {nearest:?}?");
        }
        // Known elsewhere: the option is right and stands in the wrong section.
        let everywhere = self.root.option_paths();
        let leaf = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        match everywhere.iter().find(|other| leaf(other) == key && other.as_str() != join(path, key)) {
            Some(other) => format!("did you mean {other:?}, in another section?"),
            None => format!("known there: {}", known.join(", ")),
        }
    }
}

/// Whether a scalar fits. Kinds that only serde can judge accept everything.
fn fits(value: &DeValue<'_>, kind: &Kind<'_>) -> bool {
    #[allow(clippy::cast_precision_loss)] // Bounds are small numbers.
    let number = match value {
        DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
        DeValue::Float(n) => n.as_str().parse::<f64>().ok(),
        _ => None,
    };
    match kind {
        Kind::Integer(range) => value.is_integer() && number.is_some_and(|n| range.contains(n)),
        Kind::Number(range) => number.is_some_and(|n| range.contains(n)),
        Kind::Text => value.is_str(),
        Kind::Flag => value.is_bool(),
        Kind::Choice(words) => {
            value.as_str().is_some_and(|given| words.iter().any(|(word, _)| *word == given))
        }
        Kind::Table(_) | Kind::Map(_) | Kind::Array(_) => false,
        Kind::Other => true,
    }
}

/// The candidate most like `key`, if any is alike enough.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>, enough: f64) -> Option<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(&key, other);
    let best = known.map(|other| (likeness(other), other)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= enough).then_some(best.1)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The option whose value holds the span, as deep as the text goes.
fn option_at(table: &DeTable<'_>, span: &Range<usize>) -> String {
    for (key, value) in table {
        let inside = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
        if inside(key.span()) || inside(value.span()) {
            let name = key.get_ref().as_ref();
            return match value.get_ref() {
                DeValue::Table(inner) => match option_at(inner, span) {
                    deeper if deeper.is_empty() => name.to_owned(),
                    deeper => join(name, &deeper),
                },
                _ => name.to_owned(),
            };
        }
    }
    // A table spread over the text may not span what it holds.
    let deeper = table.iter().filter_map(|(key, value)| Some((key, value.get_ref().as_table()?)));
    let mut deeper = deeper.map(|(key, inner)| (key.get_ref().as_ref(), option_at(inner, span)));
    deeper.find(|(_, found)| !found.is_empty()).map(|(key, found)| join(key, &found)).unwrap_or_default()
}

/// Line of an option by its path, if the text gives it. Of a list it is the line of the list.
fn line_of_option(text: &str, option: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?.into_inner();
    let (mut table, mut line) = (&table, None);
    for part in option.split(['.', '[']) {
        let Some((key, value)) = table.get_key_value(part) else { break };
        line = Some(line_of(text, key.span().start));
        let Some(inner) = value.get_ref().as_table() else { break };
        table = inner;
    }
    line
}

/// What was given, for a message: one line, 64 characters at most.
fn cut(text: &str) -> String {
    let mut shown: String = one_line(text).chars().take(64).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests;
