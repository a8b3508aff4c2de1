//! Any SCSI command with any data, to a disk and to a CD-ROM drive.
#![no_main]

use isomer_devices::{
    backend::BlockBackend,
    scsi::{CDB_BYTES, Transfer, Unit, UnitKind},
};
use isomer_fuzz::{input::Input, virtio::disk};
use libfuzzer_sys::fuzz_target;
use std::io;

struct Data(Vec<u8>, Vec<u8>);

impl Transfer for Data {
    fn out_len(&self) -> u64 {
        self.0.len() as u64
    }
    fn in_len(&self) -> u64 {
        self.1.len() as u64
    }
    fn take(&self, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.0[..into.len()]);
        Ok(())
    }
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.1[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn read_disk(&mut self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()> {
        disk.read_vectored(offset, (&mut self.1[..len as usize]).into())
    }
    fn write_disk(&self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()> {
        disk.write_vectored(offset, (&self.0[..len as usize]).into())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = if input.flag() { UnitKind::Cdrom } else { UnitKind::Disk };
    let unit = Unit::new(kind, disk(), "fuzz");
    while !input.is_empty() {
        let mut cdb = [0; CDB_BYTES];
        let bytes = input.take(16);
        cdb[..bytes.len()].copy_from_slice(bytes);
        let mut data = Data(vec![0; input.below(4096)], vec![0; input.below(4096)]);
        let bytes = input.take(64);
        let len = bytes.len().min(data.0.len());
        data.0[..len].copy_from_slice(&bytes[..len]);
        let most = data.out_len().max(data.in_len());
        if let Ok(moved) = unit.execute(&cdb, &mut data) {
            assert!(moved <= most, "{moved} bytes moved, of {most}");
        }
    }
});
