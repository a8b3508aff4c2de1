//! `cargo xtask suites`: runs public conformance suites, built beside the project, on every engine.
//!
//! A suite is a folder of ELF files in the form of riscv-tests and riscv-arch-test: bare programs in the most privileged
//! mode, linked at 0x80000000, for any instruction set that isomer has. They end by storing to `tohost` (1: passed). A file `NAME.sig` beside `NAME.elf` is the signature expected between
//! `begin_signature` and `end_signature`, one 32-bit hexadecimal word a line.

pub(crate) mod bare;
pub(crate) mod subject;

use anyhow::{Context, bail};
use bare::Verdict;
use clap::Args;
use isomer_engine::EngineKind;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

#[derive(Args)]
pub(crate) struct Command {
    /// Folders of ELF files, searched recursively
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Engines to run on: interp, reference, jit, eager, template, mixed
    #[arg(long, value_delimiter = ',', default_value = "interp,reference,template,eager,mixed")]
    engine: Vec<String>,
    /// Only files whose path contains this
    #[arg(long)]
    only: Option<String>,
    /// CPU model
    #[arg(long, default_value = "max")]
    cpu: String,
    /// Instructions before a test counts as hung
    #[arg(long, default_value_t = 100_000_000)]
    limit: u64,
    /// Trace instructions, page walks, traps: insn,mmu,irq
    #[arg(long, default_value = "")]
    trace: String,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for folder in &command.folders {
        collect(folder, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
    }
    files.retain(|file| command.only.as_deref().is_none_or(|only| file.to_string_lossy().contains(only)));
    files.sort();
    let trace = command.trace.parse()?;
    let mut failed = 0;
    for name in &command.engine {
        let engine = name.parse::<EngineKind>()?;
        let start = Instant::now();
        let mut passed = 0;
        for file in &files {
            match test(file, engine, &command.cpu, command.limit, trace) {
                Ok(()) => passed += 1,
                Err(why) => {
                    failed += 1;
                    println!("FAIL {name} {}: {why:#}", file.display());
                }
            }
        }
        println!("{name}: {passed} of {} passed in {:.1} s", files.len(), start.elapsed().as_secs_f64());
    }
    println!("{} passed, {failed} failed", files.len() * command.engine.len() - failed);
    if failed > 0 || files.is_empty() {
        bail!("{failed} failed, {} files", files.len());
    }
    Ok(())
}

/// ELF files below `path`: executables without extension, or `.elf`.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else {
        let mut magic = [0; 4];
        use std::io::Read;
        if fs::File::open(path)?.read_exact(&mut magic).is_ok() && &magic == b"\x7fELF" {
            files.push(path.to_owned());
        }
    }
    Ok(())
}

fn test(
    file: &Path,
    engine: EngineKind,
    cpu: &str,
    limit: u64,
    trace: isomer_engine::Trace,
) -> anyhow::Result<()> {
    let elf = fs::read(file)?;
    let mut machine = bare::load(&elf, engine, cpu, trace)?;
    match machine.run(limit) {
        Verdict::Passed => {}
        Verdict::Failed(code) => bail!("test {code} failed"),
        Verdict::Hung(state) => bail!("no end after {limit} instructions\n{state}"),
    }
    let expected = file.with_extension("sig");
    if expected.exists() {
        let expected: Vec<String> =
            fs::read_to_string(&expected)?.split_whitespace().map(str::to_ascii_lowercase).collect();
        let actual = machine.signature()?;
        if let Some(i) = (0..expected.len().max(actual.len())).find(|&i| expected.get(i) != actual.get(i)) {
            bail!("signature word {i}: expected {:?}, got {:?}", expected.get(i), actual.get(i));
        }
    }
    Ok(())
}
