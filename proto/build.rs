//! Compiles the contract with protox, so that no machine needs `protoc`.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 5] = [
    "swarm/registry/v1/registry.proto",
    "swarm/gossip/v1/gossip.proto",
    "swarm/session/v1/session.proto",
    "swarm/coordinator/v1/coordinator.proto",
    "swarm/edge/v1/edge.proto",
];

/// Large fields of messages that are kept by the million, of which few have one.
const BOXED: [&str; 2] =
    [".swarm.registry.v1.Registration.status", ".swarm.registry.v1.Registration.spec.backend"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=swarm");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let code = tonic_prost_build::configure().bytes(".").btree_map(".");
    let mut code = code.codec_path("crate::codec::Codec");
    for field in BOXED {
        code = code.boxed(field);
    }
    code.compile_fds(descriptors)?;
    Ok(())
}
