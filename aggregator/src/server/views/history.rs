//! The history of migrations as messages.

use evenkeel_common::id::ClusterId;
use evenkeel_common::time::Timestamp;
use evenkeel_core::history::correlate::{Cluster, Correlated};
use evenkeel_core::history::failures::Repeat;
use evenkeel_core::history::heatmap::{Cell, Grid, Row};
use evenkeel_core::history::import::Account;
use evenkeel_core::history::report::{Offender, Report, Week};
use evenkeel_core::history::score::{Band, HostScore};
use evenkeel_core::history::summary::Summed;
use evenkeel_core::history::tier::Environments;
use evenkeel_core::history::trend::{Archived, Trend};
use evenkeel_proto::v1;

use super::count;
use crate::history::Taken;

/// The first of what there is, as messages, and how many others there are.
#[must_use]
pub fn first<T, M>(all: Vec<T>, top: usize, view: impl Fn(T) -> M) -> (Vec<M>, u64) {
    let others = all.len().saturating_sub(top) as u64;
    (all.into_iter().take(top).map(view).collect(), others)
}

/// What an import came to.
#[must_use]
pub fn imported(cluster: &ClusterId, account: Account, taken: Taken) -> v1::ImportHistoryResponse {
    let fault = |(line, fault): (u64, evenkeel_core::history::fault::Fault)| v1::ImportFault {
        line,
        code: fault.code().into(),
        text: fault.to_string(),
    };
    v1::ImportHistoryResponse {
        cluster: cluster.to_string(),
        bytes: account.bytes,
        records: account.records,
        added: taken.added,
        duplicates: taken.duplicates,
        too_old: taken.too_old,
        removed: taken.removed,
        corrupt: account.corrupt,
        faults: account.faults.into_iter().map(fault).collect(),
        cut_off: account.cut_off,
    }
}

/// A host that failed repeatedly.
#[must_use]
pub fn repeat(of: Repeat) -> v1::RepeatedFailure {
    v1::RepeatedFailure {
        host: of.host,
        failure_count: of.failures,
        success_count: of.successes,
        first_failure_ms: of.first_failure.as_millis(),
        last_failure_ms: of.last_failure.as_millis(),
        median_gap_ms: of.median_gap_ms,
        last_gap_ms: of.last_gap_ms,
        error_code: of.error_code.unwrap_or_default(),
        worked_since: of.worked_since,
    }
}

/// The score of a host.
#[must_use]
pub fn score(of: HostScore) -> v1::HostAnomalyScore {
    v1::HostAnomalyScore {
        host: of.host,
        anomaly_score: of.anomaly_score,
        severity: of.severity.name().into(),
        failure_count: of.failure_count,
        success_count: of.success_count,
        last_failure: of.last_failure,
        recommended_action: of.recommended_action.into(),
    }
}

/// Whom a score calls.
#[must_use]
pub fn escalation(environments: &Environments, of: &HostScore) -> v1::HostEscalation {
    let found = environments.judge(&of.host, of.anomaly_score);
    let environment = environments.of(&of.host);
    v1::HostEscalation {
        host: of.host.clone(),
        environment: environment.name.clone(),
        threshold: environment.threshold,
        alert: found.alerts(),
        page: found.pages(),
        tier: found.tier.name().into(),
        who: found.tier.who().into(),
        answer_minutes: found.tier.answer_min(),
        reason: Some(v1::Reason {
            code: found.reason.code().into(),
            text: found.reason.to_string(),
            ..v1::Reason::default()
        }),
    }
}

/// Where a score is going.
#[must_use]
pub fn trend(host: &str, of: Trend, archived: &[Archived]) -> v1::HostTrend {
    let point = |row: &Archived| v1::ScorePoint {
        at_ms: row.day.as_millis(),
        score: Some(row.score.into()),
        status: Band::of(row.score).name().into(),
    };
    v1::HostTrend {
        host: host.to_owned(),
        direction: of.direction.name().into(),
        week_ago: of.week_ago,
        change: of.change,
        history: archived.iter().map(point).collect(),
    }
}

fn counted((error_code, failures): (String, u64)) -> v1::ErrorCount {
    v1::ErrorCount { error_code, failures }
}

/// All of it together.
#[must_use]
pub fn summary(cluster: String, of: Summed) -> v1::HistorySummaryResponse {
    let offender = |(host, failures, migrations)| v1::HostFailures { host, failures, migrations };
    v1::HistorySummaryResponse {
        cluster,
        migrations: of.migrations,
        failures: of.failures,
        failure_share: of.failure_share,
        first_ms: of.first.map(Timestamp::as_millis),
        last_ms: of.last.map(Timestamp::as_millis),
        hosts: of.hosts,
        failing_hosts: of.failing_hosts,
        repeating_hosts: of.repeating_hosts,
        retries: of.retries,
        mean_duration_ms: of.mean_duration_ms,
        offenders: of.offenders.into_iter().map(offender).collect(),
        codes: of.codes.into_iter().map(counted).collect(),
        other_codes: of.other_codes,
        without_code: of.without_code,
        left_out: of.left_out,
    }
}

fn cluster(of: Cluster) -> v1::FailureCluster {
    v1::FailureCluster {
        error_code: of.error_code,
        hosts: of.hosts,
        coefficient: of.coefficient,
        weakest: of.weakest,
        windows: of.windows,
        chance: of.chance,
    }
}

/// Which hosts fail together.
#[must_use]
pub fn correlation(name: String, of: Correlated, records: u64) -> v1::HistoryCorrelationResponse {
    let rows = of.hosts.iter().zip(of.matrix);
    let row = |(host, row): (&String, Vec<Option<f64>>)| v1::CorrelationRow {
        host: host.clone(),
        coefficients: row.into_iter().map(|coefficient| coefficient.unwrap_or(f64::NAN)).collect(),
    };
    v1::HistoryCorrelationResponse {
        cluster: name,
        window_ms: of.window_ms,
        windows: of.windows,
        matrix: rows.map(row).collect(),
        clusters: of.clusters.into_iter().map(cluster).collect(),
        hosts: of.hosts,
        tried: of.tried,
        hosts_left_out: of.left_out.hosts,
        codes_left_out: of.left_out.codes,
        without_code: of.left_out.without_code,
        windows_left_out: of.left_out.windows,
        records,
    }
}

/// Hosts over time, in the order of their scores.
#[must_use]
pub fn heatmap(
    cluster: String,
    grid: Grid,
    scores: &[HostScore],
    rows: Vec<Row>,
) -> v1::HistoryHeatmapResponse {
    let cell = |cell: &Option<Cell>| {
        cell.map_or_else(v1::HeatCell::default, |cell| v1::HeatCell {
            migrations: cell.migrations,
            failures: cell.failures,
            severity: cell.band.name().into(),
        })
    };
    let row = |score: &HostScore| {
        // Rows are in order of names.
        let place = rows.binary_search_by(|row| row.host.cmp(&score.host)).ok();
        v1::HeatRow {
            host: score.host.clone(),
            anomaly_score: score.anomaly_score,
            severity: score.severity.name().into(),
            cells: place.map(|place| rows[place].cells.iter().map(cell).collect()).unwrap_or_default(),
        }
    };
    v1::HistoryHeatmapResponse {
        cluster,
        from_ms: grid.from.as_millis(),
        step_ms: grid.step_ms,
        columns: count(grid.columns),
        hosts: scores.iter().map(row).collect(),
        ..v1::HistoryHeatmapResponse::default()
    }
}

fn week(of: Week) -> v1::WeekOfMigrations {
    v1::WeekOfMigrations {
        migrations: of.migrations,
        failures: of.failures,
        failure_share: of.failure_share(),
    }
}

/// This week and the one before.
#[must_use]
pub fn report(
    name: String,
    now: Timestamp,
    last: Option<Timestamp>,
    of: Report,
    clusters: Vec<Cluster>,
) -> v1::HistoryReportResponse {
    let host = |of: Offender| v1::HostWeeks {
        host: of.host,
        standing: of.standing.name().into(),
        this_week: Some(week(of.this)),
        week_before: Some(week(of.before)),
    };
    v1::HistoryReportResponse {
        cluster: name,
        to_ms: now.as_millis(),
        this_week: Some(week(of.this)),
        week_before: Some(week(of.before)),
        hosts: of.offenders.into_iter().map(host).collect(),
        new_codes: of.new_codes.into_iter().map(counted).collect(),
        clusters: clusters.into_iter().map(cluster).collect(),
        left_out: of.left_out,
        last_ms: last.map(Timestamp::as_millis),
    }
}
