//! The NVM command set (NVMe 1.4, 6): reads, writes, flushes, zeros, deallocation.

use super::{
    BLOCK_BYTES, Controller, MAX_TRANSFER_BYTES,
    admin::FEATURE_WRITE_CACHE,
    prp,
    spec::{Command, Status, nvm},
};
use crate::backend::guest_buffers::{read_disk, write_disk};
use isomer_core::guest_warn;
use std::io;

/// Write: complete when it is on stable storage.
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Write Zeroes: the blocks may be deallocated.
const DEALLOCATE: u32 = 1 << 25;
/// Dataset Management: deallocate.
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;
/// Bytes of one of its ranges.
const RANGE_BYTES: u64 = 16;

pub(super) fn run(controller: &Controller, command: &Command) -> Status {
    match command_result(controller, command) {
        Ok(()) => Status::OK,
        Err(status) => status,
    }
}

/// What a failure of the host is to the driver.
fn failed(status: Status) -> impl Fn(io::Error) -> Status {
    move |error| {
        guest_warn!("NVMe command failed: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::CAPACITY_EXCEEDED,
            _ => status,
        }
    }
}

fn command_result(controller: &Controller, command: &Command) -> Result<(), Status> {
    if command.is_strange() {
        return Err(Status::INVALID_FIELD);
    }
    let all = command.opcode() == nvm::FLUSH && command.namespace() == u32::MAX;
    if command.namespace() != 1 && !all {
        return Err(Status::INVALID_NAMESPACE);
    }
    match command.opcode() {
        nvm::FLUSH => controller.disk.flush().map_err(failed(Status::WRITE_FAULT)),
        nvm::READ => {
            let (offset, len) = place(controller, command)?;
            let segments = transfer(controller, command, len)?;
            let map = controller.memory.map();
            read_disk(&*controller.disk, offset, map, &segments, 0..len)
                .map_err(failed(Status::UNRECOVERED_READ))
        }
        nvm::WRITE => {
            let (offset, len) = change(controller, command)?;
            let segments = transfer(controller, command, len)?;
            let map = controller.memory.map();
            write_disk(&*controller.disk, offset, map, &segments, 0..len)
                .map_err(failed(Status::WRITE_FAULT))?;
            harden(controller, command.word(12) & FORCE_UNIT_ACCESS != 0)
        }
        nvm::WRITE_ZEROES => {
            let (offset, len) = change(controller, command)?;
            let unmap = command.word(12) & DEALLOCATE != 0;
            controller.disk.write_zeroes(offset, len, unmap).map_err(failed(Status::WRITE_FAULT))?;
            harden(controller, command.word(12) & FORCE_UNIT_ACCESS != 0)
        }
        nvm::DATASET_MANAGEMENT => dataset(controller, command),
        _ => Err(Status::INVALID_OPCODE),
    }
}

/// First byte and length of the blocks a command is about, all of them on the disk.
fn place(controller: &Controller, command: &Command) -> Result<(u64, u64), Status> {
    let count = u64::from(command.word(12) & 0xffff) + 1;
    checked(controller, command.lba(), count)
}

fn checked(controller: &Controller, first: u64, count: u64) -> Result<(u64, u64), Status> {
    let blocks = controller.blocks();
    if first > blocks || count > blocks - first {
        return Err(Status::LBA_OUT_OF_RANGE);
    }
    Ok((first * BLOCK_BYTES, count * BLOCK_BYTES))
}

/// As [`place`], for what will not be the same afterwards.
fn change(controller: &Controller, command: &Command) -> Result<(u64, u64), Status> {
    if controller.disk.read_only() {
        return Err(Status::WRITE_PROTECTED);
    }
    place(controller, command)
}

fn transfer(
    controller: &Controller,
    command: &Command,
    len: u64,
) -> Result<Vec<crate::virtio::Segment>, Status> {
    if len > MAX_TRANSFER_BYTES {
        return Err(Status::INVALID_FIELD);
    }
    prp::segments(&controller.memory, command.prp1(), command.prp2(), len)
}

fn harden(controller: &Controller, forced: bool) -> Result<(), Status> {
    let cached = controller.settings().features[FEATURE_WRITE_CACHE] & 1 != 0;
    match forced || !cached {
        true => controller.disk.flush().map_err(failed(Status::WRITE_FAULT)),
        false => Ok(()),
    }
}

fn dataset(controller: &Controller, command: &Command) -> Result<(), Status> {
    if controller.disk.read_only() {
        return Err(Status::WRITE_PROTECTED);
    }
    let count = u64::from(command.word(10) & 0xff) + 1;
    let mut list = vec![0; (count * RANGE_BYTES) as usize];
    let segments = transfer(controller, command, count * RANGE_BYTES)?;
    prp::read(&controller.memory, &segments, &mut list)?;
    let ranges: Result<Vec<_>, _> = list
        .chunks_exact(RANGE_BYTES as usize)
        .map(|raw| {
            let raw = u128::from_le_bytes(std::array::from_fn(|at| raw[at]));
            checked(controller, (raw >> 64) as u64, u64::from((raw >> 32) as u32))
        })
        .collect();
    // All are checked before the first is touched. Other attributes are hints.
    let ranges = ranges?;
    if command.word(11) & ATTRIBUTE_DEALLOCATE != 0 {
        for (offset, len) in ranges.into_iter().filter(|(_, len)| *len > 0) {
            controller.disk.discard(offset, len).map_err(failed(Status::WRITE_FAULT))?;
        }
    }
    Ok(())
}
