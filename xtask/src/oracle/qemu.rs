//! The reference: QEMU's user-mode emulation, as the same CPU model.

use super::{image::Image, subject::Subject};
use crate::{
    process,
    tools::{self, Tool},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Debian's package of all such programs; the one it was first needed for stands for them.
const TOOLS: [Tool; 1] = [Tool::program("qemu-riscv64-static", "qemu-user-static")];
/// The longest a program may run; the largest takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A QEMU and the folder it works in.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    folder: PathBuf,
    cpu: String,
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    output: PathBuf,
    started: Instant,
}

impl Qemu {
    /// QEMU as the subject's CPU. Without `program`, Debian's, which is installed if need be.
    ///
    /// # Errors
    /// When there is no such program, or the folder for its files cannot be made.
    pub(crate) fn new<S: Subject>(program: Option<&Path>, subject: &S) -> Result<Self> {
        if program.is_none() && !process::on_path(S::QEMU) {
            tools::require("comparing with QEMU", &TOOLS)?;
        }
        let folder = crate::target_dir()?.join(format!("oracle-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let program = program.unwrap_or(Path::new(S::QEMU)).to_owned();
        Ok(Self { program, folder, cpu: subject.qemu_cpu() })
    }

    /// The CPU, as QEMU's option `-cpu`.
    pub(crate) fn cpu(&self) -> &str {
        &self.cpu
    }

    /// Its version, for people.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn version(&self) -> Result<String> {
        let text = process::capture(Command::new(&self.program).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Starts a program.
    ///
    /// # Errors
    /// When its files cannot be written or QEMU not be started.
    pub(crate) fn start(&self, image: &Image) -> Result<Running> {
        let elf = self.folder.join("program");
        let output = self.folder.join("records");
        fs::write(&elf, image.elf()).with_context(|| format!("cannot write {}", elf.display()))?;
        // QEMU runs what could be executed, and says nothing of what could not.
        fs::set_permissions(&elf, fs::Permissions::from_mode(0o755))?;
        let file = File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        let mut command = Command::new(&self.program);
        command.args(["-cpu", &self.cpu]).arg(&elf).stdin(Stdio::null()).stdout(file);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(Running { child, output, started: Instant::now() })
    }
}

impl Drop for Qemu {
    /// Nothing to do about a folder that cannot be removed: it lies among build products.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Running {
    /// The records at the program's end.
    ///
    /// # Errors
    /// When it did not end well or in time.
    pub(crate) fn finish(mut self, image: &Image) -> Result<Vec<u8>> {
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for QEMU")? {
                break status;
            }
            if self.started.elapsed() > PATIENCE {
                self.child.kill().and_then(|()| self.child.wait()).context("cannot stop QEMU")?;
                bail!("QEMU did not end within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let records = fs::read(&self.output).context("cannot read what QEMU wrote")?;
        let (_, len) = image.records();
        if !status.success() || records.len() != len {
            bail!("QEMU ended with {status} and {} of {len} bytes of results", records.len());
        }
        Ok(records)
    }
}
