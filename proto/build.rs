//! Compiles the protocol without an installed protoc, and keeps the descriptors for gRPC reflection.

use prost::Message as _;
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["agent", "control", "execution", "fleet", "history", "move", "whatif"]
        .map(|name| format!("evenkeel/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]);
    // The control messages are what `--output json` prints.
    tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
