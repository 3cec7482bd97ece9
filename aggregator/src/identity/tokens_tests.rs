//! Tests of [`super`].

use super::*;
use evenkeel_runtime::random::{SeededEntropy, SystemEntropy};
use std::os::unix::fs::PermissionsExt as _;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn create(tokens: &Tokens, role: Role, validity: Option<Duration>) -> (String, TokenInfo) {
    tokens.create(role, "anna's laptop", validity, NOW, &SystemEntropy).unwrap()
}

#[test]
fn a_token_is_whom_it_was_made_for_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(dir.path()).unwrap();
    let (text, info) = create(&tokens, Role::Operator, None);
    let principal = Principal { role: Role::Operator, id: info.id.clone(), label: "anna's laptop".into() };
    assert_eq!(tokens.verify(&text, NOW).unwrap(), principal);
    let again = Tokens::open(dir.path()).unwrap();
    assert_eq!(again.verify(&text, NOW.after(HOUR * 100_000)).unwrap(), principal);
    assert_eq!(again.list().unwrap(), [info]);
}

#[test]
fn the_file_is_private_and_holds_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(dir.path()).unwrap();
    let (text, _) = create(&tokens, Role::Admin, None);
    let path = dir.path().join("tokens.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let content = fs::read_to_string(&path).unwrap();
    assert!(!content.contains(text.rsplit('_').next().unwrap()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Tokens::open(dir.path()).map(drop).unwrap_err();
    assert!(error.to_string().contains("chmod 0600"), "{error}");
}

#[test]
fn anything_but_the_very_token_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(dir.path()).unwrap();
    let (text, info) = create(&tokens, Role::Viewer, None);
    let (other, _) = create(&tokens, Role::Admin, None);
    for bad in
        ["", "ekt_", "ekt__", &text[1..], &text.to_uppercase(), &format!("{text}0"), &format!(" {text}")]
    {
        assert!(matches!(tokens.verify(bad, NOW), Err(Rejected::Malformed)), "{bad}");
    }
    let swapped = format!("ekt_{}_{}", info.id, other.rsplit('_').next().unwrap());
    let absent = text.replace(&info.id, "00000000deadbeef");
    for bad in [swapped, absent] {
        assert!(matches!(tokens.verify(&bad, NOW), Err(Rejected::Unknown)), "{bad}");
    }
    for at in text.len() - 64..text.len() {
        let mut bent = text.clone().into_bytes();
        bent[at] = if bent[at] == b'0' { b'1' } else { b'0' };
        let bent = String::from_utf8(bent).unwrap();
        assert!(matches!(tokens.verify(&bent, NOW), Err(Rejected::Unknown)), "digit {at}");
    }
}

#[test]
fn expired_and_revoked_tokens_are_told_apart_from_unknown_ones() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(dir.path()).unwrap();
    let (short, _) = create(&tokens, Role::Viewer, Some(HOUR));
    assert!(tokens.verify(&short, NOW.after(HOUR - Duration::from_millis(1))).is_ok());
    assert!(matches!(tokens.verify(&short, NOW.after(HOUR)), Err(Rejected::Expired { .. })));
    let (text, info) = create(&tokens, Role::Viewer, None);
    tokens.revoke(&info.id, NOW).unwrap();
    tokens.revoke(&info.id, NOW.after(HOUR)).unwrap();
    match tokens.verify(&text, NOW) {
        Err(Rejected::Revoked { at, .. }) => assert_eq!(at, NOW, "the first revocation counts"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(tokens.revoke("nobody", NOW), Err(TokenError::NoSuchToken(_))));
}

#[test]
fn what_another_process_changes_holds_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, admin) = (Tokens::open(dir.path()).unwrap(), Tokens::open(dir.path()).unwrap());
    let (text, info) = create(&admin, Role::Viewer, None);
    assert!(daemon.verify(&text, NOW).is_ok());
    admin.revoke(&info.id, NOW).unwrap();
    assert!(matches!(daemon.verify(&text, NOW), Err(Rejected::Revoked { .. })));
}

#[test]
fn writers_take_turns_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let tokens = Tokens::open(dir.path()).unwrap();
                (0..5).for_each(|_| drop(create(&tokens, Role::Viewer, None)));
            });
        }
    });
    assert_eq!(Tokens::open(dir.path()).unwrap().list().unwrap().len(), 20);
}

#[test]
fn a_damaged_or_newer_file_lets_nobody_in_and_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    let tokens = Tokens::open(dir.path()).unwrap();
    let (text, _) = create(&tokens, Role::Admin, None);
    for (content, expected) in [
        ("{\"version\":1,\"tok", "is damaged; restore it"),
        ("{\"version\":2,\"tokens\":[]}", "newer evenkeel (version 2, this one knows 1)"),
    ] {
        files::write_atomic(&path, content.as_bytes(), 0o600).unwrap();
        assert!(matches!(tokens.verify(&text, NOW), Err(Rejected::Unavailable(_))));
        let error = tokens.create(Role::Viewer, "x", None, NOW, &SystemEntropy).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn their_number_is_bounded_and_the_dead_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(dir.path()).unwrap();
    let entropy = SeededEntropy::new(1);
    let stored = |n: usize| Stored {
        info: TokenInfo {
            id: format!("{n:016x}"),
            role: Role::Viewer,
            label: "x".into(),
            created: NOW,
            expires: (n == 7).then(|| NOW.after(HOUR)),
            revoked: None,
        },
        secret_sha256: String::new(),
    };
    let content = Content { version: VERSION, tokens: (0..MAX_TOKENS).map(stored).collect() };
    files::write_atomic(&tokens.path, &serde_json::to_vec(&content).unwrap(), 0o600).unwrap();
    let create = |now| tokens.create(Role::Viewer, "x", None, now, &entropy);
    assert!(matches!(create(NOW), Err(TokenError::TooMany)));
    create(NOW.after(HOUR)).unwrap();
    assert_eq!(tokens.list().unwrap().len(), MAX_TOKENS);
    for label in ["", "  ", "a\nb", &"x".repeat(65)] {
        let made = tokens.create(Role::Viewer, label, None, NOW, &entropy);
        assert!(matches!(made, Err(TokenError::Label)), "{label:?}");
    }
}
