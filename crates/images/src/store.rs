//! The store: one directory an image, named by its contents, complete or not there at all.
//!
//! An image is never changed once it is in the store: machines stand on it with overlays, and its files are read-only.
//! `NAME` is the newest image of that name; an older one lives on as long as a machine needs it.

use crate::{ImageError, Places, digest::sha256_of, error::file, places::make_private};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// What describes an image, in its directory.
const MANIFEST: &str = "image.json";
/// Directories of images that are still being made.
const UNFINISHED: &str = ".new-";
/// Longest name.
const MAX_NAME_BYTES: usize = 40;

/// The format of an image's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk's bytes.
    Raw,
    /// QEMU's format.
    Qcow2,
}

impl DiskFormat {
    /// The file's name in the image's directory.
    const fn file_name(self) -> &'static str {
        match self {
            Self::Raw => "disk.raw",
            Self::Qcow2 => "disk.qcow2",
        }
    }
}

/// Kernel and initial RAM disk of an image that is booted without firmware, by their names in its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFiles {
    /// The kernel's command line, but for the console.
    pub append: String,
    /// The release of the kernel, as `uname -r` prints it.
    pub release: String,
}

/// The kernel's name in an image's directory.
const KERNEL: &str = "kernel";
/// The initial RAM disk's.
const INITRD: &str = "initrd";

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its instruction set, as `uname -m` prints it.
    pub arch: String,
    /// What it is, for people.
    pub title: String,
    /// Where it came from.
    pub source: String,
    /// When it was made, in seconds since 1970.
    pub created_secs: u64,
    /// The disk's format.
    pub format: DiskFormat,
    /// How it boots without firmware, if it does.
    pub boot: Option<BootFiles>,
    /// It reads a NoCloud seed when it first starts.
    #[serde(default)]
    pub cloud_init: bool,
    /// SHA-256 digests of its files.
    pub digests: BTreeMap<String, String>,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `NAME-ARCH-DIGEST`.
    pub id: String,
    /// What is known of it.
    pub manifest: Manifest,
    directory: PathBuf,
}

impl Entry {
    /// The disk.
    pub fn disk(&self) -> PathBuf {
        self.directory.join(self.manifest.format.file_name())
    }

    /// The kernel and the initial RAM disk, of an image that has them.
    pub fn kernel(&self) -> Option<(PathBuf, PathBuf)> {
        self.manifest.boot.as_ref().map(|_| (self.directory.join(KERNEL), self.directory.join(INITRD)))
    }

    /// Bytes on the host's disk.
    pub fn stored_bytes(&self) -> u64 {
        let blocks = |name: &String| fs::metadata(self.directory.join(name)).map_or(0, |m| m.blocks());
        self.manifest.digests.keys().map(blocks).sum::<u64>() * 512
    }

    /// Compares files with their digests: those that boot, or all.
    ///
    /// # Errors
    /// [`ImageError::Damaged`].
    pub fn verify(&self, all: bool) -> Result<(), ImageError> {
        let damaged = |why: String| ImageError::Damaged { id: self.id.clone(), why };
        let disk = self.manifest.format.file_name();
        for (name, digest) in &self.manifest.digests {
            let path = self.directory.join(name);
            if !path.exists() {
                return Err(damaged(format!("{name} is missing")));
            }
            if (all || name != disk) && sha256_of(&path)? != *digest {
                return Err(damaged(format!("{name} is not what its digest says")));
            }
        }
        Ok(())
    }
}

/// The user's images.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    downloads: PathBuf,
}

/// An image that is being made; dropping it undoes everything.
#[derive(Debug)]
pub struct Draft {
    directory: PathBuf,
    /// Held until the image is complete.
    _lock: File,
}

impl Draft {
    /// Where its files go.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the disk goes.
    pub fn disk(&self, format: DiskFormat) -> PathBuf {
        self.directory.join(format.file_name())
    }

    /// Where the kernel goes.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join(KERNEL)
    }

    /// Where the initial RAM disk goes.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join(INITRD)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Store {
    /// The store in the user's directories.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(places: &Places) -> Result<Self, ImageError> {
        let store = Self { directory: places.data.join("images"), downloads: places.cache.join("downloads") };
        make_private(&store.directory)?;
        Ok(store)
    }

    /// Where downloads are kept, to go on with them and not to fetch them twice.
    pub fn downloads(&self) -> &Path {
        &self.downloads
    }

    /// All images, by name, the newest of a name first. What is no image is left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, ImageError> {
        let read = file("list", &self.directory);
        let names = fs::read_dir(&self.directory).map_err(read)?.flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut entries: Vec<_> = names.filter_map(|id| self.entry(&id)).collect();
        entries.sort_by(|a, b| {
            let key = |entry: &Entry| (entry.manifest.name.clone(), entry.manifest.arch.clone());
            key(a).cmp(&key(b)).then(b.manifest.created_secs.cmp(&a.manifest.created_secs))
        });
        Ok(entries)
    }

    /// The image with this id.
    pub fn entry(&self, id: &str) -> Option<Entry> {
        if id.starts_with('.') || id.contains('/') {
            return None;
        }
        let directory = self.directory.join(id);
        let text = fs::read(directory.join(MANIFEST)).ok()?;
        match serde_json::from_slice(&text) {
            Ok(manifest) => Some(Entry { id: id.to_owned(), manifest, directory }),
            Err(error) => {
                tracing::warn!("{} is no image: {error}", directory.display());
                None
            }
        }
    }

    /// The newest image called `name`, of an instruction set if one is given; or the one with this id.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn find(&self, name: &str, arch: Option<&str>) -> Result<Option<Entry>, ImageError> {
        let fits = |entry: &Entry| {
            let named = entry.manifest.name == name && arch.is_none_or(|arch| entry.manifest.arch == arch);
            named || entry.id == name
        };
        Ok(self.list()?.into_iter().find(fits))
    }

    /// Begins an image. Only one process at a time makes images of a name and instruction set.
    ///
    /// # Errors
    /// When another one does, or the name cannot be one.
    pub fn begin(&self, name: &str, arch: &str) -> Result<Draft, ImageError> {
        check_name(name)?;
        let lock = self.lock(&format!("{name}-{arch}"))?;
        let directory = self.directory.join(format!("{UNFINISHED}{name}-{arch}"));
        // Left by a process that was killed: the lock says that nobody works on it.
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(file("remove", &directory))?;
        }
        make_private(&directory)?;
        Ok(Draft { directory, _lock: lock })
    }

    /// Completes an image: computes its digests, makes its files read-only, and gives it its place in one step.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn commit(&self, draft: Draft, mut manifest: Manifest) -> Result<Entry, ImageError> {
        let mut names = vec![manifest.format.file_name()];
        if manifest.boot.is_some() {
            names.extend([KERNEL, INITRD]);
        }
        for name in names {
            let path = draft.directory.join(name);
            let digest = sha256_of(&path)?;
            manifest.digests.insert(name.to_owned(), digest);
            fs::set_permissions(&path, Permissions::from_mode(0o400)).map_err(file("protect", &path))?;
            sync(&path)?;
        }
        manifest.created_secs = now_secs();
        let all: String = manifest.digests.values().map(String::as_str).collect();
        let digest = crate::digest::hex(&<sha2::Sha256 as sha2::Digest>::digest(all.as_bytes())[..6]);
        let id = format!("{}-{}-{digest}", manifest.name, manifest.arch);
        let path = draft.directory.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        fs::write(&path, text).map_err(file("write", &path))?;
        sync(&path)?;
        sync(&draft.directory)?;
        let target = self.directory.join(&id);
        // The same contents again: what is there may be in use, and is as good.
        if !target.exists() {
            fs::rename(&draft.directory, &target).map_err(file("rename", &draft.directory))?;
            sync(&self.directory)?;
        }
        self.entry(&id).ok_or_else(|| ImageError::Damaged { id, why: "its manifest cannot be read".into() })
    }

    /// Removes an image by name or id, with all older ones if it is a name. `used` tells who stands on an id.
    /// Returns what was removed, and the bytes that are free now.
    ///
    /// # Errors
    /// When there is none, or one is in use.
    pub fn remove(
        &self,
        name: &str,
        arch: Option<&str>,
        used: &BTreeMap<String, Vec<String>>,
    ) -> Result<(Vec<String>, u64), ImageError> {
        let by_name = |entry: &Entry| {
            entry.manifest.name == name && arch.is_none_or(|arch| entry.manifest.arch == arch)
        };
        let entries: Vec<_> =
            self.list()?.into_iter().filter(|entry| entry.id == name || by_name(entry)).collect();
        if entries.is_empty() {
            let fix = "see what there is: isomer image list".into();
            return Err(ImageError::NotFound { name: name.to_owned(), fix });
        }
        if let Some(entry) = entries.iter().find(|entry| used.contains_key(&entry.id)) {
            let users = used[&entry.id].join(", ");
            return Err(ImageError::InUse { id: entry.id.clone(), users });
        }
        self.remove_entries(entries)
    }

    /// Removes images of which there is a newer one and on which no machine stands, unfinished ones, and downloads.
    /// Returns the images removed, and the bytes that are free now.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn prune(&self, used: &BTreeMap<String, Vec<String>>) -> Result<(Vec<String>, u64), ImageError> {
        let mut newest = std::collections::HashSet::new();
        let mut old = Vec::new();
        for entry in self.list()? {
            let first = newest.insert((entry.manifest.name.clone(), entry.manifest.arch.clone()));
            if !first && !used.contains_key(&entry.id) {
                old.push(entry);
            }
        }
        let (removed, mut bytes) = self.remove_entries(old)?;
        bytes += self.remove_unfinished()?;
        if self.downloads.exists() {
            bytes += tree_bytes(&self.downloads);
            fs::remove_dir_all(&self.downloads).map_err(file("remove", &self.downloads))?;
        }
        Ok((removed, bytes))
    }

    fn remove_entries(&self, entries: Vec<Entry>) -> Result<(Vec<String>, u64), ImageError> {
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            bytes += entry.stored_bytes();
            // First out of sight, so that a half-removed image is none.
            let going = self.directory.join(format!("{UNFINISHED}removed-{}", entry.id));
            fs::rename(&entry.directory, &going).map_err(file("rename", &entry.directory))?;
            fs::remove_dir_all(&going).map_err(file("remove", &going))?;
            removed.push(entry.id);
        }
        Ok((removed, bytes))
    }

    fn remove_unfinished(&self) -> Result<u64, ImageError> {
        let mut bytes = 0;
        for found in fs::read_dir(&self.directory).map_err(file("list", &self.directory))?.flatten() {
            let Ok(name) = found.file_name().into_string() else { continue };
            let Some(what) = name.strip_prefix(UNFINISHED) else { continue };
            // Somebody may be making it right now.
            let Ok(_lock) = self.lock(what) else { continue };
            bytes += tree_bytes(&found.path());
            fs::remove_dir_all(found.path()).map_err(file("remove", &found.path()))?;
        }
        Ok(bytes)
    }

    fn lock(&self, what: &str) -> Result<File, ImageError> {
        let path = self.directory.join(format!(".{what}.lock"));
        let lock = OpenOptions::new().create(true).append(true).open(&path).map_err(file("write", &path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| ImageError::Busy { what: what.to_owned() })?;
        Ok(lock)
    }
}

/// Is this a name that an image or a machine can have?
///
/// # Errors
/// [`ImageError::Name`].
pub fn check_name(name: &str) -> Result<(), ImageError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.');
    if fits { Ok(()) } else { Err(ImageError::Name { name: name.to_owned() }) }
}

fn sync(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(file("write", path))
}

fn tree_bytes(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.blocks() * 512;
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| tree_bytes(&entry.path())).sum()
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> Manifest {
        Manifest {
            name: name.into(),
            arch: "riscv64".into(),
            title: "a test".into(),
            source: "here".into(),
            created_secs: 0,
            format: DiskFormat::Raw,
            boot: None,
            cloud_init: false,
            digests: BTreeMap::new(),
        }
    }

    fn add(store: &Store, name: &str, content: &str) -> Entry {
        let draft = store.begin(name, "riscv64").unwrap();
        fs::write(draft.disk(DiskFormat::Raw), content).unwrap();
        store.commit(draft, manifest(name)).unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Places::under(dir.path())).unwrap();
        (dir, store)
    }

    #[test]
    fn an_image_is_there_whole_or_not_at_all() {
        let (_dir, store) = store();
        let draft = store.begin("debian", "riscv64").unwrap();
        fs::write(draft.disk(DiskFormat::Raw), "half").unwrap();
        assert!(matches!(store.begin("debian", "riscv64"), Err(ImageError::Busy { .. })));
        assert!(store.begin("debian", "aarch64").is_ok());
        drop(draft);
        assert_eq!(store.list().unwrap(), []);
        let entry = add(&store, "debian", "whole");
        assert_eq!(store.find("debian", Some("riscv64")).unwrap().as_ref(), Some(&entry));
        assert_eq!(store.find("debian", Some("aarch64")).unwrap(), None);
        assert_eq!(store.find(&entry.id, None).unwrap().as_ref(), Some(&entry));
        assert_eq!(fs::metadata(entry.disk()).unwrap().permissions().mode() & 0o777, 0o400);
        entry.verify(true).unwrap();
        assert_eq!(add(&store, "debian", "whole").id, entry.id, "the same contents are the same image");
    }

    #[test]
    fn damage_is_found() {
        let (_dir, store) = store();
        let entry = add(&store, "debian", "whole");
        fs::remove_file(entry.disk()).unwrap();
        assert!(matches!(entry.verify(false), Err(ImageError::Damaged { .. })));
        fs::write(entry.disk(), "other").unwrap();
        entry.verify(false).unwrap();
        assert!(matches!(entry.verify(true), Err(ImageError::Damaged { .. })));
    }

    #[test]
    fn names_are_plain() {
        for good in ["debian", "debian-13.1", "7"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "-a", "a/b", "A", "a b", "..", &"a".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        let (_dir, store) = store();
        assert!(matches!(store.begin("../x", "riscv64"), Err(ImageError::Name { .. })));
    }

    #[test]
    fn what_machines_stand_on_stays() {
        let (_dir, store) = store();
        let old = add(&store, "debian", "old");
        fs::rename(&old.directory, store.directory.join("kept")).unwrap();
        fs::rename(store.directory.join("kept"), &old.directory).unwrap();
        let new = add(&store, "debian", "new");
        let used = BTreeMap::from([(old.id.clone(), vec!["dev".to_owned()])]);
        let refused = store.remove("debian", None, &used).unwrap_err();
        assert!(matches!(refused, ImageError::InUse { users, .. } if users == "dev"));
        assert_eq!(store.prune(&used).unwrap().0, Vec::<String>::new());
        // Both were made within a second: the older one is whichever is listed last.
        let last = store.list().unwrap().pop().unwrap().id;
        fs::create_dir_all(store.downloads()).unwrap();
        fs::write(store.downloads().join("x"), [0; 9000]).unwrap();
        fs::create_dir(store.directory.join(".new-left-riscv64")).unwrap();
        let (removed, bytes) = store.prune(&BTreeMap::new()).unwrap();
        assert_eq!(removed, [last]);
        assert!(bytes >= 9000 && !store.downloads().exists());
        assert!(!store.directory.join(".new-left-riscv64").exists());
        let (removed, _) = store.remove("debian", Some("riscv64"), &BTreeMap::new()).unwrap();
        assert_eq!(removed.len(), 1);
        assert!(matches!(store.remove(&new.id, None, &BTreeMap::new()), Err(ImageError::NotFound { .. })));
    }
}
