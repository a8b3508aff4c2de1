//! A new, empty qcow2 image: version 3, counts of 16 bits.

use super::{
    super::host_file::{HostFile, write_all},
    BACKING_FORMAT_EXTENSION, MAGIC, MAX_BACKING_NAME_BYTES, MAX_L1_BYTES, V3_HEADER_BYTES,
};
use std::io;

/// What an image is made with.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Create<'a> {
    pub(in super::super) size_bytes: u64,
    pub(in super::super) cluster_bits: u32,
    /// Name and format of the file below.
    pub(in super::super) backing: Option<(&'a str, &'a str)>,
}

/// Writes the tables of an empty image.
pub(in super::super) fn create(file: &dyn HostFile, create: &Create<'_>) -> io::Result<()> {
    let Create { size_bytes, cluster_bits, backing } = *create;
    let cluster = 1_u64 << cluster_bits;
    let l1_entries = size_bytes.div_ceil(cluster).div_ceil(cluster / 8);
    if l1_entries * 8 > MAX_L1_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the disk is too large for such small clusters",
        ));
    }
    let l1_clusters = (l1_entries * 8).div_ceil(cluster).max(1);
    // Header, table of blocks, blocks, L1.
    let per_block = cluster / 2;
    let mut blocks = 1;
    while 2 + blocks + l1_clusters > blocks * per_block {
        blocks += 1;
    }
    if blocks > cluster / 8 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the disk is too large for such small clusters",
        ));
    }
    let used = 2 + blocks + l1_clusters;
    let mut tables = vec![0; (used << cluster_bits) as usize];
    let mut put =
        |at: u64, bytes: &[u8]| tables[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    put(0, MAGIC);
    for (at, value) in [
        (4, 3_u32),
        (20, cluster_bits),
        (36, l1_entries as u32),
        (56, 1),
        (96, 4),
        (100, V3_HEADER_BYTES as u32),
    ] {
        put(at, &value.to_be_bytes());
    }
    for (at, value) in [(24, size_bytes), (40, (2 + blocks) << cluster_bits), (48, cluster)] {
        put(at, &value.to_be_bytes());
    }
    if let Some((name, format)) = backing {
        if name.len() > MAX_BACKING_NAME_BYTES as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the backing file's name is too long"));
        }
        let at = V3_HEADER_BYTES as u64;
        put(at, &BACKING_FORMAT_EXTENSION.to_be_bytes());
        put(at + 4, &(format.len() as u32).to_be_bytes());
        put(at + 8, format.as_bytes());
        // An extension of kind 0 ends them.
        let name_at = at + 8 + (format.len() as u64).next_multiple_of(8) + 8;
        if name_at + name.len() as u64 > cluster {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the backing file's name is too long"));
        }
        put(name_at, name.as_bytes());
        put(8, &name_at.to_be_bytes());
        put(16, &(name.len() as u32).to_be_bytes());
    }
    for block in 0..blocks {
        put(cluster + 8 * block, &((2 + block) << cluster_bits).to_be_bytes());
    }
    for number in 0..used {
        put((2 << cluster_bits) + 2 * number, &1_u16.to_be_bytes());
    }
    write_all(file, 0, tables.as_slice().into())?;
    file.sync()
}
