//! `cargo xtask stress`: the long version of the engine's stress test, optimised: four harts that write code for one another,
//! with remote fences and timer interrupts, on every engine by turns.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{cargo, process};

#[derive(Args)]
pub(crate) struct Command {
    /// How long to go on
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    ensure!(command.minutes > 0.0 && command.minutes.is_finite(), "give a time, as in --minutes 60");
    let mut test = cargo();
    test.args(["test", "--release", "--package", "isomer-engine", "--test", "engine", "--"]);
    test.args(["--ignored", "--exact", "stress::for_minutes", "--nocapture"]);
    test.env("ISOMER_STRESS_MINUTES", command.minutes.to_string());
    process::run(&mut test)
}
