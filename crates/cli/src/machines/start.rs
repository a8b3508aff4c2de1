//! Starting: from an image's name to a machine and its `isomer run`, at this terminal or in the background.

use super::{
    CreateArgs, Home, MachineError, Named, Served, at_terminal, client::Client, control::Request, hub::Hub,
    spec::MachineSpec,
};
use crate::{
    args::{Cli, Command, Format, RunArgs},
    debian,
    progress::Shown,
    report,
    signals::Control,
};
use clap::Parser;
use isomer_devices::backend::ImageFormat;
use isomer_images::{Entry, ImageError, Places, Store, places::make_private};
use isomer_machine::DiskSpec;
use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{self, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a machine may take until it listens: images' digests are checked before.
const START_LIMIT: Duration = Duration::from_secs(60);
/// RAM of a machine that was not asked about.
const MEMORY: &str = "1G";
/// Its disk.
const DISK_BYTES: u64 = 16 << 30;

/// What `isomer run` turns out to be.
pub(crate) enum Prepared {
    /// One machine in this process: these are its options, and the named machine it is, if it is one.
    Here(Box<RunArgs>, Option<Attached>),
    /// It was started in the background.
    Background,
}

/// A named machine that this process runs.
pub(crate) struct Attached {
    pub(crate) machine: Named,
    /// Held while it runs.
    _lock: File,
}

impl Attached {
    /// Listens for `isomer exec` and the others; the console is `hub`, or this terminal.
    pub(crate) fn listen(&self, hub: Option<Hub>, control: &Control) -> std::io::Result<Served> {
        Served::listen(&self.machine.socket_path(), hub, control)
    }
}

fn usage(why: &str, fix: &str) -> MachineError {
    MachineError::Usage { why: why.into(), fix: fix.into() }
}

/// Is the target the name of an image, and no file?
fn image_name(args: &RunArgs) -> Option<&str> {
    let target = args.target.as_ref()?;
    let name = target.to_str()?;
    (!name.contains('/') && !target.exists() && isomer_images::store::check_name(name).is_ok())
        .then_some(name)
}

/// Looks what `isomer run` is to run. Files and the embedded guest are left as they are.
pub(crate) fn prepare(args: &RunArgs) -> Result<Prepared, MachineError> {
    let Some(name) = image_name(args) else {
        if args.name.is_some() || args.detach {
            return Err(usage(
                "--name and --detach are for machines made from an image",
                "name one, as in: isomer run debian --name dev",
            ));
        }
        return Ok(Prepared::Here(Box::new(args.clone()), None));
    };
    if args.kernel.is_some() || args.initrd.is_some() || !args.command.is_empty() {
        return Err(usage(
            "an image brings its own kernel, and runs no command after --",
            "leave --initrd and the command out; in a machine with a name: isomer exec NAME -- COMMAND",
        ));
    }
    let places = Places::of_user()?;
    let (home, store) = (Home::new(&places), Store::open(&places)?);
    let existing = match &args.name {
        Some(machine) => Some(home.named(machine)?).filter(Named::exists),
        None => None,
    };
    let Some(existing) = existing else {
        let entry = find_or_pull(&store, name, &args.arch, args.format)?;
        return match &args.name {
            None if args.detach => Err(usage("a machine in the background needs a name", "add --name NAME")),
            None => forgetful(args, &entry),
            Some(machine) => {
                let machine = home.named(machine)?;
                machine.create(&spec_of(args, &entry)?, &entry, args.disk_size.unwrap_or(DISK_BYTES))?;
                go(args, machine, &store)
            }
        };
    };
    if !is_plain(args) {
        return Err(usage(
            &format!("the machine {} exists, and options that make a machine come too late", existing.name),
            &format!("change {}, or choose another name", existing.spec_path().display()),
        ));
    }
    go(args, existing, &store)
}

/// No option that says what the machine is?
fn is_plain(args: &RunArgs) -> bool {
    args.memory.is_none()
        && args.disk_size.is_none()
        && args.disk.is_empty()
        && args.net.is_empty()
        && args.publish.is_empty()
        && args.share.is_empty()
        && args.append.is_none()
        && args.cpus == 1
}

fn go(args: &RunArgs, machine: Named, store: &Store) -> Result<Prepared, MachineError> {
    if args.detach {
        in_background(&machine)?;
        match args.format {
            Format::Json => report::json(&serde_json::json!({ "name": machine.name, "state": "running" })),
            Format::Text => report::note(&format!(
                "isomer: {0} runs in the background. isomer shell {0}; isomer console {0}; isomer stop {0}",
                machine.name
            )),
        }
        return Ok(Prepared::Background);
    }
    if args.format == Format::Text && !at_terminal() {
        tracing::debug!("no terminal: the console is on the standard streams");
    }
    let (run, attached) = here(machine, store)?;
    let run = RunArgs {
        format: args.format,
        quiet: args.quiet,
        stats: args.stats,
        timeout: args.timeout,
        no_reboot: args.no_reboot,
        cache: args.cache,
        cache_dir: args.cache_dir.clone(),
        ..run
    };
    Ok(Prepared::Here(Box::new(run), Some(attached)))
}

/// The named machine as options of `isomer run`, and this process's hold of it.
fn here(machine: Named, store: &Store) -> Result<(RunArgs, Attached), MachineError> {
    let Some(lock) = machine.lock()? else { return Err(MachineError::Running { name: machine.name }) };
    let spec = machine.spec()?;
    let entry = store.entry(&spec.image);
    if let Some(entry) = &entry {
        if entry.kernel().is_none() && spec.kernel.is_none() && spec.firmware.is_none() {
            return Err(usage(
                &format!(
                    "the image {} brings no kernel, so the machine needs one, or firmware to boot from it",
                    entry.id
                ),
                "give --kernel FILE or --firmware FILE",
            ));
        }
        entry.verify(false)?;
    }
    let options = spec.options(&machine.name, &machine.files(&spec, store)?);
    let words = ["isomer".to_owned(), "run".to_owned()].into_iter().chain(options);
    let wrong = |why: String| MachineError::Spec { path: machine.spec_path(), why };
    match Cli::try_parse_from(words) {
        Ok(Cli { command: Command::Run(args) }) => Ok((*args, Attached { machine, _lock: lock })),
        Ok(_) => Err(wrong("it is no machine".into())),
        Err(error) => Err(wrong(error.to_string().lines().next().unwrap_or_default().to_owned())),
    }
}

/// A machine without a name: what it writes is forgotten at its end.
fn forgetful(args: &RunArgs, entry: &Entry) -> Result<Prepared, MachineError> {
    entry.verify(false)?;
    let mut run = args.clone();
    run.target = None;
    run.arch = entry.manifest.arch.clone();
    run.memory = args.memory.or(Some(1 << 30));
    let format = match entry.manifest.format {
        isomer_images::DiskFormat::Raw => ImageFormat::Raw,
        isomer_images::DiskFormat::Qcow2 => ImageFormat::Qcow2,
    };
    let disk = DiskSpec { path: entry.disk(), format: Some(format), ephemeral: true, ..DiskSpec::default() };
    run.disk.insert(0, disk);
    match (entry.kernel(), &args.firmware) {
        (Some((kernel, initrd)), None) => {
            (run.kernel, run.initrd) = (Some(kernel), Some(initrd));
            let boot = entry.manifest.boot.as_ref().map(|boot| boot.append.as_str()).unwrap_or_default();
            let append = args.append.as_deref().unwrap_or_default();
            let name = &entry.manifest.name;
            run.append =
                Some(format!("console=hvc0 {boot} systemd.hostname={name} {append}").trim().to_owned());
        }
        (None, None) => {
            return Err(usage(
                &format!("the image {} brings no kernel, so it needs firmware to boot from it", entry.id),
                "add --firmware FILE (and for OpenSBI, make a machine: isomer create IMAGE --name NAME --firmware FW --kernel U-BOOT)",
            ));
        }
        (_, Some(_)) => {}
    }
    if args.format == Format::Text && !args.quiet {
        report::note(
            "isomer: this machine has no name, so what it writes is forgotten at its end; --name NAME keeps it",
        );
    }
    Ok(Prepared::Here(Box::new(run), None))
}

/// An image of the store, or one that can be made.
fn find_or_pull(store: &Store, name: &str, arch: &str, format: Format) -> Result<Entry, MachineError> {
    if let Some(entry) = store.find(name, Some(arch))? {
        return Ok(entry);
    }
    if let Some(entry) = store.entry(name) {
        return Ok(entry);
    }
    if name != debian::NAME {
        return Err(ImageError::NotFound {
            name: name.to_owned(),
            fix: format!(
                "there is neither a file `{name}` here nor such an image: give the path of a kernel, a name from \
                 `isomer image list`, or debian; for a command in the embedded guest, write -- first: isomer run -- {name}"
            ),
        }
        .into());
    }
    if format == Format::Text {
        report::note(&format!("isomer: there is no {name} for {arch} yet; it is made now, once"));
    }
    let mirror = isomer_images::debian::Mirror::of_host()?;
    Ok(debian::pull(store, &isomer_images::Client::new(), &mirror, arch, &Shown::new(format))?)
}

/// The spec of a machine that `isomer run --name` makes.
fn spec_of(args: &RunArgs, entry: &Entry) -> Result<MachineSpec, MachineError> {
    if !args.disk.is_empty() {
        return Err(usage(
            "--disk cannot be kept in a named machine from here",
            "add it to the machine's TOML file",
        ));
    }
    // As they were typed: what was parsed cannot be written back.
    let typed = |option: &str| typed_values(option, std::env::args());
    Ok(MachineSpec {
        image: entry.id.clone(),
        arch: entry.manifest.arch.clone(),
        memory: typed("--memory").pop().or_else(|| typed("-m").pop()).unwrap_or_else(|| MEMORY.to_owned()),
        cpus: args.cpus,
        cpu: args.cpu.clone(),
        net: typed("--net"),
        publish: typed("--publish"),
        shares: typed("--share"),
        append: args.append.clone().unwrap_or_default(),
        firmware: args.firmware.as_ref().map(|path| path.display().to_string()),
        ..MachineSpec::default()
    })
}

/// The values of an option on a command line, in either spelling.
fn typed_values(option: &str, words: impl Iterator<Item = String>) -> Vec<String> {
    let mut values = Vec::new();
    let mut words = words.skip(1).take_while(|word| word != "--");
    while let Some(word) = words.next() {
        if word == option {
            values.extend(words.next());
        } else if let Some(value) = word.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
            values.push(value.to_owned());
        }
    }
    values
}

/// Makes a machine for `isomer create`.
pub(super) fn create(home: &Home, store: &Store, args: &CreateArgs) -> Result<Named, MachineError> {
    let (Some(image), Some(name)) = (&args.image, &args.name) else {
        return Err(usage("an image and a name are needed", "as in: isomer create debian --name dev"));
    };
    let machine = home.named(name)?;
    if machine.exists() {
        return Err(MachineError::Exists { name: name.clone() });
    }
    let entry = find_or_pull(store, image, &args.arch, args.format)?;
    let spec = MachineSpec {
        image: entry.id.clone(),
        arch: entry.manifest.arch.clone(),
        memory: args.memory.clone(),
        cpus: args.cpus,
        net: args.net.clone(),
        publish: args.publish.clone(),
        shares: args.share.clone(),
        append: args.append.clone(),
        firmware: args.firmware.clone(),
        kernel: args.kernel.clone(),
        ..MachineSpec::default()
    };
    machine.create(&spec, &entry, args.disk_size)?;
    // Now rather than at the first start: is everything as `isomer run` takes it?
    let checked = here(machine.clone(), store).map(drop);
    if let Err(error) = checked {
        machine.delete()?;
        return Err(error);
    }
    Ok(machine)
}

/// Starts a machine in a process of its own, and waits until it listens.
pub(super) fn in_background(machine: &Named) -> Result<(), MachineError> {
    if machine.is_running() {
        return Err(MachineError::Running { name: machine.name.clone() });
    }
    let log = machine.log_path();
    let failed = |source| MachineError::file("write", &log, source);
    if let Some(folder) = log.parent() {
        make_private(folder)?;
    }
    let began = File::options().create(true).append(true).open(&log).map_err(failed)?;
    let before = began.metadata().map_or(0, |metadata| metadata.len());
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = process::Command::new(program);
    command.args(["serve-machine", &machine.name]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(began).process_group(0).current_dir("/");
    let mut child = command.spawn().map_err(failed)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(Some(_)) = child.try_wait() {
            let said = std::fs::read(&log).unwrap_or_default();
            let said =
                String::from_utf8_lossy(said.get(before as usize..).unwrap_or_default()).trim().to_owned();
            return Err(MachineError::Start { name: machine.name.clone(), why: said });
        }
        if machine.is_running() && machine.socket_path().exists() {
            let answered = Client::connect(machine).and_then(|mut client| client.request(&Request::Info));
            if answered.is_ok() {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(MachineError::Start { name: machine.name.clone(), why: "it took too long".into() });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The process of a machine in the background: its options, and its hold.
pub(crate) fn serve(name: &str) -> Result<(RunArgs, Attached), MachineError> {
    let places = Places::of_user()?;
    let machine = Home::new(&places).existing(name)?;
    // A session of its own: the terminal it was started from may go.
    let _ = rustix::process::setsid();
    here(machine, &Store::open(&places)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_kept_as_they_were_typed() {
        let words =
            ["isomer", "run", "debian", "--publish", "1:2", "--publish=3:4", "--", "--publish", "5:6"];
        let typed = typed_values("--publish", words.iter().map(|word| (*word).to_owned()));
        assert_eq!(typed, ["1:2", "3:4"]);
    }
}
