//! Runs the shipped detectors over labelled data and prints how good they are.
//!
//! The data are not part of the repository: `--data` names the folder with the packed sets. Every score of row
//! `i` is made from the rows up to `i`.

#![allow(clippy::print_stdout)]

mod clean;
mod data;
mod ensemble;
mod nab;
mod nab_run;
mod operator;
mod ops;
mod seasonal;
mod servers;
mod synthetic;
mod vus;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use data::Sets;

/// Runs the shipped detectors over labelled data and prints how good they are.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder with the packed data sets.
    #[arg(long, default_value = "../shared/eval/detection")]
    data: PathBuf,
    /// Where they are unpacked.
    #[arg(long, default_value = "target/evaluate")]
    unpacked: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Unpacks the sets.
    Unpack,
    /// Node detector on labelled servers: ranking, events caught, false alarms, causes.
    Servers {
        /// Writes `SET/ENTITY.csv` with label and score of each row into this folder.
        #[arg(long)]
        out: Option<PathBuf>,
        /// One set only: smd, asd, js2 or js3.
        #[arg(long)]
        set: Option<String>,
        /// Prints each entity as well.
        #[arg(long)]
        each: bool,
    },
    /// Node detector where nothing is wrong: false alarms per node and day.
    Clean,
    /// Seasonal ESD alone on the series of the Numenta benchmark.
    Seasonal,
    /// The fleet's ensemble, and each of its detectors alone, on SMD and ASD.
    Ensemble {
        /// Folder into which the scores of every row are written.
        #[arg(long)]
        dump: Option<PathBuf>,
    },
    /// The detector of one series on the Numenta Anomaly Benchmark.
    Nab(nab_run::NabArguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sets = Sets::unpack(&arguments.data, &arguments.unpacked)?;
    match arguments.what {
        What::Unpack => println!("{}", sets.root().display()),
        What::Servers { out, set, each } => servers::servers(&sets, set.as_deref(), out.as_deref(), each)?,
        What::Clean => clean::clean(&sets)?,
        What::Seasonal => seasonal::run(&sets)?,
        What::Ensemble { dump } => ensemble::run(&sets, dump.as_deref())?,
        What::Nab(arguments) => nab_run::run(&sets.root().join("nab-data"), &arguments)?,
    }
    Ok(())
}
