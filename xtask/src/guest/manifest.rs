//! `manifest.toml` beside each stored image: what it was built from, and the digests that prove it is whole.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::debian;

const FILE: &str = "manifest.toml";
const HEADER: &str = "# Written by `cargo xtask guest build`; checked by `cargo xtask guest verify`.\n\n";

/// One image: kernel, initial RAM file system, and the packages they come from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) arch: String,
    /// Date of the kernel's source package, UTC; the only date in the image.
    pub(crate) source_date: String,
    pub(crate) kernel: Kernel,
    pub(crate) initramfs: Initramfs,
    #[serde(rename = "package")]
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kernel {
    #[serde(flatten)]
    pub(crate) image: StoredFile,
    /// `Image`, `bzImage` or `vmlinux`, as the kernel's build calls it.
    pub(crate) format: String,
    pub(crate) release: String,
    pub(crate) compiler: String,
    pub(crate) config_sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Initramfs {
    #[serde(flatten)]
    pub(crate) image: StoredFile,
}

/// A file stored as one zstd frame; sizes are in bytes, digests SHA-256 in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    pub(crate) file: String,
    /// Of the content, decompressed.
    pub(crate) size: u64,
    pub(crate) sha256: String,
    /// Of the file as stored.
    pub(crate) stored_size: u64,
    pub(crate) stored_sha256: String,
}

/// A binary package and the source package that corresponds to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    pub(crate) sha256: String,
    pub(crate) source: String,
    pub(crate) source_version: String,
    /// Other sources that are linked in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) built_using: Option<String>,
}

impl Package {
    /// A downloaded package and the source package that its control file names.
    pub(crate) fn of(package: &debian::Package) -> Result<Self> {
        let (name, version) = (package.field("Package")?, package.field("Version")?);
        // "Source: name (version)", where the version stands only if it differs, and the field if either does.
        let source = package.field("Source")?;
        let (source, source_version) = match source.split_once(" (") {
            Some((source, rest)) => (source.to_owned(), rest.trim_end_matches(')').to_owned()),
            None if source.is_empty() => (name.clone(), version.clone()),
            None => (source, version.clone()),
        };
        let built_using = Some(package.field("Built-Using")?).filter(|field| !field.is_empty());
        Ok(Self {
            architecture: package.field("Architecture")?,
            sha256: sha256(&package.bytes()?),
            name,
            version,
            source,
            source_version,
            built_using,
        })
    }
}

impl Manifest {
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a manifest", path.display()))
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let text = format!("{HEADER}{}", toml::to_string(self)?);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Checks both files of the image.
    ///
    /// # Errors
    /// Names the first file whose size or digest is not the one written down.
    pub(crate) fn verify(&self, directory: &Path) -> Result<()> {
        self.kernel.image.verify(directory)?;
        self.initramfs.image.verify(directory)
    }
}

impl StoredFile {
    /// Compresses `content` into `directory`.
    pub(crate) fn store(directory: &Path, file: &str, content: &[u8], level: i32) -> Result<Self> {
        let stored = zstd::bulk::compress(content, level).context("cannot compress")?;
        let path = directory.join(file);
        fs::write(&path, &stored).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            file: file.to_owned(),
            size: content.len() as u64,
            sha256: sha256(content),
            stored_size: stored.len() as u64,
            stored_sha256: sha256(&stored),
        })
    }

    fn verify(&self, directory: &Path) -> Result<()> {
        let path = directory.join(&self.file);
        let stored = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let same = stored.len() as u64 == self.stored_size && sha256(&stored) == self.stored_sha256;
        ensure!(same, "{} is not the file of the manifest", path.display());
        let capacity = usize::try_from(self.size).context("the manifest's size does not fit this host")?;
        let content = zstd::bulk::decompress(&stored, capacity)
            .with_context(|| format!("{} does not decompress to {capacity} bytes", path.display()))?;
        let same = content.len() == capacity && sha256(&content) == self.sha256;
        ensure!(same, "{} does not hold the content of the manifest", path.display());
        Ok(())
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_does_not_pass() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let content = b"kernel".repeat(1000);
        let stored = StoredFile::store(directory.path(), "kernel.zst", &content, 19)?;
        stored.verify(directory.path())?;

        let path = directory.path().join("kernel.zst");
        let mut bytes = fs::read(&path)?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes)?;
        assert!(stored.verify(directory.path()).is_err());
        Ok(())
    }

    #[test]
    fn the_digest_is_that_of_the_standard() {
        // FIPS 180-4's example "abc".
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
