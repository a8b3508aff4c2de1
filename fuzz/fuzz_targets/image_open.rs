//! Any file opens as a disk image or is refused, and an open one survives reads and writes anywhere.
#![no_main]

use isomer_devices::backend::{
    BlockBackend, Image, ImageFormat, ImageOptions,
    block::{IoVector, IoVectorMut},
};
use isomer_fuzz::{input::Input, seeds};
use libfuzzer_sys::fuzz_target;
use std::{fs, io::Write};

/// The format is in the first 104 bytes; tables follow at cluster boundaries, which are 512 bytes at least.
const REQUEST_BYTES: usize = 1024;

fuzz_target!(
    init: seeds::plant([("qcow2", [&[0, 0][..], &qcow2()].concat()), ("raw", vec![0; 600])]),
    |data: &[u8]| {
        let mut input = Input::new(data);
        let (flags, requests) = (input.u8(), input.u8() % 8);
        let requests: Vec<(u8, u64)> = (0..requests).map(|_| (input.u8(), input.number())).collect();
        let mut file = tempfile::NamedTempFile::new().expect("the host has a temporary directory");
        file.write_all(input.rest()).expect("the host has room");
        let options = ImageOptions {
            format: [None, Some(ImageFormat::Raw), Some(ImageFormat::Qcow2), None][usize::from(flags & 3)],
            read_only: flags & 4 != 0,
            ephemeral: flags & 8 != 0,
            // The name would be the fuzzer's choice of any file of the host.
            refuse_backing: true,
            ..ImageOptions::default()
        };
        if let Ok(image) = Image::open(file.path(), &options) {
            requests.iter().for_each(|&(kind, offset)| request(&image, kind, offset));
        }
    }
);

/// Any request may fail; none may panic. Requests that devices would refuse are not made.
fn request(image: &Image, kind: u8, offset: u64) {
    let (size, len) = (image.size_bytes(), REQUEST_BYTES as u64);
    let offset = if kind & 8 == 0 { offset.checked_rem(size).unwrap_or(0) } else { offset };
    let mut buffer = [kind; REQUEST_BYTES];
    let _ = match kind % 6 {
        0 | 1 => {
            let mut buffers = IoVectorMut::new();
            buffers.push(&mut buffer);
            image.read_vectored(offset, buffers)
        }
        2 => {
            let mut buffers = IoVector::new();
            buffers.push(&buffer);
            image.write_vectored(offset, buffers)
        }
        3 => image.discard(offset, len),
        4 => image.write_zeroes(offset, len, kind & 16 != 0),
        _ => image.flush(),
    };
}

/// An empty image of 64 KiB, as the project itself makes them.
fn qcow2() -> Vec<u8> {
    let made = tempfile::tempdir().and_then(|directory| {
        let path = directory.path().join("seed.qcow2");
        Image::create(&path, ImageFormat::Qcow2, 64 << 10, None).map_err(std::io::Error::other)?;
        fs::read(path)
    });
    made.unwrap_or_default()
}
