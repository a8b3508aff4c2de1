//! Any register accesses and rings on virtio-scsi over MMIO, with a disk and a disc in a drive.
#![no_main]

use isomer_devices::{
    scsi::{Unit, UnitKind},
    virtio::scsi::VirtioScsi,
};
use isomer_fuzz::{
    seeds,
    virtio::{disk, drive_mmio, no_event, request_seed},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: seeds::plant([("command", request_seed(2, &[(51, false), (108, true), (512, true)], true))]),
    |data: &[u8]| {
        let disk = disk();
        let unit = |kind| Unit::new(kind, disk.clone(), "fuzz");
        let make = || VirtioScsi::new(vec![unit(UnitKind::Disk), unit(UnitKind::Cdrom)], 1);
        drive_mmio(data, make, no_event);
    }
);
