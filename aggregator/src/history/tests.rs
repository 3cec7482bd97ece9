//! What is kept, against a real store.

use std::path::Path;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DAY_MS: i64 = 86_400_000;

fn history(dir: &Path, limits: StoreConfig) -> History {
    let store = crate::store::SledStore::open(dir, &limits, NOW).unwrap();
    History::new(Arc::new(store), limits, &HistoryConfig::default())
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn ended(host: &str, at_ms: i64, outcome: Outcome) -> Record {
    Record {
        at: Timestamp::from_millis(at_ms),
        host: host.into(),
        outcome,
        error_code: None,
        duration_ms: None,
        retries: None,
        guest: None,
    }
}

fn import(history: &History, name: &str, records: &[Record]) -> Taken {
    let mut intake = history.intake(&cluster(name), NOW).unwrap();
    records.iter().for_each(|record| intake.add(record).unwrap());
    intake.finish().unwrap()
}

fn kept(history: &History, name: &str) -> Vec<Record> {
    let mut found = Vec::new();
    let since = Timestamp::from_millis(i64::MIN);
    history.each(&cluster(name), since, |record| found.push(record.clone())).unwrap();
    found
}

#[test]
fn a_record_comes_back_as_it_was_and_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(dir.path(), StoreConfig::default());
    let plain = ended("web", NOW.as_millis() - 5, Outcome::Success);
    let full = Record {
        error_code: Some("kernel panic \u{202e}".into()),
        duration_ms: Some(0),
        retries: Some(0),
        guest: Some(Vmid::new(104).unwrap()),
        ..ended("züri-数据", NOW.as_millis() - 4, Outcome::Failure)
    };
    let other = Record { guest: Some(Vmid::new(105).unwrap()), ..full.clone() };
    let all = [plain, full, other];
    let twice = [&all[..], &all[..1]].concat();
    assert_eq!(import(&history, "lab", &twice), Taken { added: 3, duplicates: 1, ..Taken::default() });
    assert_eq!(import(&history, "lab", &all), Taken { duplicates: 3, ..Taken::default() });
    assert_eq!(kept(&history, "lab"), all);
    assert_eq!(import(&history, "other", &all[..1]).added, 1, "each cluster has its own");
    assert_eq!(history.clusters().unwrap(), [cluster("lab"), cluster("other")]);
}

#[test]
fn the_oldest_make_room_and_what_is_older_still_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let limits = StoreConfig { migrations_max: 1000, migrations_days: 30, ..StoreConfig::default() };
    let history = history(dir.path(), limits);
    let at = |n: i64| ended("web", NOW.as_millis() - 29 * DAY_MS + n * 1000, Outcome::Failure);
    let many: Vec<_> = (0..3000).map(at).collect();
    let taken = import(&history, "lab", &many);
    assert_eq!((taken.added, taken.removed), (3000, 2000));
    assert_eq!(kept(&history, "lab"), many[2000..]);
    // Once more: what went before would be the next to go again.
    let again = import(&history, "lab", &many[1990..]);
    assert_eq!((again.added, again.removed, again.duplicates), (10, 10, 1000));
    let old = ended("web", NOW.as_millis() - 31 * DAY_MS, Outcome::Failure);
    assert_eq!(import(&history, "lab", &[old]), Taken { too_old: 1, ..Taken::default() });
    assert_eq!(kept(&history, "lab"), many[2000..]);
}

#[test]
fn scores_are_archived_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(dir.path(), StoreConfig::default());
    let day = |days: i64| Timestamp::from_millis(NOW.as_millis() + days * DAY_MS);
    import(&history, "lab", &[ended("web", 1_799_000_000_000, Outcome::Failure)]);
    assert_eq!([0, 0, 1, 2].map(|days| history.archive(day(days)).unwrap()), [1, 0, 0, 0]);
    import(&history, "lab", &[ended("web", 1_799_000_001_000, Outcome::Failure)]);
    assert_eq!(history.archive(day(3)).unwrap(), 1);
    import(&history, "lab", &[ended("web", 1_799_000_002_000, Outcome::Failure)]);
    assert_eq!(history.archive(day(3)).unwrap(), 1, "a day has one row, the last");
    let rows = history.archived(&cluster("lab"), "web").unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.day.as_millis() % DAY_MS, row.score)).collect();
    assert_eq!(rows, [(0, 40), (0, 80)]);
    assert_eq!(history.archived(&cluster("lab"), "nobody").unwrap(), []);
}
