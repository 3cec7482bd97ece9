//! Commands for the admin on the aggregator's own machine: certificates for agents, tokens for people.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_runtime::clock::{Clock as _, SystemClock};
use evenkeel_runtime::files;
use evenkeel_runtime::random::SystemEntropy;

use crate::config::AggregatorConfig;
use crate::identity::ca::Ca;
use crate::identity::roles::Role;
use crate::identity::tokens::Tokens;

/// Validity of an agent's certificate issued by hand; there is no renewal for these yet.
const AGENT_VALIDITY: Duration = Duration::from_hours(24 * 365);

/// What an admin does on this machine.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Issue an agent's certificate: writes agent.pem, agent.key and ca.pem for one node.
    IssueCert {
        /// Cluster of the node, as in the configuration.
        #[arg(long)]
        cluster: String,
        /// Name of the node, as in Proxmox.
        #[arg(long)]
        node: String,
        /// Directory to write to; copy it to the node's /etc/evenkeel.
        #[arg(long)]
        out: PathBuf,
    },
    /// Create a token for evenkeelctl or a script; it is printed once and kept nowhere.
    CreateToken {
        /// viewer, operator or admin.
        #[arg(long)]
        role: String,
        /// Who or what it is for.
        #[arg(long)]
        label: String,
        /// Days until it expires; without it, it holds until it is revoked.
        #[arg(long)]
        days: Option<u32>,
    },
    /// List the tokens.
    ListTokens,
    /// Make a token worthless.
    RevokeToken {
        /// Its id, as listed.
        id: String,
    },
}

/// Says what a configuration means.
///
/// # Errors
/// Never; a configuration that can not be read did not come this far.
#[allow(clippy::print_stdout)] // This is the command's answer.
pub fn check(config: &AggregatorConfig) -> anyhow::Result<()> {
    println!("data in {}, listening on {}", config.data_dir.display(), config.listen);
    if config.clusters.is_empty() {
        println!("no [[clusters]]: agents are taken in and shown, nothing is decided");
    }
    for cluster in &config.clusters {
        let policy = &cluster.policy;
        let api = if cluster.pve.endpoints.is_empty() {
            "no pve.endpoints, so it is watched and nothing is decided".into()
        } else {
            format!("Proxmox at {}", cluster.pve.endpoints.join(", "))
        };
        println!("cluster {}: {api}; mode {:?}, preset {:?}", cluster.name, policy.mode, policy.preset);
    }
    Ok(())
}

/// Runs an admin's command.
///
/// # Errors
/// With the remedy.
#[allow(clippy::print_stdout)] // This is the command's answer.
pub fn run(config: &AggregatorConfig, command: AdminCommand) -> anyhow::Result<()> {
    let now = SystemClock::new().now();
    let dir = config.data_dir.join("identity");
    match command {
        AdminCommand::IssueCert { cluster, node, out } => {
            let (cluster, node) = (ClusterId::from_str(&cluster)?, NodeId::from_str(&node)?);
            let authority = Ca::open(&dir, now, Arc::new(SystemEntropy))?;
            let issued = authority.issue_agent(&cluster, &node, AGENT_VALIDITY, now)?;
            std::fs::create_dir_all(&out).with_context(|| format!("can not create {}", out.display()))?;
            files::write_atomic(&out.join("agent.pem"), issued.cert_pem.as_bytes(), 0o644)?;
            files::write_atomic(&out.join("agent.key"), issued.key_pem.as_bytes(), 0o600)?;
            files::write_atomic(&out.join("ca.pem"), authority.ca_pem().as_bytes(), 0o644)?;
            println!(
                "wrote agent.pem, agent.key and ca.pem for node {node} of cluster {cluster} to {}",
                out.display()
            );
        }
        AdminCommand::CreateToken { role, label, days } => {
            files::private_dir(&dir)?;
            let validity = days.map(|days| Duration::from_hours(24) * days);
            let role = Role::from_str(&role)?;
            let (token, _) = Tokens::open(&dir)?.create(role, &label, validity, now, &SystemEntropy)?;
            println!("{token}");
        }
        AdminCommand::ListTokens => {
            for token in Tokens::open(&dir)?.list()? {
                let state = if token.revoked.is_some() { "revoked" } else { "good" };
                println!("{}  {:<8}  {:<7}  {}", token.id, token.role.to_string(), state, token.label);
            }
        }
        AdminCommand::RevokeToken { id } => {
            Tokens::open(&dir)?.revoke(&id, now)?;
            println!("token {id} is revoked");
        }
    }
    Ok(())
}
