//! Compiled code that `isomer run` keeps: whole boots of the embedded guest, with a cache in a directory of the test's.

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Work in the guest whose output tells whether its code was right.
const WORK: &str = "seq 1 3000 | sort -n | tail -1; uname -m; echo abc | md5sum";
const EXPECTED: &str = "3000\nriscv64\n0bee89b07a248e27c83fc3d5951213c1  -\n";

fn command(dir: &Path, how: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomer"));
    command.args(["run", "--quiet", "--timeout", "4m", "--engine", "jit", "--cache", how, "--cache-dir"]);
    command.arg(dir).args(["--", "sh", "-c", WORK]).env_remove("ISOMER_LOG").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn run(dir: &Path, how: &str) -> Output {
    let output = command(dir, how).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), &*String::from_utf8_lossy(&output.stdout)),
        (Some(0), EXPECTED),
        "{errors}"
    );
    output
}

fn chore(dir: &Path, chore: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomer"));
    let output = command.args(["cache", chore, "--format", "json", "--cache-dir"]).arg(dir).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn entries(dir: &Path) -> u64 {
    let stats = chore(dir, "stats");
    let namespaces = stats["namespaces"].as_array().unwrap();
    namespaces.iter().map(|namespace| namespace["entries"].as_u64().unwrap()).sum()
}

#[test]
fn a_run_keeps_code_for_the_next() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("kept");
    run(&dir, "off");
    assert!(!dir.exists());
    run(&dir, "ro");
    assert!(!dir.exists());
    run(&dir, "rw");
    let first = entries(&dir);
    assert!(first > 200, "{first} entries");
    run(&dir, "ro");
    assert_eq!(entries(&dir), first);
    run(&dir, "rw");
    let verified = chore(&dir, "verify");
    assert_eq!(verified["sound"], true, "{verified}");
    // Most of the second run's code was there.
    let second = entries(&dir) - first;
    assert!(second < first, "{first} entries, then {second} more");
}

#[test]
fn counters_tell_what_came_from_the_cache() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("kept");
    let report = |how: &str| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isomer"));
        command.args(["run", "--timeout", "4m", "--engine", "jit", "--format", "json", "--cache", how]);
        command.arg("--cache-dir").arg(&dir).args(["--", "sh", "-c", WORK]).stdin(Stdio::null());
        command.env_remove("ISOMER_LOG").env_remove("RUST_LOG");
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!(report["stdout"], EXPECTED, "{report}");
        report
    };
    let count = |report: &Value, name: &str| report["cache"][name].as_u64().unwrap();
    assert!(report("off").get("cache").is_none());

    // What this run gives up for want of room comes back from what it has written itself.
    let cold = report("rw");
    assert!(count(&cold, "written") > 200 && count(&cold, "refused") == 0, "{cold}");
    let warm = report("ro");
    assert!(count(&warm, "entries") > 200 && count(&warm, "blocks") > 2000, "{warm}");
    assert!(count(&warm, "disk_hits") > 100 && count(&warm, "taken_blocks") > 1000, "{warm}");
    assert!(count(&warm, "taken_pages") <= count(&warm, "disk_hits") + count(&warm, "memory_hits"), "{warm}");
    assert_eq!((count(&warm, "written"), count(&warm, "refused")), (0, 0), "{warm}");
    let compiled = |report: &Value| report["tiers"]["template"]["pieces"].as_u64().unwrap();
    assert!(compiled(&warm) < compiled(&cold) / 2, "{} then {}", compiled(&cold), compiled(&warm));

    let mut command = Command::new(env!("CARGO_BIN_EXE_isomer"));
    command.args(["run", "--stats", "--timeout", "4m", "--engine", "jit", "--cache", "ro", "--cache-dir"]);
    let output = command.arg(&dir).args(["--", "true"]).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("isomer: cache: has ") && errors.contains(" regions of "), "{errors}");
}

#[test]
fn damage_is_refused_and_a_cache_that_cannot_be_used_is_told_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("kept");
    run(&dir, "rw");
    for file in fs::read_dir(dir.join("cache")).unwrap().map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&file).unwrap();
        let begin = bytes.len().min(600_000);
        bytes[begin..].iter_mut().step_by(501).for_each(|byte| *byte ^= 0x11);
        fs::write(&file, bytes).unwrap();
    }
    assert_eq!(chore(&dir, "verify")["sound"], false);
    run(&dir, "rw");
    run(&dir, "ro");
    let file = root.path().join("file");
    fs::write(&file, b"in the way").unwrap();
    let output = run(&file, "rw");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(errors.matches("running without the code cache").count(), 1, "{errors}");
}

/// Kills whole runs at any instant; what they leave is sound and is used.
fn kill_runs(rounds: u64) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("kept");
    let began = Instant::now();
    run(&dir, "rw");
    let whole = began.elapsed();
    fs::remove_dir_all(&dir).unwrap();
    for round in 0..rounds {
        let mut child = command(&dir, "rw").spawn().unwrap();
        // From the start to a little behind the end; prime so that no phase is favoured.
        thread::sleep(whole.mul_f64((round * 37 % 101) as f64 / 95.0) + Duration::from_millis(1));
        child.kill().unwrap();
        child.wait().unwrap();
        if dir.join("cache").exists() {
            let verified = chore(&dir, "verify");
            assert_eq!(verified["sound"], true, "round {round}: {verified}");
        }
    }
    run(&dir, "rw");
    run(&dir, "ro");
    assert!(entries(&dir) > 200);
}

#[test]
fn a_run_that_is_killed_leaves_a_sound_cache() {
    kill_runs(5);
}

/// Some ten minutes: `cargo test --release -p isomer --test kept -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn two_hundred_killed_runs_leave_a_sound_cache() {
    kill_runs(200);
}
