//! The history service: takes in files, and answers from what is kept of migrations. Each question reads the records it
//! is about, and nothing is remembered between two.

use evenkeel_common::id::ClusterId;
use evenkeel_common::time::Timestamp;
use evenkeel_core::history::correlate::{Correlated, FirstLook};
use evenkeel_core::history::failures::RepeatedFailures;
use evenkeel_core::history::group::Pattern;
use evenkeel_core::history::heatmap::{Grid, Heatmap};
use evenkeel_core::history::record::Record;
use evenkeel_core::history::report::{CLUSTERS, Weekly};
use evenkeel_core::history::score::Scores;
use evenkeel_core::history::summary::Summary;
use evenkeel_core::history::trend::trend;
use evenkeel_proto::v1;
use evenkeel_proto::v1::history_server::History as Service;
use tonic::{Request, Response, Status, Streaming};

use super::control::ControlService;
use super::request::parse;
use super::views::history as views;
use crate::history::History;
use crate::store::StoreError;

/// Hosts in an answer unless the client asks for another number.
const TOP: u32 = 20;
/// Most hosts in an answer.
const MOST: u32 = 1_000;
/// Milliseconds of a day: the length of windows and columns unless the client asks for another.
const DAY_MS: i64 = 86_400_000;
/// Shortest and longest window or column, in milliseconds.
const STEPS: std::ops::RangeInclusive<i64> = 60_000..=31 * DAY_MS;
/// Columns of a heatmap unless the client asks for another number.
const COLUMNS: u32 = 14;

type Answer<T> = Result<Response<T>, Status>;

/// Serves the history of migrations. Store, clock and audit log are those of the control service.
pub struct HistoryService {
    control: ControlService,
}

/// The part of the history that a question is about.
struct Part {
    /// `None` while there is no history at all.
    cluster: Option<ClusterId>,
    group: Option<Pattern>,
    since: Timestamp,
    top: usize,
}

impl Part {
    fn name(&self) -> String {
        self.cluster.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Hands each of its records to `visit`, and tells how many there were.
    fn each(&self, history: &History, mut visit: impl FnMut(&Record)) -> Result<u64, StoreError> {
        let mut records = 0;
        if let Some(cluster) = &self.cluster {
            history.each(cluster, self.since, |record| {
                if self.group.as_ref().is_none_or(|group| group.matches(&record.host)) {
                    records += 1;
                    visit(record);
                }
            })?;
        }
        Ok(records)
    }
}

impl HistoryService {
    /// A service beside a control service.
    #[must_use]
    pub fn new(control: ControlService) -> Self {
        Self { control }
    }

    async fn part(&self, scope: Option<v1::HistoryScope>) -> Result<Part, Status> {
        let v1::HistoryScope { cluster, group, since_ms, top } = scope.unwrap_or_default();
        let group = Some(group).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose();
        let group = group.map_err(|error: evenkeel_core::history::group::InvalidPattern| {
            Status::invalid_argument(error.to_string())
        })?;
        let known = self.control.off(|this| this.history.clusters()).await?;
        let names = || known.iter().map(ClusterId::as_str).collect::<Vec<_>>().join(", ");
        let cluster = match known.as_slice() {
            [] if cluster.is_empty() => None,
            [only] if cluster.is_empty() => Some(only.clone()),
            _ if cluster.is_empty() => {
                let names = names();
                return Err(Status::invalid_argument(format!(
                    "there are histories of several clusters ({names}): name one with --cluster"
                )));
            }
            _ => {
                let asked: ClusterId = parse(&cluster)?;
                if !known.contains(&asked) && self.control.cluster_ids(&cluster).is_err() {
                    let names = if known.is_empty() { "none yet".to_owned() } else { names() };
                    return Err(Status::not_found(format!(
                        "no history of a cluster {cluster:?}; there is one of: {names}"
                    )));
                }
                Some(asked)
            }
        };
        let top = if top == 0 { TOP } else { top.min(MOST) } as usize;
        Ok(Part { cluster, group, since: Timestamp::from_millis(since_ms.unwrap_or(i64::MIN)), top })
    }
}

/// A length of time that was asked for; a day where none was.
fn step(asked: i64) -> Result<i64, Status> {
    match asked {
        0 => Ok(DAY_MS),
        step if STEPS.contains(&step) => Ok(step),
        _ => Err(Status::invalid_argument("a window or column lasts from a minute to 31 days")),
    }
}

fn correlated(part: &Part, history: &History, window_ms: i64) -> Result<(Correlated, u64), StoreError> {
    let mut first = FirstLook::default();
    part.each(history, |record| first.add(record))?;
    let mut second = first.second(window_ms);
    let records = part.each(history, |record| second.add(record))?;
    Ok((second.correlated(), records))
}

#[tonic::async_trait]
impl Service for HistoryService {
    async fn import(
        &self,
        request: Request<Streaming<v1::ImportHistoryRequest>>,
    ) -> Answer<v1::ImportHistoryResponse> {
        super::import::import(&self.control, request).await
    }

    async fn failures(
        &self,
        request: Request<v1::HistoryFailuresRequest>,
    ) -> Answer<v1::HistoryFailuresResponse> {
        let part = self.part(request.into_inner().scope).await?;
        let answer = self.control.off(move |this| {
            let mut found = RepeatedFailures::default();
            let records = part.each(&this.history, |record| found.add(record))?;
            let left_out = found.left_out();
            let (hosts, others) = views::first(found.ranked(), part.top, views::repeat);
            Ok(v1::HistoryFailuresResponse { cluster: part.name(), hosts, others, records, left_out })
        });
        answer.await.map(Response::new)
    }

    async fn scores(&self, request: Request<v1::HistoryScoresRequest>) -> Answer<v1::HistoryScoresResponse> {
        let v1::HistoryScoresRequest { scope, host, with_history } = request.into_inner();
        let part = self.part(scope).await?;
        let now = self.control.clock.now();
        let asked = host.clone();
        let answer = self.control.off(move |this| {
            let history = &this.history;
            let mut scores = Scores::default();
            let records = part.each(history, |record| {
                if host.is_empty() || record.host == host {
                    scores.add(record);
                }
            })?;
            let ranked = scores.ranked();
            let alerting =
                ranked.iter().filter(|of| history.environments.judge(&of.host, of.anomaly_score).alerts());
            let mut answer = v1::HistoryScoresResponse {
                cluster: part.name(),
                records,
                left_out: scores.hosts().left_out,
                alerting: alerting.count() as u64,
                others: ranked.len().saturating_sub(part.top) as u64,
                ..v1::HistoryScoresResponse::default()
            };
            for score in ranked.into_iter().take(part.top) {
                let archived = match &part.cluster {
                    Some(cluster) => history.archived(cluster, &score.host)?,
                    None => Vec::new(),
                };
                let trend = trend(score.anomaly_score, now, &archived);
                let shown = if with_history { archived.as_slice() } else { &[] };
                answer.trends.push(views::trend(&score.host, trend, shown));
                answer.escalations.push(views::escalation(&history.environments, &score));
                answer.scores.push(views::score(score));
            }
            Ok(answer)
        });
        let answer = answer.await?;
        if answer.scores.is_empty() && !asked.is_empty() {
            let cut: String = asked.chars().take(64).collect();
            return Err(Status::not_found(format!(
                "no migration of a host {cut:?} is kept, so it has no score: see `evenkeelctl history score`"
            )));
        }
        Ok(Response::new(answer))
    }

    async fn summary(
        &self,
        request: Request<v1::HistorySummaryRequest>,
    ) -> Answer<v1::HistorySummaryResponse> {
        let part = self.part(request.into_inner().scope).await?;
        let answer = self.control.off(move |this| {
            let mut summary = Summary::default();
            part.each(&this.history, |record| summary.add(record))?;
            Ok(views::summary(part.name(), summary.summed(part.top)))
        });
        answer.await.map(Response::new)
    }

    async fn correlation(
        &self,
        request: Request<v1::HistoryCorrelationRequest>,
    ) -> Answer<v1::HistoryCorrelationResponse> {
        let v1::HistoryCorrelationRequest { scope, window_ms } = request.into_inner();
        let (part, window_ms) = (self.part(scope).await?, step(window_ms)?);
        let answer = self.control.off(move |this| {
            let (found, records) = correlated(&part, &this.history, window_ms)?;
            Ok(views::correlation(part.name(), found, records))
        });
        answer.await.map(Response::new)
    }

    async fn heatmap(
        &self,
        request: Request<v1::HistoryHeatmapRequest>,
    ) -> Answer<v1::HistoryHeatmapResponse> {
        let v1::HistoryHeatmapRequest { scope, step_ms, columns } = request.into_inner();
        let since_given = scope.as_ref().is_some_and(|scope| scope.since_ms.is_some());
        let (part, step_ms, now) = (self.part(scope).await?, step(step_ms)?, self.control.clock.now());
        let answer = self.control.off(move |this| {
            let (mut scores, mut last) = (Scores::default(), None);
            let records = part.each(&this.history, |record| {
                scores.add(record);
                last = last.max(Some(record.at));
            })?;
            // Of an old file the last days are worth seeing, not those since.
            let (from, to) = if since_given {
                (part.since, now)
            } else {
                let to = last.unwrap_or(now);
                let columns = i64::from(if columns == 0 { COLUMNS } else { columns });
                (Timestamp::from_millis(to.as_millis() - (columns - 1).saturating_mul(step_ms)), to)
            };
            let grid = Grid::between(from, to, step_ms);
            let ranked = scores.ranked();
            let shown = &ranked[..ranked.len().min(part.top)];
            let mut map = Heatmap::of(shown.iter().map(|score| score.host.clone()), grid);
            part.each(&this.history, |record| map.add(record))?;
            let others = (ranked.len() - shown.len()) as u64;
            let answer = views::heatmap(part.name(), grid, shown, map.rows());
            Ok(v1::HistoryHeatmapResponse { others, records, ..answer })
        });
        answer.await.map(Response::new)
    }

    async fn report(&self, request: Request<v1::HistoryReportRequest>) -> Answer<v1::HistoryReportResponse> {
        let v1::HistoryReportRequest { cluster, group } = request.into_inner();
        let mut part = self.part(Some(v1::HistoryScope { cluster, group, ..Default::default() })).await?;
        let now = self.control.clock.now();
        let answer = self.control.off(move |this| {
            let (mut weekly, mut last) = (Weekly::ending(now), None);
            part.each(&this.history, |record| {
                weekly.add(record);
                last = last.max(Some(record.at));
            })?;
            part.since = now.before(CLUSTERS);
            let (found, _) = correlated(&part, &this.history, DAY_MS)?;
            Ok(views::report(part.name(), now, last, weekly.report(), found.clusters))
        });
        answer.await.map(Response::new)
    }
}
