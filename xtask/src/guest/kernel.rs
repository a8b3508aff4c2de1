//! The kernel: Debian's patched source, the configuration fragments of `guests/linux/config`, a cross compiler.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::arch::Recipe;
use super::manifest::sha256;
use crate::debian::Package;
use crate::process;

/// A built kernel.
pub(crate) struct Kernel {
    pub(crate) image: Vec<u8>,
    /// What `uname -r` says.
    pub(crate) release: String,
    /// The compiler's own line about its version.
    pub(crate) compiler: String,
    /// Digest of the complete configuration that Kconfig made of the fragments.
    pub(crate) config_sha256: String,
}

/// Unpacks, configures and compiles; sources and object files stay below `work` for the next build.
///
/// # Errors
/// When a line of the configuration does not survive Kconfig, or the build fails.
pub(crate) fn build(
    recipe_folder: &Path,
    work: &Path,
    recipe: &Recipe,
    package: &Package,
    jobs: usize,
) -> Result<Kernel> {
    let source = unpack(work, package)?;
    let objects = work.join("build").join(recipe.name);
    fs::create_dir_all(&objects).with_context(|| format!("cannot create {}", objects.display()))?;
    let make = Make { source, objects, recipe, date: package.source_date()? };

    let config = make.configure(&recipe_folder.join("config"))?;
    process::run(make.command().arg(format!("-j{jobs}")).arg(recipe.goal))?;
    Ok(Kernel {
        image: make.image()?,
        release: process::capture(make.command().args(["--no-print-directory", "kernelrelease"]))?,
        compiler: make.compiler()?,
        config_sha256: sha256(config.as_bytes()),
    })
}

/// Unpacks the tarball inside the package once per package version. The folder gets its name last, so that one
/// left by an interrupted run is never taken for complete.
fn unpack(work: &Path, package: &Package) -> Result<PathBuf> {
    let name = package.field("Package")?;
    let source = work.join(format!("{name}_{}", package.field("Version")?));
    if source.exists() {
        return Ok(source);
    }
    let staging = work.join("unpack");
    package.unpack(&staging)?;
    let tarball = staging.join(format!("usr/src/{name}.tar.xz"));
    process::run(Command::new("tar").arg("-C").arg(&staging).arg("-xf").arg(&tarball))?;
    fs::rename(staging.join(&name), &source)
        .with_context(|| format!("cannot create {}", source.display()))?;
    fs::remove_dir_all(&staging).with_context(|| format!("cannot remove {}", staging.display()))?;
    Ok(source)
}

/// One kernel build: its folders and what makes it reproducible.
struct Make<'a> {
    source: PathBuf,
    objects: PathBuf,
    recipe: &'a Recipe,
    date: String,
}

impl Make<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new("make");
        command
            .arg("-s")
            .arg("-C")
            .arg(&self.source)
            .arg(format!("O={}", self.objects.display()))
            .arg(format!("ARCH={}", self.recipe.kbuild))
            .arg(format!("CROSS_COMPILE={}", self.recipe.cross))
            .env("LC_ALL", "C")
            .env("KBUILD_BUILD_TIMESTAMP", &self.date)
            .env("KBUILD_BUILD_VERSION", "1")
            .env("KBUILD_BUILD_USER", "isomer")
            .env("KBUILD_BUILD_HOST", "isomer");
        // A make or cargo around us must not leak its job server or flags into the kernel's build.
        for variable in ["MAKEFLAGS", "MFLAGS", "KCFLAGS", "LOCALVERSION"] {
            command.env_remove(variable);
        }
        command
    }

    /// Applies the fragments to `allnoconfig` and returns the complete configuration.
    fn configure(&self, fragments: &Path) -> Result<String> {
        let mut requested = String::new();
        for name in ["common", self.recipe.name] {
            let path = fragments.join(format!("{name}.config"));
            requested +=
                &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        let all = self.objects.join("requested.config");
        fs::write(&all, &requested).with_context(|| format!("cannot write {}", all.display()))?;
        process::run(self.command().env("KCONFIG_ALLCONFIG", &all).arg("allnoconfig"))?;

        let path = self.objects.join(".config");
        let config = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lost = lost_lines(&requested, &config);
        if !lost.is_empty() {
            bail!("Kconfig did not accept these lines of guests/linux/config:\n  {}", lost.join("\n  "));
        }
        Ok(config)
    }

    fn image(&self) -> Result<Vec<u8>> {
        let mut path = self.objects.join(self.recipe.image_path);
        if self.recipe.strip {
            let stripped = self.objects.join("stripped");
            let program = format!("{}strip", self.recipe.cross);
            process::run(Command::new(program).arg("-o").arg(&stripped).arg(&path))?;
            path = stripped;
        }
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn compiler(&self) -> Result<String> {
        let text = process::capture(Command::new(format!("{}gcc", self.recipe.cross)).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// The requested lines that the complete configuration contradicts. "Not set" also holds for a symbol that does
/// not occur at all.
fn lost_lines<'a>(requested: &'a str, config: &str) -> Vec<&'a str> {
    let lines: BTreeSet<&str> = config.lines().collect();
    let set: BTreeSet<&str> = config.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let unset_symbol = |line: &'a str| line.strip_prefix("# ")?.strip_suffix(" is not set");
    requested
        .lines()
        .filter(|line| match unset_symbol(line) {
            Some(symbol) => set.contains(symbol),
            None => line.starts_with("CONFIG_") && !lines.contains(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_lines_are_those_kconfig_changed() {
        let requested = "# a comment\nCONFIG_A=y\nCONFIG_B=8\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        let config = "CONFIG_A=y\nCONFIG_B=64\nCONFIG_C=y\n";
        assert_eq!(lost_lines(requested, config), ["CONFIG_B=8", "# CONFIG_C is not set"]);
    }
}
