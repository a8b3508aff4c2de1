//! Programs and files of the host that chores need, and the Debian packages they come from.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A program or file that must be there, and the package that has it.
pub(crate) struct Tool {
    probe: Probe,
    package: &'static str,
}

/// How a tool shows that it is there.
enum Probe {
    Program(&'static str),
    File(&'static str),
}

impl Tool {
    /// A program found in a directory of `PATH`.
    pub(crate) const fn program(name: &'static str, package: &'static str) -> Self {
        Self { probe: Probe::Program(name), package }
    }

    /// A file at an absolute path.
    pub(crate) const fn file(path: &'static str, package: &'static str) -> Self {
        Self { probe: Probe::File(path), package }
    }

    /// The package that has it.
    pub(crate) fn package(&self) -> &'static str {
        self.package
    }

    fn is_present(&self) -> bool {
        match self.probe {
            Probe::Program(name) => process::on_path(name),
            Probe::File(path) => Path::new(path).exists(),
        }
    }
}

/// Makes sure that tools are there: installs what lacks when run by root, else says what to install.
///
/// # Errors
/// When packages lack and this is not root, or when apt-get fails.
pub(crate) fn require<'a>(purpose: &str, tools: impl IntoIterator<Item = &'a Tool>) -> Result<()> {
    let missing: Vec<_> = tools.into_iter().filter(|tool| !tool.is_present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    let names = packages.join(" ");
    if !process::on_path("apt-get") {
        bail!(
            "{purpose} needs what Debian has in the packages {names}; this host has no apt-get to install them"
        );
    }
    if process::capture(Command::new("id").arg("-u"))? != "0" {
        bail!("{purpose} needs more packages; install them with: sudo apt-get install {names}");
    }
    println!("installing {names}");
    // A fresh system has no package lists, or old ones.
    process::run(apt_get().arg("update"))?;
    process::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&packages))?;
    match missing.iter().find(|tool| !tool.is_present()) {
        None => Ok(()),
        Some(tool) => {
            bail!("apt-get installed {}, and yet what {purpose} needs of it is missing", tool.package)
        }
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=600"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_present_needs_no_package() {
        let tools =
            [Tool::program("sh", "no-such-package"), Tool::file("/etc/os-release", "no-such-package")];
        assert!(tools.iter().all(Tool::is_present));
        assert!(require("the test", &tools).is_ok());
        assert!(!Tool::program("no-such-program", "none").is_present());
    }
}
