//! `pause` and `resume`: whether migrations may be started.

use evenkeel_proto::v1::{PauseRequest, ResumeRequest};

use super::Context;
use crate::error::CliError;
use crate::render::Screen;
use crate::render::page::Page;
use crate::render::tone::Tone;

/// Stops migrations from being started.
pub async fn pause(context: &Context, why: Option<String>) -> Result<(), CliError> {
    let question = PauseRequest { cluster: context.cluster.clone(), why: why.unwrap_or_default() };
    let answer =
        context.client.ask(question, async |mut control, request| control.pause(request).await).await?;
    let lead = "Paused: no migration is started until `evenkeelctl resume`.";
    context.show(&answer, |screen| told(screen, lead, &answer.clusters))
}

/// Lets migrations be started again.
pub async fn resume(context: &Context) -> Result<(), CliError> {
    let question = ResumeRequest { cluster: context.cluster.clone() };
    let answer =
        context.client.ask(question, async |mut control, request| control.resume(request).await).await?;
    let lead = "Resumed: migrations may be started again, as far as the mode allows.";
    context.show(&answer, |screen| told(screen, lead, &answer.clusters))
}

fn told(screen: &Screen, lead: &str, clusters: &[String]) -> String {
    let mut page = Page::new(screen);
    if clusters.is_empty() {
        page.line(Tone::Normal, "Nothing changed: there was no cluster to change.");
    } else {
        page.line(Tone::Strong, lead);
        page.line(Tone::Normal, &format!("Clusters: {}", clusters.join(", ")));
    }
    page.finish()
}
