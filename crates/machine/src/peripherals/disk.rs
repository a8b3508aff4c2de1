//! `--disk`: virtio-blk over an image.

use super::Slots;
use crate::{MachineError, Spec};
use isomer_devices::{
    backend::{Image, ImageOptions},
    virtio::blk::{BlkOptions, VirtioBlk},
};
use std::sync::Arc;

pub(super) fn attach<S: Slots>(spec: &Spec, slots: &mut S) -> Result<(), MachineError> {
    for disk in &spec.disks {
        let options = ImageOptions {
            format: disk.format,
            read_only: disk.read_only,
            ephemeral: disk.ephemeral,
            cache: disk.cache,
            keep_discarded: disk.keep_discarded,
            ..Default::default()
        };
        let image = Arc::new(Image::open(&disk.path, &options)?);
        let options = BlkOptions { queues: spec.cpus as u16, serial: disk.serial.clone() };
        slots.virtio(VirtioBlk::new(image, &options))?;
    }
    Ok(())
}
