//! The history of migrations on the whole path: files as people have them, imported once and again, and what Proxmox
//! lists; then the questions, as a person or a tool asks them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use evenkeel_aggregator::config::ClusterConfig;
use evenkeel_aggregator::identity::roles::Role;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_proto::v1::history_client::HistoryClient;
use evenkeel_tests::fake_pve;
use evenkeel_tests::harness::{Site, real_time};
use evenkeel_tests::lab::Options;
use serde_json::Value;
use tonic::Code;

use crate::support::{bearer, channel, config, ctl, options, pass, said, site};

const DAY: Duration = Duration::from_hours(24);

async fn start(dir: &Path) -> Site {
    let mut config = config();
    config.clusters.push(ClusterConfig { name: "lab".into(), ..ClusterConfig::default() });
    site(dir, config).await
}

/// Runs `evenkeelctl history` with these words: exit code and all it said.
async fn asked(site: &Site, words: &str) -> (i32, String) {
    let words: Vec<&str> = ["history"].into_iter().chain(words.split_whitespace()).collect();
    let output = ctl(site.dir.join("ctl.toml"), &words).await;
    (output.status.code().unwrap(), said(&output))
}

/// The same as JSON.
async fn object(site: &Site, words: &str) -> Value {
    let words: Vec<&str> =
        ["history", "--output", "json"].into_iter().chain(words.split_whitespace()).collect();
    let output = ctl(site.dir.join("ctl.toml"), &words).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
}

fn line(host: &str, at: Timestamp, outcome: &str, code: &str) -> String {
    format!(
        r#"{{"host":"{host}","timestamp":"{at}","outcome":"{outcome}","error_code":"{code}","duration_sec":1847,"retries":3}}"#
    )
}

/// Sixty days of a fleet: three hosts panic together once a week, one fails by itself, one never.
fn fleet(now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for days in 0..60 {
        let at = now.before(DAY * days + Duration::from_mins(1));
        lines.push(line("prod-cache-01", at, "success", ""));
        for host in ["prod-web-07", "prod-web-09", "prod-web-11"] {
            let (outcome, code) =
                if days % 7 == 3 { ("failure", "kernel_panic_on_boot") } else { ("success", "") };
            lines.push(line(host, at, outcome, code));
        }
        if days % 11 == 5 {
            lines.push(line("dev-db-12", at, "failure", "disk_full"));
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_imported_once_with_an_account_of_what_is_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path()).await;
    let (code, text) = asked(&site, "summary").await;
    assert!(code == 0 && text.contains("history import FILE"), "{text}");

    let lines = fleet(real_time());
    let mut text = lines.join("\n");
    for bad in ["{\"host\":\"prod-web-07", "not json", "{\"host\":\"x\",\"outcome\":\"success\"}"] {
        write!(text, "\n{bad}").unwrap();
    }
    // The last record stands twice.
    write!(text, "\n{}\n", lines.last().unwrap()).unwrap();
    let file = dir.path().join("history.ndjson");
    std::fs::write(&file, &text).unwrap();
    let (code, told) = asked(&site, &format!("import {}", file.display())).await;
    let n = lines.len();
    assert!(code == 0 && told.contains(&format!("{} records in", n + 1)), "{told}");
    assert!(told.contains("line 246: not JSON: the line ends inside quotes"), "{told}");
    assert!(
        told.contains("line 247: expected a record in braces") && told.contains("no timestamp"),
        "{told}"
    );
    let again = object(&site, &format!("import {}", file.display())).await;
    let counts =
        |answer: &Value| ["added", "duplicates", "corrupt"].map(|field| answer[field].as_u64().unwrap());
    assert_eq!(counts(&again), [0, n as u64 + 1, 3], "{again:#}");
    // An overlapping array, pretty-printed, with one record that is new.
    let more = format!(
        "[\n{},\n{}\n]",
        lines[0].replace(',', ",\n  "),
        line("prod-new", real_time(), "success", "")
    );
    std::fs::write(&file, more).unwrap();
    assert_eq!(counts(&object(&site, &format!("import {}", file.display())).await), [1, 1, 0]);
    let summary = object(&site, "summary").await;
    assert_eq!(summary["migrations"].as_u64(), Some(n as u64 + 1));
    site.shut_down().await;
    let audit = std::fs::read_to_string(dir.path().join("aggregator/audit.log")).unwrap();
    assert!(audit.contains("/evenkeel.v1.History/Import") && audit.contains("lab started"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_history_tells_is_told_as_other_tools_know_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path()).await;
    let file = dir.path().join("history.ndjson");
    std::fs::write(&file, fleet(real_time()).join("\n")).unwrap();
    asked(&site, &format!("import {}", file.display())).await;

    // Nine of sixty failed: (90 - 102 + 120) / 60 x 4 = 7.2.
    let score = object(&site, "score prod-web-07").await;
    let fields: Vec<_> = score.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "host",
        "anomaly_score",
        "severity",
        "failure_count",
        "success_count",
        "last_failure",
        "recommended_action",
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected);
    assert_eq!((score["anomaly_score"].as_u64(), score["severity"].as_str()), (Some(7), Some("normal")));
    assert_eq!((score["failure_count"].as_u64(), score["success_count"].as_u64()), (Some(9), Some(51)));
    assert!(score["last_failure"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{score}");
    // Only failures: (50 + 60) / 5 x 4 = 88. Development alerts from 75 on, and all page above it.
    let all = object(&site, "score").await;
    assert_eq!(
        (all["scores"][0]["host"].as_str(), all["scores"][0]["anomaly_score"].as_u64()),
        (Some("dev-db-12"), Some(88))
    );
    let escalation = &all["escalations"][0];
    assert_eq!(
        (escalation["environment"].as_str(), escalation["page"].as_bool()),
        (Some("development"), Some(true))
    );
    assert_eq!(
        (escalation["tier"].as_str(), escalation["answer_minutes"].as_u64()),
        (Some("team_lead"), Some(60))
    );

    let failures = object(&site, "failures --group prod-web-*").await;
    let hosts: Vec<_> =
        failures["hosts"].as_array().unwrap().iter().map(|host| host["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["prod-web-07", "prod-web-09", "prod-web-11"]);
    assert_eq!(failures["hosts"][0]["median_gap_ms"].as_u64(), Some(7 * 86_400_000));
    let found = object(&site, "correlate").await;
    let cluster = &found["clusters"][0];
    assert_eq!(
        (cluster["error_code"].as_str(), cluster["hosts"].as_array().map(Vec::len)),
        (Some("kernel_panic_on_boot"), Some(3))
    );
    assert!(
        cluster["coefficient"].as_f64() > Some(0.99) && found["clusters"].as_array().unwrap().len() == 1,
        "{found:#}"
    );
    assert_eq!(found["matrix"].as_array().map(Vec::len), Some(4));
    let map = object(&site, "heatmap --columns 30").await;
    assert_eq!(
        (map["columns"].as_u64(), map["hosts"][0]["cells"].as_array().map(Vec::len)),
        (Some(30), Some(30))
    );
    let (_, drawn) = asked(&site, "heatmap --since 10d").await;
    assert!(drawn.lines().filter(|line| line.contains("prod-")).count() == 4, "{drawn}");
    let report = object(&site, "report").await;
    assert_eq!(report["this_week"]["migrations"].as_u64(), Some(7 * 4 + 1), "{report:#}");
    assert_eq!(report["clusters"].as_array().map(Vec::len), Some(1), "{report:#}");

    for (words, code, expected) in [
        ("score nobody", 1, "no migration of a host \"nobody\" is kept"),
        ("summary --cluster nope", 1, "no history of a cluster \"nope\"; there is one of: lab"),
        ("correlate --window 60d", 2, "a minute to 31 days"),
        ("failures --since 1w", 2, "7d"),
    ] {
        let (found, text) = asked(&site, words).await;
        assert!(found == code && text.contains(expected), "{words}: {found} {text}");
    }
    // The archive follows the import.
    let key = evenkeel_aggregator::store::trees::HOST_SCORES;
    crate::support::until("the scores are archived", || {
        let range = evenkeel_aggregator::store::KeyRange::all();
        let direction = evenkeel_aggregator::store::Direction::Forward;
        key.page(site.aggregator.store.as_ref(), &range, direction, 10).unwrap().len() == 5
    })
    .await;
    let (_, shown) = asked(&site, "score prod-web-07").await;
    assert!(shown.contains("no score of a week ago is archived"), "{shown}");
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_none_get_a_clear_answer_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path()).await;
    let file = dir.path().join("history.json");
    let good = line("prod-web-07", real_time().before(DAY), "failure", "panic");
    let binary: Vec<u8> = (0..=255_u8).cycle().take(500_000).collect();
    let long = format!("{good}\n{{\"host\":\"{}\"}}\n{good}\n", "x".repeat(5 << 20));
    let bomb = format!("{}{good}", "[".repeat(1 << 20));
    for (bytes, code, expected) in [
        (Vec::new(), 1, "is empty"),
        (binary, 1, "nothing in"),
        (b"[1,2,3]".to_vec(), 1, "expected a record in braces, found a number"),
        (br#"{"records":[]}"#.to_vec(), 1, "no host"),
        (format!("[{good},{}", &good[..60]).into_bytes(), 1, "ends in the middle"),
        (long.into_bytes(), 0, "line 2: longer than 64 KiB"),
        (bomb.into_bytes(), 1, "found an array"),
        (b"[]\n".to_vec(), 0, "0 records in"),
        (format!("\u{feff}{good}\r\n").into_bytes(), 0, "known already  1"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let (found, text) = asked(&site, &format!("import {}", file.display())).await;
        assert!(found == code && text.contains(expected), "{expected}: {found} {text}");
    }
    let (code, text) = asked(&site, "import /nonexistent/history.json").await;
    assert!(code == 0 && text.contains("warning") && text.contains("empty history"), "{text}");
    assert_eq!(object(&site, "summary").await["migrations"].as_u64(), Some(1));

    // What evenkeelctl would not send: nothing at all, and a client that may not.
    let client = async |role| {
        let token = site.token(role, "a tester").unwrap();
        HistoryClient::with_interceptor(channel(&site, None).await.unwrap(), bearer(&token))
    };
    let mut operator = client(Role::Operator).await;
    let refused =
        operator.import(tokio_stream::iter(Vec::<v1::ImportHistoryRequest>::new())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let mut viewer = client(Role::Viewer).await;
    let piece = v1::ImportHistoryRequest { data: good.into_bytes(), ..Default::default() };
    let refused = viewer.import(tokio_stream::iter([piece])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    viewer.summary(v1::HistorySummaryRequest::default()).await.unwrap();
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proxmox_lists_becomes_history_by_itself_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { interval_s: 10, ..options(dir.path()) };
    let lab = evenkeel_tests::lab::VirtualLab::start_with(&options, |_| {}).await.unwrap();
    pass(&lab, 3).await;
    let ends = |vmid: u32, status: &str, target: Option<&str>| {
        let (vmid, target) = (Vmid::new(vmid).unwrap(), target.map(|node| NodeId::new(node).unwrap()));
        if let Some(target) = &target {
            lab.cluster.fleet.lock().unwrap().guests.get_mut(&vmid).unwrap().node = target.clone();
        }
        let mut fake = fake_pve::lock(&lab.cluster.fake);
        let upid = fake.start_migration(vmid, "ann@pam").unwrap();
        fake.end_task(&upid, status, target.as_ref());
    };
    lab.sample().await.unwrap();
    ends(100, "OK", Some("pve8"));
    ends(110, "migration aborted", None);
    lab.decide().await.unwrap();
    pass(&lab, 12).await;
    let summary = object(&lab.site, "summary").await;
    assert_eq!(
        (summary["migrations"].as_u64(), summary["failures"].as_u64()),
        (Some(2), Some(1)),
        "{summary:#}"
    );
    assert_eq!(summary["codes"][0]["error_code"], "migration aborted");
    assert_eq!(summary["offenders"][0]["host"], "pve1", "{summary:#}");
    let lab = lab.restart().await.unwrap();
    pass(&lab, 12).await;
    let after = object(&lab.site, "summary").await;
    assert_eq!(after["migrations"].as_u64(), Some(2), "{after:#}");
    lab.site.shut_down().await;
}
