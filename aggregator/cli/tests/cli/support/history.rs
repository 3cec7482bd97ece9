//! The history service of the tests' aggregator, with canned answers that are awkward to show.

use evenkeel_proto::v1::history_server::History;
use evenkeel_proto::v1::*;
use tonic::{Request, Response, Status, Streaming};

use super::canned::{HOSTILE, NOW_MS};
use super::{answer, operator};

const DAY_MS: i64 = 86_400_000;

/// Answers about the history of migrations; there is none of the group `none-*`.
pub struct FakeHistory;

fn is_empty(scope: Option<&HistoryScope>) -> bool {
    scope.is_some_and(|scope| scope.group == "none-*")
}

fn score(host: &str, anomaly_score: u32, severity: &str, failed: u64, action: &str) -> HostAnomalyScore {
    HostAnomalyScore {
        host: host.into(),
        anomaly_score,
        severity: severity.into(),
        failure_count: failed,
        success_count: 2,
        last_failure: (failed > 0).then(|| "2026-11-20T14:23:11Z".into()),
        recommended_action: action.into(),
    }
}

fn escalation(host: &str, score: u32, tier: &str, who: &str, answer_minutes: Option<u32>) -> HostEscalation {
    let text = if score > 75 {
        format!("score {score} in production is above 75, from which on somebody is paged")
    } else {
        format!("score {score} is below 50, from which production alerts")
    };
    HostEscalation {
        host: host.into(),
        environment: "production".into(),
        threshold: 50,
        alert: score >= 50,
        page: score > 75,
        tier: tier.into(),
        who: who.into(),
        answer_minutes,
        reason: Some(Reason { code: "pages".into(), text, ..Reason::default() }),
    }
}

fn trend(host: &str, direction: &str, change: Option<i64>, history: bool) -> HostTrend {
    let point = |days: i64, score| ScorePoint {
        at_ms: NOW_MS - days * DAY_MS,
        score: Some(score),
        status: "high".into(),
    };
    HostTrend {
        host: host.into(),
        direction: direction.into(),
        week_ago: change.and(Some(58)),
        change,
        history: if history { vec![point(20, 12.0), point(9, 58.0), point(0, 80.0)] } else { Vec::new() },
    }
}

fn scores(q: &HistoryScoresRequest) -> HistoryScoresResponse {
    let of = |n: usize| match n {
        0 => (
            score("prod-web-07", 80, "critical", 12, "immediate_investigation"),
            escalation("prod-web-07", 80, "team_lead", "team lead", Some(60)),
            trend("prod-web-07", "rising", Some(22), q.with_history),
        ),
        1 => (
            score(HOSTILE, 45, "elevated", 3, "review_logs"),
            escalation(HOSTILE, 45, "ticket_queue", "ticket queue", None),
            trend(HOSTILE, "unknown", None, false),
        ),
        _ => (
            score("prod-cache-01.rack-17.fra.example.com", 0, "normal", 0, "monitor"),
            escalation("prod-cache-01", 0, "ticket_queue", "ticket queue", None),
            trend("prod-cache-01", "steady", Some(-2), q.with_history),
        ),
    };
    let mut answer = HistoryScoresResponse {
        cluster: "lab".into(),
        alerting: 1,
        others: if q.host.is_empty() { 41 } else { 0 },
        records: 1_247,
        ..HistoryScoresResponse::default()
    };
    for (score, escalation, trend) in (0..3).map(of) {
        if q.host.is_empty() || score.host == q.host {
            answer.scores.push(score);
            answer.escalations.push(escalation);
            answer.trends.push(trend);
        }
    }
    answer
}

fn failures() -> HistoryFailuresResponse {
    let host = |host: &str, failed: u64, code: &str, worked_since| RepeatedFailure {
        host: host.into(),
        failure_count: failed,
        success_count: 1_234,
        first_failure_ms: NOW_MS - 40 * DAY_MS,
        last_failure_ms: NOW_MS - 3_600_000,
        median_gap_ms: 3 * 86_400_000,
        last_gap_ms: 5_400_000,
        error_code: code.into(),
        worked_since,
    };
    HistoryFailuresResponse {
        cluster: "lab".into(),
        hosts: vec![
            host("prod-web-07", 12, "kernel_panic_on_boot", false),
            host(HOSTILE, 8, "migration aborted: can't open tunnel\u{1b}[31m to node", true),
            host("prod-app-03", 2, "", true),
        ],
        others: 3,
        records: 1_247,
        left_out: 17,
    }
}

fn summary() -> HistorySummaryResponse {
    let host = |host: &str, failures| HostFailures { host: host.into(), failures, migrations: 40 };
    let code = |code: &str, failures| ErrorCount { error_code: code.into(), failures };
    HistorySummaryResponse {
        cluster: "lab".into(),
        migrations: 1_247,
        failures: 89,
        failure_share: Some(89.0 / 1247.0),
        first_ms: Some(NOW_MS - 300 * DAY_MS),
        last_ms: Some(NOW_MS - 3_600_000),
        hosts: 58,
        failing_hosts: 21,
        repeating_hosts: 9,
        retries: 130,
        mean_duration_ms: Some(1_847_000),
        offenders: vec![host("prod-web-07", 12), host(HOSTILE, 8), host("prod-app-03", 5)],
        codes: vec![code("kernel_panic_on_boot", 41), code("network_timeout_during_migration", 30)],
        other_codes: 11,
        without_code: 7,
        left_out: 0,
    }
}

fn clusters() -> Vec<FailureCluster> {
    let hosts = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
    vec![
        FailureCluster {
            error_code: "kernel_panic_on_boot".into(),
            hosts: hosts(&["prod-web-07", "prod-web-09", "prod-web-11"]),
            coefficient: 0.931,
            weakest: 0.88,
            windows: 7,
            chance: 2.6e-9,
        },
        FailureCluster {
            error_code: "network_timeout_during_migration".into(),
            hosts: hosts(&["prod-db-12", HOSTILE]),
            coefficient: 0.71,
            weakest: 0.71,
            windows: 4,
            chance: 3.1e-12,
        },
    ]
}

fn correlation() -> HistoryCorrelationResponse {
    let hosts: Vec<String> = (0..24).map(|n| format!("prod-web-{n:02}")).collect();
    let row = |n: usize| CorrelationRow {
        host: hosts[n].clone(),
        coefficients: (0..24)
            .map(|m| match (n, m) {
                _ if n == m => 1.0,
                (5, _) | (_, 5) => f64::NAN,
                _ => ((n * m) as f64).sin() / 2.0,
            })
            .collect(),
    };
    HistoryCorrelationResponse {
        cluster: "lab".into(),
        window_ms: DAY_MS,
        windows: 61,
        clusters: clusters(),
        matrix: (0..24).map(row).collect(),
        hosts: hosts.clone(),
        tried: 41,
        hosts_left_out: 3,
        codes_left_out: 1,
        without_code: 7,
        windows_left_out: true,
        records: 1_247,
    }
}

fn heatmap(q: &HistoryHeatmapRequest) -> HistoryHeatmapResponse {
    let severities = ["", "normal", "elevated", "high", "critical"];
    let row = |host: &str, anomaly_score, severity: &str, from: usize| HeatRow {
        host: host.into(),
        anomaly_score,
        severity: severity.into(),
        cells: (0..q.columns as usize)
            .map(|n| HeatCell { migrations: 1, failures: 0, severity: severities[(n * n + from) % 5].into() })
            .collect(),
    };
    HistoryHeatmapResponse {
        cluster: "lab".into(),
        from_ms: (NOW_MS / q.step_ms - i64::from(q.columns) + 1) * q.step_ms,
        step_ms: q.step_ms,
        columns: q.columns,
        hosts: vec![
            row("prod-web-07", 89, "critical", 4),
            row("prod-db-12.rack-17.fra.example.com", 67, "high", 3),
            row(HOSTILE, 45, "elevated", 2),
            row("prod-cache-01", 12, "normal", 0),
        ],
        others: 2,
        records: 1_247,
    }
}

fn report() -> HistoryReportResponse {
    let week = |migrations, failures| {
        let failure_share = (migrations > 0).then(|| failures as f64 / migrations as f64);
        Some(WeekOfMigrations { migrations, failures, failure_share })
    };
    let host = |host: &str, standing: &str, this, before| HostWeeks {
        host: host.into(),
        standing: standing.into(),
        this_week: this,
        week_before: before,
    };
    HistoryReportResponse {
        cluster: "lab".into(),
        to_ms: NOW_MS,
        this_week: week(210, 14),
        week_before: week(180, 9),
        hosts: vec![
            host("prod-web-07", "new", week(6, 5), week(3, 0)),
            host(HOSTILE, "still", week(4, 2), week(4, 3)),
            host("prod-db-12", "recovered", week(3, 0), week(5, 4)),
            host("prod-app-03", "quiet", week(0, 0), week(2, 2)),
        ],
        new_codes: vec![ErrorCount { error_code: "kernel_panic_on_boot".into(), failures: 5 }],
        clusters: clusters(),
        left_out: 0,
        last_ms: Some(NOW_MS - 3_600_000),
    }
}

fn imported(bytes: &[u8], cluster: String) -> ImportHistoryResponse {
    let fault = |line, text: &str| ImportFault { line, code: "bad".into(), text: text.into() };
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    let corrupt = bytes.windows(3).filter(|word| *word == b"bad").count() as u64;
    let faults = vec![
        fault(2, "not JSON: the line ends inside quotes"),
        fault(1_234_567, "outcome is \"maybe\\u001b[31m\"; expected success or failure"),
    ];
    ImportHistoryResponse {
        cluster: if cluster.is_empty() { "lab".into() } else { cluster },
        bytes: bytes.len() as u64,
        records: lines - corrupt,
        added: lines - corrupt,
        corrupt,
        faults: if corrupt > 0 { faults } else { Vec::new() },
        cut_off: !bytes.is_empty() && !bytes.ends_with(b"\n"),
        ..ImportHistoryResponse::default()
    }
}

#[tonic::async_trait]
impl History for FakeHistory {
    async fn import(
        &self,
        r: Request<Streaming<ImportHistoryRequest>>,
    ) -> Result<Response<ImportHistoryResponse>, Status> {
        operator(&r)?;
        let mut pieces = r.into_inner();
        let (mut bytes, mut cluster) = (Vec::new(), None);
        while let Some(piece) = pieces.message().await? {
            cluster.get_or_insert(piece.cluster);
            assert!(piece.data.len() <= 256 << 10, "a piece is small");
            bytes.extend(piece.data);
        }
        Ok(Response::new(imported(&bytes, cluster.unwrap_or_default())))
    }

    async fn failures(
        &self,
        r: Request<HistoryFailuresRequest>,
    ) -> Result<Response<HistoryFailuresResponse>, Status> {
        let empty = is_empty(r.get_ref().scope.as_ref());
        answer(&r, if empty { HistoryFailuresResponse::default() } else { failures() })
    }

    async fn scores(
        &self,
        r: Request<HistoryScoresRequest>,
    ) -> Result<Response<HistoryScoresResponse>, Status> {
        let found = scores(r.get_ref());
        if found.scores.is_empty() {
            return Err(Status::not_found("no migration of a host \"nobody\" is kept, so it has no score"));
        }
        let empty = is_empty(r.get_ref().scope.as_ref());
        answer(&r, if empty { HistoryScoresResponse::default() } else { found })
    }

    async fn summary(
        &self,
        r: Request<HistorySummaryRequest>,
    ) -> Result<Response<HistorySummaryResponse>, Status> {
        let empty = is_empty(r.get_ref().scope.as_ref());
        answer(&r, if empty { HistorySummaryResponse::default() } else { summary() })
    }

    async fn correlation(
        &self,
        r: Request<HistoryCorrelationRequest>,
    ) -> Result<Response<HistoryCorrelationResponse>, Status> {
        let empty = is_empty(r.get_ref().scope.as_ref());
        answer(&r, if empty { HistoryCorrelationResponse::default() } else { correlation() })
    }

    async fn heatmap(
        &self,
        r: Request<HistoryHeatmapRequest>,
    ) -> Result<Response<HistoryHeatmapResponse>, Status> {
        let empty = is_empty(r.get_ref().scope.as_ref());
        answer(&r, if empty { HistoryHeatmapResponse::default() } else { heatmap(r.get_ref()) })
    }

    async fn report(
        &self,
        r: Request<HistoryReportRequest>,
    ) -> Result<Response<HistoryReportResponse>, Status> {
        let quiet = HistoryReportResponse { last_ms: Some(NOW_MS - 90 * DAY_MS), ..Default::default() };
        let found = if r.get_ref().group == "none-*" { quiet } else { report() };
        answer(&r, found)
    }
}
