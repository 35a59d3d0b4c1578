//! What ARCHITECTURE.md says of the sources, checked against the sources.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")?.to_path_buf())
}

/// Every Rust file below `directory`, with its text, by its path in the project.
fn sources(directory: &str) -> Result<Vec<(String, String)>> {
    let root = root()?;
    let mut waiting = vec![root.join(directory)];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.strip_prefix(&root)?.display().to_string(), fs::read_to_string(path)?));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources in {directory}");
    Ok(found)
}

/// The files whose code, tests and comments aside, has `word` in it.
fn naming(word: &str) -> Result<BTreeSet<String>> {
    with_a_line(|line| line.contains(word))
}

fn with_a_line(like: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for (path, text) in [sources("client")?, sources("daemon/src")?, sources("service")?, sources("whmapi")?].concat() {
        if code(&text).any(&like) {
            files.insert(path);
        }
    }
    Ok(files)
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[cfg(test)]").next().unwrap_or_default().lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn set(files: &[&str]) -> BTreeSet<String> {
    files.iter().map(ToString::to_string).collect()
}

#[test]
fn the_codec_is_named_in_two_files() -> Result<()> {
    assert_eq!(naming("bincode")?, set(&["client/src/protocol/codec.rs", "daemon/src/store/record.rs"]));
    Ok(())
}

#[test]
fn only_types_at_a_boundary_derive_serde() -> Result<()> {
    let boundaries = [
        "client/outgoingctl/src/rows.rs",
        "client/src/protocol/message.rs",
        "client/src/protocol/text.rs",
        "daemon/src/config.rs",
        "daemon/src/store/record.rs",
        "service/src/logging.rs",
        "whmapi/src/bin/outgoing-whmapi/config.rs",
    ];
    let deriving = with_a_line(|line| line.contains("derive(") && line.contains("erialize"))?;
    assert_eq!(deriving, set(&boundaries));
    Ok(())
}

#[test]
fn the_daemon_imports_the_protocol_and_nothing_else_of_the_client() -> Result<()> {
    for (path, text) in sources("daemon/src")? {
        for line in code(&text).filter(|line| line.contains("outgoingd_client::")) {
            assert!(line.contains("outgoingd_client::protocol"), "{path}: {line}");
        }
    }
    Ok(())
}

#[test]
fn the_pure_core_knows_no_disk_socket_clock_runtime_or_log() -> Result<()> {
    let of_the_daemon = ["name", "flag", "answer", "change", "audit", "token", "table", "wire"];
    let of_the_whm_face = ["arguments", "answer", "listing"];
    let files = of_the_daemon.map(|file| format!("daemon/src/{file}.rs")).into_iter();
    for file in files.chain(of_the_whm_face.map(|file| format!("whmapi/src/{file}.rs"))) {
        let text = fs::read_to_string(root()?.join(&file))?;
        for word in [
            "tokio",
            "std::fs",
            "std::io",
            "std::net",
            "std::os",
            "SystemTime",
            "Instant",
            "tracing",
            "rustix",
            "nix::",
        ] {
            assert!(!code(&text).any(|line| line.contains(word)), "{file} names {word}");
        }
    }
    Ok(())
}

#[test]
fn the_writer_is_the_one_who_commits() -> Result<()> {
    let committing = naming("store.commit(")?;
    assert_eq!(committing, set(&["daemon/src/writer.rs"]));
    Ok(())
}

#[test]
fn every_file_says_first_what_it_is_and_the_code_map_names_it() -> Result<()> {
    let map = fs::read_to_string(root()?.join("ARCHITECTURE.md"))?;
    for directory in ["client", "daemon/src", "service", "whmapi", "xtask/src", "xtask/tests", "daemon/tests"] {
        for (path, text) in sources(directory)? {
            assert!(text.starts_with("//! "), "{path} does not open with what it is");
            let name = path.rsplit('/').next().context("no name")?;
            let mapped = !path.starts_with("daemon/src") || map.contains(name) || ["lib.rs", "mod.rs"].contains(&name);
            assert!(mapped, "{path} is not on the code map of ARCHITECTURE.md");
        }
    }
    Ok(())
}
