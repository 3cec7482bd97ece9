//! `model`: training with its progress, the list, activation, the way back, and drift.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use evenkeel_common::id::NodeId;
use evenkeel_proto::v1::{
    ActivateModelRequest, ListModelsRequest, ListModelsResponse, ModelView, TrainModelRequest, TrainProgress,
};
use tonic::Streaming;

use super::{Context, millis, node_or_all, or_dash, spans_clusters};
use crate::args::ModelCommand;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{bytes, count, number, plain, span};

/// Bytes of a file in one message.
const PIECE: usize = 256 << 10;
/// Largest file sent; the aggregator takes no more.
const MAX_FILE: u64 = 64 << 20;

/// Does what was asked.
pub async fn run(context: &Context, command: ModelCommand) -> Result<(), CliError> {
    match command {
        ModelCommand::Train { csv, since, node, activate, .. } => {
            train(context, csv.as_deref(), since, node, activate).await
        }
        ModelCommand::List => list(context, false).await,
        ModelCommand::Drift => list(context, true).await,
        ModelCommand::Activate { id } => {
            activate(context, ActivateModelRequest { id, ..ActivateModelRequest::default() }).await
        }
        ModelCommand::Rollback { node } => {
            let (cluster, node) = (context.cluster.clone(), node_or_all(node));
            activate(context, ActivateModelRequest { id: String::new(), cluster, node, rollback: true }).await
        }
    }
}

async fn train(
    context: &Context,
    csv: Option<&Path>,
    since: Option<Duration>,
    node: Option<NodeId>,
    activate: bool,
) -> Result<(), CliError> {
    let since_ms = match since {
        Some(since) => Some(context.client.status().await?.now_ms.saturating_sub(millis(since))),
        None => None,
    };
    let first = TrainModelRequest {
        cluster: context.cluster.clone(),
        node: node_or_all(node),
        since_ms,
        csv: Vec::new(),
        from_csv: csv.is_some(),
        activate,
    };
    let mut pieces = vec![first];
    if let Some(path) = csv {
        let piece = |part: &[u8]| TrainModelRequest { csv: part.to_vec(), ..TrainModelRequest::default() };
        pieces.extend(read(path)?.chunks(PIECE).map(piece));
    }
    let mut fleet = context.client.fleet();
    let mut steps: Streaming<TrainProgress> = context
        .client
        .open(tokio_stream::iter(pieces), async |_, request| fleet.train_model(request).await)
        .await?;
    let (mut models, mut line) = (Vec::new(), Line::new());
    loop {
        match steps.message().await {
            Ok(Some(TrainProgress { model: Some(model), .. })) => models.push(model),
            Ok(Some(step)) => line.show(&step),
            Ok(None) => break,
            Err(status) => {
                drop(line);
                return Err(context.client.explain(&status));
            }
        }
    }
    drop(line);
    if models.is_empty() {
        return Err(CliError::Failed(
            "the training ended without a model; see the aggregator's log".to_owned(),
        ));
    }
    context.show(&ListModelsResponse { models: models.clone() }, |screen| {
        let mut page = Page::new(screen);
        page.table(&table(&models));
        if !activate {
            page.gap();
            page.line(Tone::Normal, "Not in use yet: `evenkeelctl model activate ID` does that.");
        }
        page.finish()
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error: io::Error| CliError::Failed(format!("can not read {}: {error}", path.display()));
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        let most = MAX_FILE >> 20;
        return Err(CliError::Failed(format!(
            "{} is larger than {most} MiB; leave out the oldest rows",
            path.display()
        )));
    }
    fs::read(path).map_err(failed)
}

/// One line on standard error that says how far it is, where a person can see it.
struct Line {
    watched: bool,
    written: bool,
}

impl Line {
    fn new() -> Self {
        Self { watched: io::stderr().is_terminal(), written: false }
    }

    fn show(&mut self, step: &TrainProgress) {
        if self.watched {
            let done = (step.share.clamp(0.0, 1.0) * 20.0) as usize;
            let bar = format!("{}{}", "#".repeat(done), ".".repeat(20 - done));
            let (stage, rows) = (plain(&step.stage), count(step.rows));
            _ = write!(io::stderr().lock(), "\r{stage} [{bar}] {rows} rows   ");
            self.written = true;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.written {
            _ = writeln!(io::stderr().lock());
        }
    }
}

async fn list(context: &Context, drift: bool) -> Result<(), CliError> {
    let question = ListModelsRequest { cluster: context.cluster.clone(), drift };
    let mut fleet = context.client.fleet();
    let answer = context.client.ask(question, async |_, request| fleet.list_models(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        if answer.models.is_empty() {
            page.line(
                Tone::Normal,
                "No models yet: `evenkeelctl model train` makes them, from a week of data on.",
            );
        } else if drift {
            page.table(&drifts(&answer.models));
        } else {
            page.table(&table(&answer.models));
        }
        page.finish()
    })
}

async fn activate(context: &Context, question: ActivateModelRequest) -> Result<(), CliError> {
    let mut fleet = context.client.fleet();
    let answer = context.client.ask(question, async |_, request| fleet.activate_model(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        let id = answer.active.as_ref().map(|model| model.id.as_str()).unwrap_or_default();
        page.line(Tone::Normal, &format!("In use now: {id}; before: {}.", or_dash(&answer.before)));
        page.finish()
    })
}

fn table(models: &[ModelView]) -> Table {
    let several = spans_clusters(models.iter().map(|m| m.cluster.as_str()));
    let mut table = Table::new([
        Column::text("ID"),
        Column::text("CLUSTER").only_if(several),
        Column::text("NODE"),
        Column::text("STATE"),
        Column::number("DATA"),
        Column::number("ROWS").rank(2),
        Column::number("LEFT OUT").rank(3),
        Column::text("SOURCE").rank(4),
        Column::number("SIZE").rank(5),
        Column::remark("PROBLEM"),
    ]);
    for model in models {
        let node = if model.node.is_empty() { "every node" } else { &model.node };
        table.row([
            model.id.as_str().into(),
            model.cluster.as_str().into(),
            node.into(),
            Cell::word(&model.state),
            span(model.to_ms.saturating_sub(model.from_ms)).into(),
            count(model.rows).into(),
            count(model.left_out).into(),
            model.source.as_str().into(),
            bytes(model.bytes).into(),
            model.problem.as_str().into(),
        ]);
    }
    table
}

fn drifts(models: &[ModelView]) -> Table {
    let mut table = Table::new([
        Column::text("ID"),
        Column::text("NODE"),
        Column::text("METRIC"),
        Column::number("DRIFT"),
        Column::text("VERDICT"),
    ]);
    for model in models.iter().filter(|model| model.state == "active") {
        let node = if model.node.is_empty() { "every node" } else { &model.node };
        if model.drift.is_empty() {
            table.row([
                model.id.as_str().into(),
                node.into(),
                "-".into(),
                "-".into(),
                "too little data".into(),
            ]);
        }
        for metric in &model.drift {
            let (verdict, tone) =
                if metric.drifted { ("train anew", Tone::Amber) } else { ("fits", Tone::Normal) };
            table.row([
                model.id.as_str().into(),
                node.into(),
                metric.metric.as_str().into(),
                number(metric.drift, 2).into(),
                Cell::toned(verdict, tone),
            ]);
        }
    }
    table
}
