//! Every way to fail: its exit code, and a sentence that names the remedy.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::support::{Aggregator, Ran, VIEWER, bare, certificates, set_mode};

#[test]
fn usage() {
    for (words, hint) in [
        (&["statsu"][..], "status"),
        (&["anomalies", "--since", "24"], "24h"),
        (&["anomalies", "--since", "1w"], "7d"),
        (&["decisions", "--action", "moved"], "executed"),
        (&["guests", "abc"], "100 to 999999999"),
        (&["guests", "7"], "100 to 999999999"),
        (&["nodes", "a b"], "letters"),
        (&["explain", "nonsense"], "CLUSTER-SECONDS-NUMBER"),
        (&["explain", "--guest", "104", "--node", "pve1"], "cannot be used with"),
        (&["--output", "yaml", "status"], "json"),
        (&["feedback", "lab/pve1/65766565-1", "maybe"], "good, bad"),
        (&["detectors", "--since", "30"], "write 90s"),
        (&["scores", "--history", "1w"], "7d"),
        (&["model", "train", "--csv", "a.csv", "--since", "7d"], "cannot be used with"),
        (&["model", "activate"], "<ID>"),
        (&["simulate", "cpu", "--node", "pve1"], "--amount"),
        (&["history", "import"], "<FILE>"),
        (&["history", "failures", "--top", "0"], "1..=1000"),
        (&["history", "heatmap", "--by", "week"], "hour, day"),
        (&["history", "heatmap", "--columns", "7", "--since", "7d"], "cannot be used with"),
        (&["history", "correlate", "--window", "week"], "7d"),
    ] {
        let mut command = bare();
        command.args(words);
        let ran = Ran::of(command);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{words:?} {ran:?}");
        assert!(ran.err.contains(hint), "{words:?}: {}", ran.err);
    }
}

#[test]
fn what_is_not_there_and_what_is_not_allowed_is_told_with_the_remedy() {
    let aggregator = Aggregator::start();
    let unknown = aggregator.run(&["feedback", "lab/pve3/65766565-9", "good"]);
    unknown.fails(1, &["there is no anomaly lab/pve3/65766565-9", "last column of `evenkeelctl anomalies`"]);
    aggregator.run(&["model", "activate", "lab-m9"]).fails(1, &["no model lab-m9", "evenkeelctl model list"]);
    aggregator.run(&["model", "train", "--csv", "/nonexistent.csv"]).fails(1, &["/nonexistent.csv"]);
    aggregator.use_token(VIEWER);
    for words in [&["feedback", "lab/pve3/65766565-1", "good"][..], &["model", "activate", "lab-m3"]] {
        aggregator.run(words).fails(4, &["operator"]);
    }
}

#[test]
fn no_configuration() {
    if std::path::Path::new("/etc/evenkeel/ctl.toml").exists() {
        return eprintln!("skipped: this machine has an /etc/evenkeel/ctl.toml");
    }
    let mut command = bare();
    command.arg("status");
    Ran::of(command)
        .fails(2, &["/nonexistent/.config/evenkeel/ctl.toml", "/etc/evenkeel/ctl.toml", "--config FILE"]);
    let mut command = bare();
    command.arg("status").env("EVENKEEL_CONFIG", "/nonexistent/ctl.toml");
    Ran::of(command).fails(2, &["/nonexistent/ctl.toml", "--config FILE"]);
}

#[test]
fn the_configuration_is_found_where_it_should_be() {
    let aggregator = Aggregator::start();
    let mut command = bare();
    command.arg("status").env("EVENKEEL_CONFIG", aggregator.path("ctl.toml"));
    Ran::of(command).succeeds();
    std::fs::create_dir_all(aggregator.path(".config/evenkeel")).unwrap();
    for name in ["ctl.toml", "ca.pem", "token"] {
        std::fs::rename(aggregator.path(name), aggregator.path(".config/evenkeel").join(name)).unwrap();
    }
    let mut command = bare();
    command.arg("status").env("HOME", aggregator.dir.path());
    Ran::of(command).succeeds();
}

#[test]
fn bad_configuration() {
    let aggregator = Aggregator::start();
    let port = aggregator.port;
    let good =
        format!("endpoint = \"https://127.0.0.1:{port}\"\nca_file = \"ca.pem\"\ntoken_file = \"token\"\n");
    for (text, words) in [
        (good.replace("endpoint", "endpiont"), &["endpiont", "endpoint", "ctl.toml:1"][..]),
        (good.replace("ca.pem", "other.pem"), &["other.pem", "copy the aggregator's ca.pem"]),
        (good.replace("ca.pem", "ctl.toml"), &["holds no PEM certificate"]),
        (good.replace("\"token\"", "\"none\""), &["none", "put a token of this aggregator there"]),
        (good.replace("https", "http"), &["https://"]),
        (good.replace(&format!("https://127.0.0.1:{port}"), "not an address"), &["https://"]),
        (good.replace("token_file = \"token\"\n", ""), &["token_file", "missing"]),
    ] {
        aggregator.use_config(&text);
        let ran = aggregator.run(&["status"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "{word} is not in {}", ran.err);
        }
        let checked = aggregator.run(&["config", "check"]);
        assert_eq!(checked.code, Some(1), "{checked:?}");
    }
    aggregator.use_config(&good);
    for token in ["", "two words", "non\u{7f}printable"] {
        aggregator.use_token(token);
        aggregator.run(&["status"]).fails(2, &["holds no token"]);
    }
}

#[test]
fn nothing_listens() {
    let aggregator = Aggregator::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{free}");
    aggregator
        .run(&["status", "--endpoint", &url])
        .fails(3, &["nothing listens at", &url, "systemctl start evenkeel-aggregator"]);
    aggregator
        .run(&["status", "--endpoint", "https://no-such-host.invalid:7443"])
        .fails(3, &["no-such-host.invalid", "check endpoint"]);
}

#[test]
fn something_else_listens() {
    let aggregator = Aggregator::start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", other.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in other.incoming() {
            let mut stream = stream.unwrap();
            _ = stream.read(&mut [0; 512]);
            _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    aggregator.run(&["status", "--endpoint", &url]).fails(3, &["does not speak TLS", "gRPC port"]);
}

#[test]
fn a_server_that_accepts_and_says_nothing() {
    let aggregator = Aggregator::start();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", mute.local_addr().unwrap());
    aggregator.run(&["status", "--endpoint", &url]).fails(3, &["did not answer within 5 s"]);
}

#[test]
fn another_ca() {
    let aggregator = Aggregator::start();
    let (foreign, _) = certificates(&["127.0.0.1"]);
    std::fs::write(aggregator.path("ca.pem"), foreign).unwrap();
    aggregator.run(&["status"]).fails(3, &["not vouched for by the CA", "ca.pem"]);
}

#[test]
fn another_name() {
    let aggregator = Aggregator::start();
    let port = aggregator.port;
    let config = |name: &str| {
        format!(
            "endpoint = \"https://localhost:{port}\"\nca_file = \"ca.pem\"\ntoken_file = \"token\"\nserver_name = \"{name}\"\n"
        )
    };
    aggregator.use_config(&config("elsewhere.test"));
    aggregator.run(&["status"]).fails(3, &["made for another name", "server_name"]);
    aggregator.use_config(&config("aggregator.test"));
    aggregator.run(&["status"]).succeeds();
}

#[test]
fn not_allowed() {
    let aggregator = Aggregator::start();
    aggregator.use_token("ekt_stranger");
    aggregator.run(&["nodes"]).fails(4, &["does not know the token in", "unknown token"]);
    aggregator.run(&["anomalies", "--watch"]).fails(4, &["does not know the token in"]);
    aggregator.use_token(VIEWER);
    aggregator.run(&["nodes"]).succeeds();
    aggregator.run(&["pause"]).fails(4, &["your role is viewer, this needs operator", "higher role"]);
}

#[test]
fn the_aggregators_refusals() {
    use tonic::Status;
    let aggregator = Aggregator::start();
    for (status, code, words) in [
        (
            Status::internal("store\u{1b}[2J is \u{202e}gone"),
            1,
            &["the aggregator failed: store", "journalctl"][..],
        ),
        (Status::unimplemented(""), 1, &["upgrade evenkeel-aggregator"]),
        (Status::unavailable("starting"), 3, &["not ready: starting", "try again"]),
        (Status::invalid_argument("no cluster \"x\""), 2, &["no cluster"]),
        (Status::resource_exhausted("too many guests"), 1, &["too many guests", "--node"]),
        (Status::failed_precondition("the store is read-only"), 1, &["the store is read-only"]),
    ] {
        aggregator.behaviour.lock().unwrap().guests_fail = Some(status);
        let ran = aggregator.run(&["guests"]);
        ran.fails(code, words);
        assert!(!ran.err.chars().any(|c| c.is_control() && c != '\n'), "{:?}", ran.err);
    }
}

#[test]
fn what_is_not_there() {
    let aggregator = Aggregator::start();
    aggregator.run(&["guests", "999"]).fails(1, &["no guest 999", "evenkeelctl guests"]);
    aggregator.run(&["nodes", "pve9"]).fails(1, &["no node pve9", "evenkeelctl nodes"]);
    aggregator.run(&["profiles", "999"]).fails(1, &["no profile of guest 999"]);
    aggregator.run(&["status", "--cluster", "moon"]).fails(1, &["no cluster moon"]);
    aggregator.run(&["explain", "lab-1-1"]).fails(1, &["no decision lab-1-1"]);
    aggregator.run(&["replay"]).fails(2, &["--cluster NAME"]);
}

#[test]
fn a_replay_that_differs_is_a_failure() {
    let aggregator = Aggregator::start();
    aggregator.behaviour.lock().unwrap().replay_differs = true;
    let ran = aggregator.run(&["replay", "--cluster", "lab"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("decision 2: stored filtered by cycle, replayed recommended"), "{}", ran.out);
    assert!(ran.err.contains("does not replay to the same decisions"), "{}", ran.err);
}

#[test]
fn a_token_that_others_can_read_is_told() {
    let aggregator = Aggregator::start();
    set_mode(&aggregator.path("token"), 0o644);
    let ran = aggregator.run(&["nodes"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.contains("warning") && ran.err.contains("chmod"), "{}", ran.err);
}

#[test]
fn checking_configuration_files() {
    let aggregator = Aggregator::start();
    let path = |name: &str| aggregator.path(name).display().to_string();
    let ran = aggregator.run(&["config", "check"]).succeeds();
    assert!(ran.out.contains("is good"), "{}", ran.out);
    std::fs::write(path("agent.toml"), "interval = \"1s\"\n").unwrap();
    aggregator.run(&["config", "check", &path("agent.toml")]).fails(2, &["evenkeel-agent check --config"]);
    std::fs::write(path("aggregator.toml"), "[grpc]\nlisten = \"[::]:7443\"\n").unwrap();
    aggregator
        .run(&["config", "check", &path("aggregator.toml")])
        .fails(2, &["evenkeel-aggregator check --config"]);
    std::fs::write(path("x.toml"), "a = 1\n").unwrap();
    aggregator.run(&["config", "check", &path("x.toml")]).fails(2, &["--kind ctl"]);
    let ran = aggregator.run(&["config", "check", &path("x.toml"), "--kind", "ctl"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("unknown option \"a\"") && ran.err.contains("option endpoint is missing"),
        "{}",
        ran.err
    );
}

#[test]
fn help_names_every_verb_and_every_verb_has_help() {
    let verbs = "status nodes guests profiles anomalies scores forecast feedback detectors model decisions explain replay pause resume config export completions man";
    let mut command = bare();
    command.arg("--help");
    let help = Ran::of(command).succeeds().out;
    for verb in verbs.split(' ') {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))),
            "{verb}: {help}"
        );
        let mut command = bare();
        command.args([verb, "--help"]);
        assert!(Ran::of(command).succeeds().out.contains("Usage: evenkeelctl"), "{verb}");
    }
    assert!(help.contains("Exit codes: 0 ok, 1 failed"), "{help}");
}

#[test]
fn completions_and_manual_pages() {
    for (shell, word) in
        [("bash", "complete -F"), ("zsh", "#compdef evenkeelctl"), ("fish", "complete -c evenkeelctl")]
    {
        let mut command = bare();
        command.args(["completions", shell]);
        assert!(Ran::of(command).succeeds().out.contains(word), "{shell}");
    }
    let mut command = bare();
    command.arg("man");
    assert!(Ran::of(command).succeeds().out.contains(".TH evenkeelctl"));
    let dir = tempfile::tempdir().unwrap();
    let mut command = bare();
    command.arg("man").arg(dir.path().join("pages"));
    Ran::of(command).succeeds();
    let page = std::fs::read_to_string(dir.path().join("pages/evenkeelctl-anomalies.1")).unwrap();
    assert!(page.contains("since"), "{page}");
}
