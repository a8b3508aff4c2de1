//! The initial RAM file system: Debian's static busybox under the name of each of its applets, the init script, and
//! the files of `guests/linux/rootfs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;
use crate::debian::Package;

/// Directories and their permissions. `isomer` receives the files that the host appends.
const DIRECTORIES: [(&str, u32); 12] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("isomer", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
];

/// One directory of programs under the four names that scripts use.
const SYMLINKS: [(&str, &str); 5] = [
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("var/run", "../run"),
    ("var/tmp", "../tmp"),
];

/// What the kernel and init need before devtmpfs is mounted.
const DEVICES: [(&str, u32, (u32, u32)); 2] = [("dev/console", 0o600, (5, 1)), ("dev/null", 0o666, (1, 3))];

/// The busybox program of a package; `folder` is where the package is unpacked.
///
/// # Errors
/// When the package holds no busybox.
pub(crate) fn busybox(package: &Package, folder: &Path) -> Result<Vec<u8>> {
    package.unpack(folder)?;
    let places = ["usr/bin/busybox", "bin/busybox"].map(|place| folder.join(place));
    let program = places.iter().find(|place| place.is_file());
    let program = program.with_context(|| format!("no busybox in {}", package.path.display()))?;
    fs::read(program).with_context(|| format!("cannot read {}", program.display()))
}

/// The archive, not compressed.
///
/// # Errors
/// When a file of the recipe cannot be read, or busybox's list of applets is not found.
pub(crate) fn build(recipe: &Path, busybox: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for (path, permissions) in DIRECTORIES {
        archive.directory(path, permissions)?;
    }
    for (path, points_to) in SYMLINKS {
        archive.symlink(path, points_to)?;
    }
    for (path, permissions, device) in DEVICES {
        archive.character_device(path, permissions, device)?;
    }
    add_busybox(&mut archive, busybox)?;
    add_file(&mut archive, "init", &recipe.join("init"))?;
    add_tree(&mut archive, &recipe.join("rootfs"), "")?;
    archive.finish()
}

/// Adds busybox to the directory `bin`, under the name of each of its applets.
///
/// # Errors
/// When busybox's list of applets is not found.
pub(crate) fn add_busybox(archive: &mut Archive, busybox: &[u8]) -> Result<()> {
    archive.file("bin/busybox", 0o755, busybox.to_vec())?;
    for applet in applets(busybox)?.iter().filter(|&&applet| applet != "busybox") {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// The names of the applets: busybox keeps them sorted, each ended by NUL, in one string that begins with `[`.
/// Read from the program, since a foreign one cannot be asked with `--list`.
fn applets(busybox: &[u8]) -> Result<Vec<&str>> {
    const FIRST: &[u8] = b"[\0[[\0a";
    let start = busybox.windows(FIRST.len()).position(|window| window == FIRST);
    let list = &busybox[start.context("busybox has no list of applets where 1.37 has one")?..];
    let mut names = Vec::new();
    for name in list.split(|&byte| byte == 0).take_while(|name| !name.is_empty()) {
        names.push(std::str::from_utf8(name).context("a busybox applet is not named in UTF-8")?);
    }
    ensure!(
        names.is_sorted() && names.binary_search(&"sh").is_ok() && names.len() < 1000,
        "busybox's list of applets is not the sorted list expected"
    );
    Ok(names)
}

/// Adds the files below `folder`; directories that the archive lacks are added, too.
fn add_tree(archive: &mut Archive, folder: &Path, prefix: &str) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let name = entry.file_name().into_string().ok().context("a root file is not named in UTF-8")?;
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            if !DIRECTORIES.iter().any(|&(known, _)| known == path) {
                archive.directory(&path, 0o755)?;
            }
            add_tree(archive, &entry.path(), &format!("{path}/"))?;
        } else {
            add_file(archive, &path, &entry.path())?;
        }
    }
    Ok(())
}

/// Of the permissions only "executable" counts, as in git: a checkout's umask does not change the image.
fn add_file(archive: &mut Archive, path: &str, source: &Path) -> Result<()> {
    let read = || Ok::<_, std::io::Error>((fs::read(source)?, fs::metadata(source)?.permissions().mode()));
    let (data, mode) = read().with_context(|| format!("cannot read {}", source.display()))?;
    archive.file(path, if mode & 0o100 != 0 { 0o755 } else { 0o644 }, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &[u8] = b"\x7fELF..[\0[[\0\0\0code\xae [\0[[\0ash\0cat\0sh\0zcat\0\0/var/log";

    #[test]
    fn applets_are_read_from_the_program() -> Result<()> {
        assert_eq!(applets(PROGRAM)?, ["[", "[[", "ash", "cat", "sh", "zcat"]);
        assert!(applets(b"\x7fELF no list").is_err());
        assert!(applets(b"[\0[[\0awk\0ash\0sh\0\0").is_err(), "not sorted");
        Ok(())
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() -> Result<()> {
        let recipe = crate::repository_root().join("guests/linux");
        let image = build(&recipe, PROGRAM)?;
        assert_eq!(image, build(&recipe, PROGRAM)?);
        let text = String::from_utf8_lossy(&image);
        for path in ["init\0", "bin/zcat\0", "etc/inittab\0", "dev/console\0", "isomer\0"] {
            assert!(text.contains(path), "{path}");
        }
        Ok(())
    }
}
