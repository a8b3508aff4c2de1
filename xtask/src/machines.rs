//! `cargo xtask debian`: a named Debian machine used as people use one: made from the archive, started, filled with
//! packages, served from, rebooted, copied to and from, and a second one beside it on the same image.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command as Program;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::net::free_port;
use crate::process;

/// Longest of all steps: packages are installed.
const LIMIT: Duration = Duration::from_secs(3600);
/// A second machine adds less than that to the disk before it is used.
const MOST_OVERLAY_BYTES: u64 = 256 << 20;
/// What is compiled in the guest.
const PROGRAM: &str = "#include <stdio.h>\nint main(void) { printf(\"compiled in %d bits\\n\", (int)(8 * sizeof(void *))); return 42; }\n";

#[derive(Args)]
pub(crate) struct Command {
    /// Instruction set of the guest
    #[arg(long, default_value = "riscv64")]
    arch: String,
    /// The isomer to test [default: the release binary, built from the working tree]
    #[arg(long, value_name = "FILE")]
    isomer: Option<PathBuf>,
    /// Number of CPUs
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Make the image anew
    #[arg(long)]
    refresh: bool,
    /// Debian archive to download from [default: the one in the system's apt sources]
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// Leave the machines, to look at
    #[arg(long)]
    keep: bool,
}

/// # Errors
/// At the first thing that is not as it should be.
pub(crate) fn run(command: &Command) -> Result<()> {
    let isomer = crate::isomer(command.isomer.as_deref())?;
    let work = crate::target_dir()?.join("machines");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let user = User { isomer, work };
    let outcome = user.go(command);
    for name in ["first", "second"] {
        if outcome.is_err() {
            let log = user.isomer(&["logs", name]).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            last.iter().rev().for_each(|line| eprintln!("{name}: {line}"));
        }
        if !command.keep {
            // There may be none.
            let _ = user.isomer(&["delete", "--force", name]);
        }
    }
    outcome
}

/// Somebody with directories of their own.
struct User {
    isomer: PathBuf,
    work: PathBuf,
}

impl User {
    fn program(&self, args: &[&str]) -> Program {
        let mut program = Program::new(&self.isomer);
        program.args(args);
        for (variable, folder) in [
            ("XDG_DATA_HOME", "data"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_RUNTIME_DIR", "r"),
        ] {
            program.env(variable, self.work.join(folder));
        }
        program
    }

    /// What a command prints, if it succeeds.
    fn isomer(&self, args: &[&str]) -> Result<String> {
        let output = process::output_within(&mut self.program(args), LIMIT)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "isomer {} failed with {}: {said}", args.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A shell line in a machine.
    fn sh(&self, name: &str, line: &str) -> Result<String> {
        self.isomer(&["exec", name, "--", "sh", "-c", line])
    }

    fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let value = work().with_context(|| format!("FAIL  {what}"))?;
        println!("ok    {what:<56} {:>8.1} s", start.elapsed().as_secs_f64());
        Ok(value)
    }

    fn go(&self, command: &Command) -> Result<()> {
        let arch = command.arch.as_str();
        let have = self.isomer(&["image", "list", "--format", "json"])?;
        let have: Value = serde_json::from_str(&have)?;
        let is_there =
            have["images"].as_array().is_some_and(|images| images.iter().any(|image| image["arch"] == arch));
        if command.refresh || !is_there {
            let mut args = vec!["image", "pull", "debian", "--arch", arch];
            if let Some(mirror) = &command.mirror {
                args.extend(["--mirror", mirror]);
            }
            self.step("the image is made", || self.isomer(&args))?;
        }
        for name in ["first", "second"] {
            let _ = self.isomer(&["delete", "--force", name]);
        }
        let port = free_port()?;
        let (publish, cpus) = (format!("{port}:8000"), command.cpus.to_string());
        self.step("a machine is created", || {
            self.isomer(&[
                "create",
                "debian",
                "--arch",
                arch,
                "--name",
                "first",
                "--cpus",
                &cpus,
                "--publish",
                &publish,
            ])
        })?;
        self.step("it starts, and its agent answers", || {
            self.isomer(&["start", "first"])?;
            let arch_there = self.sh("first", "uname -m")?;
            ensure!(arch_there.trim() == arch, "it is {arch_there}");
            Ok(())
        })?;
        self.step("systemd has started everything", || {
            let state =
                self.sh("first", "systemctl is-system-running --wait; systemctl --failed --no-legend")?;
            ensure!(state.trim() == "running", "it is {state}");
            Ok(())
        })?;
        self.step("the console is at a login", || self.logs_have("first", "login"))?;
        self.step("the network is up", || {
            self.sh(
                "first",
                "ip -4 addr show scope global | grep -q 'inet 10.0.2.15/' && getent hosts localhost",
            )
        })?;
        self.step("apt-get update", || self.sh("first", "apt-get -q update 2>&1"))?;
        self.step("apt-get install gcc python3", || {
            self.sh("first", "DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends gcc libc6-dev python3 2>&1")
        })?;
        self.step("a program is copied in, compiled and run", || self.compile())?;
        self.step("a directory goes there and back", || self.copy_directory())?;
        self.step("a web server is reached from the host", || self.serve(port))?;
        self.step("it reboots from inside, and data persists", || self.reboot())?;
        self.step("it is restarted from outside, and data persists", || {
            self.isomer(&["restart", "first"])?;
            self.persists()
        })?;
        self.step("a second machine starts on the same image", || {
            self.isomer(&["create", "debian", "--arch", arch, "--name", "second", "--cpus", &cpus])?;
            self.isomer(&["start", "second"])?;
            self.sh("second", "test ! -e /root/kept && test \"$(hostname)\" = second")
        })?;
        let info: Value = serde_json::from_str(&self.isomer(&["info", "second", "--format", "json"])?)?;
        let bytes = info["disk_bytes"].as_u64().context("no size of the disk")?;
        ensure!(bytes < MOST_OVERLAY_BYTES, "the second machine's disk takes {bytes} bytes");
        println!("      its disk takes {} MiB", bytes >> 20);
        self.step("both are shut down", || {
            self.isomer(&["stop", "second"])?;
            self.isomer(&["stop", "first"])
        })?;
        println!("debian: all passed");
        Ok(())
    }

    fn logs_have(&self, name: &str, text: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if self.isomer(&["logs", name])?.contains(text) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("{text:?} is not in the log")
    }

    fn compile(&self) -> Result<()> {
        let source = self.work.join("program.c");
        std::fs::write(&source, PROGRAM)?;
        self.isomer(&["cp", &source.display().to_string(), "first:/root/"])?;
        self.sh("first", "gcc -O2 -o /root/program /root/program.c && echo kept >/root/kept && sync")?;
        let output =
            process::output_within(&mut self.program(&["exec", "first", "--", "/root/program"]), LIMIT)?;
        ensure!(
            output.stdout == b"compiled in 64 bits\n",
            "it printed {:?}",
            String::from_utf8_lossy(&output.stdout)
        );
        ensure!(output.status.code() == Some(42), "its exit code came as {}", output.status);
        let python = self.sh("first", "python3 -c 'print(sum(range(10**6)))'")?;
        ensure!(python.trim() == "499999500000", "python said {python}");
        Ok(())
    }

    fn copy_directory(&self) -> Result<()> {
        let (there, back) = (self.work.join("there"), self.work.join("back"));
        for folder in [&there, &back] {
            let _ = std::fs::remove_dir_all(folder);
        }
        std::fs::create_dir_all(there.join("sub"))?;
        let big: Vec<u8> = (0..3u32 << 20).map(|at| (at % 251) as u8).collect();
        std::fs::write(there.join("sub/big"), &big)?;
        std::os::unix::fs::symlink("sub/big", there.join("link"))?;
        self.isomer(&["cp", &there.display().to_string(), "first:/root/"])?;
        self.isomer(&["cp", "first:/root/there", &back.display().to_string()])?;
        ensure!(std::fs::read(back.join("sub/big"))? == big, "the file has changed on its way");
        ensure!(std::fs::read_link(back.join("link"))?.as_os_str() == "sub/big", "the link has changed");
        Ok(())
    }

    fn serve(&self, port: u16) -> Result<()> {
        self.sh(
            "first",
            "systemd-run --quiet --unit=web --working-directory=/root python3 -m http.server 8000",
        )?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let mut answer = String::new();
            let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
                stream.write_all(b"GET /kept HTTP/1.0\r\n\r\n")?;
                stream.read_to_string(&mut answer)
            });
            if asked.is_ok() && answer.contains("200 OK") {
                ensure!(answer.ends_with("\r\n\r\nkept\n"), "it answered {answer:?}");
                return Ok(());
            }
            thread::sleep(Duration::from_millis(300));
        }
        bail!("nobody answered at port {port}")
    }

    fn reboot(&self) -> Result<()> {
        const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
        let before = self.sh("first", BOOT_ID)?;
        // The agent may be gone before it can say how the command ended.
        let _ = self.sh("first", "systemctl --no-block reboot");
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            // In between, nobody answers.
            if self.sh("first", BOOT_ID).is_ok_and(|now| now != before) {
                return self.persists();
            }
            ensure!(Instant::now() < deadline, "it did not come back");
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn persists(&self) -> Result<()> {
        let kept = self.sh("first", "cat /root/kept && /root/program >/dev/null; test $? = 42")?;
        ensure!(kept == "kept\n", "the file has {kept:?}");
        Ok(())
    }
}
