//! Images from elsewhere: a file of the host, or an address; checked by digest, and unpacked if they are packed.

use crate::{Client, DiskFormat, Entry, Expected, ImageError, Manifest, Progress, Store, Unit, error::file};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Bytes handled at a time, and the grain of holes in what is written.
const BLOCK_BYTES: usize = 1 << 16;
/// A disk may unpack to this much.
const MOST_BYTES: u64 = 1 << 40;

/// What to import.
#[derive(Clone, Debug)]
pub struct Request {
    /// A path, or an address of HTTP or HTTPS.
    pub from: String,
    /// The image's name.
    pub name: String,
    /// Its instruction set.
    pub arch: String,
    /// Its digest as its maker publishes it: of the file before it is unpacked.
    pub expected: Option<Expected>,
    /// It reads a NoCloud seed.
    pub cloud_init: bool,
}

/// How a file is packed, by its first bytes.
const PACKED: &[(&[u8], Packing)] =
    &[(b"\x1f\x8b\x08", Packing::Gzip), (b"\xfd7zXZ\0", Packing::Xz), (b"\x28\xb5\x2f\xfd", Packing::Zstd)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Xz,
    Zstd,
}

/// Images in formats that are recognised in order to be refused.
const FOREIGN: &[(&[u8], &str)] = &[
    (b"KDMV", "a VMDK image"),
    (b"# Disk DescriptorFile", "a VMDK descriptor"),
    (b"vhdxfile", "a VHDX image"),
    (b"conectix", "a VHD image"),
    (b"<<< ", "a VDI image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "packed by bzip2"),
];

/// Brings an image into the store.
///
/// # Errors
/// When it cannot be had, is not what its digest says, or is no disk image.
pub fn import(
    store: &Store,
    client: &Client,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Entry, ImageError> {
    let draft = store.begin(&request.name, &request.arch)?;
    let path = if is_address(&request.from) {
        let name = request.from.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("download");
        let expected = request.expected.as_ref();
        client.download_step(&request.from, store.downloads(), &safe(name), expected, progress)?
    } else {
        let path = PathBuf::from(&request.from);
        if let Some(expected) = &request.expected {
            expected.check(&request.from, &path)?;
        }
        path
    };
    let format = copy_in(&path, |format| draft.disk(format), progress)?;
    let manifest = Manifest {
        name: request.name.clone(),
        arch: request.arch.clone(),
        title: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        source: request.from.clone(),
        created_secs: 0,
        format,
        boot: None,
        cloud_init: request.cloud_init,
        digests: BTreeMap::new(),
    };
    store.commit(draft, manifest)
}

/// Is this an address, and no path?
pub fn is_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A file name without anything that could lead elsewhere.
fn safe(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// Copies a disk image, unpacked and with holes for zeroes, to where its format belongs.
fn copy_in(
    path: &Path,
    place: impl Fn(DiskFormat) -> PathBuf,
    progress: &dyn Progress,
) -> Result<DiskFormat, ImageError> {
    let wrong = |why: &str, fix: &str| ImageError::Import {
        path: path.to_owned(),
        why: why.to_owned(),
        fix: fix.to_owned(),
    };
    let mut source = File::open(path).map_err(file("open", path))?;
    let metadata = source.metadata().map_err(file("look at", path))?;
    if !metadata.is_file() {
        return Err(wrong("it is no regular file", "give the path of a disk image"));
    }
    let head = head_of(&mut source).map_err(file("read", path))?;
    source.seek(SeekFrom::Start(0)).map_err(file("read", path))?;
    let packing = PACKED.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, packing)| packing);
    progress.begin("Copying", Some(metadata.len()), Unit::Bytes);
    let counted = Counted { inner: source, progress };
    let mut reader: Box<dyn Read + '_> = match packing {
        None => Box::new(counted),
        Some(Packing::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(counted)),
        Some(Packing::Xz) => Box::new(liblzma::read::XzDecoder::new_multi_decoder(counted)),
        Some(Packing::Zstd) => Box::new(zstd::Decoder::new(counted).map_err(file("read", path))?),
    };
    let mut first = vec![0; BLOCK_BYTES];
    let count = read_full(&mut reader, &mut first).map_err(file("unpack", path))?;
    first.truncate(count);
    if let Some((_, what)) = FOREIGN.iter().find(|(magic, _)| first.starts_with(magic)) {
        return Err(wrong(&format!("it is {what}"), "convert it: qemu-img convert -O qcow2 OLD NEW"));
    }
    if first.is_empty() {
        return Err(wrong("it is empty", "give the path of a disk image"));
    }
    let format = match first.starts_with(b"QFI\xfb") {
        true => DiskFormat::Qcow2,
        false => DiskFormat::Raw,
    };
    if format == DiskFormat::Qcow2 && names_backing(&first) {
        return Err(wrong(
            "it depends on another image",
            "make it whole first: qemu-img convert -O qcow2 OLD NEW",
        ));
    }
    let out = place(format);
    let mut writer = Sparse::create(&out).map_err(file("create", &out))?;
    let mut block = first;
    loop {
        writer.write(&block).map_err(file("write", &out))?;
        if writer.len > MOST_BYTES {
            return Err(wrong("it unpacks to more than a TiB", "give a smaller image"));
        }
        block.resize(BLOCK_BYTES, 0);
        let count = read_full(&mut reader, &mut block).map_err(file("unpack", path))?;
        if count == 0 {
            break;
        }
        block.truncate(count);
    }
    writer.finish().map_err(file("write", &out))?;
    progress.end();
    Ok(format)
}

/// Does a qcow2 header name a backing file? Its name's offset is at byte 8 (QEMU, docs/interop/qcow2.rst).
fn names_backing(head: &[u8]) -> bool {
    head.get(8..16).is_none_or(|offset| offset.iter().any(|&byte| byte != 0))
}

fn head_of(source: &mut File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; 64];
    let count = read_full(source, &mut head)?;
    head.truncate(count);
    Ok(head)
}

/// Reads until the buffer is full or the end has come.
fn read_full(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

struct Counted<'a> {
    inner: File,
    progress: &'a dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.progress.advance(count as u64);
        Ok(count)
    }
}

/// A new file in which blocks of zeroes are holes.
struct Sparse {
    out: File,
    len: u64,
}

impl Sparse {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { out: fs::OpenOptions::new().write(true).create_new(true).open(path)?, len: 0 })
    }

    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        if block.iter().any(|&byte| byte != 0) {
            self.out.write_all_at(block, self.len)?;
        }
        self.len += block.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.set_len(self.len)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Places, Silent};

    fn request(from: &Path, expected: Option<Expected>) -> Request {
        Request {
            from: from.to_str().unwrap().to_owned(),
            name: "test".into(),
            arch: "riscv64".into(),
            expected,
            cloud_init: false,
        }
    }

    #[test]
    fn images_come_in_unpacked_sparse_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Places::under(dir.path())).unwrap();
        let mut disk = vec![0u8; 4 << 20];
        disk[2 << 20..(2 << 20) + 5].copy_from_slice(b"Hello");
        let plain = dir.path().join("disk.img");
        fs::write(&plain, &disk).unwrap();
        let import =
            |from: &Path, expected| super::import(&store, &Client::new(), &request(from, expected), &Silent);
        let first = import(&plain, None).unwrap();
        assert_eq!(first.manifest.format, DiskFormat::Raw);
        assert!(first.stored_bytes() < 1 << 20, "holes stay holes");
        assert!(fs::read(first.disk()).unwrap() == disk);
        let zstd = dir.path().join("disk.zst");
        fs::write(&zstd, zstd::encode_all(&disk[..], 1).unwrap()).unwrap();
        let gzip = dir.path().join("disk.gz");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gzip).unwrap(), flate2::Compression::fast());
        encoder.write_all(&disk).unwrap();
        encoder.finish().unwrap();
        let xz = dir.path().join("disk.xz");
        let mut encoder = liblzma::write::XzEncoder::new(File::create(&xz).unwrap(), 0);
        encoder.write_all(&disk).unwrap();
        encoder.finish().unwrap();
        for packed in [&zstd, &gzip, &xz] {
            let digest = Expected::Sha256(crate::digest::sha256_of(packed).unwrap());
            assert_eq!(import(packed, Some(digest)).unwrap().id, first.id, "{}", packed.display());
        }
        let wrong = Expected::sha256(&"0".repeat(64)).unwrap();
        assert!(matches!(import(&plain, Some(wrong)), Err(ImageError::Digest { .. })));
    }

    #[test]
    fn what_cannot_be_a_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Places::under(dir.path())).unwrap();
        let refused = |content: &[u8]| {
            let path = dir.path().join("x");
            fs::write(&path, content).unwrap();
            matches!(
                import(&store, &Client::new(), &request(&path, None), &Silent),
                Err(ImageError::Import { .. })
            )
        };
        let mut overlay = b"QFI\xfb\0\0\0\x03".to_vec();
        overlay.extend([0, 0, 0, 0, 0, 0, 1, 0]);
        overlay.resize(512, 0);
        assert!(refused(b"KDMV....") && refused(b"") && refused(b"PK\x03\x04") && refused(&overlay));
        overlay[14] = 0;
        assert!(!refused(&overlay), "a qcow2 image without backing file is taken");
        let missing = request(&dir.path().join("none"), None);
        assert!(matches!(import(&store, &Client::new(), &missing, &Silent), Err(ImageError::File { .. })));
        assert!(matches!(
            import(&store, &Client::new(), &request(dir.path(), None), &Silent),
            Err(ImageError::Import { .. } | ImageError::File { .. })
        ));
        assert_eq!(safe("a b/../c?d=1"), "a_b_.._c_d_1");
    }
}
