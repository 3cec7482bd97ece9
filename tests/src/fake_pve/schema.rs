//! Holds the list of calls against the schema of the real thing, where it is at hand, and the server against the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::calls::{CALLS, Call};
use super::params::{Kind, Param};
use super::recorded::{ask, recorded};
use super::tests::small_cluster;
use super::*;

/// A parameter's type in words, and whether it must be there.
type Told = (String, bool);

fn ours(param: &Param) -> (String, Told) {
    let kind = match param.kind {
        Kind::Text => "string".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Integer(None) => "integer".to_owned(),
        Kind::Integer(Some(least)) => format!("integer from {least}"),
        Kind::Number => "number from 0".to_owned(),
        Kind::OneOf(words) => format!("one of {}", words.join(",")),
    };
    (param.name.to_owned(), (kind, param.required))
}

fn theirs(name: &str, schema: &Value) -> (String, Told) {
    let words = schema["enum"].as_array().map(|words| {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        format!("one of {}", words.join(","))
    });
    // A least number may be a text.
    let least = schema.get("minimum").map(|least| format!(" from {}", least.to_string().replace('"', "")));
    let plain = format!("{}{}", schema["type"].as_str().unwrap(), least.unwrap_or_default());
    (name.to_owned(), (words.unwrap_or(plain), schema["optional"] != 1))
}

/// The names in a call's path.
fn in_path(call: &Call) -> BTreeSet<&str> {
    call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

#[test]
fn every_call_has_the_parameters_and_the_privilege_of_the_schema() {
    let Some(file) = recorded("schema.json") else { return };
    let schema: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    for call in CALLS {
        let name = format!("{} {}", call.method, call.path);
        let real = &schema["paths"][call.path][call.method.as_str()];
        assert!(real.is_object(), "{name}: the schema does not have it");
        assert_eq!(real["parameters"]["additionalProperties"], 0, "{name}");
        let properties = real["parameters"]["properties"].as_object().cloned().unwrap_or_default();
        let path = in_path(call);
        assert!(path.iter().all(|name| properties.contains_key(*name)), "{name}: {path:?}");
        let beside = properties.iter().filter(|(name, _)| !path.contains(name.as_str()));
        let wanted: BTreeMap<String, Told> = beside.map(|(name, schema)| theirs(name, schema)).collect();
        let known: BTreeMap<String, Told> = call.known.iter().map(ours).collect();
        assert_eq!(known, wanted, "{name}: left ours, right the schema's");
        let permissions = &real["permissions"];
        let check = &permissions["check"];
        // Where anybody may ask, a check beside it decides what is shown.
        let need = if permissions["user"] == "all" {
            None
        } else {
            assert_eq!((&check[0], check[2].as_array().unwrap().len()), (&Value::from("perm"), 1), "{name}");
            Some((check[1].as_str().unwrap(), check[2][0].as_str().unwrap()))
        };
        assert_eq!(call.need, need, "{name}: left ours, right the schema's");
    }
}

#[tokio::test]
async fn what_the_list_says_is_what_the_server_does() {
    let mut cluster = small_cluster();
    cluster.tokens.push(FakeToken::new("nobody@pve!none", "00"));
    cluster.tokens[1] = cluster.tokens[1].clone().with("/", "Sys.Audit VM.Audit VM.Migrate");
    let server = FakePve::start(Arc::new(Mutex::new(cluster))).await.unwrap();
    for call in CALLS {
        let filled =
            |path: &str| path.replace("{node}", "pve1").replace("{vmid}", "401").replace("{upid}", "x");
        let path = filled(call.path);
        let (line, _) = ask(&server, "nobody@pve!none=00", call.method.clone(), &path).await;
        match call.need {
            Some((on, privilege)) => {
                assert_eq!(
                    line,
                    format!("403 Permission check failed ({}, {privilege})", filled(on)),
                    "{path}"
                );
            }
            None => assert!(!line.starts_with("403"), "{path}: {line}"),
        }
        let odd = format!("{path}?odd=1");
        let (line, body) = ask(&server, &server.exec_token(), call.method.clone(), &odd).await;
        if call.path == "/cluster/ha/groups" {
            assert_eq!(line, "400 Parameter verification failed.", "even where the call itself is gone");
        }
        let named: BTreeSet<&str> =
            body["errors"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let needed = call.known.iter().filter(|param| param.required).map(|param| param.name);
        assert_eq!(named, needed.chain(["odd"]).collect(), "{path}: {line}");
    }
}
