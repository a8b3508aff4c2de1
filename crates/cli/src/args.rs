//! The command line: one definition that help, errors and shell completions all come from.

use crate::{cache::CacheArgs, image::ImageArgs, machines, network, network::NetArg, values};
use clap::{
    Args, Parser, Subcommand, ValueEnum, ValueHint,
    builder::{PossibleValue, PossibleValuesParser},
};
use isomer_devices::backend::net::Publish;
use isomer_engine::{CacheMode, Trace};
use isomer_machine::{Arch, BoardOptions, DiskSpec, ShareSpec, Transport};
use std::{path::PathBuf, time::Duration};

const TOP_EXAMPLES: &str = "\
Examples:
  isomer run                           a shell in the embedded Linux, offline
  isomer run -- uname -m               one command in it; its exit code becomes isomer's
  isomer run ./Image --initrd ./rd.gz  a kernel of yours
  isomer run debian                    Debian 13: made once, then started in seconds
  isomer run debian --name dev         one that keeps what it writes
  isomer shell dev                     a shell in it, from another terminal
  isomer doctor                        what works on this host, and what to do about the rest
  isomer help run                      everything `run` can do";

// Lines of at most 80 columns, so that no terminal folds them.
const RUN_EXAMPLES: &str = "\
Examples:
  isomer run
      A shell in the embedded Linux guest. Leave with `exit` or Ctrl-A x.
  isomer run -- sh -c 'uname -m; exit 7'
      One command in the embedded guest: its output comes out here, and isomer
      exits with 7.
  tar c src | isomer run --timeout 2m -- tar t
      Standard input goes to the command. After two minutes the machine is
      stopped, with exit code 124.
  isomer run ./vmlinuz --initrd ./initrd.img --disk debian.qcow2 \\
             --append 'console=ttyS0 root=/dev/vda1'
      A distribution's kernel. The console is the serial port unless the
      command line names another.
  isomer run ./vmlinuz --initrd ./initrd.img --publish 8022:22
      The guest's SSH server is at port 8022 of this host.
  isomer run --net none
      No network card. By default there is one, behind a NAT that needs no root.
  isomer run --share .:/src -- ls -l /src
      The current directory is /src in the embedded guest. Another guest mounts
      it by what follows the colon: mount -t virtiofs /src /anywhere
  isomer run debian --name web --detach --publish 8080:80
      A machine in the background: isomer shell web, isomer exec web -- COMMAND,
      isomer cp FILE web:/root/, isomer console web, isomer stop web.
  isomer run --firmware fw_jump.elf --kernel u-boot.bin --cpus 4 --memory 2G \\
             --disk disk.img,format=raw
      OpenSBI and U-Boot in place of the built-in firmware.
  isomer run --profile=10 --symbols System.map ./Image --initrd ./rd.gz
      Ends with the ten functions that took most of the guest's time, and which
      tier ran them. With --perf-map the host's `perf record -p PID` sees them.
  isomer run --format json -- cat /proc/cpuinfo
      Silent, then one JSON object: outcome, exit code, counters, and what the
      guest printed.

Keys while the guest has the terminal:
  Ctrl-A x       leave; the machine stops at once
  Ctrl-A c       show a status line; the guest keeps running
  Ctrl-A e       go on with the next engine: jit, interp, reference
  Ctrl-A h       show these keys
  Ctrl-A Ctrl-A  send Ctrl-A to the guest

When standard input is no terminal, its end reaches the embedded guest's shell
as Ctrl-D, so that `echo uname -a | isomer run` ends.

Exit codes:
  the guest command's own, or
  0    power-off, or left with Ctrl-A x
  1    no machine could be made, or the guest reported failure without a code
  2    wrong usage
  70   the guest cannot continue
  124  --timeout passed
  130  SIGINT; 143 SIGTERM; 129 SIGHUP";

/// Runs a machine of any instruction set on any host.
#[derive(Debug, Parser)]
#[command(
    name = "isomer",
    bin_name = "isomer",
    version,
    arg_required_else_help = true,
    after_help = TOP_EXAMPLES
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a machine: the embedded Linux guest, or a kernel of yours
    Run(Box<RunArgs>),
    /// Check what works on this host by running a small guest on each engine
    Doctor(DoctorArgs),
    /// Look after the compiled code that runs keep for later ones
    Cache(CacheArgs),
    /// Pull, import, list and remove images; make, describe, copy, check and resize image files
    Image(ImageArgs),
    #[command(flatten)]
    Machine(machines::Verb),
    /// The process of a machine in the background
    #[command(hide = true)]
    ServeMachine(ServeArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object on standard output
    Json,
}

/// An engine by name. Those that are not built yet are known, so that asking for one gets an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    /// jit where this host can have it, else interp; the first line tells why
    #[default]
    Auto,
    /// The interpreter
    Interp,
    /// Compiled code for what is hot, the interpreter for the rest
    Jit,
    #[value(hide = true)]
    Kvm,
}

/// How compiled code is kept between runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheArg {
    /// Not at all
    Off,
    /// Read only
    Ro,
    /// Read and written
    #[default]
    Rw,
}

impl From<CacheArg> for CacheMode {
    fn from(arg: CacheArg) -> Self {
        match arg {
            CacheArg::Off => Self::Off,
            CacheArg::Ro => Self::ReadOnly,
            CacheArg::Rw => Self::ReadWrite,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    /// virtio over PCI
    #[default]
    Pci,
    /// virtio over MMIO
    Mmio,
}

impl From<TransportArg> for Transport {
    fn from(arg: TransportArg) -> Self {
        match arg {
            TransportArg::Pci => Self::Pci,
            TransportArg::Mmio => Self::Mmio,
        }
    }
}

/// The machine that a background process runs.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Its name
    pub(crate) name: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// An image by name (debian is made when it is first asked for), or a kernel: Image, ELF, or either compressed.
    /// Without it, the embedded Linux guest
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) target: Option<PathBuf>,

    /// A command to run in the embedded guest instead of a shell
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<String>,

    /// The guest's instruction set
    #[arg(long, default_value = Arch::default().name(), value_parser = archs(), help_heading = "Machine")]
    pub(crate) arch: String,

    /// RAM, with a unit: 2G [512M; 1G for an image]
    #[arg(long, short, value_name = "SIZE", value_parser = values::size, help_heading = "Machine")]
    pub(crate) memory: Option<u64>,

    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Machine")]
    pub(crate) cpus: usize,

    /// CPU model, such as rva22; the default has everything that is built
    #[arg(long, value_name = "MODEL", help_heading = "Machine")]
    pub(crate) cpu: Option<String>,

    /// A disk: FILE[,format=raw|qcow2][,ro][,ephemeral]; can be repeated, `,,` is a comma in the name. More options:
    /// cache=writeback|writethrough|none|unsafe, discard=unmap|ignore, serial=TEXT,
    /// bus=virtio|nvme|scsi
    #[arg(
        long,
        value_name = "FILE[,OPTION]...",
        value_parser = values::disk,
        value_hint = ValueHint::FilePath,
        help_heading = "Machine"
    )]
    pub(crate) disk: Vec<DiskSpec>,

    /// A disc image (ISO) in a CD-ROM drive; can be repeated
    #[arg(
        long,
        value_name = "FILE",
        value_parser = values::cdrom,
        value_hint = ValueHint::FilePath,
        help_heading = "Machine"
    )]
    pub(crate) cdrom: Vec<DiskSpec>,

    /// A network card: user[,restrict][,dns=ADDRESS][,mac=ADDRESS] (the default), tap=NAME[,mac=ADDRESS] or none;
    /// can be repeated. With user networking the guest reaches what the host reaches, and the host itself at 10.0.2.2
    #[arg(long, value_name = "KIND[,OPTION]...", value_parser = network::net, help_heading = "Machine")]
    pub(crate) net: Vec<NetArg>,

    /// Lead a port of the host to one of the guest: [ADDRESS:]HOSTPORT:GUESTPORT[/udp]; can be repeated; needs
    /// user networking. Without an address, only the host itself reaches it
    #[arg(long, value_name = "PORTS", value_parser = network::publish, help_heading = "Machine")]
    pub(crate) publish: Vec<Publish>,

    /// A directory for the guest: HOST[:GUEST][,ro][,type=virtiofs|9p]...; can be repeated. GUEST is a tag, or the
    /// path where the embedded guest mounts it (/mnt/share if left out). More options: cache=none|auto|always,
    /// owner=UID:GID|host, locks=guest|host
    #[arg(
        long,
        value_name = "HOST[:GUEST][,OPTION]...",
        value_parser = values::share,
        value_hint = ValueHint::DirPath,
        help_heading = "Machine"
    )]
    pub(crate) share: Vec<ShareSpec>,

    /// How virtio devices are attached
    #[arg(long, value_enum, value_name = "HOW", default_value_t, help_heading = "Machine")]
    pub(crate) transport: TransportArg,

    /// What is on an Arm board, with commas: gic=2 or gic=3, el2
    #[arg(long, value_name = "OPTION,...", value_parser = values::board, help_heading = "Machine")]
    pub(crate) board: Option<BoardOptions>,

    /// What runs guest code
    #[arg(long, value_enum, default_value_t, help_heading = "Machine")]
    pub(crate) engine: EngineArg,

    /// Keep the machine under this name: its disk is its own, and other commands (shell, exec, stop) find it
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    pub(crate) name: Option<String>,

    /// Size of a named machine's disk, when it is made [16G]
    #[arg(long, value_name = "SIZE", value_parser = values::size, requires = "name", help_heading = "Machine")]
    pub(crate) disk_size: Option<u64>,

    /// Run a named machine in the background
    #[arg(long, requires = "name", help_heading = "Run")]
    pub(crate) detach: bool,

    /// Whether compiled code is taken from earlier runs (ro), and kept for later ones, too (rw)
    #[arg(long, value_enum, value_name = "HOW", default_value_t, help_heading = "Machine")]
    pub(crate) cache: CacheArg,

    /// Where compiled code and the key that authenticates it are kept, in place of the user's cache
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath, help_heading = "Machine")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// The kernel; same as TARGET
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "target", help_heading = "Boot")]
    pub(crate) kernel: Option<PathBuf>,

    /// The initial RAM disk of your kernel
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Boot")]
    pub(crate) initrd: Option<PathBuf>,

    /// The kernel's command line
    #[arg(long, value_name = "STRING", allow_hyphen_values = true, help_heading = "Boot")]
    pub(crate) append: Option<String>,

    /// Machine-mode firmware (OpenSBI) in place of the built-in one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Boot")]
    pub(crate) firmware: Option<PathBuf>,

    /// End when the guest asks for a reset
    #[arg(long, help_heading = "Run")]
    pub(crate) no_reboot: bool,

    /// Stop the machine after this long (30s, 5m, 1h30m) and exit with 124
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Run")]
    pub(crate) timeout: Option<Duration>,

    /// Trace to standard error: any of insn, mmu, irq, with commas
    #[arg(long, value_name = "WHAT", value_parser = values::trace, help_heading = "Run")]
    pub(crate) trace: Option<Trace>,

    /// How results and errors are printed; json also captures what the guest prints
    #[arg(long, value_enum, default_value_t, help_heading = "Run")]
    pub(crate) format: Format,

    /// Print counters to standard error at the end: instructions by tier, compilers, TLB
    #[arg(long, help_heading = "Run")]
    pub(crate) stats: bool,

    /// Sample where the guest's time goes, and print the N hottest functions at the end [20]
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "20",
        help_heading = "Run"
    )]
    pub(crate) profile: Option<usize>,

    /// Names for the profile: an ELF file or System.map; can be repeated. ELF kernels and firmware bring theirs
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Run")]
    pub(crate) symbols: Vec<PathBuf>,

    /// Write /tmp/perf-PID.map, by which the host's perf names compiled guest code
    #[arg(long, help_heading = "Run")]
    pub(crate) perf_map: bool,

    /// Leave the first line out that tells guest, host and engine
    #[arg(long, short, help_heading = "Run")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Exits with 0 if at least one engine works, with 1 otherwise.")]
pub(crate) struct DoctorArgs {
    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  isomer completions bash > ~/.local/share/bash-completion/completions/isomer
  isomer completions zsh > ~/.zfunc/_isomer      (with ~/.zfunc in $fpath)
  isomer completions fish > ~/.config/fish/completions/isomer.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Instruction sets that are planned: known by name, so that asking for one gets an answer.
pub(crate) const PLANNED_ARCHS: &[&str] = &["x86_64", "ppc64le"];

pub(crate) fn archs() -> PossibleValuesParser {
    let built = Arch::ALL.iter().map(|arch| PossibleValue::new(arch.name()));
    let planned = PLANNED_ARCHS.iter().map(|name| PossibleValue::new(*name).hide(true));
    PossibleValuesParser::new(built.chain(planned))
}

/// Was JSON asked for? For errors of the command line itself, when there are no parsed arguments to ask.
pub(crate) fn wants_json(args: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let args: Vec<_> = args.take_while(|arg| arg != "--").collect();
    let pair = args.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
    pair || args.iter().any(|arg| arg == "--format=json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(args: &[&str]) -> Result<RunArgs, clap::Error> {
        let parsed = Cli::try_parse_from(["isomer", "run"].iter().chain(args))?;
        match parsed.command {
            Command::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_embedded_guest() {
        let args = run(&[]).unwrap();
        assert_eq!((args.target, args.command.len(), args.memory, args.cpus), (None, 0, None, 1));
        assert_eq!(
            (args.arch.as_str(), args.engine, args.format),
            ("riscv64", EngineArg::Auto, Format::Text)
        );
    }

    #[test]
    fn a_profile_takes_its_length_only_with_an_equals_sign() {
        assert_eq!(run(&["--profile"]).unwrap().profile, Some(20));
        assert_eq!(run(&["--profile=5", "Image"]).unwrap().profile, Some(5));
        let args = run(&["--profile", "Image"]).unwrap();
        assert_eq!((args.profile, args.target), (Some(20), Some("Image".into())));
        assert_eq!(run(&[]).unwrap().profile, None);
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let args =
            run(&["--cpus", "2", "--", "sh", "-c", "uname -m; exit 7", "--format", "json", "--"]).unwrap();
        assert_eq!(args.command, ["sh", "-c", "uname -m; exit 7", "--format", "json", "--"]);
        assert_eq!((args.cpus, args.format), (2, Format::Text));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for wrong in [
            &["--memory", "lots"][..],
            &["--memory", "512"],
            &["--cpus", "-1"],
            &["--cpus", "two"],
            &["--timeout", "soon"],
            &["--disk", "a.img,format=vmdk"],
            &["--disk", ",ro"],
            &["--trace", "everything"],
            &["--arch", "vax"],
            &["--engine", "magic"],
            &["--transport", "pigeon"],
            &["--net", "bridge"],
            &["--publish", "22"],
            &["--board", "gic=4"],
            &["--share", "a,type=nfs"],
            &["--profile=few"],
            &["--kernel", "a", "b"],
            &["a", "b"],
            &["--no-such-option"],
        ] {
            let error = run(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn planned_names_parse_so_that_they_can_be_explained() {
        assert_eq!(run(&["--engine", "jit"]).unwrap().engine, EngineArg::Jit);
        assert_eq!(run(&["--arch", "x86_64"]).unwrap().arch, "x86_64");
        let help = Cli::command().find_subcommand_mut("run").unwrap().render_long_help().to_string();
        assert!(help.contains("aarch64") && !help.contains("ppc64le") && !help.contains("kvm"), "{help}");
    }

    #[test]
    fn json_is_found_before_parsing() {
        let wants = |args: &[&str]| wants_json(args.iter().map(Into::into));
        assert!(wants(&["run", "--format", "json", "--bad"]));
        assert!(wants(&["run", "--format=json"]));
        assert!(!wants(&["run", "--", "--format=json"]));
        assert!(!wants(&["run", "--format", "text", "json"]));
    }
}
