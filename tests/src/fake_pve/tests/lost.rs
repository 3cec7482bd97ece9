//! Orders that are struck by a fault: not processed unless the fault says `After`, and kept either way.

use http::Method;

use super::super::recorded::{request, sent};
use super::*;

const PATH: &str = "/nodes/pve1/qemu/401/migrate";

/// What an order comes to under a fault: the status line, if any answer came, and what was kept.
async fn struck(fault: Fault) -> (Option<String>, FakePost, FakeCluster) {
    let rig = Rig::small().await;
    rig.change(|c| c.fail_posts(PATH, fault));
    let order = request(&rig.server, &rig.server.exec_token(), Method::POST, PATH);
    let line = sent(order.form(&[("target", "pve2"), ("online", "1")])).await.ok().map(|(line, _)| line);
    // The preconditions are asked for at the same path, and answered.
    let get = request(&rig.server, &rig.server.exec_token(), Method::GET, PATH);
    let (asked, _) = sent(get).await.unwrap();
    let cluster = rig.change(|c| c.clone());
    let locked = cluster.guests[&vmid(401)].lock.is_some();
    assert_eq!(asked, if locked { "500 VM is locked (migrate)" } else { "200 OK" });
    (line, cluster.posts[0].clone(), cluster)
}

#[tokio::test]
async fn a_fault_before_leaves_no_trace_in_the_cluster() {
    let refused = |status, text: &str| PostOutcome::Refused { status, text: text.into() };
    let ok = Some("200 OK");
    for (fault, line, outcome) in [
        (Fault::Unauthorized, Some("401 Authentication failed!"), refused(401, "Authentication failed!")),
        (Fault::Forbidden("no".into()), Some("403 no"), refused(403, "no")),
        (Fault::Internal("busy".into()), Some("500 busy"), refused(500, "busy")),
        (Fault::NodeUnreachable, Some("595 No route to host"), refused(595, "No route to host")),
        (Fault::Hang, None, PostOutcome::Unprocessed),
        (Fault::Reset, None, PostOutcome::Unprocessed),
        (Fault::SlowBody, None, PostOutcome::Unprocessed),
        (Fault::TruncatedBody, None, PostOutcome::Unprocessed),
        (Fault::EmptyList, ok, PostOutcome::Unprocessed),
        (Fault::HalfList, ok, PostOutcome::Unprocessed),
        (Fault::InvalidJson, ok, PostOutcome::Unprocessed),
    ] {
        let answered = matches!(outcome, PostOutcome::Refused { .. });
        let (got, post, cluster) = struck(fault.clone()).await;
        assert_eq!((got.as_deref(), &post.outcome, post.answered), (line, &outcome, answered), "{fault:?}");
        assert_eq!((cluster.tasks.len(), cluster.accepted().len()), (0, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn a_fault_after_loses_the_answer_and_not_the_order() {
    let busy = "got timeout";
    for (fault, line) in [
        (Fault::ResetAfter, None),
        (Fault::HangAfter, None),
        (Fault::InternalAfter(busy.into()), Some("500 got timeout")),
    ] {
        let (got, post, mut cluster) = struck(fault.clone()).await;
        assert_eq!(got.as_deref(), line, "{fault:?}");
        assert!(matches!(&post.outcome, PostOutcome::Accepted(upid) if *upid == cluster.tasks[0].upid));
        assert!(!post.answered, "{fault:?}");
        cluster.advance(START.after(Duration::from_mins(1)));
        assert_eq!(cluster.guests[&vmid(401)].node.as_str(), "pve2", "{fault:?}");
    }
}

#[tokio::test]
async fn a_fault_for_the_next_order_only_is_used_up_by_orders_only() {
    let rig = Rig::small().await;
    rig.change(|c| c.fail_posts_times("/", Fault::ResetAfter, 1));
    rig.fetch().await.unwrap();
    let order = |guest: &str| {
        let path = format!("/nodes/{guest}/migrate");
        request(&rig.server, &rig.server.exec_token(), Method::POST, &path)
            .form(&[("target", "pve3"), ("online", "1")])
    };
    sent(order("pve1/qemu/401")).await.unwrap_err();
    assert_eq!(sent(order("pve2/qemu/402")).await.unwrap().0, "200 OK");
    let answered: Vec<bool> = rig.change(|c| c.posts.iter().map(|post| post.answered).collect());
    assert_eq!((answered, rig.change(|c| c.accepted().len())), (vec![false, true], 2));
}
