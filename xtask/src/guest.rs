//! `cargo xtask guest`: builds the embedded Linux guest from Debian's packages, and verifies the stored images.
//!
//! The recipe's inputs stand in `guests/linux` (init, root files, kernel configuration), its output in
//! `guests/linux/images/<arch>`; everything in between stays below `target/guest`.

mod arch;
pub(crate) mod cpio;
pub(crate) mod initramfs;
mod kernel;
mod manifest;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use self::arch::Arch;
use self::manifest::{Manifest, Package, StoredFile};
use crate::debian::{Archive, system_mirror};

/// The Debian release whose packages the images are built from.
pub(crate) const SUITE: &str = "trixie";
const KERNEL_PACKAGE: &str = "linux-source-6.12";
pub(crate) const BUSYBOX_PACKAGE: &str = "busybox-static";
/// The highest level that needs no extra window memory in the decompressor.
const ZSTD_LEVEL: i32 = 19;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Build kernel and initramfs of one instruction set into guests/linux/images
    Build(BuildArgs),
    /// Check every stored image against the digests of its manifest
    Verify,
}

#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Instruction set of the guest
    #[arg(long, value_enum, default_value = "riscv64")]
    arch: Arch,
    /// Compiler processes to run at once [default: the host's processors]
    #[arg(long)]
    jobs: Option<usize>,
    /// Debian archive to download from [default: the one in the system's apt sources]
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

pub(crate) fn run(command: Command) -> Result<()> {
    let places = Places::new(&crate::repository_root());
    match command {
        Command::Build(args) => build(&places, &args),
        Command::Verify => verify(&places),
    }
}

/// Where the recipe reads and writes.
struct Places {
    /// `guests/linux`: the recipe's inputs.
    recipe: PathBuf,
    /// `target/guest`: downloads, sources and object files, reused by the next build.
    work: PathBuf,
}

impl Places {
    fn new(root: &Path) -> Self {
        Self { recipe: root.join("guests/linux"), work: root.join("target/guest") }
    }

    fn images(&self) -> PathBuf {
        self.recipe.join("images")
    }
}

fn build(places: &Places, args: &BuildArgs) -> Result<()> {
    let recipe = args.arch.recipe();
    toolchain::require(recipe)?;

    let mirror = match &args.mirror {
        Some(uri) => uri.clone(),
        None => system_mirror()?,
    };
    let archive = Archive::open(&places.work.join("apt"), &mirror, SUITE, recipe.debian)?;
    let downloads = places.work.join("download");
    let kernel_package = archive.download(KERNEL_PACKAGE, None, &downloads)?;
    let busybox_package = archive.download(BUSYBOX_PACKAGE, Some(recipe.debian), &downloads)?;

    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let kernel = kernel::build(&places.recipe, &places.work, recipe, &kernel_package, jobs)?;
    let busybox =
        initramfs::busybox(&busybox_package, &places.work.join(format!("busybox-{}", recipe.name)))?;
    let initramfs = initramfs::build(&places.recipe, &busybox)?;

    let directory = places.images().join(recipe.name);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let manifest = Manifest {
        arch: recipe.name.to_owned(),
        source_date: kernel_package.source_date()?,
        kernel: manifest::Kernel {
            image: StoredFile::store(&directory, "kernel.zst", &kernel.image, ZSTD_LEVEL)?,
            format: recipe.image_format.to_owned(),
            release: kernel.release,
            compiler: kernel.compiler,
            config_sha256: kernel.config_sha256,
        },
        initramfs: manifest::Initramfs {
            image: StoredFile::store(&directory, "initramfs.cpio.zst", &initramfs, ZSTD_LEVEL)?,
        },
        packages: vec![Package::of(&kernel_package)?, Package::of(&busybox_package)?],
    };
    manifest.write(&directory)?;
    print_summary(&directory, &manifest);
    Ok(())
}

fn print_summary(directory: &Path, manifest: &Manifest) {
    println!("{}", directory.display());
    for file in [&manifest.kernel.image, &manifest.initramfs.image] {
        println!("  {:<20} {:>9} bytes, {:>9} unpacked", file.file, file.stored_size, file.size);
    }
}

fn verify(places: &Places) -> Result<()> {
    let images = places.images();
    let mut count = 0;
    for arch in Arch::ALL {
        let directory = images.join(arch.recipe().name);
        if !directory.exists() {
            continue;
        }
        Manifest::read(&directory)?.verify(&directory)?;
        println!("{}: as its manifest says", arch.recipe().name);
        count += 1;
    }
    if count == 0 {
        bail!("no image below {}: `cargo xtask guest build` makes one", images.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_images_match_their_manifests() -> Result<()> {
        verify(&Places::new(&crate::repository_root()))
    }
}
