//! `whatif place`: where a new guest belongs.

use evenkeel_proto::v1::{PlaceNode, PlaceRequest, PlaceResponse};

use super::super::Context;
use super::{list, no_answer, sentence, told};
use crate::args::whatif::PlaceArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, float_bytes, number, plain};

/// Asks and shows; a guest that fits nowhere is a failure.
pub async fn run(context: &Context, args: PlaceArgs) -> Result<(), CliError> {
    let question = PlaceRequest {
        cluster: context.cluster.clone(),
        vcpus: args.vcpus.into(),
        memory_bytes: args.memory.0,
        cpu_load: args.cpu_load,
        disk_storage: args.disk_storage.unwrap_or_default(),
        tags: args.tags,
    };
    let mut whatif = context.client.whatif();
    let answer = context.client.ask(question, async |_, request| whatif.place(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer))?;
    match (&answer.best, answer.problems.first()) {
        (Some(_), _) => Ok(()),
        (None, Some(problem)) => Err(CliError::Failed(format!("no answer: {}", plain(sentence(problem))))),
        (None, None) => Err(CliError::Failed("the guest fits on no node".to_owned())),
    }
}

fn page(screen: &Screen, answer: &PlaceResponse) -> String {
    let mut page = Page::new(screen);
    if !answer.problems.is_empty() {
        no_answer(&mut page, "No answer: the data do not allow one.", &answer.problems);
        return page.finish();
    }
    match &answer.best {
        Some(best) => page.line(Tone::Green, &format!("Best node: {best}")),
        None => page.line(Tone::Red, "It fits on no node."),
    }
    let basis = if answer.cpu_load_assumed { "half of its vCPUs, as nothing is known" } else { "as told" };
    let load = number(answer.cpu_load, 1);
    page.line(Tone::Normal, &format!("Expected of it: {load} cores ({basis}), and all of its memory."));
    list(&mut page, "Mind", &answer.cautions);
    page.gap();
    page.table(&table(&answer.nodes));
    page.finish()
}

fn table(nodes: &[PlaceNode]) -> Table {
    let mut table = Table::new([
        Column::text("NODE"),
        Column::text("FITS"),
        Column::number("SCORE").rank(2),
        Column::number("AFTER"),
        Column::number("MEMORY LEFT").rank(1),
        Column::remark("WHY"),
    ]);
    for node in nodes {
        let fits = if node.fits { Cell::toned("yes", Tone::Green) } else { Cell::toned("no", Tone::Faint) };
        let left = node.free_after_reserve_bytes.map(|left| left as f64);
        table.row([
            node.node.as_str().into(),
            fits,
            number(node.score_before, 0).into(),
            number(node.score_after, 0).into(),
            float_bytes(left).into(),
            told(node.reason.as_ref()).into(),
        ]);
    }
    table
}
