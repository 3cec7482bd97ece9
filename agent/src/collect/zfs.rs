//! Size of the ZFS adaptive replacement cache from `/proc/spl/kstat/zfs/arcstats`; absent where ZFS is not
//! loaded. Needed to judge memory: the cache is part of used memory, yet the kernel gives it back.

use std::path::Path;

use evenkeel_common::sample::Metric;

use super::file::{CollectError, KeptFile};
use super::parse::{lines, number, words};
use super::round::{Collector, Round, Series};

/// Reads [`Metric::ZfsArcBytes`].
#[derive(Debug)]
pub(crate) struct ZfsCache {
    file: KeptFile,
    size: Series,
}

impl ZfsCache {
    pub(crate) fn new(root: &Path) -> Self {
        let file = KeptFile::record(root.join("proc/spl/kstat/zfs/arcstats"));
        Self { file, size: Series::node(Metric::ZfsArcBytes) }
    }
}

impl Collector for ZfsCache {
    const NAME: &'static str = "zfs";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        let Some(text) = files.read(&mut self.file, now.uptime)? else { return Ok(()) };
        let size = parse(text).ok_or_else(|| self.file.malformed("a kstat table with one line `size`"))?;
        out.put(&mut self.size, size as f64);
        Ok(())
    }
}

/// The table has three columns: name, type, data.
fn parse(text: &[u8]) -> Option<u64> {
    let mut sizes = lines(text)?.filter_map(|line| {
        let mut words = words(line);
        (words.next()? == b"size").then(|| words.nth(1).and_then(number))
    });
    let size = sizes.next()??;
    sizes.next().is_none().then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_third_column_counts() {
        assert_eq!(
            parse(b"9 1 0x01 147 39984 1 2\nname type data\nhits 4 7\nsize 4 4096\nhdr_size 4 9\n"),
            Some(4096)
        );
        for bad in ["", "size 4 1", "size 4\n", "size 4 -1\n", "size 4 1\nsize 4 1\n", "hits 4 1\n"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = parse(&text);
        }
    }
}
