//! `cargo xtask fuzz`: lists and runs the fuzz targets of `fuzz/`, with cargo-fuzz and libFuzzer.
//!
//! Without a sanitizer, cargo-fuzz needs stable options of the compiler only, so the toolchain is the project's own and
//! what is fuzzed is what is shipped, with debug assertions and overflow checks. The address sanitizer is an unstable
//! option that the same compiler takes when told that it is bootstrapping; it sees more in the few modules with
//! `unsafe`, at a third of the speed, and is there for the asking.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::process;

/// The cargo-fuzz that is installed where there is none.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// An input that takes longer, in seconds, is reported like a panic.
const TIMEOUT_S: u32 = 20;
/// A target that takes more memory, in MiB, is too.
const RSS_LIMIT_MIB: u32 = 2048;
/// Lines of a failed target's output that `all` shows.
const SHOWN_LINES: usize = 40;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print all targets and what each of them checks
    List,
    /// Run one target until it fails, or run one input again
    Run(RunArgs),
    /// Run all targets one after the other
    All(AllArgs),
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Name of the target, as `list` prints it
    target: String,
    /// An input to run once: the file that a failure left behind
    artifact: Option<PathBuf>,
    /// Stop after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Args)]
pub(crate) struct AllArgs {
    /// Seconds for each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Args, Clone, Copy)]
pub(crate) struct BuildArgs {
    /// What watches memory accesses
    #[arg(long, value_enum, default_value_t)]
    sanitizer: Sanitizer,
}

#[derive(ValueEnum, Clone, Copy, Default, PartialEq, Eq)]
enum Sanitizer {
    #[default]
    None,
    Address,
}

pub(crate) fn run(command: Command) -> Result<()> {
    let root = crate::repository_root();
    let targets = Targets::read(&root)?;
    match command {
        Command::List => {
            targets.list();
            Ok(())
        }
        Command::Run(args) => targets.run(&args),
        Command::All(args) => targets.run_all(&args),
    }
}

/// A target: its name, and the first line of its file.
struct Target {
    name: String,
    about: String,
}

struct Targets {
    folder: PathBuf,
    targets: Vec<Target>,
}

impl Targets {
    fn read(root: &Path) -> Result<Self> {
        let folder = root.join("fuzz");
        let sources = folder.join("fuzz_targets");
        let mut targets = Vec::new();
        for entry in fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))? {
            let path = entry?.path();
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let source =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let about = source.lines().next().unwrap_or_default().trim_start_matches("//!").trim().to_owned();
            targets.push(Target { name, about });
        }
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { folder, targets })
    }

    fn list(&self) {
        let width = self.targets.iter().map(|target| target.name.len()).max().unwrap_or(0);
        for Target { name, about } in &self.targets {
            println!("{name:width$}  {about}");
        }
    }

    fn run(&self, args: &RunArgs) -> Result<()> {
        if !self.targets.iter().any(|target| target.name == args.target) {
            bail!("there is no fuzz target {}: `cargo xtask fuzz list` prints them", args.target);
        }
        ensure_cargo_fuzz()?;
        let mut command = self.fuzzer(&args.target, args.build, args.seconds, args.artifact.as_deref());
        let before = self.artifacts(&args.target);
        let status = command.status().context("cannot start cargo fuzz")?;
        if status.success() {
            return Ok(());
        }
        bail!("{}", self.failure(&args.target, &before, args.artifact.as_deref()));
    }

    fn run_all(&self, args: &AllArgs) -> Result<()> {
        ensure_cargo_fuzz()?;
        process::run(self.cargo_fuzz("build", args.build).stdout(Stdio::null()))?;
        println!("{:20} {:>12} {:>10}", "target", "executions", "a second");
        let mut failures = Vec::new();
        for Target { name, .. } in &self.targets {
            let before = self.artifacts(name);
            let mut command = self.fuzzer(name, args.build, Some(args.seconds), None);
            let output = command.stdin(Stdio::null()).output().context("cannot start cargo fuzz")?;
            let log = String::from_utf8_lossy(&output.stderr);
            let figure = |what: &str| statistic(&log, what).unwrap_or("?");
            let (count, rate) = (figure("number_of_executed_units"), figure("average_exec_per_sec"));
            let verdict = if output.status.success() { "" } else { "  FAILED" };
            println!("{name:20} {count:>12} {rate:>10}{verdict}");
            if !output.status.success() {
                let lines: Vec<_> = log.lines().collect();
                eprintln!("{}", lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"));
                failures.push(self.failure(name, &before, None));
            }
        }
        if !failures.is_empty() {
            bail!("{} of {} targets failed:\n{}", failures.len(), self.targets.len(), failures.join("\n"));
        }
        Ok(())
    }

    /// `cargo fuzz SUBCOMMAND` with the options that every use needs.
    fn cargo_fuzz(&self, subcommand: &str, build: BuildArgs) -> Process {
        let mut command = Process::new("cargo");
        command.args(["fuzz", subcommand, "--fuzz-dir"]).arg(&self.folder);
        match build.sanitizer {
            Sanitizer::None => command.args(["--sanitizer", "none"]),
            // A folder of its own, so that changing back and forth does not build everything anew.
            Sanitizer::Address => command
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["--sanitizer", "address", "--target-dir"])
                .arg(self.folder.join("target/address")),
        };
        command
    }

    fn fuzzer(
        &self,
        target: &str,
        build: BuildArgs,
        seconds: Option<u32>,
        artifact: Option<&Path>,
    ) -> Process {
        let mut command = self.cargo_fuzz("run", build);
        command.arg(target).args(artifact);
        command.args(["--", "-print_final_stats=1"]);
        command.args([format!("-timeout={TIMEOUT_S}"), format!("-rss_limit_mb={RSS_LIMIT_MIB}")]);
        command.args(seconds.map(|seconds| format!("-max_total_time={seconds}")));
        command
    }

    /// Inputs that made the target fail.
    fn artifacts(&self, target: &str) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(self.folder.join("artifacts").join(target)).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// What to say of a failure: which input, and how to see it again.
    fn failure(&self, target: &str, before: &BTreeSet<PathBuf>, input: Option<&Path>) -> String {
        let after = self.artifacts(target);
        match after.difference(before).next().map(PathBuf::as_path).or(input) {
            Some(path) => {
                let path = path.display();
                format!("{target}: failed on {path}\nrun it again with: cargo xtask fuzz run {target} {path}")
            }
            None => format!("{target}: did not build, or failed and left no new input behind"),
        }
    }
}

/// A number from libFuzzer's final statistics ("stat::number_of_executed_units: 12").
fn statistic<'a>(log: &'a str, name: &str) -> Option<&'a str> {
    let stats = log.lines().filter_map(|line| line.strip_prefix("stat::")?.split_once(':'));
    stats.filter(|(found, _)| *found == name).map(|(_, value)| value.trim()).next_back()
}

fn ensure_cargo_fuzz() -> Result<()> {
    if process::on_path("cargo-fuzz") {
        return Ok(());
    }
    let mut command = Process::new("cargo");
    process::run(command.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ_VERSION]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_declared_and_says_what_it_checks() {
        let root = crate::repository_root();
        let targets = Targets::read(&root).unwrap();
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let mut declared: Vec<_> =
            manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
        declared.sort_unstable();
        assert_eq!(declared, targets.targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>());
        assert!(targets.targets.iter().all(|target| target.about.ends_with('.')));
    }

    #[test]
    fn statistics_are_found() {
        let log = "#5 DONE\nstat::number_of_executed_units: 12\nstat::average_exec_per_sec:     3\n";
        assert_eq!(statistic(log, "average_exec_per_sec"), Some("3"));
        assert_eq!(statistic(log, "peak_rss_mb"), None);
    }
}
