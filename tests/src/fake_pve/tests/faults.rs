//! Every way for an answer to go wrong is an error of its own; none is a smaller cluster.

use super::*;

/// Which part fails, how, and what the error must be and tell.
#[tokio::test]
async fn every_fault_in_every_needed_part_is_an_error_that_names_part_and_remedy() {
    let parts = [
        "/cluster/tasks",
        "/cluster/status",
        "/cluster/resources",
        "/cluster/options",
        "/cluster/ha/resources",
        "/cluster/ha/rules",
        "/cluster/ha/status/manager_status",
        "/cluster/ha/status/current",
    ];
    let faults = [
        (Fault::Unauthorized, "unauthorized", "pveum user token list evenkeel@pve"),
        (
            Fault::Forbidden("Permission check failed (/, Sys.Audit)".into()),
            "forbidden",
            "pveum acl modify / --tokens 'evenkeel@pve!ro' --roles EvenkeelAudit",
        ),
        (Fault::Internal("cluster not ready - no quorum?".into()), "refused", "no quorum?"),
        (Fault::NodeUnreachable, "node_unreachable", "does not answer the one that was asked"),
        (Fault::Reset, "unavailable", "systemctl status pveproxy"),
        (Fault::TruncatedBody, "unavailable", "systemctl status pveproxy"),
        (Fault::InvalidJson, "decode", "is this a Proxmox VE API?"),
    ];
    let rig = Rig::small().await;
    for part in parts {
        for (fault, cause, remedy) in &faults {
            rig.change(|c| {
                c.heal();
                c.fail(part, fault.clone());
            });
            let error = rig.fetch().await.unwrap_err();
            assert_eq!(error.cause(), *cause, "{part} {fault:?}: {error}");
            let text = error.to_string();
            assert!(text.contains(part) && text.contains(remedy), "{part} {fault:?}: {text}");
        }
    }
    rig.change(FakeCluster::heal);
    rig.fetch().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_does_not_end_is_a_timeout() {
    let rig = Rig::small().await;
    for fault in [Fault::Hang, Fault::SlowBody] {
        rig.change(|c| {
            c.heal();
            c.fail("/cluster/resources", fault);
        });
        let error = rig.fetch().await.unwrap_err();
        assert!(
            matches!(error, PveError::Timeout { timeout_secs: 1, .. }) && error.is_transient(),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_the_limit() {
    let mut rig = Rig::small().await;
    rig.config.max_answer_mib = 2;
    rig.config.timeout_secs = 60;
    rig.change(|c| c.fail("/cluster/resources", Fault::Oversized));
    let error = rig.fetch().await.unwrap_err();
    assert!(matches!(error, PveError::TooLarge { limit_mib: 2, .. }), "{error}");
    assert!(error.to_string().contains("max_answer_mib"));
}

#[tokio::test]
async fn half_a_list_is_never_taken_for_the_cluster() {
    let rig = Rig::small().await;
    let mut reader = rig.reader();
    for fault in [Fault::EmptyList, Fault::HalfList] {
        rig.change(|c| c.fail_times("/cluster/resources", fault, 1));
        let error = reader.fetch(START).await.unwrap_err();
        assert!(matches!(error, PveError::HalfAnswer { .. }), "the first answer: {error}");
    }
    assert_eq!(reader.fetch(START).await.unwrap().guests.len(), 7);
    for fault in [Fault::EmptyList, Fault::HalfList] {
        rig.change(|c| c.fail_times("/cluster/resources", fault, 1));
        let error = reader.fetch(START).await.unwrap_err();
        assert!(
            matches!(error, PveError::HalfAnswer { .. }) && error.is_transient(),
            "a later answer: {error}"
        );
    }
    rig.change(|c| c.fail_times("/cluster/status", Fault::EmptyList, 1));
    assert_eq!(reader.fetch(START).await.unwrap_err().cause(), "half_answer");
    assert_eq!(reader.fetch(START).await.unwrap().guests.len(), 7);
}

#[tokio::test]
async fn many_guests_gone_at_once_count_as_an_error_until_it_stays_that_way() {
    let rig = Rig::small().await;
    let mut reader = rig.reader();
    reader.fetch(START).await.unwrap();
    let removed = rig.change(|c| c.guests.split_off(&vmid(404)));
    let later = |minutes| START.after(Duration::from_mins(minutes));
    for minutes in [1, 10] {
        let error = reader.fetch(later(minutes)).await.unwrap_err();
        assert!(error.to_string().contains("4 of 7 guests vanished"), "{error}");
    }
    let inventory = reader.fetch(later(11)).await.unwrap();
    assert_eq!(inventory.warnings, [Warning::Shrunk { before: 7, now: 3 }]);
    assert_eq!(reader.fetch(later(12)).await.unwrap().warnings, []);
    // One guest at a time is daily business, and so is growth.
    rig.change(|c| c.guests.remove(&vmid(403)));
    reader.fetch(later(13)).await.unwrap();
    rig.change(|c| c.guests.extend(removed));
    assert_eq!(reader.fetch(later(14)).await.unwrap().guests.len(), 6);
}
