//! What fails together is found, what only seems to is not.

use proptest::prelude::*;

use super::*;
use crate::history::fixture::{DAY, failure, success};

const DAY_MS: i64 = DAY * 1000;

fn of(records: &[Record]) -> Correlated {
    let mut first = FirstLook::default();
    records.iter().for_each(|record| first.add(record));
    let mut second = first.second(DAY_MS);
    records.iter().for_each(|record| second.add(record));
    second.correlated()
}

/// A fleet in which every day something is migrated.
fn calm(days: i64) -> Vec<Record> {
    (0..days).map(|day| success("calm", day * DAY)).collect()
}

fn fails(records: &mut Vec<Record>, host: &str, code: &str, days: &[i64]) {
    records.extend(days.iter().map(|day| failure(host, day * DAY + 3600, code)));
}

#[test]
fn hosts_with_a_common_error_on_the_same_days_are_a_cluster() {
    let mut records = calm(60);
    let (kernel, network) = ([3, 10, 17, 24, 31, 38, 45], [5, 6, 20, 33, 34, 50]);
    for host in ["prod-web-07", "prod-web-09", "prod-web-11"] {
        fails(&mut records, host, "kernel_panic_on_boot", &kernel);
    }
    fails(&mut records, "prod-db-12", "network_timeout", &network);
    fails(&mut records, "prod-db-15", "network_timeout", &network[1..]);
    // The same days, but another error.
    fails(&mut records, "prod-app-03", "disk_full", &kernel);
    // The same error, but other days.
    fails(&mut records, "prod-app-04", "kernel_panic_on_boot", &[1, 8, 15, 22, 29, 36]);
    let found = of(&records);
    let clusters: Vec<_> =
        found.clusters.iter().map(|c| (c.error_code.as_str(), c.hosts.join(" "))).collect();
    let expected = [
        ("kernel_panic_on_boot", "prod-web-07 prod-web-09 prod-web-11".to_owned()),
        ("network_timeout", "prod-db-12 prod-db-15".to_owned()),
    ];
    assert_eq!(clusters, expected);
    let (web, db) = (&found.clusters[0], &found.clusters[1]);
    assert_eq!((web.coefficient, web.weakest, web.windows), (1.0, 1.0, 7));
    assert!(db.coefficient > 0.89 && db.coefficient < 0.92 && db.windows == 5 && db.chance < 1e-5, "{db:?}");
    let at = |host: &str| found.hosts.iter().position(|name| name == host).unwrap();
    let pair = |a: &str, b: &str| found.matrix[at(a)][at(b)].unwrap();
    assert_eq!(pair("prod-web-07", "prod-web-07"), 1.0);
    assert_eq!(pair("prod-web-07", "prod-web-11"), 1.0);
    assert!(pair("prod-web-07", "prod-app-03") < 0.0 && pair("prod-web-07", "prod-app-04") < 0.0);
    assert_eq!(pair("prod-db-12", "prod-db-15"), pair("prod-db-15", "prod-db-12"));
}

#[test]
fn coincidences_are_no_cluster() {
    let cluster = |shared: &[i64], days: i64| {
        let mut records = calm(days);
        fails(&mut records, "a", "panic", shared);
        fails(&mut records, "b", "panic", shared);
        of(&records).clusters.len()
    };
    assert_eq!(cluster(&[5, 25], 60), 0, "two are a coincidence");
    assert_eq!(cluster(&[5, 25, 40], 60), 1);
    assert_eq!(cluster(&[1, 2, 3], 7), 0, "of a week three days are too easily the same");
    assert_eq!(cluster(&(0..30).collect::<Vec<_>>(), 30), 0, "what always fails does not vary with anything");
    // Failures without a code have nothing in common that is known.
    let mut records = calm(60);
    fails(&mut records, "a", "", &[5, 25, 40, 50]);
    fails(&mut records, "b", "", &[5, 25, 40, 50]);
    let found = of(&records);
    assert_eq!((found.clusters.len(), found.hosts.len(), found.left_out.without_code), (0, 0, 8));
}

#[test]
fn windows_in_which_nothing_was_migrated_do_not_count() {
    // Only on Saturdays is anything migrated, and then the same two fail in three of eight: 1 of 56 by chance.
    let mut records: Vec<_> = (0..8).map(|week| success("calm", week * 7 * DAY)).collect();
    for host in ["a", "b"] {
        fails(&mut records, host, "panic", &[0, 7, 14]);
    }
    let found = of(&records);
    assert_eq!((found.windows, found.clusters.len()), (8, 0), "{found:?}");
}

#[test]
fn everyone_in_a_cluster_is_alike_with_everyone() {
    // A chain: a with b, b with c, but a with c only half.
    let mut records = calm(100);
    let days: Vec<i64> = (0..30).map(|n| n * 3).collect();
    fails(&mut records, "a", "x", &days[..20]);
    fails(&mut records, "b", "x", &days[5..25]);
    fails(&mut records, "c", "x", &days[10..30]);
    let found = of(&records);
    let clusters: Vec<_> = found.clusters.iter().map(|cluster| cluster.hosts.join("")).collect();
    assert_eq!(clusters, ["ab"], "{found:?}");
}

#[test]
fn chance_makes_no_clusters_and_the_order_of_records_no_difference() {
    // Forty hosts that fail on one day in six, each by itself, in a hundred days; a small generator of our own.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut found = 0;
    for _ in 0..20 {
        let mut records = calm(100);
        for host in 0..40 {
            let days: Vec<i64> = (0..100).filter(|_| next() % 6 == 0).collect();
            fails(&mut records, &format!("h{host:02}"), if host % 2 == 0 { "a" } else { "b" }, &days);
        }
        let told = of(&records);
        found += told.clusters.len();
        records.reverse();
        assert_eq!(of(&records), told);
    }
    assert!(found <= 1, "{found} clusters in twenty fleets without any");
}

#[test]
fn what_the_bounds_keep_out_is_told() {
    let mut records = calm(3);
    for host in 0..130 {
        fails(&mut records, &format!("h{host:03}"), &format!("code{}", host % 70), &[1]);
    }
    fails(&mut records, "h129", "code59", &[2]);
    let found = of(&records);
    assert_eq!((found.hosts.len(), found.left_out.hosts, found.left_out.codes), (100, 30, 6));
    assert!(found.hosts.contains(&"h129".to_owned()), "who failed most stays");
    let many: Vec<_> = (0..MOST_WINDOWS as i64 + 10).map(|day| success("calm", day * DAY)).collect();
    let found = of(&many);
    assert_eq!((found.windows, found.left_out.windows), (MOST_WINDOWS as u64, true));
}

proptest! {
    #[test]
    fn coefficients_stay_in_bounds_and_the_matrix_is_symmetric(
        cells in proptest::collection::vec((0_u8..6, 0_u8..3, 0_i64..20, any::<bool>()), 0..80),
    ) {
        let records: Vec<_> = cells.into_iter().map(|(host, code, day, failed)| {
            let host = format!("h{host}");
            if failed { failure(&host, day * DAY, &format!("c{code}")) } else { success(&host, day * DAY) }
        }).collect();
        let found = of(&records);
        for (n, row) in found.matrix.iter().enumerate() {
            for (m, coefficient) in row.iter().enumerate() {
                prop_assert!(coefficient.is_none_or(|c| (-1.0..=1.0).contains(&c)));
                prop_assert_eq!(*coefficient, found.matrix[m][n]);
            }
        }
        for cluster in &found.clusters {
            prop_assert!(cluster.hosts.len() >= 2 && cluster.weakest >= LEAST_COEFFICIENT, "{:?}", cluster);
            prop_assert!(cluster.coefficient >= cluster.weakest && cluster.windows >= LEAST_TOGETHER as u64);
        }
    }
}
