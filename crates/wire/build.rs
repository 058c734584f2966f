//! Compiles `proto/` with a pure-Rust compiler, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = ["carillon/v1/envelope.proto"];
    println!("cargo:rerun-if-changed={root}");
    let set = protox::compile(files, [root])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(set)?;
    Ok(())
}
