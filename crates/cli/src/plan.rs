//! From what was typed to what is run: which machine, which boot files, and what is refused with a reason.

use crate::{
    args::{EngineArg, Format, PLANNED_ARCHS, RunArgs},
    network,
};
use isomer_engine::CacheSettings;
use isomer_machine::{Arch, Boot, DiskSpec, EngineChoice, ProfileOptions, Spec};
use miette::Diagnostic;
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, FileTypeExt},
    path::{Path, PathBuf},
};

/// A request that cannot be carried out as it stands.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum PlanError {
    /// Options that exclude each other or miss one.
    #[error("{why}")]
    #[diagnostic(code(isomer::cli::usage), help("{fix}"))]
    Usage { why: String, fix: String },
    /// Known, planned, absent.
    #[error("{what} is not available in this version")]
    #[diagnostic(code(isomer::cli::not_available), help("{instead}"))]
    NotAvailable { what: String, instead: String },
    /// TARGET names nothing here.
    #[error("there is no file `{name}` here")]
    #[diagnostic(
        code(isomer::cli::no_such_target),
        help(
            "give the path of a kernel (as in ./Image), the name of an image (isomer image list), or no target at all for the embedded Linux guest; \
             for a command in it, write -- first: isomer run -- {name}"
        )
    )]
    NoSuchTarget { name: String },
    /// TARGET is a disk, and no firmware is given that could boot it.
    #[error("{} is a {kind}, which needs firmware to boot from it", path.display())]
    #[diagnostic(
        code(isomer::cli::disk_target),
        help(
            "boot it with --firmware FILE (and --kernel U-BOOT for OpenSBI's jump firmware), \
             or give its kernel as the target and the image with --disk {}", path.display()
        )
    )]
    DiskTarget { path: PathBuf, kind: &'static str },
    /// TARGET is a directory.
    #[error("{} is a directory", path.display())]
    #[diagnostic(code(isomer::cli::directory_target), help("{fix}"))]
    DirectoryTarget { path: PathBuf, fix: &'static str },
}

impl PlanError {
    /// The process's exit code: wrong usage is not the machine's fault.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            _ => 1,
        }
    }
}

/// RAM of a machine that was not asked about.
const MEMORY_BYTES: u64 = 512 << 20;

fn usage(why: &str, fix: &str) -> PlanError {
    PlanError::Usage { why: why.into(), fix: fix.into() }
}

/// The machine that `args` ask for.
pub(crate) fn spec(args: &RunArgs) -> Result<Spec, PlanError> {
    let arch = arch(&args.arch)?;
    let engine = engine(args.engine)?;
    let mut disks = [args.disk.as_slice(), args.cdrom.as_slice()].concat();
    let boot = boot(args, &mut disks)?;
    let command = (!args.command.is_empty()).then(|| args.command.clone());
    if command.is_some() && !matches!(boot, Boot::Embedded) {
        return Err(usage(
            "a command after -- runs in the embedded guest only, and a kernel or firmware was given",
            "leave the kernel out, or tell your guest what to run through --append",
        ));
    }
    if !args.symbols.is_empty() && args.profile.is_none() && !args.perf_map {
        return Err(usage(
            "--symbols names what --profile and --perf-map find, and neither was asked for",
            "add --profile, or leave --symbols out",
        ));
    }
    if command.as_deref().is_some_and(|command| command[0].is_empty()) {
        return Err(usage("the command after -- has an empty name", "give a program, as in: -- uname -m"));
    }
    let net = network::cards(&args.net, &args.publish)
        .map_err(|why| usage(why, "see `isomer help run` for --net and --publish"))?;
    Ok(Spec {
        arch,
        cpu_model: args.cpu.clone(),
        cpus: args.cpus,
        memory_bytes: args.memory.unwrap_or(MEMORY_BYTES),
        boot,
        append: args.append.clone(),
        command,
        disks,
        net,
        shares: args.share.clone(),
        transport: args.transport.into(),
        board: args.board.unwrap_or_default(),
        engine,
        cache: CacheSettings {
            mode: args.cache.into(),
            dir: args.cache_dir.clone(),
            ..CacheSettings::default()
        },
        trace: args.trace.unwrap_or_default(),
        profile: ProfileOptions {
            sample: args.profile.is_some(),
            perf_map: args.perf_map,
            symbols: args.symbols.clone(),
        },
    })
}

fn arch(name: &str) -> Result<Arch, PlanError> {
    let built: Vec<_> = Arch::ALL.iter().map(|arch| arch.name()).collect();
    Arch::by_name(name).ok_or_else(|| {
        let planned = if PLANNED_ARCHS.contains(&name) { "planned; " } else { "" };
        PlanError::NotAvailable {
            what: format!("the instruction set {name}"),
            instead: format!("it is {planned}this version has: {}", built.join(", ")),
        }
    })
}

fn engine(arg: EngineArg) -> Result<EngineChoice, PlanError> {
    let absent = |what: &str| {
        Err(PlanError::NotAvailable {
            what: what.into(),
            instead: "leave --engine out, or use --engine interp: the interpreter runs every guest".into(),
        })
    };
    match arg {
        EngineArg::Auto => Ok(EngineChoice::Auto),
        EngineArg::Interp => Ok(EngineChoice::Interp),
        EngineArg::Jit => Ok(EngineChoice::Jit),
        EngineArg::Kvm => absent("the hardware engine (kvm)"),
    }
}

fn boot(args: &RunArgs, disks: &mut Vec<DiskSpec>) -> Result<Boot, PlanError> {
    let mut kernel = args.kernel.clone();
    if let Some(path) = &args.target {
        match look_at(path)? {
            Target::Kernel => kernel = Some(path.clone()),
            Target::Disk(_) if args.firmware.is_some() => {
                disks.insert(0, DiskSpec { path: path.clone(), ..DiskSpec::default() });
            }
            Target::Disk(kind) => return Err(PlanError::DiskTarget { path: path.clone(), kind }),
        }
    }
    if kernel.is_none() && args.firmware.is_none() {
        return match args.initrd {
            None => Ok(Boot::Embedded),
            Some(_) => Err(usage(
                "--initrd goes with a kernel of yours, and none was given",
                "add --kernel FILE, or leave --initrd out for the embedded guest, which brings its own",
            )),
        };
    }
    if args.initrd.is_some() && kernel.is_none() {
        return Err(usage("--initrd goes with a kernel, and none was given", "add --kernel FILE"));
    }
    Ok(Boot::Files { kernel, initrd: args.initrd.clone(), firmware: args.firmware.clone() })
}

/// What a TARGET turns out to be.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A kernel, or something its loader will say more about.
    Kernel,
    /// A disk image, by the name of its kind.
    Disk(&'static str),
}

/// First bytes that tell disk images, at their offsets. The order matters: a boot record is in many of them.
const DISK_MAGIC: &[(u64, &[u8], &str)] = &[
    (0, b"QFI\xfb", "qcow2 disk image"),
    (0, b"KDMV", "VMDK disk image"),
    (0, b"vhdxfile", "VHDX disk image"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI disk image"),
    (0x8001, b"CD001", "CD image"),
    (0x200, b"EFI PART", "disk image"),
    (0x1fe, b"\x55\xaa", "disk image"),
];

fn look_at(path: &Path) -> Result<Target, PlanError> {
    // What cannot be looked at is left to the loader, whose errors name the reason.
    let Ok(metadata) = fs::metadata(path) else {
        let name = path.to_string_lossy();
        return match name.contains('/') {
            true => Ok(Target::Kernel),
            false => Err(PlanError::NoSuchTarget { name: name.into_owned() }),
        };
    };
    if metadata.is_dir() {
        let fix = match path.join("oci-layout").exists() {
            true => "container images are not available in this version; give a kernel",
            false => "give a kernel",
        };
        return Err(PlanError::DirectoryTarget { path: path.into(), fix });
    }
    if metadata.file_type().is_block_device() {
        return Ok(Target::Disk("block device"));
    }
    if !metadata.is_file() {
        return Ok(Target::Kernel);
    }
    let Ok(file) = File::open(path) else { return Ok(Target::Kernel) };
    // The setup header of an x86 kernel, which begins with a boot record (Linux, Documentation/arch/x86/boot.rst).
    if has(&file, 0x202, b"HdrS") {
        return Ok(Target::Kernel);
    }
    let kind = DISK_MAGIC.iter().find(|(offset, magic, _)| has(&file, *offset, magic));
    Ok(kind.map_or(Target::Kernel, |&(_, _, kind)| Target::Disk(kind)))
}

fn has(file: &File, offset: u64, magic: &[u8]) -> bool {
    let mut bytes = vec![0; magic.len()];
    file.read_exact_at(&mut bytes, offset).is_ok() && bytes == magic
}

/// Does the user sit at the guest's console?
pub(crate) fn is_interactive(args: &RunArgs, spec: &Spec) -> bool {
    spec.command.is_none() && args.format == Format::Text && rustix::termios::isatty(rustix::stdio::stdin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use miette::Diagnostic;

    fn plan(args: &[&str]) -> Result<Spec, PlanError> {
        match Cli::try_parse_from(["isomer", "run"].iter().chain(args)).unwrap().command {
            Command::Run(args) => spec(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn boots_are_chosen() {
        assert!(matches!(plan(&[]).unwrap().boot, Boot::Embedded));
        assert_eq!(plan(&["--", "true"]).unwrap().command, Some(vec!["true".to_owned()]));
        let files = plan(&["./no/such/Image", "--initrd", "rd"]).unwrap().boot;
        assert!(matches!(files, Boot::Files { kernel: Some(_), initrd: Some(_), firmware: None }));
        let firmware = plan(&["--firmware", "fw"]).unwrap().boot;
        assert!(matches!(firmware, Boot::Files { kernel: None, initrd: None, firmware: Some(_) }));
    }

    #[test]
    fn refusals_have_code_fix_and_exit_code() {
        for (args, code, exit_code) in [
            (&["--kernel", "k", "--", "true"][..], "isomer::cli::usage", 2),
            (&["--initrd", "rd"], "isomer::cli::usage", 2),
            (&["--firmware", "fw", "--initrd", "rd"], "isomer::cli::usage", 2),
            (&["--", ""], "isomer::cli::usage", 2),
            (&["--symbols", "System.map"], "isomer::cli::usage", 2),
            (&["--engine", "kvm"], "isomer::cli::not_available", 1),
            (&["--arch", "ppc64le"], "isomer::cli::not_available", 1),
            (&["debian"], "isomer::cli::no_such_target", 1),
            (&["/"], "isomer::cli::directory_target", 1),
        ] {
            let error = plan(args).unwrap_err();
            assert_eq!(error.code().map(|code| code.to_string()).as_deref(), Some(code), "{args:?}");
            assert_eq!(error.exit_code(), exit_code, "{args:?}");
            assert!(error.help().is_some(), "{args:?}");
        }
    }

    #[test]
    fn disks_are_told_from_kernels() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, offset: usize, magic: &[u8]| {
            let mut bytes = vec![0; 0x9000];
            bytes[offset..offset + magic.len()].copy_from_slice(magic);
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        for (offset, magic, kind) in DISK_MAGIC {
            let path = file("disk", *offset as usize, magic);
            assert_eq!(look_at(&path).unwrap(), Target::Disk(kind));
        }
        let disk = dir.path().join("disk");
        let name = disk.to_str().unwrap();
        assert!(matches!(plan(&[name]), Err(PlanError::DiskTarget { .. })));
        assert_eq!(plan(&[name, "--firmware", "fw"]).unwrap().disks[0].path, disk);
        assert_eq!(look_at(&file("elf", 0, b"\x7fELF")).unwrap(), Target::Kernel);
        let kernel = file("bzImage", 0x1fe, b"\x55\xaa\xeb\x66HdrS");
        assert_eq!(look_at(&kernel).unwrap(), Target::Kernel);
        fs::write(&kernel, b"short").unwrap();
        assert_eq!(look_at(&kernel).unwrap(), Target::Kernel);
    }
}
