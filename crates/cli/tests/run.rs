//! The built binary from outside: commands in the embedded guest, streams, exit codes, signals, and every kind of bad
//! input with the code its error has.

use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A guest that has not ended by then hangs; it takes seconds.
const LIMIT: Duration = Duration::from_secs(240);

fn isomer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomer"));
    command.args(args).env_remove("ISOMER_LOG").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run printed and its exit code.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {:?} {:?}", self.stdout, self.stderr))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for a child, and kills it when it takes too long.
fn finish(mut child: Child) -> Ran {
    let pid = child.id();
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if waiting.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = signal(pid, "KILL");
        }
    });
    drop(child.stdin.take());
    let ran = child.wait_with_output().unwrap().into();
    drop(done);
    watchdog.join().unwrap();
    ran
}

fn run(args: &[&str]) -> Ran {
    finish(isomer(args).spawn().unwrap())
}

fn run_with_input(args: &[&str], input: &[u8]) -> Ran {
    let mut child = isomer(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // On a thread of its own: the guest may write before it has read everything.
    let writer = thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let ran = finish(child);
    writer.join().unwrap();
    ran
}

fn signal(pid: u32, name: &str) -> std::io::Result<std::process::ExitStatus> {
    Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()
}

/// Asserts that the run is refused in every format: code, cause, fix, exit code.
#[track_caller]
fn refused(args: &[&str], code: &str, exit_code: i32) {
    let plain = run(&[&["run"], args].concat());
    assert_eq!(plain.code, Some(exit_code), "{args:?}: {}", plain.stderr);
    assert!(plain.stderr.contains(&format!("  code: {code}\n")), "{args:?}: {}", plain.stderr);
    assert!(plain.stderr.contains("\n  fix: "), "{args:?}: {}", plain.stderr);
    assert_eq!(plain.stdout, "", "{args:?}");
    let json = run(&[&["run", "--format", "json"], args].concat());
    assert_eq!(json.code, Some(exit_code), "{args:?}");
    let error = &json.json()["error"];
    assert_eq!(error["code"], code, "{args:?}");
    assert!(error["message"].is_string() && error["help"].is_string(), "{error}");
}

/// A file in a folder that goes with the test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn add(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        text(&path)
    }

    fn path(&self, name: &str) -> String {
        text(&self.0.path().join(name))
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// An ELF executable for `machine` with one segment, whole.
fn elf(machine: u16) -> Vec<u8> {
    let mut elf = vec![0; 0x2000];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    let fields: &[(usize, &[u8])] = &[
        (0x10, &2u16.to_le_bytes()),
        (0x12, &machine.to_le_bytes()),
        (0x14, &1u32.to_le_bytes()),
        (0x18, &0x8020_0000u64.to_le_bytes()),
        (0x20, &0x40u64.to_le_bytes()),
        (0x34, &0x40u16.to_le_bytes()),
        (0x36, &0x38u16.to_le_bytes()),
        (0x38, &1u16.to_le_bytes()),
        // The segment: PT_LOAD, readable, writable and executable, at file offset 0x1000.
        (0x40, &1u32.to_le_bytes()),
        (0x44, &7u32.to_le_bytes()),
        (0x48, &0x1000u64.to_le_bytes()),
        (0x50, &0x8020_0000u64.to_le_bytes()),
        (0x58, &0x8020_0000u64.to_le_bytes()),
        (0x60, &0x1000u64.to_le_bytes()),
        (0x68, &0x1000u64.to_le_bytes()),
        (0x70, &0x1000u64.to_le_bytes()),
    ];
    for (at, bytes) in fields {
        elf[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    elf
}

const EM_RISCV: u16 = 243;
const EM_X86_64: u16 = 62;

/// An ELF for riscv64 that runs `code`.
fn kernel(code: &[u32]) -> Vec<u8> {
    let mut elf = elf(EM_RISCV);
    for (index, word) in code.iter().enumerate() {
        elf[0x1000 + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
    }
    elf
}

#[test]
fn a_command_runs_and_its_exit_code_comes_back() {
    let ran = run(&["run", "--", "sh", "-c", "uname -m; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "riscv64\n"), "{}", ran.stderr);
    let banner = ran.stderr.lines().next().unwrap_or_default();
    assert!(banner.starts_with("riscv64 on ") && banner.ends_with(" · 512 MiB · 1 cpu"), "{banner}");
}

#[test]
fn streams_stay_apart() {
    let ran = run(&["run", "--quiet", "--", "sh", "-c", "echo to-out; echo to-err >&2"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "to-out\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("to-err\n") && !ran.stderr.contains("to-out"), "{}", ran.stderr);
}

#[test]
fn standard_input_reaches_the_command_with_its_end() {
    let input: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let mut child = isomer(&["run", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let copy = input.clone();
    let writer = thread::spawn(move || stdin.write_all(&copy));
    let mut stdout = child.stdout.take().unwrap();
    let mut output = Vec::new();
    stdout.read_to_end(&mut output).unwrap();
    assert_eq!(finish(child).code, Some(0));
    writer.join().unwrap().unwrap();
    assert_eq!(output.len(), input.len());
    assert!(output == input);
}

#[test]
fn a_shell_on_a_pipe_ends_with_its_input() {
    let ran = run_with_input(&["run"], b"echo $((6 * 7)) from $(uname -m)\n");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("42 from riscv64"), "{}", ran.stdout);
    // Over before it began.
    let ran = run(&["run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn a_slow_reader_gets_everything() {
    let mut child = isomer(&["run", "--", "seq", "1", "100000"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // Time enough for the guest to run into full buffers.
    thread::sleep(Duration::from_secs(6));
    let mut output = String::new();
    stdout.read_to_string(&mut output).unwrap();
    assert_eq!(finish(child).code, Some(0));
    assert!(output.lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=100_000));
}

#[test]
fn log_settings_with_mistakes_are_named_and_left_aside() {
    let ran = finish(isomer(&["run", "--cpus", "0"]).env("ISOMER_LOG", "a=b=c").spawn().unwrap());
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("ISOMER_LOG is left aside") && !ran.stderr.contains('\x1b'),
        "{}",
        ran.stderr
    );
}

#[test]
fn json_tells_everything() {
    let args = [
        "run",
        "--format",
        "json",
        "--cpus",
        "2",
        "--memory",
        "256M",
        "--",
        "sh",
        "-c",
        "nproc; echo e >&2; exit 3",
    ];
    let ran = run(&args);
    let report = ran.json();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""));
    assert_eq!((&report["stdout"], &report["stderr"]), (&"2\n".into(), &"e\n".into()), "{report}");
    assert_eq!((&report["outcome"], &report["exit_code"]), (&"command".into(), &3.into()));
    assert_eq!((&report["arch"], &report["engine"]), (&"riscv64".into(), &"jit".into()));
    assert_eq!((&report["cpus"], &report["memory_bytes"]), (&2.into(), &(256u64 << 20).into()));
    let vcpus = report["vcpus"].as_array().unwrap();
    assert_eq!(vcpus.len(), 2);
    assert!(vcpus[0]["insns"].as_u64().unwrap() > 1_000_000, "{report}");
    assert_eq!(report["truncated"]["stdout"], false);
}

#[test]
fn a_timeout_stops_the_guest() {
    let began = Instant::now();
    let ran = run(&["run", "--timeout", "2s", "--", "sleep", "1000"]);
    assert_eq!(ran.code, Some(124), "{}", ran.stderr);
    assert!(ran.stderr.contains("code: isomer::run::timeout"), "{}", ran.stderr);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn signals_stop_the_machine_in_order() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut child = isomer(&["run", "--", "sh", "-c", "echo started; sleep 1000"]).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        let began = Instant::now();
        assert!(signal(child.id(), name).unwrap().success());
        let ran = finish(child);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[test]
fn an_output_that_nobody_reads_does_not_stop_the_end() {
    let child = isomer(&["run", "--timeout", "4s", "--", "yes"]).spawn().unwrap();
    let pid = child.id();
    let began = Instant::now();
    // Keep the pipe open and unread.
    let mut child = child;
    let stdout = child.stdout.take();
    let ran = finish(child);
    assert_eq!(ran.code, Some(124), "{pid}: {}", ran.stderr);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    drop(stdout);
}

#[test]
fn a_reader_that_leaves_is_no_crash() {
    let mut child = isomer(&["run", "--", "sh", "-c", "seq 1 100000; exit 5"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    drop(stdout);
    let ran = finish(child);
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
}

#[test]
fn impossible_machines_are_refused() {
    refused(&["--cpus", "0"], "isomer::machine::cpus", 1);
    refused(&["--cpus", "4096"], "isomer::machine::cpus", 1);
    refused(&["--memory", "0M"], "isomer::machine::memory", 1);
    refused(&["--memory", "1000T"], "isomer::machine::memory", 1);
    refused(&["--cpu", "vax"], "isomer::machine::cpu_model", 1);
    refused(&["--engine", "kvm"], "isomer::cli::not_available", 1);
    refused(&["--arch", "x86_64"], "isomer::cli::not_available", 1);
    refused(&["nowhere"], "isomer::image::not_found", 1);
    refused(&["Nowhere"], "isomer::cli::no_such_target", 1);
    refused(&["--name", "dev"], "isomer::machines::usage", 1);
    refused(&["--initrd", "x"], "isomer::cli::usage", 2);
}

#[test]
fn bad_boot_files_are_refused() {
    let files = Files::new();
    refused(&["--kernel", &files.path("absent")], "isomer::machine::file", 1);
    refused(&[&files.path("absent")], "isomer::machine::file", 1);
    refused(&[&files.path("")], "isomer::cli::directory_target", 1);
    refused(&["--kernel", &files.path("")], "isomer::machine::file", 1);
    refused(&[&files.add("empty", b"")], "isomer::load::empty", 1);
    let noise: Vec<u8> = (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    refused(&[&files.add("noise", &noise)], "isomer::load::unknown_format", 1);
    refused(&[&files.add("other", &elf(EM_X86_64))], "isomer::load::wrong_isa", 1);
    refused(&[&files.add("cut", &elf(EM_RISCV)[..0x1800])], "isomer::load::truncated", 1);
    let good = files.add("good", &kernel(&[0x0000_006f]));
    refused(&[&good, "--initrd", &files.path("absent")], "isomer::machine::file", 1);
    refused(&[&good, "--", "true"], "isomer::cli::usage", 2);
    let mut disk = vec![0; 1 << 20];
    disk[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    refused(&[&files.add("disk.img", &disk)], "isomer::cli::disk_target", 1);
}

#[test]
fn bad_disks_are_refused() {
    let files = Files::new();
    let disk = |path: &str| format!("{path},ro");
    refused(&["--disk", &files.path("absent")], "isomer::block::host", 1);
    refused(&["--disk", &files.path("")], "isomer::block::not_a_disk", 1);
    let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
    header.resize(16, 0);
    refused(&["--disk", &disk(&files.add("cut.qcow2", &header))], "isomer::block::damaged", 1);
    refused(
        &["--disk", &format!("{},format=qcow2", files.add("plain.img", &[0; 4096]))],
        "isomer::block::wrong_format",
        1,
    );
}

#[test]
fn a_disk_of_another_machine_is_refused() {
    let files = Files::new();
    let image = files.add("disk.img", &vec![0; 1 << 20]);
    let option = format!("{image},format=raw");
    let mut holder = isomer(&["run", "--disk", &option, "--", "sh", "-c", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(holder.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    refused(&["--disk", &option], "isomer::block::locked", 1);
    assert_eq!(finish(holder).code, Some(0));
}

#[test]
fn what_a_guest_writes_is_on_its_disk_unless_ephemeral() {
    let files = Files::new();
    let image = files.add("disk.img", &vec![0; 1 << 20]);
    let write = |option: &str, text: &str| {
        let disk = format!("{image},format=raw{option}");
        let script = format!("printf {text} | dd of=/dev/vda conv=notrunc 2>/dev/null && sync");
        run(&["run", "--disk", &disk, "--", "sh", "-c", &script])
    };
    let start = || {
        let mut bytes = [0; 4];
        File::open(PathBuf::from(&image)).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let ran = write("", "kept");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(&start(), b"kept");
    assert_eq!(write(",ephemeral", "lost").code, Some(0));
    assert_ne!(write(",ro", "none").code, Some(0));
    assert_eq!(&start(), b"kept");
}

#[test]
fn a_guest_that_jumps_into_nothing_is_reported() {
    // `csrw stvec, zero; jr zero`: nothing is at 0, and neither is the trap handler.
    let kernel = kernel(&[0x1050_1073, 0x0000_0067]);
    let files = Files::new();
    let ran = run(&["run", "--timeout", "60s", &files.add("kernel", &kernel)]);
    assert_eq!(ran.code, Some(70), "{}", ran.stderr);
    assert!(ran.stderr.contains("isomer: guest cpu0 is stuck at 0x0"), "{}", ran.stderr);
    assert!(ran.stderr.contains("code: isomer::run::wedged"), "{}", ran.stderr);
}

#[test]
fn the_test_finisher_ends_with_the_guests_code() {
    // `lui a0, 0x100; lui a1, 0x5; addi a1, a1, 0x555; sw a1, 0(a0)`: power off.
    let off = kernel(&[0x0010_0537, 0x0000_55b7, 0x5555_8593, 0x00b5_2023, 0x0000_006f]);
    // `lui a1, 0x93; addi a1, a1, 0x333`: failure with code 9 in the upper half.
    let fail = kernel(&[0x0010_0537, 0x0009_35b7, 0x3335_8593, 0x00b5_2023, 0x0000_006f]);
    let files = Files::new();
    let ran = run(&["run", &files.add("off", &off)]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = run(&["run", &files.add("fail", &fail)]);
    assert_eq!(ran.code, Some(9), "{}", ran.stderr);
    assert!(ran.stderr.contains("code: isomer::run::failed"), "{}", ran.stderr);
}

#[test]
fn a_reset_makes_the_machine_again() {
    // `lui a0, 0x100; lui a1, 0x7; addi a1, a1, 0x777; sw a1, 0(a0)`: reset.
    let reset = kernel(&[0x0010_0537, 0x0000_75b7, 0x7775_8593, 0x00b5_2023, 0x0000_006f]);
    let files = Files::new();
    let path = files.add("reset", &reset);
    assert_eq!(run(&["run", "--no-reboot", &path]).code, Some(0));
    let ran = run(&["run", "--timeout", "3s", "--format", "json", &path]);
    assert_eq!(ran.code, Some(124));
    assert!(ran.json()["resets"].as_u64().unwrap() > 1, "{}", ran.stdout);
}

#[test]
fn doctor_finds_a_usable_engine() {
    let ran = run(&["doctor", "--format", "json"]);
    let findings = ran.json();
    assert_eq!((ran.code, &findings["usable"]), (Some(0), &true.into()), "{findings}");
    let engine = findings["checks"].as_array().unwrap().iter().find(|c| c["name"] == "interpreter").unwrap();
    assert_eq!(engine["status"], "ok", "{engine}");
    let ran = run(&["doctor"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.contains("ok    interpreter"), "{}", ran.stdout);
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&["completions", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(
            ran.stdout.contains("isomer") && ran.stdout.contains("ephemeral") | ran.stdout.contains("--disk"),
            "{shell}"
        );
    }
    assert_eq!(run(&["completions", "tcsh"]).code, Some(2));
}

#[test]
fn help_and_version_are_no_errors() {
    for args in
        [&["help"][..], &["--help"], &["help", "run"], &["run", "-h"], &["doctor", "--help"], &["--version"]]
    {
        let ran = run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(ran.stdout.contains("isomer"), "{args:?}");
    }
    assert_eq!(run(&["frobnicate"]).code, Some(2));
    let json = run(&["run", "--format", "json", "--cpus", "many"]);
    assert_eq!((json.code, &json.json()["error"]["code"]), (Some(2), &"isomer::cli::usage".into()));
}
