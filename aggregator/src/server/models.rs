//! Models by gRPC: training with its progress, the list, activation and the way back.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::model::DriftVerdict;
use evenkeel_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::control::ControlService;
use super::request::{name_of, optional, who};
use super::watch::Watch;
use crate::fleet::models::{ModelsError, Shelf};
use crate::fleet::training::{LOOK_BACK, Material, TrainingError};
use crate::fleet::{Fleet, csv};
use crate::identity::audit::Outcome;
use crate::store::StoreError;
use crate::store::records::{ModelRecord, NodeKey};

/// Largest file of training data, in bytes.
const MAX_CSV: usize = 64 << 20;
/// Longest wait for the next piece of a file.
const PIECE: Duration = Duration::from_secs(30);
/// Steps of progress that may wait for a slow client.
const WAITING: usize = 64;
/// Models in one answer.
const MOST: usize = 1_000;

/// What is to be trained, once a file has arrived whole.
struct Order {
    cluster: ClusterId,
    node: Option<NodeId>,
    since: Option<Timestamp>,
    file: Option<Vec<u8>>,
    activate: bool,
}

/// Trains and tells how far it is. The training ends when the client leaves.
pub(super) async fn train(
    control: &ControlService,
    request: Request<Streaming<v1::TrainModelRequest>>,
) -> Result<Response<Watch<v1::TrainProgress>>, Status> {
    let who = who(&request);
    let order = receive(control, request.into_inner()).await?;
    let source = if order.file.is_some() { "csv" } else { "store" };
    let detail =
        format!("{} {} from {source}", order.cluster, order.node.as_ref().map_or("*", NodeId::as_str));
    control.record(who.clone(), "/evenkeel.v1.Fleet/TrainModel", detail, Outcome::Done).await?;
    let (answers, receiver) = mpsc::channel(WAITING);
    let (fleet, by, stop) = (Arc::clone(&control.fleet), name_of(who.as_ref()), control.stop.clone());
    let now = control.clock.now();
    tokio::task::spawn_blocking(move || {
        let told =
            |progress: v1::TrainProgress| answers.blocking_send(Ok(progress)).is_ok() && !stop.is_cancelled();
        if let Err(status) = carry_out(&fleet, order, &by, now, &told) {
            // The client may be gone; then nobody needs the reason.
            let _ = answers.blocking_send(Err(status));
        }
    });
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

async fn receive(
    control: &ControlService,
    mut pieces: Streaming<v1::TrainModelRequest>,
) -> Result<Order, Status> {
    let missing = || Status::invalid_argument("the request has no first message");
    let first = pieces.message().await?.ok_or_else(missing)?;
    let node = optional::<NodeId>(&first.node)?;
    let cluster = match control.cluster_ids(&first.cluster)?.as_slice() {
        [only] => only.clone(),
        [] => return Err(Status::not_found("no cluster is known yet")),
        _ => return Err(Status::invalid_argument("there are several clusters: name one with --cluster")),
    };
    let mut file = first.from_csv.then_some(first.csv);
    if let Some(file) = &mut file {
        let late = |_| Status::deadline_exceeded("the next piece of the file did not come; try again");
        while let Some(piece) = tokio::time::timeout(PIECE, pieces.message()).await.map_err(late)?? {
            if file.len() + piece.csv.len() > MAX_CSV {
                let most = MAX_CSV >> 20;
                return Err(Status::invalid_argument(format!(
                    "the file is larger than {most} MiB; leave out the oldest rows"
                )));
            }
            file.extend(piece.csv);
        }
    }
    let since = first.since_ms.map(Timestamp::from_millis);
    Ok(Order { cluster, node, since, file, activate: first.activate })
}

/// Trains the node named, or one after the other all of the cluster.
fn carry_out(
    fleet: &Fleet,
    order: Order,
    by: &str,
    now: Timestamp,
    told: &dyn Fn(v1::TrainProgress) -> bool,
) -> Result<(), Status> {
    let Order { cluster, node, since, file, activate } = order;
    let step = |stage: String, share: f64, rows: usize| v1::TrainProgress {
        stage,
        share,
        rows: rows as u64,
        model: None,
    };
    let internal = |error: StoreError| Status::internal(error.to_string());
    let mut jobs = Vec::new();
    if let Some(file) = file {
        let rows = csv::parse(&file).map_err(|error| Status::invalid_argument(error.to_string()))?;
        jobs.push(Material { node, rows, source: "csv", by: by.to_owned() });
    } else {
        let nodes: Vec<NodeKey> = match node {
            Some(node) => vec![NodeKey { cluster: cluster.clone(), node }],
            None => fleet.nodes(&cluster),
        };
        for key in nodes {
            let rows = fleet.rows(&key, since.unwrap_or(now.before(LOOK_BACK))).map_err(internal)?;
            told(step(format!("reading {}", key.node), 1.0, rows.len()));
            jobs.push(Material { node: Some(key.node), rows, source: "store", by: by.to_owned() });
        }
    }
    if jobs.is_empty() {
        return Err(Status::failed_precondition("no node of this cluster has reported yet"));
    }
    for material in jobs {
        let name = material.node.as_ref().map_or_else(|| cluster.to_string(), ToString::to_string);
        let rows = material.rows.len();
        let (stage, failed) = (format!("training {name}"), |error: TrainingError| refused(&name, &error));
        let trained =
            fleet.train(&cluster, material, activate, &mut |share| told(step(stage.clone(), share, rows)));
        let (number, record) = trained.map_err(failed)?;
        let model = view(fleet, &cluster, number, &record).map_err(internal)?;
        told(v1::TrainProgress { stage: "done".into(), share: 1.0, rows: rows as u64, model: Some(model) });
    }
    Ok(())
}

fn refused(name: &str, error: &TrainingError) -> Status {
    let text = format!("{name}: {error}");
    match error {
        TrainingError::Rows(_) | TrainingError::Busy => Status::failed_precondition(text),
        TrainingError::Models(_) | TrainingError::Store(_) => Status::internal(text),
    }
}

/// All models of these clusters, newest first.
pub(super) fn list(
    fleet: &Fleet,
    clusters: &[ClusterId],
    with_drift: bool,
) -> Result<Vec<v1::ModelView>, StoreError> {
    let mut models = Vec::new();
    for cluster in clusters {
        for (number, record) in fleet.shelf().list(cluster)?.into_iter().take(MOST) {
            let mut shown = view(fleet, cluster, number, &record)?;
            if with_drift && shown.state == "active" {
                let drift = fleet.drift(cluster, number)?;
                shown.drift = drift.into_iter().flat_map(|drift| drift.metrics).map(metric_drift).collect();
            }
            models.push(shown);
        }
    }
    Ok(models)
}

fn metric_drift(of: evenkeel_detect::model::MetricDrift) -> v1::MetricDrift {
    v1::MetricDrift {
        metric: of.metric.to_string(),
        drift: of.psi,
        drifted: of.verdict == DriftVerdict::Strong,
    }
}

fn view(
    fleet: &Fleet,
    cluster: &ClusterId,
    number: u32,
    record: &ModelRecord,
) -> Result<v1::ModelView, StoreError> {
    let shelf = fleet.shelf();
    let problem = shelf.problems(cluster, number).join("; ");
    let active = shelf.active(cluster, record.node.as_ref())?.number == Some(number);
    let state = match (problem.is_empty(), active) {
        (false, _) => "damaged",
        (true, true) => "active",
        (true, false) => "ready",
    };
    Ok(v1::ModelView {
        id: Shelf::id(cluster, number),
        cluster: cluster.to_string(),
        node: record.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        trained_ms: record.trained_at.as_millis(),
        from_ms: record.data.from.as_millis(),
        to_ms: record.data.to.as_millis(),
        rows: record.rows,
        left_out: record.left_out,
        source: record.source.clone(),
        by: record.by.clone(),
        state: state.into(),
        problem,
        drift: Vec::new(),
        bytes: record.bytes,
    })
}

/// Makes a model active, or goes back to the one before.
pub(super) async fn activate(
    control: &ControlService,
    request: Request<v1::ActivateModelRequest>,
) -> Result<Response<v1::ActivateModelResponse>, Status> {
    let who = who(&request);
    let request = request.into_inner();
    let node = optional::<NodeId>(&request.node)?;
    let target = match Shelf::parse(&request.id) {
        Some((cluster, number)) if !request.rollback => (cluster, Some(number)),
        None if request.rollback => match control.cluster_ids(&request.cluster)?.as_slice() {
            [only] => (only.clone(), None),
            _ => return Err(Status::invalid_argument("there are several clusters: name one with --cluster")),
        },
        _ => {
            return Err(Status::invalid_argument(
                "this is no id of a model; expected CLUSTER-mNUMBER as in `evenkeelctl model list`",
            ));
        }
    };
    let (cluster, number) = target;
    let what = number.map_or_else(|| "back".to_owned(), |number| Shelf::id(&cluster, number));
    let detail = format!("{cluster} {} {what}", node.as_ref().map_or("*", NodeId::as_str));
    let done = control.off(move |this| Ok(switch(&this.fleet, &cluster, node.as_ref(), number))).await?;
    let outcome = if done.is_ok() { Outcome::Done } else { Outcome::Failed };
    control.record(who, "/evenkeel.v1.Fleet/ActivateModel", detail, outcome).await?;
    done.map(Response::new).map_err(|error| match error {
        ModelsError::Unknown(_) => Status::not_found(error.to_string()),
        ModelsError::Unusable { .. } | ModelsError::NothingBefore => {
            Status::failed_precondition(error.to_string())
        }
        ModelsError::Store(_) | ModelsError::File { .. } | ModelsError::Encode(_) => {
            Status::internal(error.to_string())
        }
    })
}

fn switch(
    fleet: &Fleet,
    cluster: &ClusterId,
    node: Option<&NodeId>,
    number: Option<u32>,
) -> Result<v1::ActivateModelResponse, ModelsError> {
    let shelf = fleet.shelf();
    let (number, record) = match number {
        Some(number) => (number, shelf.activate(cluster, number)?.0),
        None => shelf.roll_back(cluster, node)?,
    };
    fleet.reload(cluster)?;
    let before = shelf.active(cluster, record.node.as_ref())?.before;
    Ok(v1::ActivateModelResponse {
        active: Some(view(fleet, cluster, number, &record)?),
        before: before.map(|number| Shelf::id(cluster, number)).unwrap_or_default(),
    })
}
