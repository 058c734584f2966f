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
    const LAYERS: [&[&str]; 9] = [
        &["domain", "sqlite"],
        &["wire", "grpc"],
        &["bus", "store", "templates"],
        &["service-kit"],
        &["sandbox", "kafka-listener"],
        &["ingress", "router", "gateway", "indexer"],
        &["carillon"],
        &["chaos", "load-tests"],
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

/// Where a channel is named outside of its own modules: the list of channels, the list of providers, the settings.
#[test]
fn adding_a_channel_touches_few_lines() {
    const PLACES: [&str; 3] = [
        "crates/domain/src/channel/mod.rs",
        "services/gateway/settings.default.toml",
        "services/gateway/src/channels/mod.rs",
    ];
    for channel in ["apns", "webhook"] {
        let mut named: Vec<(String, usize)> = Vec::new();
        for of in ["domain", "wire", "bus", "store", "service-kit", "templates"].map(|c| format!("crates/{c}")) {
            count(&root().join(of), channel, &mut named);
        }
        for of in ["ingress", "router", "gateway", "indexer", "carillon"].map(|s| format!("services/{s}")) {
            count(&root().join(of), channel, &mut named);
        }
        named.sort();
        let places: Vec<_> = named.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, PLACES, "{channel}: {named:?}");
        let lines: usize = named.iter().map(|(_, lines)| lines).sum();
        assert!(lines <= 7, "{channel} takes {lines} lines: {named:?}");
    }
}

/// The lines of the product under `folder` that name a channel: without its own modules, tests, comments and the demo.
fn count(folder: &Path, channel: &str, named: &mut Vec<(String, usize)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if ![channel, "tests", "demo", "target"].contains(&name) {
                count(&path, channel, named);
            }
            continue;
        }
        let code = name.ends_with(".rs") || name == "settings.default.toml";
        if !code || name.ends_with("tests.rs") || name == format!("{channel}.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap();
        let names = |line: &&str| {
            let line = line.trim_start();
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            // the contract's list of all names that there will ever be is there already
            let listed = line.starts_with('"') && line.ends_with(',') && line.contains("\", \"");
            !line.starts_with("//")
                && !line.starts_with('#')
                && !listed
                && words.into_iter().any(|w| w.eq_ignore_ascii_case(channel))
        };
        let lines = product.lines().filter(names).count();
        if lines > 0 {
            named.push((path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), lines));
        }
    }
}
