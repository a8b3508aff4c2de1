//! Where named machines live: a directory of data each (spec and disk), a log, and while they run, a socket and a lock.

use super::{
    MachineError,
    spec::{Files, MachineSpec},
};
use isomer_devices::backend::{Image, ImageFormat};
use isomer_images::{DiskFormat, Entry, ImageError, Places, Store, places::make_private, store::check_name};
use rustix::fs::FlockOperation;
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

const SPEC: &str = "machine.toml";
const DISK: &str = "disk.qcow2";
const SEED: &str = "seed.iso";

/// All named machines.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    places: Places,
}

/// One named machine.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    directory: PathBuf,
    places: Places,
}

impl Home {
    pub(crate) fn new(places: &Places) -> Self {
        Self { places: places.clone() }
    }

    fn machines(&self) -> PathBuf {
        self.places.data.join("machines")
    }

    /// The machine called `name`, whether it exists or not.
    pub(crate) fn named(&self, name: &str) -> Result<Named, MachineError> {
        check_name(name).map_err(|_| MachineError::Name { name: name.to_owned() })?;
        Ok(Named {
            name: name.to_owned(),
            directory: self.machines().join(name),
            places: self.places.clone(),
        })
    }

    /// One that exists.
    pub(crate) fn existing(&self, name: &str) -> Result<Named, MachineError> {
        let machine = self.named(name)?;
        match machine.exists() {
            true => Ok(machine),
            false => Err(MachineError::NotFound { name: name.to_owned() }),
        }
    }

    /// All that exist, by name.
    pub(crate) fn list(&self) -> Vec<Named> {
        let entries = fs::read_dir(self.machines()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut machines: Vec<_> = names.filter_map(|name| self.existing(&name).ok()).collect();
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        machines
    }
}

impl Named {
    pub(crate) fn exists(&self) -> bool {
        self.spec_path().exists()
    }

    pub(crate) fn spec_path(&self) -> PathBuf {
        self.directory.join(SPEC)
    }

    pub(crate) fn disk_path(&self) -> PathBuf {
        self.directory.join(DISK)
    }

    /// What the console said, and what went wrong.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.places.state.join("machines").join(format!("{}.log", self.name))
    }

    fn runtime(&self) -> PathBuf {
        self.places.runtime.join("machines")
    }

    /// Where the running machine listens. Such paths are 107 bytes long at most.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.runtime().join(format!("{}.sock", self.name))
    }

    fn lock_path(&self) -> PathBuf {
        self.runtime().join(format!("{}.lock", self.name))
    }

    pub(crate) fn spec(&self) -> Result<MachineSpec, MachineError> {
        let path = self.spec_path();
        let text = fs::read_to_string(&path).map_err(|source| MachineError::file("read", &path, source))?;
        toml::from_str(&text).map_err(|error| MachineError::Spec { path, why: error.to_string() })
    }

    /// Makes the machine: its disk is an overlay on the image's, `disk_bytes` long.
    pub(crate) fn create(
        &self,
        spec: &MachineSpec,
        image: &Entry,
        disk_bytes: u64,
    ) -> Result<(), MachineError> {
        if self.exists() {
            return Err(MachineError::Exists { name: self.name.clone() });
        }
        image.verify(false)?;
        let path = self.spec_path();
        let text = toml::to_string(spec)
            .map_err(|error| MachineError::Spec { path: path.clone(), why: error.to_string() })?;
        let parent = self.directory.parent().unwrap_or(&self.directory).to_owned();
        make_private(&parent)?;
        // Whole or not at all, as with images.
        let new = parent.join(format!(".new-{}", self.name));
        if new.exists() {
            fs::remove_dir_all(&new).map_err(|source| MachineError::file("remove", &new, source))?;
        }
        make_private(&new)?;
        let format = match image.manifest.format {
            DiskFormat::Raw => ImageFormat::Raw,
            DiskFormat::Qcow2 => ImageFormat::Qcow2,
        };
        let base = image.disk();
        let size = disk_bytes.max(base_bytes(&base, format)?);
        Image::create(&new.join(DISK), ImageFormat::Qcow2, size, Some((&base, format)))?;
        if image.manifest.cloud_init {
            let seed = new.join(SEED);
            let bytes = isomer_images::seed::iso(&self.name);
            fs::write(&seed, bytes).map_err(|source| MachineError::file("write", &seed, source))?;
        }
        fs::write(new.join(SPEC), text).map_err(|source| MachineError::file("write", &path, source))?;
        fs::rename(&new, &self.directory)
            .map_err(|source| MachineError::file("create", &self.directory, source))
    }

    /// What starts this machine.
    pub(crate) fn files(&self, spec: &MachineSpec, store: &Store) -> Result<Files, MachineError> {
        let image = store.entry(&spec.image).ok_or_else(|| ImageError::NotFound {
            name: spec.image.clone(),
            fix: format!("the machine {} stands on it, and cannot start without", self.name),
        })?;
        let disk = comma(&self.disk_path());
        let seed = self.directory.join(SEED);
        Ok(Files {
            disk: format!("{disk},format=qcow2"),
            seed: seed.exists().then(|| format!("{},format=raw,ro", comma(&seed))),
            boot: image.kernel().map(|(kernel, initrd)| (text(&kernel), text(&initrd))),
            append: image.manifest.boot.map(|boot| boot.append).unwrap_or_default(),
        })
    }

    /// Takes the machine for this process; `None` if another one has it.
    pub(crate) fn lock(&self) -> Result<Option<File>, MachineError> {
        make_private(&self.runtime())?;
        let path = self.lock_path();
        let lock = OpenOptions::new().create(true).append(true).open(&path);
        let lock = lock.map_err(|source| MachineError::file("write", &path, source))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(MachineError::file("lock", &path, io::Error::from(error))),
        }
    }

    /// Does a process run it? Told by the lock, which ends with the process whatever happens.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.lock(), Ok(None))
    }

    /// Deletes it, with its disk and its log.
    pub(crate) fn delete(&self) -> Result<(), MachineError> {
        let Some(_lock) = self.lock()? else {
            return Err(MachineError::Running { name: self.name.clone() });
        };
        let going = self.directory.with_file_name(format!(".removed-{}", self.name));
        let failed = |source| MachineError::file("remove", &self.directory, source);
        fs::rename(&self.directory, &going).map_err(failed)?;
        fs::remove_dir_all(&going).map_err(failed)?;
        for path in [self.log_path(), self.socket_path(), self.lock_path()] {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// How large a base's disk is in the guest.
fn base_bytes(path: &Path, format: ImageFormat) -> Result<u64, MachineError> {
    use isomer_devices::backend::{BlockBackend, ImageOptions};
    let options =
        ImageOptions { format: Some(format), read_only: true, refuse_backing: true, ..Default::default() };
    Ok(Image::open(path, &options)?.size_bytes())
}

/// A path as `--disk` takes it.
fn comma(path: &Path) -> String {
    text(path).replace(',', ",,")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
