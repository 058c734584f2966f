//! The rules of the house: who may import what, which crates and licences may come in. Read from `cargo metadata`, so that
//! nothing has to be installed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What is built on this kind of machine: of the others nothing has been downloaded.
fn metadata() -> Value {
    let rustc = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let about = String::from_utf8(rustc.stdout).unwrap();
    let host = about.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    serde_json::from_slice(&cargo.stdout).unwrap()
}

fn list(v: &Value) -> &[Value] {
    v.as_array().map_or(&[], Vec::as_slice)
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

/// Our packages, each with what it depends on outside of its tests.
fn ours(metadata: &Value) -> Vec<(String, BTreeSet<String>)> {
    let members: BTreeSet<&str> = list(&metadata["workspace_members"]).iter().map(text).collect();
    let normal = |p: &Value| {
        list(&p["dependencies"]).iter().filter(|d| d["kind"].is_null()).map(|d| text(&d["name"]).to_owned()).collect()
    };
    list(&metadata["packages"])
        .iter()
        .filter(|p| members.contains(text(&p["id"])))
        .map(|p| (text(&p["name"]).to_owned(), normal(p)))
        .collect()
}

/// An import only ever points left.
#[test]
fn layers_hold() {
    const LAYERS: [&[&str]; 8] = [
        &["domain", "sqlite"],
        &["wire", "grpc"],
        &["bus", "store", "templates"],
        &["service-kit"],
        &["sandbox", "kafka-listener"],
        &["ingress", "router", "gateway", "indexer"],
        &["carillon"],
        &["tests"],
    ];
    let layer = |name: &str| LAYERS.iter().position(|l| l.contains(&name));
    for (name, dependencies) in ours(&metadata()) {
        let own = layer(&name)
            .unwrap_or_else(|| panic!("`{name}` has no layer yet: give it one here and in docs/ARCHITECTURE.md"));
        for dependency in dependencies {
            let below = layer(&dependency).is_none_or(|l| l < own);
            assert!(below, "`{name}` must not import `{dependency}`: it is not in a layer below");
        }
    }
}

/// What sees a protocol or a store is used by one crate only (`[workspace.metadata.house]`).
#[test]
fn wrappers_hold() {
    let metadata = metadata();
    let Value::Object(rules) = &metadata["metadata"]["house"] else { panic!("no [workspace.metadata.house]") };
    assert!(rules.len() >= 5);
    for (name, dependencies) in ours(&metadata) {
        for dependency in dependencies {
            let Some(wrappers) = rules.get(&dependency) else { continue };
            let allowed = list(wrappers).iter().any(|w| text(w) == name);
            assert!(allowed, "`{name}` must not use `{dependency}`; only {wrappers} may");
        }
    }
}

/// `deny.toml`, without cargo-deny: banned crates, licences, sources.
#[test]
fn what_comes_in_is_allowed() {
    let deny: toml::Table = std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    let banned: Vec<_> = deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|b| b.get("wrappers").is_none())
        .map(|b| b["crate"].as_str().unwrap().to_owned())
        .collect();
    let allowed: Vec<_> =
        deny["licenses"]["allow"].as_array().unwrap().iter().map(|l| l.as_str().unwrap().to_owned()).collect();
    let metadata = metadata();
    let packages = list(&metadata["packages"]);
    assert!(packages.len() > 100);
    for package in packages {
        let (name, license) = (text(&package["name"]), text(&package["license"]));
        assert!(!banned.iter().any(|b| b == name), "`{name}` is banned, deny.toml says why");
        let source = text(&package["source"]);
        let from_registry = source.is_empty() || source.starts_with("registry+");
        assert!(from_registry, "`{name}` comes from {source}, not from a registry");
        // an expression holds if, for one of its OR parts, every AND part is allowed
        let or = license.replace('/', " OR ").replace(['(', ')'], "");
        let holds = or.split(" OR ").any(|part| part.split(" AND ").all(|l| allowed.iter().any(|a| a == l.trim())));
        assert!(holds, "`{name}` has the licence `{license}`, which deny.toml does not allow");
    }
}

/// The crates' own rules: a README each, which is its rustdoc.
#[test]
fn every_crate_says_what_it_is() {
    for (name, _) in ours(&metadata()).into_iter().filter(|(n, _)| n != "tests") {
        let folder = ["crates", "services"].iter().map(|f| root().join(f).join(&name)).find(|f| f.exists());
        let readme = folder.unwrap_or_else(|| panic!("`{name}` is not in a folder of its name")).join("README.md");
        assert!(readme.exists(), "{} is missing", readme.display());
    }
}
