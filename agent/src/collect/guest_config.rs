//! Guest configurations in `/etc/pve/{qemu-server,lxc}/<vmid>.conf`: name, tags, CPUs, memory.
//!
//! Only the lines before the first `[` are the live configuration; then follow snapshots and pending
//! changes. Names and tags are written by whoever may edit the guest: they are stripped and cut here.

use evenkeel_common::guest::GuestKind;
use evenkeel_common::units::Bytes;

use super::parse::{number, shown};

/// Longest name or tag kept, in characters.
pub(crate) const MAX_NAME: usize = 128;
/// Most tags kept.
const MAX_TAGS: usize = 64;
/// Memory of a guest whose configuration does not say, in MiB, for both kinds.
const DEFAULT_MEMORY: u64 = 512;

/// What a configuration says; `None` for what it does not say or says wrongly.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GuestConfig {
    /// `name` of a qemu guest, `hostname` of an lxc one.
    pub(crate) name: Option<String>,
    /// Its tags.
    pub(crate) tags: Vec<String>,
    /// CPUs the guest sees; `None` for an lxc guest without limit, which sees all of the host's.
    pub(crate) vcpus: Option<f64>,
    /// Memory it may use.
    pub(crate) memory: Option<Bytes>,
    /// Keys whose value makes no sense.
    pub(crate) bad: Vec<&'static str>,
}

/// So many MiB; `None` beyond what any machine has.
pub(crate) fn memory_mib(mib: u64) -> Option<Bytes> {
    (1..=1 << 30).contains(&mib).then(|| Bytes::mib(mib))
}

/// Reads the live part of a configuration. As in Proxmox, the last of several lines of a key counts.
pub(crate) fn parse(text: &[u8], kind: GuestKind) -> GuestConfig {
    let mut config = GuestConfig::default();
    let (mut cores, mut sockets, mut vcpus, mut memory) = (Some(None), Some(None), Some(None), Some(None));
    let live = text.split(|&byte| byte == b'\n').take_while(|line| !line.starts_with(b"["));
    for line in live {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let count = || number(value).filter(|n| (1..=65_536).contains(n)).map(Some);
        match key {
            b"name" if kind == GuestKind::Qemu => config.name = name(value),
            b"hostname" if kind == GuestKind::Lxc => config.name = name(value),
            b"tags" => config.tags = tags(value),
            b"cores" => cores = count(),
            b"sockets" => sockets = count(),
            b"vcpus" => vcpus = count(),
            b"memory" => memory = mib(value).and_then(memory_mib).map(Some),
            _ => {}
        }
    }
    for (name, value) in
        [("cores", cores), ("sockets", sockets), ("vcpus", vcpus), ("memory", memory.map(|m| m.map(|b| b.0)))]
    {
        if value.is_none() {
            config.bad.push(name);
        }
    }
    config.memory = memory.map(|memory| memory.unwrap_or(Bytes::mib(DEFAULT_MEMORY)));
    config.vcpus = match kind {
        GuestKind::Lxc => cores.flatten().map(|n| n as f64),
        GuestKind::Qemu => match (vcpus, cores, sockets) {
            (Some(Some(vcpus)), ..) => Some(vcpus as f64),
            (Some(None), Some(cores), Some(sockets)) => {
                Some((cores.unwrap_or(1) * sockets.unwrap_or(1)) as f64)
            }
            _ => None,
        },
    };
    config
}

fn name(value: &[u8]) -> Option<String> {
    Some(shown(value, MAX_NAME)).filter(|name| !name.is_empty())
}

/// Separated by semicolons, commas or blanks.
fn tags(value: &[u8]) -> Vec<String> {
    let words = value.split(|byte| matches!(byte, b';' | b',' | b' ' | b'\t'));
    words.map(|word| shown(word, MAX_NAME)).filter(|tag| !tag.is_empty()).take(MAX_TAGS).collect()
}

/// `2048`, or as property string `current=2048`.
fn mib(value: &[u8]) -> Option<u64> {
    let mut items = value.split(|&byte| byte == b',');
    items
        .find_map(|item| item.strip_prefix(b"current=").or_else(|| (!item.contains(&b'=')).then_some(item)))
        .and_then(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qemu(text: &str) -> GuestConfig {
        parse(text.as_bytes(), GuestKind::Qemu)
    }

    #[test]
    fn only_the_live_part_counts() {
        let config = qemu(
            "#memory: 1\nname: web\ncores: 2\nsockets: 2\nmemory: 4096\ntags: prod;web, blue\n\n[PENDING]\nmemory: 1\n[snap]\nname: old\n",
        );
        assert_eq!(config.name.as_deref(), Some("web"));
        assert_eq!(config.tags, ["prod", "web", "blue"]);
        assert_eq!((config.vcpus, config.memory), (Some(4.0), Some(Bytes::gib(4))));
        assert!(config.bad.is_empty());
    }

    #[test]
    fn forms_and_defaults_of_proxmox() {
        assert_eq!((qemu("").vcpus, qemu("").memory), (Some(1.0), Some(Bytes::mib(512))));
        assert_eq!(qemu("memory: current=2048\ncores: 4\nvcpus: 2").vcpus, Some(2.0));
        assert_eq!(qemu("memory: current=2048").memory, Some(Bytes::gib(2)));
        let lxc = parse(b"hostname: ct\nname: no\nmemory: 256\n", GuestKind::Lxc);
        assert_eq!((lxc.name.as_deref(), lxc.vcpus, lxc.memory), (Some("ct"), None, Some(Bytes::mib(256))));
    }

    #[test]
    fn nonsense_is_unknown_not_default() {
        for bad in ["cores: -4", "cores: 0", "cores: 4x", "cores: 99999999999999999999"] {
            let config = qemu(bad);
            assert_eq!((config.vcpus, config.bad.as_slice()), (None, &["cores"][..]), "{bad}");
        }
        assert_eq!(qemu("memory: lots").memory, None);
    }

    #[test]
    fn text_of_others_is_stripped_and_cut() {
        let config = qemu(&format!("name: a\u{1b}[2J\u{7}b\ntags: {}\n", "t;".repeat(500)));
        assert_eq!(config.name.as_deref(), Some("a[2Jb"));
        assert_eq!(config.tags.len(), MAX_TAGS);
        assert_eq!(qemu(&format!("name: {}\n", "x".repeat(999))).name.map(|n| n.len()), Some(MAX_NAME));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>, tail in "(name|tags|cores|memory): \\PC{0,300}") {
            for kind in [GuestKind::Qemu, GuestKind::Lxc] {
                let config = parse(&[&text, b"\n".as_slice(), tail.as_bytes()].concat(), kind);
                for shown in config.name.iter().chain(&config.tags) {
                    prop_assert!(shown.chars().count() <= MAX_NAME && !shown.chars().any(char::is_control));
                }
            }
        }
    }
}
