//! `isomer cache` from outside, on a cache this test fills.

use isomer_jit::{
    Compiled,
    cache::{BuildId, CacheConfig, CacheMode, CodeCache, MIN_LIMIT_BYTES, Namespace, Places, Tier},
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn isomer(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomer"));
    command.arg("cache").args(args).env_clear().env("HOME", root);
    command.output().unwrap()
}

fn json(root: &Path, chore: &str) -> (Option<i32>, Value) {
    let output = isomer(root, &[chore, "--format", "json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

/// Three entries in the user's default places below `root`.
fn fill(root: &Path) {
    let cache = CodeCache::open(CacheConfig {
        places: Places { code: root.join(".cache/isomer/code"), key: root.join(".local/state/isomer") },
        mode: CacheMode::ReadWrite,
        limit_bytes: MIN_LIMIT_BYTES,
        namespace: Namespace {
            guest: "riscv64",
            translator: BuildId([1; 32]),
            host_features: 0,
            abi_version: 1,
            variant: 0,
        },
    })
    .unwrap();
    for entry in [0, 16, 32] {
        let compiled = Compiled { code: vec![0xc3; 100], ranges: vec![(entry, entry + 8)], insns: 4 };
        cache.put(1, entry, Tier::Region, &[0x13; 4096], &compiled);
    }
}

#[test]
fn stats_verify_and_clear() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (code, stats) = json(root, "stats");
    assert_eq!((code, &stats["bytes"]), (Some(0), &0.into()));
    fill(root);
    let (code, stats) = json(root, "stats");
    assert_eq!(code, Some(0));
    let namespace = &stats["namespaces"][0];
    assert_eq!((&namespace["guest"], &namespace["entries"]), (&"riscv64".into(), &3.into()));
    assert_eq!((&namespace["guest_insns"], &namespace["code_bytes"]), (&12.into(), &300.into()));
    let text = String::from_utf8(isomer(root, &["stats"]).stdout).unwrap();
    assert!(text.contains("riscv64") && text.contains("just now"), "{text}");

    let (code, verified) = json(root, "verify");
    assert_eq!((code, &verified["sound"], &verified["entries"]), (Some(0), &true.into(), &3.into()));
    let dir = root.join(".cache/isomer/code");
    let segments = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.into_iter().find(|path| path.extension().is_some_and(|e| e == "code")).unwrap();
    let len = fs::metadata(&segment).unwrap().len();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - 1).unwrap();
    let (code, verified) = json(root, "verify");
    assert_eq!((code, &verified["sound"], &verified["entries"]), (Some(1), &false.into(), &2.into()));
    assert_eq!(verified["damaged"][0]["slot"], 2);

    let (code, cleared) = json(root, "clear");
    assert_eq!((code, &cleared["files"]), (Some(0), &2.into()));
    let (_, stats) = json(root, "stats");
    assert_eq!((&stats["bytes"], &stats["namespaces"]), (&0.into(), &Value::Array(vec![])));
}

#[test]
fn what_cannot_be_trusted_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir_all(root.join(".cache/isomer")).unwrap();
    std::os::unix::fs::symlink("/tmp", root.join(".cache/isomer/code")).unwrap();
    let (code, error) = json(root, "clear");
    assert_eq!((code, &error["error"]["code"]), (Some(1), &"isomer::cache::not_private".into()));
    let output =
        Command::new(env!("CARGO_BIN_EXE_isomer")).args(["cache", "stats"]).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("isomer::cache::no_home"));
}
