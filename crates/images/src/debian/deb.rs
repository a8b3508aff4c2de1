//! Debian's package files (deb(5)): an `ar` archive of two tar archives, packed one way or another.

use crate::{ImageError, error::file};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Take},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;
/// A maintainer script or list of sums is not longer.
const MOST_CONTROL_BYTES: u64 = 16 << 20;

/// A package file.
pub(super) struct Deb {
    package: String,
    path: PathBuf,
}

/// A file of the control archive.
pub(super) struct ControlFile {
    pub(super) name: String,
    pub(super) data: Vec<u8>,
    pub(super) executable: bool,
}

type Unpacked = Box<dyn Read>;

impl Deb {
    pub(super) fn new(package: &str, path: &Path) -> Self {
        Self { package: package.to_owned(), path: path.to_owned() }
    }

    /// An error about this package.
    pub(super) fn wrong(&self, why: impl Into<String>) -> ImageError {
        ImageError::Package { package: self.package.clone(), why: why.into() }
    }

    /// The package's description of itself, its scripts and its lists.
    pub(super) fn control(&self) -> Result<Vec<ControlFile>, ImageError> {
        let mut archive = tar::Archive::new(self.member("control.tar")?);
        let mut files = Vec::new();
        for entry in archive.entries().map_err(|error| self.wrong(error.to_string()))? {
            let entry = entry.map_err(|error| self.wrong(error.to_string()))?;
            if entry.header().entry_type() != tar::EntryType::Regular {
                continue;
            }
            let path = entry.path().map_err(|error| self.wrong(error.to_string()))?.into_owned();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let executable = entry.header().mode().unwrap_or(0) & 0o100 != 0;
            let mut data = Vec::new();
            entry
                .take(MOST_CONTROL_BYTES)
                .read_to_end(&mut data)
                .map_err(|error| self.wrong(error.to_string()))?;
            files.push(ControlFile { name, data, executable });
        }
        Ok(files)
    }

    /// Its files.
    pub(super) fn data(&self) -> Result<tar::Archive<Unpacked>, ImageError> {
        Ok(tar::Archive::new(self.member("data.tar")?))
    }

    /// The member called `name`, with any ending that tells how it is packed.
    fn member(&self, name: &str) -> Result<Unpacked, ImageError> {
        let mut opened = File::open(&self.path).map_err(file("open", &self.path))?;
        let found = find(&mut opened, name).map_err(|error| self.wrong(error.to_string()))?;
        let (ending, len) = found.ok_or_else(|| self.wrong(format!("it has no {name}")))?;
        let packed: Take<File> = opened.take(len);
        Ok(match ending.as_str() {
            "" => Box::new(packed),
            ".xz" => Box::new(liblzma::read::XzDecoder::new(packed)),
            ".gz" => Box::new(flate2::read::GzDecoder::new(packed)),
            ".zst" => Box::new(zstd::Decoder::new(packed).map_err(|error| self.wrong(error.to_string()))?),
            other => return Err(self.wrong(format!("its {name} is packed as {other:?}, which is not known"))),
        })
    }
}

/// Leaves `archive` at the data of the member whose name begins with `name`; the rest of the name, and the length.
fn find(archive: &mut File, name: &str) -> io::Result<Option<(String, u64)>> {
    let mut magic = [0; MAGIC.len()];
    archive.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(io::Error::other("it is no ar archive"));
    }
    let mut header = [0; HEADER_BYTES];
    loop {
        match archive.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let len: u64 = text(48..58).parse().map_err(|_| io::Error::other("a length in it is no number"))?;
        if let Some(ending) = text(0..16).trim_end_matches('/').strip_prefix(name) {
            return Ok(Some((ending.to_owned(), len)));
        }
        // Data is padded to an even length.
        let skip = i64::try_from(len + len % 2).map_err(io::Error::other)?;
        archive.seek(SeekFrom::Current(skip))?;
    }
}

/// Makes a package file, for tests.
#[cfg(test)]
pub(super) fn make(path: &Path, control: &[(&str, &str)], data: tar::Builder<Vec<u8>>) {
    use std::io::Write;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in control {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, format!("./{name}"), content.as_bytes()).unwrap();
    }
    let control = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
    let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 0);
    packed.write_all(&data.into_inner().unwrap()).unwrap();
    let data = packed.finish().unwrap();
    let mut out = MAGIC.to_vec();
    for (name, bytes) in
        [("debian-binary", &b"2.0\n"[..]), ("control.tar.zst", &control), ("data.tar.xz", &data)]
    {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len()).unwrap();
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    std::fs::write(path, out).unwrap();
}
