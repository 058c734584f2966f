//! Compiles the service with a pure-Rust compiler, so that no `protoc` has to be installed.

use std::{error::Error, fs, path::Path};

use prost::{DecodeError, Message as _};
use prost_types::FileDescriptorSet;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver};

/// As JSON: absent where it is not set, so that nothing is said that the client did not say.
const REQUEST: &str = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, deny_unknown_fields)]";
const UNSET: &str = "#[serde(skip_serializing_if = \"crate::json::is_unset\")]";
const OBJECT: &str = "#[serde(with = \"crate::json::object\")]";
const VIEW: &str = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]";

/// `google.rpc` as tonic has it, under the names by which everybody imports it.
fn google_rpc() -> Result<FileDescriptorSet, DecodeError> {
    let mut set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    set.file.retain(|file| file.package() == "google.rpc");
    for file in &mut set.file {
        file.name = Some(format!("google/rpc/{}", file.name()));
    }
    Ok(set)
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let mut files = ChainFileResolver::new();
    files.add(IncludeFileResolver::new(root.into()));
    files.add(GoogleFileResolver::new());
    files.add(DescriptorSetFileResolver::new(google_rpc()?));
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(true).include_source_info(true);
    // the second one is what a status carries: clients learn it by reflection
    compiler.open_files(["carillon/v1/notification_service.proto", "google/rpc/error_details.proto"])?;
    let out = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?;
    fs::write(Path::new(&out).join("carillon.v1.fds"), compiler.encode_file_descriptor_set())?;

    let mut build = tonic_prost_build::configure()
        .btree_map(".")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // items that are decoded one by one, so that one that cannot be spoils no other
        .extern_path(".carillon.v1.SendBatchRequest", "crate::SendBatchRequest")
        .extern_path(".carillon.v1.SendStreamRequest", "crate::SendStreamRequest");
    for message in ["SendRequest", "To"] {
        let path = format!(".carillon.v1.{message}");
        build = build.message_attribute(&path, REQUEST).field_attribute(&path, UNSET);
    }
    for field in ["data", "content", "digest", "fallback"] {
        build = build.field_attribute(format!(".carillon.v1.SendRequest.{field}"), OBJECT);
    }
    for message in ["NotificationView", "DeliveryView", "TraceStep", "TraceAttempt"] {
        build = build.message_attribute(format!(".carillon.v1.{message}"), VIEW);
    }
    build.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
