//! A reader for the schema of a config struct: just the shapes that config structs have.

use std::fmt;

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value};

/// Nesting of sections that is followed. Config structs nest two or three deep; a recursive one would never end.
const MAX_DEPTH: usize = 8;

/// The schema of a whole configuration.
pub(super) struct Root(Value);

/// The bounds of a number; both inclusive unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    low: Option<f64>,
    high: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
}

/// What an option accepts.
#[derive(Debug, PartialEq)]
pub(super) enum Kind<'a> {
    /// A section with named options.
    Table(&'a Map<String, Value>),
    /// A section whose keys are free, with the schema of its values.
    Map(&'a Value),
    /// A list, with the schema of its items.
    Array(&'a Value),
    /// One of some words, each with its description.
    Choice(Vec<(&'a str, &'a str)>),
    Integer(Bounds),
    Number(Bounds),
    Text,
    Flag,
    /// Something only serde can judge.
    Other,
}

impl Root {
    pub(super) fn of<T: JsonSchema>() -> Self {
        Self(schema_for!(T).to_value())
    }

    pub(super) fn node(&self) -> &Value {
        &self.0
    }

    /// The schema itself behind references and optionality.
    pub(super) fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        let mut node = node;
        for _ in 0..MAX_DEPTH {
            let next = match (node.get("$ref").and_then(Value::as_str), node.get("anyOf")) {
                (Some(path), _) => path.strip_prefix('#').and_then(|pointer| self.0.pointer(pointer)),
                (None, Some(Value::Array(any))) => any.iter().find(|one| type_name(one) != Some("null")),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    pub(super) fn kind<'a>(&'a self, node: &'a Value) -> Kind<'a> {
        let node = self.resolve(node);
        let bounds = || {
            let number = |key| node.get(key).and_then(Value::as_f64);
            Bounds {
                low: number("minimum"),
                high: number("maximum"),
                above: number("exclusiveMinimum"),
                below: number("exclusiveMaximum"),
            }
        };
        if let Some(words) = words(node) {
            return Kind::Choice(words);
        }
        match type_name(node) {
            Some("object") => match (node.get("properties"), node.get("additionalProperties")) {
                (Some(Value::Object(properties)), _) => Kind::Table(properties),
                (_, Some(values)) if values.is_object() => Kind::Map(values),
                _ => Kind::Other,
            },
            Some("array") => node.get("items").map_or(Kind::Other, Kind::Array),
            Some("integer") => Kind::Integer(bounds()),
            Some("number") => Kind::Number(bounds()),
            Some("string") => Kind::Text,
            Some("boolean") => Kind::Flag,
            _ => Kind::Other,
        }
    }

    /// Whether the option may be left unset although it has no value then.
    pub(super) fn optional(&self, node: &Value) -> bool {
        let null_in = |list: &Value| list.as_array().is_some_and(|types| types.iter().any(|t| t == "null"));
        node.get("type").is_some_and(null_in)
            || node.get("enum").and_then(Value::as_array).is_some_and(|words| words.contains(&Value::Null))
            || node
                .get("anyOf")
                .and_then(Value::as_array)
                .is_some_and(|any| any.iter().any(|one| type_name(one) == Some("null")))
    }

    /// Paths of all options, sections included.
    pub(super) fn option_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(&self.0, "", 0, &mut paths);
        paths
    }

    fn collect_paths(&self, node: &Value, path: &str, depth: usize, paths: &mut Vec<String>) {
        let node = if let Kind::Array(items) = self.kind(node) { items } else { node };
        let Kind::Table(properties) = self.kind(node) else { return };
        for (name, option) in properties.iter().filter(|_| depth < MAX_DEPTH) {
            let path = super::join(path, name);
            self.collect_paths(option, &path, depth + 1, paths);
            paths.push(path);
        }
    }
}

/// Names of the options without default.
pub(super) fn required(node: &Value) -> impl Iterator<Item = &str> {
    node.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The type's name; of an optional one the type it has when it is there.
fn type_name(node: &Value) -> Option<&str> {
    match node.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

/// The words of an enum whose variants carry nothing: with descriptions `oneOf`, without `enum`.
fn words(node: &Value) -> Option<Vec<(&str, &str)>> {
    if let Some(Value::Array(words)) = node.get("enum") {
        return words.iter().filter(|word| !word.is_null()).map(|word| Some((word.as_str()?, ""))).collect();
    }
    let variants = node.get("oneOf")?.as_array()?.iter().map(|variant| {
        let description = variant.get("description").and_then(Value::as_str).unwrap_or_default();
        match variant.get("const") {
            Some(word) => Some(vec![(word.as_str()?, description)]),
            None => words(variant),
        }
    });
    variants.collect::<Option<Vec<_>>>().map(|groups| groups.concat())
}

impl Bounds {
    pub(super) fn contains(self, n: f64) -> bool {
        !n.is_nan()
            && self.low.is_none_or(|low| n >= low)
            && self.high.is_none_or(|high| n <= high)
            && self.above.is_none_or(|above| n > above)
            && self.below.is_none_or(|below| n < below)
    }
}

impl fmt::Display for Bounds {
    /// Empty, or with a leading space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            (Some(low), Some(high)) => write!(f, " from {low} to {high}")?,
            (Some(low), None) => write!(f, " of {low} or more")?,
            (None, Some(high)) => write!(f, " of {high} or less")?,
            (None, None) => {}
        }
        self.above.map_or(Ok(()), |above| write!(f, " above {above}"))?;
        self.below.map_or(Ok(()), |below| write!(f, " below {below}"))
    }
}

impl fmt::Display for Kind<'_> {
    /// As it reads after "expected".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(_) | Self::Map(_) => f.write_str("a section"),
            Self::Array(_) => f.write_str("a list"),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                f.write_str(&words.join(" or "))
            }
            Self::Integer(bounds) => write!(f, "a whole number{bounds}"),
            Self::Number(bounds) => write!(f, "a number{bounds}"),
            Self::Text => f.write_str("text in quotes"),
            Self::Flag => f.write_str("true or false"),
            Self::Other => f.write_str("a value"),
        }
    }
}
