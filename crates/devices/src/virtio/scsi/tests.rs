//! The host through a transport: framing, addresses, hostile chains.

use super::*;
use crate::{
    backend::{Image, ImageFormat, ImageOptions},
    virtio::{
        mmio::VirtioMmio,
        testing::{Guest, Part, Registers},
    },
};
use proptest::prelude::*;
use std::time::{Duration, Instant};
use tempfile::TempDir;

type Machine = Guest<VirtioMmio<VirtioScsi>>;

fn machine(dir: &TempDir) -> Machine {
    let path = dir.path().join("disk.img");
    Image::create(&path, ImageFormat::Raw, 1 << 20, None).unwrap();
    let options = ImageOptions { format: Some(ImageFormat::Raw), ..ImageOptions::default() };
    let disk = Arc::new(Image::open(&path, &options).unwrap());
    let unit = Unit::new(UnitKind::Disk, disk, "unit-0");
    let mut guest = Guest::mmio(VirtioScsi::new(vec![unit], 2));
    guest.start(u64::MAX);
    guest
}

fn head(target: u8, lun: u8, cdb: &[u8]) -> Vec<u8> {
    let mut head = vec![1, target, 0x40, lun, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0];
    head.extend(cdb);
    head.resize(51, 0);
    head
}

/// Response code, status, residue, sense key, and what was answered.
fn command(
    guest: &mut Machine,
    target: u8,
    lun: u8,
    cdb: &[u8],
    out: &[u8],
    room: u32,
) -> (u8, u8, u32, u8, Vec<u8>) {
    let head = head(target, lun, cdb);
    let mut parts = vec![Part::Out(&head), Part::Out(out), Part::In(108), Part::In(room)];
    parts
        .retain(|part| !matches!(part, Part::In(0)) && !matches!(part, Part::Out(bytes) if bytes.is_empty()));
    let mut answer = guest.request(2, &parts);
    let data = answer.split_off(108.min(answer.len()));
    let residue = u32::from_le_bytes(answer[4..8].try_into().unwrap());
    (answer[11], answer[10], residue, answer[14], data)
}

#[test]
fn commands_reach_their_target() {
    let dir = TempDir::new().unwrap();
    let mut guest = machine(&dir);
    assert_eq!(
        (guest.device.config(0, 4), guest.device.config(20, 4), guest.device.config(24, 4)),
        (2, 96, 32)
    );
    let (code, state, residue, _, data) = command(&mut guest, 0, 0, &[0x12, 0, 0, 0, 36], &[], 40);
    assert_eq!((code, state, residue, &data[8..14]), (0, 0, 4, &b"ISOMER"[..]));
    let write = [0x2a, 0, 0, 0, 0, 3, 0, 0, 2];
    assert_eq!(command(&mut guest, 0, 0, &write, &[0x5a; 1024], 0).0, 0);
    let (.., data) = command(&mut guest, 0, 0, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2], &[], 1024);
    assert_eq!(data, [0x5a; 1024]);
    let (code, state, _, key, _) = command(&mut guest, 0, 0, &[0x28, 0, 0xff, 0, 0, 0, 0, 0, 1], &[], 512);
    assert_eq!((code, state, key), (0, 2, 5));
    assert_eq!(command(&mut guest, 0, 0, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2], &[], 512).0, response::OVERRUN);
    assert_eq!(command(&mut guest, 1, 0, &[0x12, 0, 0, 0, 36], &[], 36).0, response::BAD_TARGET);
    assert_eq!(command(&mut guest, 0, 1, &[0x12, 0, 0, 0, 36], &[], 36).4[0], 0x7f);
    assert_eq!(command(&mut guest, 0, 1, &[0x00], &[], 0).3, 5);
    assert_eq!(guest.request(0, &[Part::Out(&[0; 24]), Part::In(1)]), [response::OK]);
    assert_eq!(guest.request(0, &[Part::Out(&[1; 24]), Part::In(5)])[0], response::FUNCTION_REJECTED);
}

#[test]
fn a_request_without_room_for_its_answer_breaks_the_queue() {
    let dir = TempDir::new().unwrap();
    let mut guest = machine(&dir);
    let head = head(0, 0, &[0]);
    for parts in [&[Part::Out(&head), Part::In(107)][..], &[Part::Out(&head[..50]), Part::In(108)]] {
        guest.post(2, parts);
        guest.kick(2);
        let start = Instant::now();
        while guest.device.status() & 64 == 0 {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        guest.start(u64::MAX);
        assert_eq!(command(&mut guest, 0, 0, &[0x00], &[], 0).0, 0);
    }
}

#[test]
fn a_host_with_other_disks_refuses_the_state() {
    let dir = TempDir::new().unwrap();
    let guest = machine(&dir);
    let mut other = VirtioScsi::new(Vec::new(), 1);
    let state = guest.device.device().save();
    assert!(other.restore(state).is_err());
    let state = other.save();
    other.restore(ScsiState { sense_size: 20, ..state }).unwrap();
    assert_eq!(other.save().sense_size, 20);
    let state = other.save();
    assert!(other.restore(ScsiState { cdb_size: u32::MAX, ..state }).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a driver posts on any queue, the device answers it or asks for a reset.
    #[test]
    fn hostile_chains_are_survived(
        chains in prop::collection::vec(
            (prop::sample::select(vec![0usize, 2, 3]), prop::collection::vec(any::<u8>(), 1..80), 0u32..200, any::<bool>()),
            1..8,
        ),
    ) {
        let dir = TempDir::new().unwrap();
        let mut guest = machine(&dir);
        for (queue, mut bytes, room, tame) in chains {
            if tame {
                bytes.resize(51, 0);
                bytes[..4].copy_from_slice(&[1, 0, 0x40, 0]);
            }
            guest.post(queue, &[Part::Out(&bytes), Part::In(room + 1)]);
            guest.kick(queue);
            let start = Instant::now();
            while guest.used(queue).is_none() {
                if guest.device.status() & 64 != 0 {
                    guest.start(u64::MAX);
                    break;
                }
                prop_assert!(start.elapsed() < Duration::from_secs(20));
            }
        }
        prop_assert_eq!(command(&mut guest, 0, 0, &[0x00], &[], 0).0, 0);
    }
}
