//! The binary `isomer`: reads the command line and hands over to the subcommand.

mod args;
mod cache;
mod console;
mod debian;
mod doctor;
mod image;
mod image_files;
mod machines;
mod network;
mod plan;
mod progress;
mod report;
mod run;
mod signals;
mod tiers;
mod values;

use args::{Cli, Command, CompletionsArgs, Format};
use clap::{CommandFactory, Parser, error::ErrorKind};
use miette::Diagnostic;
use std::{
    io::{self, Write},
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error).into(),
    };
    log_to_stderr();
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Doctor(args) => doctor::run(args.format),
        Command::Cache(args) => cache::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Machine(verb) => machines::run(&verb),
        Command::ServeMachine(args) => run::serve(&args),
        Command::Completions(args) => completions(&args),
    }
    .into()
}

/// A command line that cannot be carried out, or one that asked for help, which clap treats alike.
fn refuse(error: &clap::Error) -> u8 {
    #[derive(Debug, thiserror::Error, Diagnostic)]
    #[error("{0}")]
    #[diagnostic(code(isomer::cli::usage), help("`isomer help run` shows all options with examples"))]
    struct Usage(String);

    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked && args::wants_json(std::env::args_os()) {
        let text = error.to_string();
        let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        report::error(&Usage(cause.to_owned()), Format::Json);
    } else {
        // Nobody may be there to read it.
        let _ = error.print();
    }
    u8::try_from(error.exit_code()).unwrap_or(2)
}

fn completions(args: &CompletionsArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "isomer", &mut script);
    match io::stdout().lock().write_all(&script) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// Messages of the program's parts go to standard error, chosen by `ISOMER_LOG`, else `RUST_LOG`, else warnings.
fn log_to_stderr() {
    let wanted = ["ISOMER_LOG", "RUST_LOG"].iter().find_map(|name| Some((name, std::env::var(name).ok()?)));
    let (filter, mistake) = match wanted.filter(|(_, value)| !value.is_empty()) {
        None => (EnvFilter::new("warn"), None),
        Some((name, value)) => match EnvFilter::try_new(&value) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new("warn"), Some(format!("{name} is left aside: {error}"))),
        },
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(report::stderr_has_colour())
        // A closed standard error must not become a panic.
        .log_internal_errors(false)
        .init();
    if let Some(mistake) = mistake {
        tracing::warn!("{mistake}");
    }
}
