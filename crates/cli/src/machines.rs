//! Named machines: created from an image, started in the background or at a terminal, reached through their guest agent.

mod agent;
mod client;
mod control;
mod copy;
mod home;
mod hub;
mod spec;
mod start;
mod terminal;

pub(crate) use control::Served;
pub(crate) use home::{Home, Named};
pub(crate) use hub::Hub;
pub(crate) use start::{Attached, Prepared, prepare, serve};

use crate::{args::Format, report};
use clap::{Args, Subcommand};
use isomer_devices::backend::BlockError;
use isomer_images::{ImageError, Places, Store};
use miette::Diagnostic;
use serde::Serialize;
use serde_json::json;
use spec::MachineSpec;
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long a guest may take until its agent answers.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// How long a guest may take to shut down before it is stopped.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// Why something could not be done with a named machine.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum MachineError {
    #[error("{name:?} cannot be the name of a machine")]
    #[diagnostic(
        code(isomer::machines::name),
        help("use up to 40 lower-case letters, digits, dots and hyphens, beginning with a letter or digit")
    )]
    Name { name: String },
    #[error("there is no machine {name}")]
    #[diagnostic(
        code(isomer::machines::not_found),
        help("see what there is: isomer list; make it: isomer create debian --name {name}")
    )]
    NotFound { name: String },
    #[error("there is a machine {name} already")]
    #[diagnostic(
        code(isomer::machines::exists),
        help("choose another name, or delete it: isomer delete {name}")
    )]
    Exists { name: String },
    #[error("the machine {name} is not running")]
    #[diagnostic(code(isomer::machines::not_running), help("start it: isomer start {name}"))]
    NotRunning { name: String },
    #[error("the machine {name} is running")]
    #[diagnostic(code(isomer::machines::running), help("stop it first: isomer stop {name}"))]
    Running { name: String },
    #[error("the machine {name} did not start: {why}")]
    #[diagnostic(code(isomer::machines::start), help("more may be in its log: isomer logs {name}"))]
    Start { name: String, why: String },
    #[error("no guest agent answers in {name} after {waited:?}")]
    #[diagnostic(
        code(isomer::machines::no_agent),
        help(
            "the guest may still be starting (isomer logs {name}), or lacks the package qemu-guest-agent; isomer console {name} works without"
        )
    )]
    NoAgent { name: String, waited: Duration },
    #[error("{message}")]
    #[diagnostic(code(isomer::machines::refused), help("its code is {code}"))]
    Refused { code: String, message: String },
    #[error("{}: {why}", path.display())]
    #[diagnostic(code(isomer::machines::spec), help("correct the file; its keys: isomer create --schema"))]
    Spec { path: PathBuf, why: String },
    #[error("cannot {doing} {}: {source}", path.display())]
    #[diagnostic(
        code(isomer::machines::file),
        help("check that there is room on the disk and that the path is yours")
    )]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("standard input cannot be read: {source}")]
    #[diagnostic(code(isomer::machines::input), help("check what it is redirected from"))]
    Input { source: io::Error },
    #[error("output cannot be written: {source}")]
    #[diagnostic(code(isomer::machines::output), help("check what it is redirected to"))]
    Output { source: io::Error },
    #[error("{why}")]
    #[diagnostic(code(isomer::machines::usage), help("{fix}"))]
    Usage { why: String, fix: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Disk(#[from] BlockError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pull(#[from] crate::debian::PullError),
}

impl MachineError {
    fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { doing, path: path.to_owned(), source }
    }
}

/// A machine that exists.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// The machine's name
    pub(crate) name: String,
    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What is done with named machines.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a machine from an image, without starting it
    Create(Box<CreateArgs>),
    /// Start a machine in the background
    Start(One),
    /// Shut a machine down
    Stop {
        #[command(flatten)]
        one: One,
        /// Do not ask the guest: end it at once
        #[arg(long)]
        force: bool,
    },
    /// Shut a machine down and start it again
    Restart(One),
    /// Show all machines
    List {
        /// How results are printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show all about a machine
    Info(One),
    /// Delete a machine with its disk
    Delete {
        #[command(flatten)]
        one: One,
        /// Stop it first if it runs
        #[arg(long)]
        force: bool,
    },
    /// Sit at a machine's console; Ctrl-A x leaves it
    Console(One),
    /// Show what a machine's console has said
    Logs {
        #[command(flatten)]
        one: One,
        /// Go on as more comes
        #[arg(long, short)]
        follow: bool,
    },
    /// A shell in a machine, through its guest agent; Ctrl-A x leaves it
    Shell(One),
    /// Run a command in a machine; its exit code becomes isomer's
    Exec {
        #[command(flatten)]
        one: One,
        /// Give the command this standard input, up to its end, before it starts
        #[arg(long, short)]
        interactive: bool,
        /// The command
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Copy files and directories to or from a machine: NAME:PATH is in a machine
    Cp {
        /// What to copy
        from: String,
        /// Where to
        to: String,
        /// How results are printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Options of `isomer create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  isomer create debian --name dev --memory 2G --publish 8022:22
  isomer start dev && isomer shell dev
  isomer create --schema           the JSON Schema of a machine's TOML file")]
pub(crate) struct CreateArgs {
    /// An image by name or id
    #[arg(required_unless_present = "schema")]
    pub(crate) image: Option<String>,
    /// The machine's name
    #[arg(long, required_unless_present = "schema")]
    pub(crate) name: Option<String>,
    /// Instruction set of the image
    #[arg(long, default_value = isomer_machine::Arch::default().name(), value_parser = crate::args::archs())]
    pub(crate) arch: String,
    /// RAM
    #[arg(long, short, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) cpus: usize,
    /// Size of the disk in the guest
    #[arg(long, value_name = "SIZE", default_value = "16G", value_parser = crate::values::size)]
    pub(crate) disk_size: u64,
    /// As for `isomer run`
    #[arg(long, value_name = "PORTS")]
    pub(crate) publish: Vec<String>,
    /// As for `isomer run`
    #[arg(long, value_name = "KIND[,OPTION]...")]
    pub(crate) net: Vec<String>,
    /// As for `isomer run`
    #[arg(long, value_name = "HOST[:GUEST][,OPTION]...")]
    pub(crate) share: Vec<String>,
    /// More words for the kernel's command line
    #[arg(long, value_name = "STRING", default_value = "", allow_hyphen_values = true)]
    pub(crate) append: String,
    /// Firmware, for images that bring no kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: Option<String>,
    /// What firmware starts, such as U-Boot
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<String>,
    /// Print the JSON Schema of a machine's TOML file, and make nothing
    #[arg(long)]
    pub(crate) schema: bool,
    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

impl Verb {
    fn format(&self) -> Format {
        match self {
            Self::Create(args) => args.format,
            Self::List { format } | Self::Cp { format, .. } => *format,
            Self::Start(one)
            | Self::Restart(one)
            | Self::Info(one)
            | Self::Console(one)
            | Self::Shell(one) => one.format,
            Self::Stop { one, .. }
            | Self::Delete { one, .. }
            | Self::Logs { one, .. }
            | Self::Exec { one, .. } => one.format,
        }
    }
}

/// A machine, as it is shown.
#[derive(Debug, Serialize)]
struct Shape {
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<MachineSpec>,
    spec_file: String,
    disk: String,
    disk_bytes: u64,
    log: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<serde_json::Value>,
}

impl Shape {
    fn of(machine: &Named) -> Self {
        use std::os::unix::fs::MetadataExt;
        let running = machine.is_running();
        let info = || client::Client::connect(machine).ok()?.request(&control::Request::Info).ok();
        let disk = machine.disk_path();
        Self {
            name: machine.name.clone(),
            state: if running { "running" } else { "stopped" },
            spec: machine.spec().ok(),
            spec_file: machine.spec_path().display().to_string(),
            disk_bytes: std::fs::metadata(&disk).map_or(0, |metadata| metadata.blocks() * 512),
            disk: disk.display().to_string(),
            log: machine.log_path().display().to_string(),
            process: running.then(info).flatten(),
        }
    }
}

/// Does what a verb asks for and returns the exit code.
pub(crate) fn run(verb: &Verb) -> u8 {
    carry_out(verb).unwrap_or_else(|error| {
        report::error(&error, verb.format());
        1
    })
}

fn carry_out(verb: &Verb) -> Result<u8, MachineError> {
    if let Verb::Create(args) = verb
        && args.schema
    {
        report::json(&spec::schema());
        return Ok(0);
    }
    let places = Places::of_user()?;
    let home = Home::new(&places);
    let format = verb.format();
    let tell = |machine: &Named, did: &str| {
        match format {
            Format::Json => report::json(&Shape::of(machine)),
            Format::Text => print(&format!("{}: {did}\n", machine.name)),
        }
        Ok(0)
    };
    match verb {
        Verb::Create(args) => {
            let machine = start::create(&home, &Store::open(&places)?, args)?;
            tell(&machine, "created")
        }
        Verb::Start(one) => {
            let machine = home.existing(&one.name)?;
            start::in_background(&machine)?;
            tell(&machine, "started")
        }
        Verb::Stop { one, force } => {
            let machine = home.existing(&one.name)?;
            stop(&machine, *force)?;
            tell(&machine, "stopped")
        }
        Verb::Restart(one) => {
            let machine = home.existing(&one.name)?;
            if machine.is_running() {
                stop(&machine, false)?;
            }
            start::in_background(&machine)?;
            tell(&machine, "started")
        }
        Verb::List { .. } => list(&home, format),
        Verb::Info(one) => {
            let machine = home.existing(&one.name)?;
            let shape = Shape::of(&machine);
            match format {
                Format::Json => report::json(&shape),
                Format::Text => print(&details(&shape)),
            }
            Ok(0)
        }
        Verb::Delete { one, force } => {
            let machine = home.existing(&one.name)?;
            if *force && machine.is_running() {
                stop(&machine, true)?;
            }
            machine.delete()?;
            match format {
                Format::Json => report::json(&json!({ "deleted": machine.name })),
                Format::Text => print(&format!("{}: deleted\n", machine.name)),
            }
            Ok(0)
        }
        Verb::Console(one) => terminal::console(&home.existing(&one.name)?),
        Verb::Logs { one, follow } => logs(&home.existing(&one.name)?, *follow, format),
        Verb::Shell(one) => terminal::shell(&home.existing(&one.name)?),
        Verb::Exec { one, interactive, command } => {
            exec(&home.existing(&one.name)?, command, *interactive, format)
        }
        Verb::Cp { from, to, .. } => {
            let bytes = copy::copy(&home, from, to)?;
            if format == Format::Json {
                report::json(&json!({ "bytes": bytes }));
            }
            Ok(0)
        }
    }
}

fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn list(home: &Home, format: Format) -> Result<u8, MachineError> {
    let shapes: Vec<_> = home.list().iter().map(Shape::of).collect();
    match format {
        Format::Json => report::json(&json!({ "machines": shapes })),
        Format::Text if shapes.is_empty() => {
            print("no machines yet. A first one: isomer run debian --name dev\n")
        }
        Format::Text => {
            let mut text = format!("{:<20} {:<8} {:<8} {:>10}  image\n", "machine", "state", "arch", "disk");
            for shape in &shapes {
                let (arch, image) =
                    shape.spec.as_ref().map_or(("?", "?"), |spec| (&*spec.arch, &*spec.image));
                let disk = report::Size(shape.disk_bytes).to_string();
                text += &format!("{:<20} {:<8} {arch:<8} {disk:>10}  {image}\n", shape.name, shape.state);
            }
            print(&text);
        }
    }
    Ok(0)
}

fn details(shape: &Shape) -> String {
    let mut text = format!("{}: {}\n", shape.name, shape.state);
    if let Some(process) = &shape.process {
        text += &format!("process   {}\nagent     {}\n", process["pid"], process["agent"]);
    }
    text += &format!("spec      {}\n", shape.spec_file);
    text += &format!("disk      {} ({})\n", shape.disk, report::Size(shape.disk_bytes));
    text += &format!("log       {}\n", shape.log);
    if let Some(spec) = shape.spec.as_ref().and_then(|spec| toml::to_string(spec).ok()) {
        text += &format!("\n{spec}");
    }
    text
}

/// Asks the guest to shut down, and ends the machine if it does not.
fn stop(machine: &Named, force: bool) -> Result<(), MachineError> {
    let mut client = client::Client::connect(machine)?;
    let gone = |limit: Duration| {
        let deadline = Instant::now() + limit;
        while machine.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        !machine.is_running()
    };
    // The agent may answer, or be shut down before it does.
    let asked = !force && client.agent("guest-ping", json!({})).is_ok();
    if asked {
        let request = json!({ "execute": "guest-shutdown", "arguments": { "mode": "powerdown" } });
        let _ = client.request(&control::Request::Agent { request, limit_ms: 2000 });
        if gone(STOP_LIMIT) {
            return Ok(());
        }
        report::note(&format!("isomer: {} did not shut down in time; it is stopped", machine.name));
    } else if !force {
        report::note(&format!(
            "isomer: no guest agent answers in {}; it is stopped as if the power failed",
            machine.name
        ));
    }
    let mut client = client::Client::connect(machine)?;
    client.request(&control::Request::Stop)?;
    match gone(Duration::from_secs(20)) {
        true => Ok(()),
        false => Err(MachineError::Running { name: machine.name.clone() }),
    }
}

fn logs(machine: &Named, follow: bool, format: Format) -> Result<u8, MachineError> {
    use std::io::Read;
    let path = machine.log_path();
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !follow => return Ok(0),
        Err(source) => return Err(MachineError::file("read", &path, source)),
    };
    if format == Format::Json {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| MachineError::file("read", &path, source))?;
        report::json(&json!({ "log": String::from_utf8_lossy(&bytes) }));
        return Ok(0);
    }
    loop {
        io::copy(&mut file, &mut io::stdout().lock()).map_err(|source| MachineError::Output { source })?;
        if !follow || !machine.is_running() {
            return Ok(0);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn exec(machine: &Named, command: &[String], interactive: bool, format: Format) -> Result<u8, MachineError> {
    let mut client = client::Client::connect(machine)?;
    client.wait_for_agent(BOOT_LIMIT)?;
    let mut stdin = io::stdin().lock();
    let input: Option<&mut dyn io::Read> = if interactive { Some(&mut stdin) } else { None };
    if format == Format::Json {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams = client::Streams { input, stdout: &mut stdout, stderr: &mut stderr };
        let code = client.exec(command, streams)?;
        report::json(&json!({
            "exit_code": code,
            "stdout": String::from_utf8_lossy(&stdout),
            "stderr": String::from_utf8_lossy(&stderr),
        }));
        return Ok(code);
    }
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    client.exec(command, client::Streams { input, stdout: &mut stdout, stderr: &mut stderr })
}

/// Which images machines stand on, and which machines. One whose spec cannot be read counts for none.
pub(crate) fn images_in_use(places: &Places) -> BTreeMap<String, Vec<String>> {
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for machine in Home::new(places).list() {
        match machine.spec() {
            Ok(spec) => used.entry(spec.image).or_default().push(machine.name),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    used
}

/// Does the user sit at a terminal with both ends?
fn at_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}
