//! Tests of disk images: round trips, locks, formats, hostile metadata.

use super::*;
use proptest::prelude::*;
use tempfile::TempDir;

fn read(image: &Image, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    image.read_vectored(offset, bytes.as_mut_slice().into())?;
    Ok(bytes)
}

fn write(image: &Image, offset: u64, bytes: &[u8]) -> io::Result<()> {
    image.write_vectored(offset, bytes.into())
}

fn code(error: &BlockError) -> String {
    miette::Diagnostic::code(error).unwrap().to_string()
}

fn open(path: &Path) -> Result<Image, BlockError> {
    Image::open(path, &ImageOptions::default())
}

fn refused(path: &Path, options: &ImageOptions) -> String {
    code(&Image::open(path, options).expect_err("must be refused"))
}

fn read_only() -> ImageOptions {
    ImageOptions { read_only: true, ..ImageOptions::default() }
}

fn new_image(dir: &TempDir, name: &str, format: ImageFormat, size: u64) -> PathBuf {
    let path = dir.path().join(name);
    Image::create(&path, format, size, None).unwrap();
    path
}

#[test]
fn both_formats_keep_what_is_written() {
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        let dir = TempDir::new().unwrap();
        let path = new_image(&dir, "disk.img", format, 4 << 20);
        let image = open(&path).unwrap();
        assert_eq!((image.format(), image.size_bytes(), image.sectors()), (format, 4 << 20, 8192));
        write(&image, 0x1_0200, &[7; 0x2_0000]).unwrap();
        image.discard(0x1_0000, 0x1_0000).unwrap();
        image.write_zeroes(0x2_0200, 0x400, true).unwrap();
        image.write_zeroes(0x2_0800, 0x400, false).unwrap();
        image.flush().unwrap();
        drop(image);
        let image = open(&path).unwrap();
        let back = read(&image, 0x2_0000, 0x1000).unwrap();
        let zero = |at: usize| (0x200..0x600).contains(&at) || (0x800..0xc00).contains(&at);
        assert!(back.iter().enumerate().all(|(at, b)| *b == if zero(at) { 0 } else { 7 }), "{format}");
        assert!(write(&image, (4 << 20) - 512, &[1; 1024]).is_err());
        assert!(write(&image, u64::MAX - 10, &[1; 512]).is_err());
        assert_eq!(read(&image, (4 << 20) - 512, 1024).unwrap()[512..], [0; 512]);
        assert!(image.discard(u64::MAX, u64::MAX).is_err());
        assert!(image.write_zeroes(4 << 20, 1, false).is_err());
    }
}

#[test]
fn read_only_images_refuse_every_change() {
    let dir = TempDir::new().unwrap();
    let path = new_image(&dir, "disk.qcow2", ImageFormat::Qcow2, 1 << 20);
    let before = std::fs::read(&path).unwrap();
    let image = Image::open(&path, &read_only()).unwrap();
    let second = Image::open(&path, &read_only()).unwrap();
    assert!(write(&image, 0, &[1; 512]).is_err());
    assert!(image.discard(0, 512).is_err());
    assert!(image.write_zeroes(0, 512, true).is_err());
    image.flush().unwrap();
    drop((image, second));
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn a_second_writer_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = new_image(&dir, "disk.img", ImageFormat::Raw, 1 << 20);
    let writer = open(&path).unwrap();
    assert_eq!(refused(&path, &ImageOptions::default()), "isomer::block::locked");
    assert_eq!(refused(&path, &read_only()), "isomer::block::locked");
    drop(writer);
    let reader = Image::open(&path, &read_only()).unwrap();
    assert_eq!(refused(&path, &ImageOptions::default()), "isomer::block::locked");
    drop(reader);
    open(&path).unwrap();
}

#[test]
fn overlays_read_through_and_leave_the_base_alone() {
    let dir = TempDir::new().unwrap();
    let base = new_image(&dir, "base.img", ImageFormat::Raw, 1 << 20);
    write(&open(&base).unwrap(), 0, &[0xb5; 1 << 20]).unwrap();
    let top = dir.path().join("top.qcow2");
    Image::create(&top, ImageFormat::Qcow2, 2 << 20, Some((Path::new("base.img"), ImageFormat::Raw)))
        .unwrap();
    let image = open(&top).unwrap();
    assert_eq!(refused(&base, &ImageOptions::default()), "isomer::block::locked");
    write(&image, 0x1000, &[1; 512]).unwrap();
    image.flush().unwrap();
    drop(image);
    let image = open(&top).unwrap();
    let back = read(&image, 0, 2 << 20).unwrap();
    assert!(back[..0x1000].iter().chain(&back[0x1200..1 << 20]).all(|b| *b == 0xb5));
    assert!(back[0x1000..0x1200].iter().all(|b| *b == 1));
    assert!(back[1 << 20..].iter().all(|b| *b == 0));
    assert!(std::fs::read(&base).unwrap().iter().all(|b| *b == 0xb5));
    drop(image);
    let stranger = ImageOptions { refuse_backing: true, ..ImageOptions::default() };
    assert_eq!(refused(&top, &stranger), "isomer::block::backing");
}

#[test]
fn ephemeral_writes_are_gone_at_close() {
    let dir = TempDir::new().unwrap();
    let path = new_image(&dir, "disk.img", ImageFormat::Raw, 1 << 20);
    let options = ImageOptions { ephemeral: true, ..ImageOptions::default() };
    let (first, second) = (Image::open(&path, &options).unwrap(), Image::open(&path, &options).unwrap());
    write(&first, 0, &[9; 4096]).unwrap();
    first.flush().unwrap();
    assert_eq!(read(&first, 0, 4096).unwrap(), [9; 4096]);
    assert_eq!(read(&second, 0, 4096).unwrap(), [0; 4096]);
    drop((first, second));
    assert!(std::fs::read(&path).unwrap().iter().all(|b| *b == 0));
}

#[test]
fn a_guest_cannot_turn_its_raw_disk_into_a_qcow2_image() {
    let dir = TempDir::new().unwrap();
    let path = new_image(&dir, "disk.img", ImageFormat::Raw, 1 << 20);
    let mut header = vec![0; 4096];
    header[..4].copy_from_slice(qcow2::MAGIC);
    let image = open(&path).unwrap();
    assert_eq!(write(&image, 0, &header).unwrap_err().kind(), ErrorKind::PermissionDenied);
    write(&image, 2, &header[2..]).unwrap();
    assert!(write(&image, 0, &header[..2]).is_err()); // piecewise
    write(&image, 0, &[0x55; 4096]).unwrap();
    drop(image);
    let stated = ImageOptions { format: Some(ImageFormat::Raw), ..ImageOptions::default() };
    write(&Image::open(&path, &stated).unwrap(), 0, &header).unwrap();
    assert_eq!(refused(&path, &ImageOptions::default()), "isomer::block::unsupported_feature"); // no version
    Image::open(&path, &stated).unwrap();
}

#[test]
fn doubtful_formats_are_refused() {
    let dir = TempDir::new().unwrap();
    let qcow2 = new_image(&dir, "a.qcow2", ImageFormat::Qcow2, 1 << 20);
    let disguised = dir.path().join("a.raw");
    std::fs::copy(&qcow2, &disguised).unwrap();
    assert_eq!(refused(&disguised, &ImageOptions::default()), "isomer::block::format_in_doubt");
    let raw = new_image(&dir, "b.img", ImageFormat::Raw, 1 << 20);
    let as_qcow2 = ImageOptions { format: Some(ImageFormat::Qcow2), ..ImageOptions::default() };
    assert_eq!(refused(&raw, &as_qcow2), "isomer::block::wrong_format");
    std::fs::write(&raw, b"KDMV\x01\0\0\0").unwrap();
    assert_eq!(refused(&raw, &ImageOptions::default()), "isomer::block::unsupported_format");
    assert_eq!(refused(dir.path(), &ImageOptions::default()), "isomer::block::not_a_disk");
    assert_eq!(refused(Path::new("/dev/null"), &ImageOptions::default()), "isomer::block::not_a_disk");
    assert_eq!(refused(&dir.path().join("absent"), &ImageOptions::default()), "isomer::block::host");
}

/// Overwrites `bytes` at `at` in a copy of `image` and opens that.
fn open_patched(image: &Path, at: usize, bytes: &[u8]) -> Result<Image, BlockError> {
    let patched = image.with_file_name("patched.img");
    let mut contents = std::fs::read(image).unwrap();
    contents[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(&patched, contents).unwrap();
    open(&patched)
}

#[test]
fn impossible_headers_are_refused_with_a_reason() {
    let dir = TempDir::new().unwrap();
    let image = new_image(&dir, "good.qcow2", ImageFormat::Qcow2, 64 << 20);
    let cases: &[(&str, usize, &[u8], &str)] = &[
        ("version", 7, &[9], "unsupported_feature"),
        ("cluster size", 23, &[63], "damaged"),
        ("disk size", 24, &[0x7f; 8], "damaged"),
        ("encryption", 35, &[2], "unsupported_feature"),
        ("L1 entries", 36, &[0xff; 4], "damaged"),
        ("L1 offset", 40, &[0x7f, 0, 0, 0, 0, 0, 0, 0], "damaged"),
        ("refcount table offset", 48, &[0x7f, 0, 0, 0, 0, 0, 0, 0], "damaged"),
        ("refcount table clusters", 56, &[0xff; 4], "damaged"),
        ("external data", 79, &[4], "unsupported_feature"),
        ("unknown feature", 72, &[1], "unsupported_feature"),
        ("refcount width", 99, &[31], "damaged"),
        ("header length", 100, &[0xff; 4], "damaged"),
        ("backing name", 8, &[0xff; 12], "damaged"),
    ];
    for (what, at, bytes, kind) in cases {
        let error = open_patched(&image, *at, bytes).expect_err(what);
        assert_eq!(code(&error), format!("isomer::block::{kind}"), "{what}: {error}");
    }
    let contents = std::fs::read(&image).unwrap();
    for len in [4, 72, 104, 0x1_0000, 0x2_0000] {
        let cut = dir.path().join("cut.img");
        std::fs::write(&cut, &contents[..len.min(contents.len() - 1)]).unwrap();
        assert_eq!(refused(&cut, &ImageOptions::default()), "isomer::block::damaged", "{len} bytes");
    }
}

#[test]
fn endless_and_strange_backing_chains_are_refused() {
    let dir = TempDir::new().unwrap();
    let make = |name: &str, backing: &str, format| {
        let path = dir.path().join(name);
        Image::create(&path, ImageFormat::Qcow2, 1 << 20, Some((Path::new(backing), format))).unwrap();
        path
    };
    let a = make("a.qcow2", "b.qcow2", ImageFormat::Qcow2);
    make("b.qcow2", "a.qcow2", ImageFormat::Qcow2);
    assert_eq!(refused(&a, &ImageOptions::default()), "isomer::block::backing");
    let remote = make("remote.qcow2", "nbd://host/export", ImageFormat::Raw);
    assert_eq!(refused(&remote, &ImageOptions::default()), "isomer::block::backing");
    let device = make("device.qcow2", "/dev/zero", ImageFormat::Raw);
    assert_eq!(refused(&device, &ImageOptions::default()), "isomer::block::not_a_disk");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random damage to metadata must end in an error or a disk that works, never in a crash or a hang.
    #[test]
    fn damaged_metadata_is_survived(damage in prop::collection::vec((0usize..0x5_0000, any::<u8>()), 1..12)) {
        let dir = TempDir::new().unwrap();
        let path = new_image(&dir, "disk.img", ImageFormat::Qcow2, 64 << 20);
        let image = open(&path).unwrap();
        for at in [0, 0x12_3400, 0x200_0000] {
            write(&image, at, &[0x5a; 0x1_2000]).unwrap();
        }
        image.flush().unwrap();
        drop(image);
        let mut contents = std::fs::read(&path).unwrap();
        for (at, value) in damage {
            // Every other hit goes to a table's start, where entries are.
            let at = if at % 2 == 0 { at } else { (at & !0xffff) | (at & 0x3f) };
            if at > 3 && let Some(byte) = contents.get_mut(at) {
                *byte = value;
            }
        }
        std::fs::write(&path, contents).unwrap();
        if let Ok(image) = open(&path) {
            for at in [0, 0x12_3400, 0x200_0000, image.size_bytes().saturating_sub(512)] {
                let _ = read(&image, at, 0x2_0000);
                let _ = write(&image, at, &[1; 512]);
                let _ = image.write_zeroes(at, 0x3_0000, at % 1024 == 0);
            }
            let _ = image.flush();
        }
    }
}
