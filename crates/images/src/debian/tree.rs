//! The root file system as a directory: packages unpacked as dpkg unpacks them (deb(5), dpkg's `lib/dpkg`), and dpkg's
//! database saying so, so that `dpkg --configure -a` in the guest does the rest.

use super::{
    deb::{ControlFile, Deb},
    packages::Package,
};
use crate::{ImageError, digest::hex, error::file, places::make_private};
use md5::{Digest, Md5};
use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{self, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

/// Directories that are links into `/usr`, and what has files there.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];
/// Files that are not root's.
const OWNERS: &str = "usr/lib/isomer/owners";
/// Symbolic links followed on the way to one file, at most.
const MOST_LINKS: usize = 16;

/// A root file system in a directory.
pub(super) struct Tree {
    root: PathBuf,
    architecture: String,
    /// dpkg's `status`.
    status: String,
    /// dpkg's `triggers/File`, and its files by the names of triggers.
    file_triggers: String,
    triggers: BTreeMap<String, String>,
    /// Files that are not root's, for the second stage, which can make them theirs: `OWNER:GROUP MODE /PATH`.
    owners: String,
}

impl Tree {
    /// An empty one with the links that a merged `/usr` needs.
    pub(super) fn new(root: &Path, architecture: &str) -> Result<Self, ImageError> {
        make_private(root)?;
        fs::set_permissions(root, Permissions::from_mode(0o755)).map_err(file("protect", root))?;
        for name in MERGED {
            let target = root.join("usr").join(name);
            fs::create_dir_all(&target).map_err(file("create", &target))?;
            let link = root.join(name);
            symlink(format!("usr/{name}"), &link).map_err(file("create", &link))?;
        }
        let mut tree = Self {
            root: root.to_owned(),
            architecture: architecture.to_owned(),
            status: String::new(),
            file_triggers: String::new(),
            triggers: BTreeMap::new(),
            owners: String::new(),
        };
        tree.write(Path::new("var/lib/dpkg/info/format"), b"1\n", 0o644)?;
        Ok(tree)
    }

    /// Writes a file of our own.
    pub(super) fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<(), ImageError> {
        let at = self.root.join(path);
        let write = || {
            if let Some(parent) = at.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&at, content)?;
            fs::set_permissions(&at, Permissions::from_mode(mode))
        };
        write().map_err(file("write", &at))
    }

    /// Unpacks a package and registers it.
    pub(super) fn install(&mut self, package: &Package, path: &Path) -> Result<(), ImageError> {
        let deb = Deb::new(&package.name, path);
        let control = deb.control()?;
        let files = self.unpack(&deb, |_| true)?;
        self.register(&deb, package, &control, &files)
    }

    /// Unpacks those files of a package whose paths (`usr/bin/x`) are wanted; all paths that were.
    pub(super) fn unpack(
        &mut self,
        deb: &Deb,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<Vec<PathBuf>, ImageError> {
        let mut archive = deb.data()?;
        let mut paths = Vec::new();
        for entry in archive.entries().map_err(|error| deb.wrong(error.to_string()))? {
            let mut entry = entry.map_err(|error| deb.wrong(error.to_string()))?;
            let path = entry.path().map_err(|error| deb.wrong(error.to_string()))?.into_owned();
            let path = plain(&path).ok_or_else(|| deb.wrong(format!("it has a path {}", path.display())))?;
            if path.as_os_str().is_empty() || !wanted(&path) {
                continue;
            }
            self.put(&path, &mut entry).map_err(|error| deb.wrong(format!("{}: {error}", path.display())))?;
            if let Some(owner) = owner(entry.header()) {
                let mode = entry.header().mode().unwrap_or(0o644) & 0o7777;
                self.owners += &format!("{owner} {mode:o} /{}\n", path.display());
            }
            paths.push(path);
        }
        Ok(paths)
    }

    /// Puts one entry of an archive in its place.
    fn put(&self, path: &Path, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
        let at = self.locate(path)?;
        let mode = entry.header().mode()? & 0o7777;
        let there = fs::symlink_metadata(&at).ok();
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::Directory {
            // A link to a directory that is there is as good: /lib, and what a package moved.
            if there.is_none() {
                fs::create_dir(&at)?;
            }
            return match there.is_some_and(|there| there.is_symlink()) {
                true => Ok(()),
                // Ours to write into while it is filled; dpkg's own directories have these permissions anyway.
                false => fs::set_permissions(&at, Permissions::from_mode(mode | 0o700)),
            };
        }
        match there {
            Some(there) if there.is_dir() => return Err(io::Error::other("a directory is there already")),
            Some(_) => fs::remove_file(&at)?,
            None => {}
        }
        match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let mut out = fs::File::create_new(&at)?;
                io::copy(entry, &mut out)?;
                out.set_permissions(Permissions::from_mode(mode))?;
                let modified =
                    std::time::UNIX_EPOCH + std::time::Duration::from_secs(entry.header().mtime()?);
                out.set_modified(modified)
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nothing"))?;
                symlink(target, &at)
            }
            tar::EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nothing"))?;
                let target = plain(&target).ok_or_else(|| io::Error::other("a link that leads outside"))?;
                fs::hard_link(self.locate(&target)?, &at)
            }
            other => Err(io::Error::other(format!("a thing of type {other:?}"))),
        }
    }

    /// Where `path` is on the host: symbolic links on the way are followed as the guest would, within the tree; the last
    /// part is not.
    fn locate(&self, path: &Path) -> io::Result<PathBuf> {
        let mut at = PathBuf::new();
        let mut rest: Vec<_> = path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let is_link = !rest.is_empty()
                && fs::symlink_metadata(self.root.join(&next)).is_ok_and(|found| found.is_symlink());
            if !is_link {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::other("its links go in circles"));
            }
            let target = fs::read_link(self.root.join(&next))?;
            if target.is_absolute() {
                at.clear();
            }
            let parts = target
                .components()
                .rev()
                .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
            rest.extend(parts.map(|part| part.as_os_str().to_owned()));
        }
        let at = self.root.join(at);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(at)
    }

    /// Writes what dpkg's database says of an unpacked package.
    fn register(
        &mut self,
        deb: &Deb,
        package: &Package,
        control: &[ControlFile],
        files: &[PathBuf],
    ) -> Result<(), ImageError> {
        let text = |name: &str| {
            let found = control.iter().find(|control| control.name == name);
            found.map(|control| String::from_utf8_lossy(&control.data).into_owned())
        };
        let description = text("control").ok_or_else(|| deb.wrong("it does not describe itself"))?;
        let field = |name: &str| {
            description.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        // Packages that can be installed for several architectures at once have theirs in the names of their files.
        let qualified = match field("Multi-Arch") {
            Some("same") => format!("{}:{}", package.name, self.architecture),
            _ => package.name.clone(),
        };
        let mut stanza = String::new();
        for line in description.trim_end().lines() {
            stanza += &format!("{line}\n");
            if line.starts_with("Package:") {
                stanza += "Status: install ok unpacked\n";
            }
        }
        if let Some(conffiles) = text("conffiles") {
            stanza += "Conffiles:\n";
            for path in conffiles.lines().map(str::trim).filter(|path| path.starts_with('/')) {
                let at =
                    self.locate(Path::new(path.trim_start_matches('/'))).map_err(file("find", &self.root))?;
                let data = fs::read(&at).map_err(file("read", &at))?;
                stanza += &format!(" {path} {}\n", hex(&Md5::digest(&data)));
            }
        }
        self.status += &format!("{stanza}\n");
        for line in text("triggers").unwrap_or_default().lines() {
            self.note_trigger(line, &qualified);
        }
        let mut list = String::from("/.\n");
        files.iter().for_each(|path| list += &format!("/{}\n", path.display()));
        let info = |name: &str| PathBuf::from(format!("var/lib/dpkg/info/{qualified}.{name}"));
        self.write(&info("list"), list.as_bytes(), 0o644)?;
        for found in control.iter().filter(|found| found.name != "control") {
            let mode = if found.executable { 0o755 } else { 0o644 };
            self.write(&info(&found.name), &found.data, mode)?;
        }
        Ok(())
    }

    /// Who waits for a trigger (deb-triggers(5)).
    fn note_trigger(&mut self, line: &str, package: &str) {
        let mut words = line.split_ascii_whitespace();
        let (Some(directive), Some(name)) = (words.next(), words.next()) else { return };
        let Some(how) = directive.strip_prefix("interest") else { return };
        let how = if how == "-noawait" { "/noawait" } else { "" };
        if name.starts_with('/') {
            self.file_triggers += &format!("{name} {package}{how}\n");
        } else {
            *self.triggers.entry(name.to_owned()).or_default() += &format!("{package}{how}\n");
        }
    }

    /// Writes dpkg's database, when all packages are unpacked.
    pub(super) fn finish(&mut self) -> Result<(), ImageError> {
        let mut files = vec![
            ("status".to_owned(), std::mem::take(&mut self.status)),
            ("available".to_owned(), String::new()),
            ("diversions".to_owned(), String::new()),
            ("statoverride".to_owned(), String::new()),
            ("triggers/File".to_owned(), std::mem::take(&mut self.file_triggers)),
            ("triggers/Unincorp".to_owned(), String::new()),
        ];
        for (name, who) in std::mem::take(&mut self.triggers) {
            files.push((format!("triggers/{name}"), who));
        }
        for (name, content) in files {
            self.write(&Path::new("var/lib/dpkg").join(name), content.as_bytes(), 0o644)?;
        }
        let owners = std::mem::take(&mut self.owners);
        self.write(Path::new(OWNERS), owners.as_bytes(), 0o644)?;
        for name in ["updates", "parts"] {
            let path = self.root.join("var/lib/dpkg").join(name);
            fs::create_dir_all(&path).map_err(file("create", &path))?;
        }
        Ok(())
    }
}

/// Whose an entry is, if not root's. The names count, as for dpkg: numbers are those of whoever built the package.
fn owner(header: &tar::Header) -> Option<String> {
    let name = |name: Result<Option<&str>, _>| {
        name.ok().flatten().filter(|name| !name.is_empty()).unwrap_or("root").to_owned()
    };
    let (user, group) = (name(header.username()), name(header.groupname()));
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let foreign = (user.as_str(), group.as_str()) != ("root", "root");
    (foreign && plain(&user) && plain(&group)).then(|| format!("{user}:{group}"))
}

/// A path of an archive relative to the root, if it stays inside.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
