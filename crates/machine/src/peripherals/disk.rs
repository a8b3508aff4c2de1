//! `--disk` and `--cdrom`: images behind virtio-blk, NVMe controllers, or one virtio-scsi host for all of its disks.

use super::Slots;
use crate::{DiskBus, DiskSpec, MachineError, Spec};
use isomer_devices::{
    backend::{Image, ImageOptions},
    nvme::{Nvme, NvmeOptions},
    scsi::{Unit, UnitKind},
    virtio::{
        blk::{BlkOptions, VirtioBlk},
        scsi::{MAX_TARGETS, VirtioScsi},
    },
};
use std::sync::{Arc, Mutex};

fn open(disk: &DiskSpec) -> Result<Arc<Image>, MachineError> {
    let options = ImageOptions {
        format: disk.format,
        read_only: disk.read_only,
        ephemeral: disk.ephemeral,
        cache: disk.cache,
        keep_discarded: disk.keep_discarded,
        ..Default::default()
    };
    Ok(Arc::new(Image::open(&disk.path, &options)?))
}

pub(super) fn attach<S: Slots>(spec: &Spec, slots: &mut S) -> Result<(), MachineError> {
    let mut units = Vec::new();
    for (number, disk) in spec.disks.iter().enumerate() {
        let image = open(disk)?;
        let serial = match disk.serial.is_empty() {
            true => format!("isomer-{number}"),
            false => disk.serial.clone(),
        };
        match disk.bus {
            _ if disk.cdrom => units.push(Unit::new(UnitKind::Cdrom, image, &serial)),
            DiskBus::Scsi => units.push(Unit::new(UnitKind::Disk, image, &serial)),
            DiskBus::Virtio => {
                let options = BlkOptions { queues: spec.cpus as u16, serial };
                slots.virtio(VirtioBlk::new(image, &options))?;
            }
            DiskBus::Nvme => {
                let options = NvmeOptions { serial, number: number as u8 };
                let nvme = Nvme::new(image, &options, slots.memory(), slots.msi());
                slots.pci(Arc::new(Mutex::new(nvme)))?;
            }
        }
    }
    if units.len() > MAX_TARGETS {
        return Err(MachineError::Spec {
            why: format!("a virtio-scsi host has {MAX_TARGETS} targets, and more disks were asked for"),
            fix: "use bus=virtio or bus=nvme for some of them".into(),
        });
    }
    if !units.is_empty() {
        slots.virtio(VirtioScsi::new(units, spec.cpus as u16))?;
    }
    Ok(())
}
