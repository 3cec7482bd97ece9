//! `replay`: decides a stored run again from its snapshot, and says whether the result is the same.

use evenkeel_common::id::DecisionId;
use evenkeel_proto::v1::{ReplayRequest, ReplayResponse};

use super::{Context, or_dash};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::tone::Tone;
use crate::render::{Screen, counted};

/// Asks and shows; a result that differs is a failure.
pub async fn run(context: &Context, decision: Option<DecisionId>) -> Result<(), CliError> {
    if decision.is_none() && context.cluster.is_empty() {
        return Err(CliError::Usage(
            "say what to replay: a decision (`evenkeelctl decisions` lists them), or --cluster NAME for its last run"
                .to_owned(),
        ));
    }
    let question = ReplayRequest {
        decision: decision.map(String::from).unwrap_or_default(),
        cluster: context.cluster.clone(),
    };
    let answer =
        context.client.ask(question, async |mut control, request| control.replay(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer))?;
    if answer.identical {
        Ok(())
    } else {
        Err(CliError::Failed(format!(
            "run {} does not replay to the same decisions; if evenkeel {} and this version should agree, this is a bug to report",
            or_dash(&crate::render::plain(&answer.run)),
            or_dash(&crate::render::plain(&answer.written_by))
        )))
    }
}

fn page(screen: &Screen, answer: &ReplayResponse) -> String {
    let mut page = Page::new(screen);
    let decisions = counted(answer.decisions, "decision");
    if answer.identical {
        page.line(Tone::Green, &format!("Run {} replays to the same {decisions}.", answer.run));
    } else {
        page.line(Tone::Red, &format!("Run {} replays DIFFERENTLY ({decisions}).", answer.run));
    }
    page.fields(&[
        ("decided by", format!("evenkeel {}", or_dash(&answer.written_by))),
        ("stored", or_dash(&answer.stored_digest)),
        ("replayed", or_dash(&answer.replayed_digest)),
    ]);
    if !answer.differences.is_empty() {
        page.section("Differences");
        answer.differences.iter().for_each(|difference| page.bullet(difference));
    }
    page.finish()
}
