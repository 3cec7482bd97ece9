//! `whatif`: questions that change nothing. Exit code 1 means no, so that scripts need not read the answer.

mod balance;
mod drain;
mod place;
mod plan;
mod replay;

use evenkeel_proto::v1::Reason;

use super::Context;
use crate::args::whatif::WhatifCommand;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::tone::Tone;

/// Asks and shows.
pub async fn run(context: &Context, command: WhatifCommand) -> Result<(), CliError> {
    match command {
        WhatifCommand::Balance { restarts } => balance::run(context, restarts).await,
        WhatifCommand::Drain { node, propose } => drain::run(context, node, propose).await,
        WhatifCommand::Place(args) => place::run(context, args).await,
        WhatifCommand::Replay(args) => replay::run(context, args).await,
    }
}

/// A reason as a sentence; its code where this version of the aggregator has no words for it.
fn sentence(reason: &Reason) -> &str {
    if reason.text.is_empty() { &reason.code } else { &reason.text }
}

fn told(reason: Option<&Reason>) -> String {
    reason.map(sentence).unwrap_or_default().to_owned()
}

/// Why there is no answer, or what to know with it.
fn list(page: &mut Page<'_>, title: &str, reasons: &[Reason]) {
    if !reasons.is_empty() {
        page.section(title);
        reasons.iter().for_each(|reason| page.bullet(sentence(reason)));
    }
}

/// A page that says there is no answer, and why.
fn no_answer(page: &mut Page<'_>, lead: &str, problems: &[Reason]) {
    page.line(Tone::Red, lead);
    problems.iter().for_each(|reason| page.bullet(sentence(reason)));
}
