//! `explain`: why a guest moves or does not, as a text an admin forwards unchanged.

use evenkeel_proto::v1::{Decision, ExplainRequest, ExplainResponse, MoveView, Reason};

use super::decisions::because;
use super::{Context, guest_label, moves, node_or_all, or_dash, vmid_or_all};
use crate::args::ExplainArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{ACTIONS, Tone, of_word};
use crate::render::{Screen, bytes, counted, number, with_unit};

/// What was asked about; decides what comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Decision,
    Guest,
    Node,
    Run,
}

/// Asks and shows.
pub async fn run(context: &Context, args: ExplainArgs) -> Result<(), CliError> {
    let subject = match (&args.decision, &args.guest, &args.node) {
        (Some(_), ..) => Subject::Decision,
        (_, Some(_), _) => Subject::Guest,
        (_, _, Some(_)) => Subject::Node,
        _ => Subject::Run,
    };
    let status = context.client.status().await?;
    let mut clusters = vec![context.cluster.clone()];
    if subject == Subject::Run && context.cluster.is_empty() {
        clusters = status.clusters.iter().map(|cluster| cluster.cluster.clone()).collect();
        if context.json && clusters.len() > 1 {
            let names = clusters.join(", ");
            return Err(CliError::Usage(format!(
                "several clusters report here, and JSON output is one object: add --cluster NAME ({names})"
            )));
        }
        if clusters.is_empty() {
            return Err(CliError::Failed(
                "no cluster reports here yet: enrol a node with `evenkeel-agent enroll TOKEN`".to_owned(),
            ));
        }
    }
    let question = ExplainRequest {
        decision: args.decision.map(String::from).unwrap_or_default(),
        vmid: vmid_or_all(args.guest),
        node: node_or_all(args.node),
        cluster: String::new(),
    };
    let rule = clusters.len() > 1;
    for (place, cluster) in clusters.into_iter().enumerate() {
        let question = ExplainRequest { cluster, ..question.clone() };
        let answer =
            context.client.ask(question, async |mut control, request| control.explain(request).await).await?;
        context.show(&answer, |screen| {
            let text = page(screen, subject, &answer, status.now_ms);
            if rule && place > 0 { format!("\n{text}") } else { text }
        })?;
    }
    Ok(())
}

fn page(screen: &Screen, subject: Subject, answer: &ExplainResponse, now_ms: i64) -> String {
    let mut page = Page::new(screen);
    // A move that no run decided, but an operator.
    if let ([moved], []) = (answer.moves.as_slice(), answer.decisions.as_slice()) {
        moves::full(&mut page, screen, moved, now_ms);
        return page.finish();
    }
    // A decision about the guest is its own headline; a node or a run needs another.
    let headed = matches!(subject, Subject::Decision | Subject::Guest) && !answer.decisions.is_empty();
    if !headed {
        page.line(Tone::Strong, &headline(subject, answer));
        page.line(
            Tone::Normal,
            &match answer.run_ms {
                Some(ms) => format!("Decision run of {}", screen.at_and_ago(ms, now_ms)),
                None => "There was no decision run yet.".to_owned(),
            },
        );
        if let Some(reason) = &answer.suppressed {
            page.gap();
            page.line(Tone::Amber, &format!("The run decided nothing: {}", sentence(reason)));
        }
    }
    match subject {
        Subject::Run => run_decisions(&mut page, screen, &answer.decisions, now_ms),
        _ => {
            if subject == Subject::Node && !answer.decisions.is_empty() {
                let lead = "Its best move";
                page.section(if answer.decisions.len() == 1 { lead } else { "Its best moves" });
            }
            for decision in &answer.decisions {
                page.gap();
                full(&mut page, screen, decision, now_ms);
                if let Some(moved) = of(&answer.moves, decision) {
                    moves::way(&mut page, screen, moved, now_ms);
                }
            }
        }
    }
    if !answer.stays.is_empty() {
        page.section(if answer.decisions.is_empty() {
            "Why nothing moves"
        } else {
            "Why nothing else moves"
        });
        answer.stays.iter().for_each(|reason| page.bullet(&sentence(reason)));
    } else if answer.decisions.is_empty() && answer.suppressed.is_none() {
        page.gap();
        page.line(Tone::Normal, "There is no decision about it, and the aggregator gave no reason.");
    }
    if matches!(subject, Subject::Node | Subject::Run) && !answer.scores.is_empty() {
        page.section("Node scores of that run (0 idle, 100 at its limit)");
        page.inset(&scores(answer));
    }
    page.finish()
}

/// What became of a decision; its own number is that of the first run that wanted the move.
fn of<'a>(moves: &'a [MoveView], decision: &Decision) -> Option<&'a MoveView> {
    moves.iter().find(|moved| (moved.guest, &moved.target) == (decision.guest, &decision.target))
}

fn headline(subject: Subject, answer: &ExplainResponse) -> String {
    match subject {
        Subject::Node => {
            let score = answer.scores.get(&answer.subject).copied();
            let name = or_dash(&answer.subject);
            match score {
                Some(score) => format!("Node {name}: score {} of 100", number(score, 1)),
                None => format!("Node {name}: no score in that run"),
            }
        }
        Subject::Guest => format!("Guest {}", or_dash(&answer.subject)),
        Subject::Run | Subject::Decision => {
            format!("Cluster {}", or_dash(&answer.subject))
        }
    }
}

/// A whole run: what goes through in full, what was held in one line each.
fn run_decisions(page: &mut Page<'_>, screen: &Screen, decisions: &[Decision], now_ms: i64) {
    let counts: Vec<String> = ACTIONS
        .iter()
        .map(|(action, _)| (decisions.iter().filter(|d| d.action == *action).count(), action))
        .filter(|(count, _)| *count > 0)
        .map(|(count, action)| format!("{count} {action}"))
        .collect();
    if !counts.is_empty() {
        let total = counted(u64::try_from(decisions.len()).unwrap_or(u64::MAX), "recommendation");
        page.line(Tone::Normal, &format!("{total}: {}", counts.join(", ")));
    }
    for decision in decisions.iter().filter(|decision| !is_held(decision)) {
        page.gap();
        full(page, screen, decision, now_ms);
    }
    let mut table = Table::new([
        Column::name("GUEST"),
        Column::text("MOVE"),
        Column::text("ACTION"),
        Column::remark("REASON"),
    ]);
    for decision in decisions.iter().filter(|decision| is_held(decision)) {
        table.row([
            guest_label(decision.guest, &decision.guest_name).into(),
            format!("{} -> {}", or_dash(&decision.source), or_dash(&decision.target)).into(),
            Cell::word(&decision.action),
            or_dash(&because(decision)).into(),
        ]);
    }
    if !table.is_empty() {
        page.section("Held back (`evenkeelctl explain --guest VMID` shows every filter)");
        page.inset(&table);
    }
}

/// Whether this run leaves the guest where it is.
fn is_held(decision: &Decision) -> bool {
    matches!(decision.action.as_str(), "filtered" | "skipped" | "observing" | "deferred")
}

/// One decision with everything behind it.
fn full(page: &mut Page<'_>, screen: &Screen, decision: &Decision, now_ms: i64) {
    let guest = guest_label(decision.guest, &decision.guest_name);
    let (source, target) = (or_dash(&decision.source), or_dash(&decision.target));
    let action = decision.action.replace('_', " ");
    let tone = match of_word(&decision.action) {
        Tone::Normal => Tone::Strong,
        tone => tone,
    };
    page.line(tone, &format!("Guest {guest}: {source} -> {target}: {action}"));
    let why = because(decision);
    if !why.is_empty() {
        page.line(Tone::Normal, &why);
    }
    page.gap();
    let mut fields = vec![
        ("decided", screen.at_and_ago(decision.at_ms, now_ms)),
        ("id", decision.id.clone()),
        ("improvement", with_unit(decision.improvement, 1, "node-score points of the cluster")),
        ("confidence", with_unit(decision.confidence, 0, "of 100")),
        ("risk", or_dash(&decision.risk)),
        (
            "cost",
            format!(
                "about {}, {} to copy",
                with_unit(decision.cost_minutes, 1, "min"),
                bytes(decision.cost_bytes)
            ),
        ),
    ];
    if !decision.filter.is_empty() {
        fields.push(("objection", format!("by filter {}", decision.filter)));
    }
    if !decision.conflict.is_empty() {
        fields.push(("conflict", decision.conflict.clone()));
    }
    page.fields(&fields);
    if !decision.evidence.is_empty() {
        page.section("Evidence");
        decision.evidence.iter().for_each(|reason| page.bullet(&sentence(reason)));
    }
    if !decision.trail.is_empty() {
        page.section("Filters, in their order");
        page.inset(&trail(decision));
    }
}

fn trail(decision: &Decision) -> Table {
    let mut table =
        Table::new([Column::number(""), Column::text(""), Column::text(""), Column::prose("")]).bare();
    let mut steps: Vec<_> = decision.trail.iter().collect();
    steps.sort_by_key(|step| step.order);
    for step in steps {
        let word = step.verdict.replace('_', " ");
        table.row([
            step.order.to_string().into(),
            step.filter.as_str().into(),
            Cell::toned(word, of_word(&step.verdict)),
            step.reason.as_ref().map(sentence).unwrap_or_default().into(),
        ]);
    }
    table
}

/// Nodes from the most to the least loaded.
fn scores(answer: &ExplainResponse) -> Table {
    let mut table = Table::new([Column::text(""), Column::number(""), Column::text("")]).bare();
    let mut nodes: Vec<(&String, f64)> = answer.scores.iter().map(|(node, score)| (node, *score)).collect();
    nodes.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (node, score) in nodes {
        let mark = if *node == answer.subject { "<- this node" } else { "" };
        table.row([node.as_str().into(), number(score, 1).into(), Cell::from(mark)]);
    }
    table
}

/// A reason as a sentence; its code and numbers where this version of the aggregator has no words for it.
fn sentence(reason: &Reason) -> String {
    if !reason.text.is_empty() {
        return reason.text.clone();
    }
    let fields: Vec<String> = reason.fields.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if fields.is_empty() { reason.code.clone() } else { format!("{}: {}", reason.code, fields.join(", ")) }
}
