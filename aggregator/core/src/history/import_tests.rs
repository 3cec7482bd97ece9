//! What the reader makes of history files: the forms it knows, and everything that is not one.

use proptest::prelude::*;

use super::*;

const LATEST: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A record with this name, as one line.
fn line(host: &str) -> String {
    format!(
        r#"{{"host":"{host}","timestamp":"2025-01-02T14:23:11Z","outcome":"failure","error_code":"kernel {{panic}}","duration_sec":1847,"retries":3}}"#
    )
}

/// The same over several lines.
fn pretty(host: &str) -> String {
    line(host).replace(',', ",\n   ").replacen('{', "{\n   ", 1).replace(":3}", ":3\n}")
}

/// Names of the records found, and the account, of an input cut into pieces of this size.
fn read_in(bytes: &[u8], piece: usize) -> (Vec<String>, Account) {
    let mut hosts = Vec::new();
    let mut reader = Reader::new(LATEST);
    for part in bytes.chunks(piece.max(1)) {
        reader.push(part, &mut |record| hosts.push(record.host));
    }
    let account = reader.finish(&mut |record| hosts.push(record.host));
    assert_eq!(account.records, hosts.len() as u64);
    assert_eq!(account.faults.len() as u64, account.corrupt.min(TOLD as u64));
    (hosts, account)
}

fn read(text: &str) -> (Vec<String>, Account) {
    read_in(text.as_bytes(), usize::MAX)
}

/// Faults as "line: why".
fn told(account: &Account) -> Vec<String> {
    account.faults.iter().map(|(line, fault)| format!("{line}: {fault}")).collect()
}

#[test]
fn every_form_of_a_history_is_read() {
    let (a, b) = (line("a"), line("b"));
    for text in [
        format!("{a}\n{b}\n"),
        format!("{a}\r\n\r\n{b}"),
        format!("{a}{b}"),
        format!("\u{feff}[{a},{b}]"),
        format!("[\n{a},\n{b}\n]\n"),
        format!("[\n  {},\n  {}\n]\n", pretty("a"), pretty("b")),
        format!("{}\n{}", pretty("a"), pretty("b")),
        format!("[{a}]\n[{b}]"),
    ] {
        let (hosts, account) = read(&text);
        assert_eq!(
            (hosts, account.corrupt, account.cut_off),
            (vec!["a".into(), "b".into()], 0, false),
            "{text}"
        );
    }
    assert_eq!(read(&pretty("a")).0, ["a"], "a single object");
    assert_eq!(read("[]"), (vec![], Account { bytes: 2, ..Account::default() }));
    assert_eq!(read(" \r\n\t"), (vec![], Account { bytes: 4, ..Account::default() }));
    let nested = r#"{"x":{"y":[{"z":"}]\"{"},[]]},"host":"n","timestamp":"2025-01-02T14:23:11Z","outcome":"success","t":[true,false,null,-1.5E+3]}"#;
    assert_eq!(read(nested).0, ["n"]);
    let spread = nested
        .replace(':', ":\n")
        .replace('[', "[\n")
        .replace("2025-01-02T14:\n23:\n11Z", "2025-01-02T14:23:11Z");
    assert_eq!(
        read(&spread).0,
        ["n"],
        "braces at the start of lines are no records where JSON allows them: {spread}"
    );
}

#[test]
fn what_is_no_record_is_told_with_its_line_and_costs_nothing_else() {
    let (a, b) = (line("a"), line("b"));
    for (text, expected) in [
        (format!("{a}\nhello world\n{b}"), "2: expected a record in braces, found no JSON"),
        (format!("{a}\n42\n{b}"), "2: expected a record in braces, found a number"),
        (format!("{a}\n{{\"host\":\"x\n{b}"), "2: not JSON: the line ends inside quotes"),
        (format!("{a}\n{{\"host\":\"x\"\n{b}"), "2: not JSON: the next record begins"),
        (format!("{a}\n{{\"host\":\"x\",\n{b}"), "2: not JSON: the next record begins"),
        (format!("{a}\n{{\"host\":\n{b}\n"), "2: the input ends in the middle"),
        (format!("{a}\n{{\"host\":[\n{b}\n"), "2: the input ends in the middle"),
        (format!("{a}\n{{\"host\":\"x,\"timestamp\":\"y\"}}\n{b}"), "2: not JSON: text outside quotes"),
        (format!("{a}\n{{host:1}}\n{b}"), "2: not JSON: text outside quotes"),
        (format!("{a}\n{{\"host\":1]}}\n{b}"), "2: not JSON: text outside quotes"),
        (format!("{a}\n{{\"host\":\"x\"}}\n{b}"), "2: no timestamp"),
        (format!("{a}\n{{\"a\":{}\n{b}", "[".repeat(100)), "2: nested deeper than 32 levels"),
        (format!("{a}\n{{\"a\":\"{}\"}}\n{b}", "x".repeat(70_000)), "2: longer than 64 KiB"),
        (format!("[{a},7,{b}]"), "1: expected a record in braces, found a number"),
        (format!("[{a},\n\"x,]\",{b}]"), "2: expected a record in braces, found a text"),
        (format!("[{a},null,{b}]"), "1: expected a record in braces, found a word"),
        (format!("[{a},[{b}]]"), "1: expected a record in braces, found an array"),
        (format!("[{a},\n[{b}]"), "2: expected a record in braces, found an array"),
        (format!("[{a},{{\"host\":\"x,\"timestamp\":\"y\"}},{b}]"), "1: not JSON: text outside quotes"),
        (format!("[{a},{{\"host\":\"x\", {b}]"), "1: not JSON: the next record begins"),
        (
            format!("[{a},\n{{\n\"host\":\"x,\n\"outcome\":1\n}},\n{b}]"),
            "2: not JSON: the line ends inside quotes",
        ),
    ] {
        let (hosts, account) = read(&text);
        assert_eq!(hosts, ["a", "b"], "{text}: {account:?}");
        assert_eq!(account.corrupt, 1, "{text}: {account:?}");
        assert!(told(&account)[0].starts_with(expected), "{text}: {account:?}");
    }
}

#[test]
fn broken_lines_are_counted_one_by_one() {
    let (a, b) = (line("a"), line("b"));
    let (hosts, account) = read(&format!("{a}\n{{\"host\":\"x\nnot json\n{{\"y\": z}}\n17\n{b}"));
    let lines: Vec<u64> = account.faults.iter().map(|(line, _)| *line).collect();
    assert_eq!((hosts, lines), (vec!["a".into(), "b".into()], vec![2, 3, 4, 5]), "{account:?}");
    // Of one that is spread over lines the rest is not counted again.
    let spread = pretty("x").replace("failure", "fail\"ure");
    let (hosts, account) = read(&format!("{a}\n{spread}\n{b}"));
    assert_eq!((hosts.len(), account.corrupt), (2, 1), "{account:?}");
}

#[test]
fn wrong_and_broken_files_get_a_clear_account() {
    let (hosts, account) = read("[1, 2, 3]");
    assert_eq!((hosts.len(), account.corrupt, account.cut_off), (0, 3, false));
    let (_, account) = read(r#"{"records":[]}"#);
    assert_eq!(told(&account), ["1: no host"]);
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let (hosts, account) = read_in(&binary, 4096);
    assert!(hosts.is_empty() && account.corrupt > 1000 && account.faults.len() == TOLD, "{account:?}");
    let (_, account) = read_in(&vec![0; 1 << 20], 4096);
    assert_eq!((account.corrupt, account.cut_off), (1, false));
    let whole = format!("[{},{}]", line("a"), line("b"));
    let (hosts, account) = read(&whole[..whole.len() - 40]);
    assert_eq!((hosts, account.corrupt, account.cut_off), (vec!["a".into()], 1, true));
    let (hosts, account) = read(&whole[..whole.len() - 1]);
    assert_eq!((hosts.len(), account.corrupt, account.cut_off), (2, 0, true), "the array is not closed");
}

#[test]
fn memory_does_not_grow_with_what_is_read() {
    let most = 2 * LONGEST_RECORD;
    for piece in ["x", "[", "{\"a\":", "\"", "{\n", "{\"a\":\n{", "1,", "\\\"", "\n"] {
        for start in ["", "[", "{\"host\":\"", "{\"a\":[", "{"] {
            let mut reader = Reader::new(LATEST);
            reader.push(start.as_bytes(), &mut |_| {});
            for _ in 0..300_000 {
                reader.push(piece.as_bytes(), &mut |_| {});
            }
            assert!(reader.buffer.capacity() <= most, "{start} {piece}: {}", reader.buffer.capacity());
            let account = reader.finish(&mut |_| {});
            assert!(account.faults.len() <= TOLD);
        }
    }
}

/// Bytes as files have them, and as they do not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop_oneof![
        Just(line("a")),
        Just(pretty("b")),
        Just("\n".to_owned()),
        Just(",".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("{\"x\":\n".to_owned()),
        "[ -~\\n]{0,12}",
    ];
    let texts = proptest::collection::vec(parts, 0..24).prop_map(|parts| parts.concat().into_bytes());
    prop_oneof![4 => texts, 1 => proptest::collection::vec(any::<u8>(), 0..400)]
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same(bytes in bytes(), piece in 1_usize..40) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        let (hosts, account) = read_in(&bytes, usize::MAX);
        prop_assert!(account.faults.iter().all(|(line, _)| (1..=lines).contains(line)), "{:?}", account);
        prop_assert_eq!(read_in(&bytes, piece), (hosts, account));
    }

    #[test]
    fn a_damaged_line_costs_itself_alone(
        place in 0_usize..5,
        from in 0_usize..150,
        cut in 0_usize..150,
        put in prop_oneof!["[ -~]{0,6}", "[\\[\\]{}:,\"]{0,4}"],
        array in any::<bool>(),
    ) {
        // In an array of lines that are separated by commas, or one record a line.
        let separator = if array { ",\n" } else { "\n" };
        let names: Vec<String> = (0..5).map(|n| format!("h{n}")).collect();
        let mut lines: Vec<String> = names.iter().map(|name| line(name)).collect();
        let damaged = &mut lines[place];
        let (from, to) = (from.min(damaged.len()), (from + cut).min(damaged.len()));
        damaged.replace_range(from..to, &put);
        let text = lines.join(separator);
        let (hosts, account) = read(&if array { format!("[\n{text}\n]") } else { text.clone() });
        for name in names.iter().enumerate().filter(|(n, _)| *n != place).map(|(_, name)| name) {
            prop_assert!(hosts.contains(name), "{} is lost: {:?}\n{}", name, account, text);
        }
    }

    #[test]
    fn valid_json_is_never_torn(records in proptest::collection::vec((0_u32..1000, "\\PC{0,20}", any::<bool>()), 0..8), wide in any::<bool>()) {
        let values: Vec<serde_json::Value> = records.iter().map(|(host, text, nested)| serde_json::json!({
            "note": if *nested { serde_json::json!({ "in": [text, { "deep": { "x": text } }, [], {}] }) } else { text.as_str().into() },
            "host": format!("h{host}"), "timestamp": "2025-01-02T14:23:11Z", "outcome": "success",
        })).collect();
        let text = if wide { serde_json::to_string_pretty(&values) } else { serde_json::to_string(&values) }.unwrap();
        let (hosts, account) = read(&text);
        prop_assert_eq!(hosts, records.iter().map(|(host, ..)| format!("h{host}")).collect::<Vec<_>>(), "{}", text);
        prop_assert_eq!((account.corrupt, account.cut_off), (0, false));
    }
}
