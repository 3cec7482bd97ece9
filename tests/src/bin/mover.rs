//! The executor by itself, to be killed: real intents in a real store, real calls to the Proxmox API it is pointed to, and
//! nothing decided but one plan at its first start.
//!
//! Time runs faster here than outside, so that waiting for what does not come takes no minutes; whoever plays Proxmox
//! uses the same clock ([`evenkeel_tests::quick::QuickClock`]). It ends when all its intents are over.
#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a command for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use evenkeel_aggregator::cycle::ClusterHandle;
use evenkeel_aggregator::cycle::execution::Execution;
use evenkeel_aggregator::execute::ExecuteConfig;
use evenkeel_aggregator::pve::migrate::Migrator;
use evenkeel_aggregator::pve::{Fingerprint, Inventory, InventoryReader, PveClient, PveConfig};
use evenkeel_aggregator::store::{SledStore, Store, StoreConfig};
use evenkeel_common::id::ClusterId;
use evenkeel_core::{Memory, Mode, Policy, RunRecord, Snapshot, fixture};
use evenkeel_runtime::clock::Clock;
use evenkeel_tests::quick::{Fatal, FatalStore, QuickClock};

/// Two guests that fill a node, and two nodes that are empty: what the run at the first start decides on.
const PLAN: &str = "
    pve1 cpu=16 ram=64 | 101 cpu=9 mem=4 | 102 cpu=9 mem=4
    pve2 cpu=16 ram=64
    pve3 cpu=16 ram=64";

/// Real time between two looks.
const LOOK: Duration = Duration::from_millis(60);

#[derive(Parser)]
struct Arguments {
    /// Where its store is, and the token files `audit` and `exec`.
    dir: PathBuf,
    /// The API.
    #[arg(long)]
    endpoint: String,
    /// Its certificate.
    #[arg(long)]
    pin: Fingerprint,
    /// Where fast time began, in real milliseconds since 1970.
    #[arg(long)]
    epoch_ms: i64,
    /// Die at a write of the store, as `before:N`, `applied:N` or `after:N`.
    #[arg(long)]
    die: Option<Fatal>,
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mover: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(Arguments::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mover: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(QuickClock::since(arguments.epoch_ms));
    let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
    let sled = SledStore::open(&arguments.dir.join("store"), &config, clock.now())?;
    let store: Arc<dyn Store> = Arc::new(FatalStore::new(sled, arguments.die));
    let policy = Policy { mode: Mode::Auto, ..Policy::default() };
    let execute = ExecuteConfig {
        token_file: arguments.dir.join("exec"),
        quiet_start_secs: 0,
        ..ExecuteConfig::default()
    };
    let id = ClusterId::new("lab")?;
    let handle = Arc::new(ClusterHandle::open(id, policy.clone(), execute, &store, clock.now())?);
    let pve = PveConfig {
        endpoints: vec![arguments.endpoint],
        token_file: arguments.dir.join("audit"),
        fingerprints: vec![arguments.pin],
        timeout_secs: 1,
        ..PveConfig::default()
    };
    let client = Arc::new(PveClient::new(&pve)?);
    let migrator = Migrator::new(Arc::clone(&client), &handle.execute.token_file);
    let no_execute = arguments.dir.join("NO_EXECUTE");
    let execution = Execution::new(&handle, migrator, no_execute, &clock);
    let mut reader = InventoryReader::new(client);
    if handle.book.all().is_empty() {
        let snapshot = Snapshot { at: clock.now(), ..fixture::snapshot(PLAN) };
        let record = RunRecord::of(snapshot, policy, Memory::default());
        anyhow::ensure!(!record.run.decisions.is_empty(), "the plan decides nothing");
        execution.take_up(&record).await?;
    }
    while handle.book.all().iter().any(|intent| !intent.state.is_over()) {
        tokio::time::sleep(LOOK).await;
        let Ok(mut inventory) = reader.fetch(clock.now()).await else { continue };
        let guests: Vec<_> = inventory.guests.keys().copied().collect();
        if reader.add_configs(&mut inventory, guests, clock.now()).await.is_err() {
            continue;
        }
        execution.follow(&inventory, &BTreeMap::new()).await?;
        if execution.has_work() {
            let snapshot = placed(&inventory, clock.as_ref());
            execution.start(snapshot, &inventory, &BTreeMap::new()).await?;
        }
    }
    store.flush().context("the last flush failed")
}

/// The plan's snapshot with guests where they are now.
fn placed(inventory: &Inventory, clock: &dyn Clock) -> Snapshot {
    let mut snapshot = Snapshot { at: clock.now(), ..fixture::snapshot(PLAN) };
    for guest in &mut snapshot.guests {
        if let Some(seen) = inventory.guests.get(&guest.vmid) {
            guest.node.clone_from(&seen.node);
            guest.lock.clone_from(&seen.lock);
        }
    }
    snapshot.guests.retain(|guest| inventory.guests.contains_key(&guest.vmid));
    snapshot
}
