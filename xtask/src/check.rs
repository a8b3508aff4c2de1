//! `cargo xtask check`: everything that has to pass before a change is proposed. Continuous integration runs this
//! and nothing else.

use anyhow::{Result, bail};
use clap::{Args, builder::PossibleValuesParser};
use std::time::{Duration, Instant};

use crate::{boot, build_release, cargo, guest, isa, process};

/// One thing to check.
struct Step {
    name: &'static str,
    what: &'static str,
    /// Whether `--quick` runs it.
    quick: bool,
    run: fn() -> Result<()>,
}

/// In the order they run: what fails soonest first.
const STEPS: [Step; 7] = [
    Step { name: "fmt", what: "the code is formatted", quick: true, run: format },
    Step {
        name: "guest",
        what: "the embedded images are those of their manifests",
        quick: true,
        run: images,
    },
    Step { name: "clippy", what: "no lint warns", quick: true, run: lint },
    Step { name: "test", what: "unit, integration and documentation tests", quick: true, run: test },
    Step { name: "isa", what: "instruction tests on every engine", quick: true, run: instructions },
    Step { name: "build", what: "the release binary", quick: false, run: build_release },
    Step {
        name: "boot",
        what: "the embedded guest and Debian's stock kernel boot",
        quick: false,
        run: boots,
    },
];

#[derive(Args)]
pub(crate) struct Command {
    /// Leave out the release build and the boots
    #[arg(long)]
    quick: bool,
    /// Only this step; can be repeated
    #[arg(long, value_name = "STEP", value_parser = names(), conflicts_with = "quick")]
    only: Vec<String>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(STEPS.each_ref().map(|step| step.name))
}

/// Runs the steps, also those after one that failed, and ends with a table of all.
///
/// # Errors
/// When a step failed.
pub(crate) fn run(command: &Command) -> Result<()> {
    let wanted = |step: &&Step| match command.only.as_slice() {
        [] => step.quick || !command.quick,
        only => only.iter().any(|name| name == step.name),
    };
    let mut results = Vec::new();
    for step in STEPS.iter().filter(wanted) {
        println!("\n== {}: {}", step.name, step.what);
        let start = Instant::now();
        let result = (step.run)();
        if let Err(why) = &result {
            println!("{} failed: {why:#}", step.name);
        }
        results.push((step, result.is_ok(), start.elapsed()));
    }
    summarize(&results)
}

fn summarize(results: &[(&Step, bool, Duration)]) -> Result<()> {
    println!("\n{:<8} {:<8} {:>9}", "step", "result", "seconds");
    for (step, passed, took) in results {
        let result = if *passed { "ok" } else { "FAILED" };
        println!("{:<8} {result:<8} {:>9.1}", step.name, took.as_secs_f64());
    }
    let total: Duration = results.iter().map(|(_, _, took)| *took).sum();
    println!("{:<17} {:>9.1}", "total", total.as_secs_f64());
    let failed: Vec<_> =
        results.iter().filter(|(_, passed, _)| !passed).map(|(step, ..)| step.name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    process::run(cargo().args(["fmt", "--all", "--check"]))
}

fn images() -> Result<()> {
    guest::run(guest::Command::Verify)
}

fn lint() -> Result<()> {
    process::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// With cargo-nextest if it is installed; it does not run documentation tests.
fn test() -> Result<()> {
    if !process::on_path("cargo-nextest") {
        return process::run(cargo().args(["test", "--workspace", "--no-fail-fast"]));
    }
    let tests = process::run(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]));
    let documentation = process::run(cargo().args(["test", "--workspace", "--doc", "--no-fail-fast"]));
    tests.and(documentation)
}

fn instructions() -> Result<()> {
    isa::run(&isa::Command::all())
}

fn boots() -> Result<()> {
    boot::run(&boot::Command::checked())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_check() {
        let took = Duration::from_secs(1);
        assert!(summarize(&[(&STEPS[0], true, took), (&STEPS[1], true, took)]).is_ok());
        let failed = summarize(&[(&STEPS[0], true, took), (&STEPS[1], false, took)]);
        assert!(failed.is_err_and(|error| error.to_string() == format!("failed: {}", STEPS[1].name)));
    }
}
