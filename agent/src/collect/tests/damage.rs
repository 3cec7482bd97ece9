//! Damaged files: no panic, no wrong value, and a fault that names the source.

use super::*;
use proptest::prelude::*;

#[test]
fn a_hostile_tree_gives_faults_and_no_values() {
    let mut node = Node::new("hostile");
    for _ in 0..2 {
        let seen = node.read();
        // Statm and the like are not there; what is left is nothing.
        seen.check("");
        let blamed: Vec<_> = seen.faults.iter().map(|fault| fault.collector).collect();
        for collector in
            ["cpu", "load", "memory", "zfs", "pressure", "net", "disk", "guest_qemu", "guest_config"]
        {
            if collector != "cpu" || node.uptime > Duration::from_secs(5002) {
                assert!(blamed.contains(&collector), "{collector} not in {blamed:?}");
            }
        }
        for fault in &seen.faults {
            assert!(fault.message.len() < 1000 && !fault.message.contains('\u{1b}'), "{fault:?}");
        }
        node.advance("hostile");
    }
}

#[test]
fn names_of_a_hostile_tree_are_plain_and_bounded() {
    let mut node = Node::new("hostile");
    let seen = node.read();
    assert_eq!(seen.vmids(), Some(vec![130, 131, 132, 133]));
    for guest in seen.guests.iter().flatten() {
        let name = guest.name.as_deref().unwrap();
        assert!(name.chars().count() <= 128 && !name.chars().any(char::is_control), "{name:?}");
    }
    assert_eq!(seen.guest(130).name.as_deref(), Some("[31mred"));
    let facts = node.source.facts();
    assert_eq!((facts.hostname.as_str(), facts.boot_id.len()), ("slate[2J", 128));
}

#[test]
fn files_that_are_too_large_are_refused() {
    let mut node = Node::new("pve9");
    let padded = |path: &str, size: usize| {
        let mut text = fs::read(node.path(path)).unwrap();
        text.resize(size, b'\n');
        node.write(path, text);
    };
    padded("proc/meminfo", (64 << 10) + 1);
    padded("proc/net/dev", (1 << 20) + 1);
    padded("sys/fs/cgroup/qemu.slice/101.scope/memory.stat", (64 << 10) + 1);
    let seen = node.read();
    let blamed: Vec<_> = seen.faults.iter().map(|fault| fault.collector).collect();
    assert_eq!(blamed, ["memory", "net", "guest_qemu"]);
    assert!(!seen.values.contains_key("mem_used") && !seen.values.contains_key("101/guest_mem"));
}

#[test]
fn files_that_are_missing_are_faults_only_where_every_kernel_has_them() {
    let mut node = Node::new("pve9");
    for path in ["proc/stat", "proc/loadavg", "proc/meminfo", "proc/net/dev", "proc/diskstats"] {
        node.remove(path);
    }
    for optional in ["proc/pressure", "proc/spl", "etc/pve", "sys/fs/cgroup/qemu.slice/101.scope/io.stat"] {
        node.remove(optional);
    }
    let seen = node.read();
    let blamed: Vec<_> = seen.faults.iter().map(|fault| fault.collector).collect();
    assert_eq!(blamed, ["cpu", "load", "memory", "net", "disk"]);
    assert!(seen.faults.iter().all(|fault| fault.message.contains("ProcSubset")), "each names the remedy");
    assert_eq!(seen.vmids(), Some(vec![101, 205]));
}

/// The kernel's files of a tree, below its folder.
fn kernel_files(tree: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let (mut found, root) = (Vec::new(), fixture(tree, "t1"));
    walk(&root, &mut found);
    found.sort();
    found.into_iter().map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect()
}

fn read_with(damage: Option<(&Path, &[u8])>) -> Seen {
    let mut node = Node::new("pve9");
    node.read();
    node.advance("pve9");
    if let Some((path, text)) = damage {
        fs::write(node.path(path.to_str().unwrap()), text).unwrap();
    }
    node.read()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Half a number still looks like a number: a file cut off within a line may lose values, never change one.
    #[test]
    fn a_file_cut_off_anywhere_changes_no_value(file: prop::sample::Index, cut: prop::sample::Index) {
        let files = kernel_files("pve9");
        let path = file.get(&files);
        let text = fs::read(fixture("pve9", "t1").join(path)).unwrap();
        let mut cut = cut.index(text.len());
        if cut > 0 && text[cut - 1] == b'\n' {
            cut -= 1; // A whole line less is a device less, which is no damage.
        }
        let whole = read_with(None);
        let seen = read_with(Some((path, &text[..cut])));
        for (key, value) in &seen.values {
            prop_assert!(key.starts_with("fs_used") || whole.values.get(key) == Some(value), "{} of {path:?}", key);
        }
    }

    /// Whatever bytes are put in: every value is one that a node could show (checked by `Node::read`).
    #[test]
    fn arbitrary_bytes_anywhere_are_survived(
        file: prop::sample::Index,
        place: prop::sample::Index,
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let files = kernel_files("pve9");
        let path = file.get(&files);
        let mut text = fs::read(fixture("pve9", "t1").join(path)).unwrap();
        let place = place.index(text.len());
        text.splice(place..text.len().min(place + bytes.len()), bytes);
        // Digits are replaced as well, so values may differ; a counter that leapt is not told from a fast one.
        let mut node = Node::new("pve9");
        node.read();
        node.advance("pve9");
        fs::write(node.path(path.to_str().unwrap()), &text).unwrap();
        let reading = node.source.read(Timestamp::default(), node.uptime * 2, &mut node.registry);
        for (id, value) in reading.tick.values {
            let metric = node.registry.key(id).unwrap().metric;
            prop_assert!(value >= 0.0 && value.is_finite());
            prop_assert!(metric.unit() != Unit::Percent || value <= 100.0);
        }
    }
}
