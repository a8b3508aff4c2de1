//! Tests of queues and both transports with the device of [`super::testing`]: negotiation, requests, interrupts,
//! hostile rings, save and restore in the middle of an operation.

use super::testing::{Echo, Guest, Messages, Part, Posted, RAM_BASE, RAM_BYTES, Registers, ram};
use super::{feature, mmio, mmio::VirtioMmio, pci::VirtioPci, rng::VirtioRng, status};
use crate::{conformance::Options, pci::Connection, pci::PciFunction};
use isomer_core::{Device, Gpa, IrqLine, Placement};
use proptest::prelude::*;
use std::sync::Arc;

/// Runs a generic test over both transports.
macro_rules! on_both_transports {
    ($($test:ident),* $(,)?) => {
        mod over_mmio {
            $(#[test]
            fn $test() {
                super::$test(|| super::Guest::mmio(super::Echo::default()));
            })*
        }
        mod over_pci {
            $(#[test]
            fn $test() {
                super::$test(|| super::Guest::pci(super::Echo::default()));
            })*
        }
    };
}

on_both_transports!(
    features_are_negotiated,
    requests_are_answered,
    chains_may_end_in_an_indirect_table,
    interrupts_are_raised_acknowledged_and_suppressed,
    configuration_is_reached,
    bad_queues_are_refused,
    a_queue_can_be_reset_alone,
    malformed_rings_need_a_reset,
    a_device_continues_elsewhere,
    a_refused_state_changes_nothing,
    nothing_moves_before_driver_ok,
);

const READY: u8 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

fn features_are_negotiated<T: Registers>(make: impl Fn() -> Guest<T>) {
    let mut guest = make();
    let offered = guest.device.features();
    let common = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC | feature::RING_RESET;
    assert_eq!(offered, common | 0b101);
    for bad in [0, 1, feature::VERSION_1 | 2, feature::VERSION_1 | 1 << 63] {
        guest.device.set_status(0);
        guest.device.accept(bad);
        guest.device.set_status(READY);
        let status = guest.device.status();
        assert_eq!(status, status::ACKNOWLEDGE | status::DRIVER, "features {bad:#x} were taken");
    }
    guest.device.accept(feature::VERSION_1 | 4);
    guest.device.set_status(READY);
    assert_eq!(guest.device.status(), READY);
    // Status bits stay set, and DEVICE_NEEDS_RESET is not the driver's.
    guest.device.set_status(status::DRIVER | status::DEVICE_NEEDS_RESET);
    assert_eq!(guest.device.status(), READY);
    guest.device.set_status(0);
    assert_eq!(guest.device.status(), 0);
}

fn requests_are_answered<T: Registers>(make: impl Fn() -> Guest<T>) {
    for features in [0, u64::MAX] {
        let mut guest = make();
        guest.start(features);
        // More than three times round the ring.
        for i in 0..60 {
            let text = format!("request {i}");
            let answer = guest.request(0, &[Part::Out(text.as_bytes()), Part::In(5), Part::In(20)]);
            assert_eq!(String::from_utf8(answer).unwrap(), text.to_uppercase());
        }
        assert_eq!(guest.device.status(), READY);
    }
}

fn chains_may_end_in_an_indirect_table<T: Registers>(make: impl Fn() -> Guest<T>) {
    let parts = [Part::Out(b"ab"), Part::Out(b"cd"), Part::In(3), Part::In(9)];
    let mut guest = make();
    guest.start(u64::MAX);
    let posted = guest.post_indirect(0, &parts);
    guest.kick(0);
    assert_eq!(guest.used(0), Some((posted.head, 4)));
    assert_eq!(guest.received(&posted)[..4], *b"ABCD");
    // Normal descriptors before the table are allowed.
    let Posted { head, .. } = guest.post_indirect(0, &parts);
    let (table, at) = (guest.rings[0].descriptors, guest.allocate(4));
    guest.ram.write(Gpa(at), b"xyzw").unwrap();
    guest.write_descriptor(table, 15, at, 4, 1, head);
    guest.make_available(0, 15);
    guest.kick(0);
    assert_eq!((guest.used(0), guest.used(0)), (Some((head, 4)), Some((15, 8))));
    // Without the feature they are not.
    let mut guest = make();
    guest.start(0);
    guest.post_indirect(0, &parts);
    guest.kick(0);
    assert_eq!((guest.used(0), guest.device.status()), (None, READY | status::DEVICE_NEEDS_RESET));
}

fn interrupts_are_raised_acknowledged_and_suppressed<T: Registers>(make: impl Fn() -> Guest<T>) {
    let ask = [Part::Out(b"x"), Part::In(1)];
    let mut guest = make();
    guest.start(0);
    guest.post(0, &ask);
    assert!(!guest.wire.level());
    guest.kick(0);
    assert!(guest.wire.level());
    assert_eq!(guest.device.take_causes(), 1);
    assert!(!guest.wire.level());
    assert_eq!(guest.used(0), Some((0, 1)));
    // VIRTQ_AVAIL_F_NO_INTERRUPT.
    guest.ram.write(Gpa(guest.rings[0].driver), &1u16.to_le_bytes()).unwrap();
    guest.request(0, &ask);
    assert_eq!((guest.wire.level(), guest.wire.rises()), (false, 1));
    // With event indices, only passing `used_event` interrupts.
    let mut guest = make();
    guest.start(feature::EVENT_IDX);
    let event = guest.rings[0].driver + 4 + 2 * 16;
    guest.ram.write(Gpa(event), &2u16.to_le_bytes()).unwrap();
    let rises = |guest: &mut Guest<T>| {
        guest.post(0, &ask);
        guest.kick(0);
        guest.device.take_causes();
        guest.wire.rises()
    };
    let seen: Vec<_> = (0..5).map(|_| rises(&mut guest)).collect();
    assert_eq!(seen, [0, 0, 1, 1, 1]);
    // The device asks for notification at the next chain it has not seen.
    assert_eq!(guest.ram_u16(guest.rings[0].device + 4 + 8 * 16), 5);
}

fn configuration_is_reached<T: Registers>(make: impl Fn() -> Guest<T>) {
    let mut guest = make();
    guest.start(0);
    guest.device.set_config(0, 1, 0xda);
    assert_eq!(guest.device.config(0, 4), 0x1234_005a);
    assert_eq!(guest.device.config(2, 2), 0x1234);
    assert_eq!(guest.device.config(3, 8), 0x12);
    assert_eq!(guest.device.config(0xff0, 8), 0);
    guest.device.set_config(2, 1, 0);
    assert_eq!((guest.wire.level(), guest.device.take_causes()), (true, 2));
    guest.device.set_status(0);
    assert_eq!(guest.device.config(0, 1), 0);
}

fn bad_queues_are_refused<T: Registers>(make: impl Fn() -> Guest<T>) {
    const A: u64 = RAM_BASE;
    let end = RAM_BASE + RAM_BYTES;
    let bad = [
        (0, A, A + 0x1000, A + 0x2000),
        (3, A, A + 0x1000, A + 0x2000),
        (32, A, A + 0x1000, A + 0x2000),
        (16, A + 8, A + 0x1000, A + 0x2000),
        (16, A, A + 0x1001, A + 0x2000),
        (16, A, A + 0x1000, A + 0x2002),
        (16, 0, A + 0x1000, A + 0x2000),
        (16, end - 0x10, A + 0x1000, A + 0x2000),
        (16, A, end - 0x20, A + 0x2000),
        (16, A, A + 0x1000, u64::MAX - 3),
        (16, u64::MAX - 15, A, A),
    ];
    let mut guest = make();
    for (size, descriptors, driver, device) in bad {
        guest.negotiate(0);
        assert_eq!(guest.device.queue_max(0), 16);
        guest.device.place_queue(size, descriptors, driver, device);
        guest.device.enable_queue();
        assert!(!guest.device.queue_enabled(), "{size} {descriptors:#x} {driver:#x} {device:#x} was taken");
        guest.go_live();
        guest.kick(0);
        assert_eq!(guest.device.status(), READY | status::DEVICE_NEEDS_RESET);
    }
    // Queues that do not exist.
    guest.negotiate(0);
    assert_eq!(guest.device.queue_max(2), 0);
    guest.device.enable_queue();
    assert!(!guest.device.queue_enabled());
    guest.go_live();
    guest.kick(2);
    guest.kick(0xffff);
    assert_eq!(guest.device.status(), READY);
}

fn a_queue_can_be_reset_alone<T: Registers>(make: impl Fn() -> Guest<T>) {
    let mut guest = make();
    guest.start(feature::RING_RESET);
    guest.post(1, &[Part::Out(b"lost"), Part::In(4)]);
    guest.kick(1);
    guest.request(0, &[Part::Out(b"a"), Part::In(1)]);
    guest.device.queue_max(1);
    guest.device.reset_selected_queue();
    assert!(!guest.device.queue_enabled());
    guest.device.set_config(1, 1, 0);
    assert_eq!(guest.used(1), None);
    assert!(guest.set_up_queue(1));
    let posted = guest.post(1, &[Part::Out(b"new"), Part::In(4)]);
    guest.kick(1);
    guest.device.set_config(1, 1, 0);
    assert_eq!(guest.used(1), Some((posted.head, 3)));
    assert_eq!(guest.request(0, &[Part::Out(b"b"), Part::In(1)]), b"B");
}

/// Each entry breaks queue 0 of a live device in its own way.
fn malformed_rings_need_a_reset<T: Registers>(make: impl Fn() -> Guest<T>) {
    const BUFFER: u64 = RAM_BASE + 0x10_0000;
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;
    type Break<T> = fn(&mut Guest<T>, u64);
    let breaks: [(&str, Break<T>); 14] = [
        ("a loop", |g, t| g.write_descriptor(t, 0, BUFFER, 1, NEXT, 0)),
        ("a longer loop", |g, t| {
            (0..16).for_each(|i| g.write_descriptor(t, i, BUFFER, 1, NEXT, (i + 1) % 16));
        }),
        ("next outside", |g, t| g.write_descriptor(t, 0, BUFFER, 1, NEXT, 16)),
        ("not RAM", |g, t| g.write_descriptor(t, 0, 0x1000, 1, 0, 0)),
        ("beyond RAM", |g, t| g.write_descriptor(t, 0, RAM_BASE + RAM_BYTES - 1, 2, WRITE, 0)),
        ("wraps", |g, t| g.write_descriptor(t, 0, u64::MAX, 2, 0, 0)),
        ("readable after writable", |g, t| {
            g.write_descriptor(t, 0, BUFFER, 1, NEXT | WRITE, 1);
            g.write_descriptor(t, 1, BUFFER, 1, 0, 0);
        }),
        ("too many bytes", |g, t| {
            let table = BUFFER;
            (0..1024).for_each(|i| g.write_descriptor(table, i, RAM_BASE, RAM_BYTES as u32, NEXT, i + 1));
            g.write_descriptor(t, 0, table, 1024 * 16, INDIRECT, 0);
        }),
        ("nested tables", |g, t| {
            g.write_descriptor(t, 0, BUFFER, 16, INDIRECT, 0);
            g.write_descriptor(BUFFER, 0, BUFFER, 16, INDIRECT, 0);
        }),
        ("a loop in a table", |g, t| {
            g.write_descriptor(t, 0, BUFFER, 32, INDIRECT, 0);
            g.write_descriptor(BUFFER, 0, BUFFER, 0, NEXT, 1);
            g.write_descriptor(BUFFER, 1, BUFFER, 0, NEXT, 0);
        }),
        ("an odd table", |g, t| g.write_descriptor(t, 0, BUFFER, 24, INDIRECT, 0)),
        ("an empty table", |g, t| g.write_descriptor(t, 0, BUFFER, 0, INDIRECT, 0)),
        ("a table outside RAM", |g, t| g.write_descriptor(t, 0, u64::MAX - 7, 16, INDIRECT, 0)),
        ("a table with a successor", |g, t| g.write_descriptor(t, 0, BUFFER, 16, INDIRECT | NEXT, 1)),
    ];
    let mut guest = make();
    for (name, break_it) in breaks {
        guest.start(feature::INDIRECT_DESC);
        let table = guest.rings[0].descriptors;
        break_it(&mut guest, table);
        guest.make_available(0, 0);
        guest.kick(0);
        assert_eq!(guest.device.status(), READY | status::DEVICE_NEEDS_RESET, "{name} was taken");
        assert_eq!((guest.used(0), guest.device.take_causes()), (None, 2), "{name}");
        guest.kick(0);
    }
    guest.start(0);
    guest.make_available(0, 16);
    guest.kick(0);
    assert_eq!(
        guest.device.status(),
        READY | status::DEVICE_NEEDS_RESET,
        "a head outside the table was taken"
    );
    guest.start(0);
    guest.rings[0].avail_idx = 17;
    guest.make_available(0, 0);
    guest.kick(0);
    assert_eq!(guest.device.status(), READY | status::DEVICE_NEEDS_RESET, "a leap of the index was taken");
    // Queue 1 keeps its four chains; a fifth can only reuse a descriptor.
    guest.start(0);
    (0..4).for_each(|_| drop(guest.post(1, &[Part::Out(b"x")])));
    guest.kick(1);
    assert_eq!(guest.device.status(), READY);
    guest.post(1, &[Part::Out(b"x")]);
    guest.kick(1);
    assert_eq!(
        guest.device.status(),
        READY | status::DEVICE_NEEDS_RESET,
        "descriptors in flight were reused"
    );
    guest.start(0);
    assert_eq!(guest.request(0, &[Part::Out(b"well again"), Part::In(10)]), b"WELL AGAIN");
}

fn a_device_continues_elsewhere<T: Registers>(make: impl Fn() -> Guest<T>) {
    let mut guest = make();
    guest.start(u64::MAX);
    guest.device.set_config(0, 1, 77);
    guest.request(0, &[Part::Out(b"before"), Part::In(6)]);
    // Two requests are in the device, a third was posted but not yet announced, an interrupt is pending.
    let held: Vec<_> = (0..2).map(|_| guest.post(1, &[Part::Out(b"held"), Part::In(4)])).collect();
    guest.kick(1);
    let unannounced = guest.post(0, &[Part::Out(b"after"), Part::In(5)]);
    assert!(guest.wire.level());

    let mut guest = guest.migrate(make());
    assert!(guest.wire.level(), "the pending interrupt is lost");
    assert_eq!(guest.device.take_causes() & 1, 1);
    assert_eq!(guest.device.config(0, 1), 77);
    assert_eq!(guest.used(0), Some((unannounced.head, 5)));
    guest.device.set_config(1, 1, 0);
    assert_eq!((guest.used(1), guest.used(1)), (Some((held[0].head, 4)), Some((held[1].head, 4))));
    assert_eq!(guest.received(&held[1]), b"HELD");
    assert_eq!(guest.request(0, &[Part::Out(b"more"), Part::In(4)]), b"MORE");
    assert_eq!(guest.device.status(), READY);
}

fn a_refused_state_changes_nothing<T: Registers>(make: impl Fn() -> Guest<T>) {
    let mut guest = make();
    guest.start(0);
    let mut refused = isomer_core::DynDevice::save(&guest.device).unwrap();
    guest.device.set_config(0, 1, 1);
    let other = isomer_core::DynDevice::save(&guest.device).unwrap();
    // Where they differ is the device's own state, of which 255 is none.
    let at = (0..refused.bytes.len()).find(|&i| refused.bytes[i] != other.bytes[i]).unwrap();
    refused.bytes[at] = 0xff;
    let held = guest.post(1, &[Part::Out(b"held"), Part::In(4)]);
    guest.kick(1);
    guest.device.quiesce();
    let before = isomer_core::DynDevice::save(&guest.device).unwrap();
    assert!(isomer_core::DynDevice::restore(&mut guest.device, &refused).is_err());
    assert_eq!(isomer_core::DynDevice::save(&guest.device).unwrap(), before);
    guest.device.resume();
    guest.device.set_config(1, 1, 0);
    assert_eq!(guest.used(1), Some((held.head, 4)));
}

fn nothing_moves_before_driver_ok<T: Registers>(make: impl Fn() -> Guest<T>) {
    let mut guest = make();
    guest.negotiate(0);
    guest.set_up_queues();
    guest.post(0, &[Part::Out(b"x"), Part::In(1)]);
    guest.kick(0);
    guest.device.set_config(2, 1, 0);
    assert_eq!((guest.used(0), guest.wire.level()), (None, false));
    guest.go_live();
    assert_eq!(guest.used(0), Some((0, 1)));
}

/// A cause that a worker raises while the guest acknowledges an earlier one is never lost.
fn raise_while_acknowledging<T: Registers>(mut guest: Guest<T>, interrupt: super::Interrupt) {
    const RAISED: u32 = 20_000;
    let worker = std::thread::spawn(move || (0..RAISED).for_each(|_| interrupt.signal_queue(0)));
    let mut acknowledged = 0u32;
    while !worker.is_finished() {
        acknowledged += guest.device.take_causes();
    }
    worker.join().unwrap();
    assert_eq!(guest.wire.level(), guest.device.take_causes() == 1);
    assert!(!guest.wire.level() && acknowledged <= RAISED && guest.wire.rises() <= RAISED);
}

#[test]
fn workers_and_the_guest_do_not_lose_interrupts() {
    let mut guest = Guest::mmio(Echo::default());
    guest.start(0);
    let interrupt = guest.device.device().running.as_ref().unwrap().interrupt.clone();
    raise_while_acknowledging(guest, interrupt);
    let mut guest = Guest::pci(Echo::default());
    guest.start(0);
    let interrupt = guest.device.device().running.as_ref().unwrap().interrupt.clone();
    raise_while_acknowledging(guest, interrupt);
}

#[test]
fn names_and_versions_tell_the_transports_apart() {
    assert_eq!(<VirtioMmio<Echo> as Device>::NAME, "virtio-echo-mmio");
    assert_eq!(<VirtioPci<Echo> as Device>::NAME, "virtio-echo-pci");
    assert_eq!(<VirtioPci<Echo> as Device>::VERSION, 0x1_0003);
}

#[test]
fn mmio_registers_identify_the_device() {
    let mut device = Guest::mmio(Echo::default()).device;
    let words = [0x7472_6976, 2, 42, 0x554d_4551];
    (0..4).for_each(|i| assert_eq!(device.read(0, 4 * i, 4), words[i as usize]));
    assert_eq!((device.read(0, 0, 1), device.read(0, 0, 8)), (0, 0));
    assert!((0xb0..=0xbc).step_by(4).all(|at| device.read(0, at, 4) == 0xffff_ffff));
    let before = device.read(0, 0xfc, 4);
    device.set_config(2, 1, 0); // not live: nothing changes
    assert_eq!(device.read(0, 0xfc, 4), before);
    let mut live = Guest::mmio(Echo::default());
    live.start(0);
    let before = live.device.read(0, 0xfc, 4);
    live.device.set_config(2, 1, 0);
    assert_eq!(live.device.read(0, 0xfc, 4), before + 1);
    let mut slot = mmio::EmptySlot;
    assert_eq!([0, 4, 8, 12].map(|at| slot.read(0, at, 4)), [0x7472_6976, 2, 0, 0x554d_4551]);
    let at = Placement { regions: vec![(0x1000_1000, 0x1000)], irqs: vec![1] };
    let node = isomer_core::DynDevice::fw_node(&device, &at).unwrap();
    assert_eq!((node.name.as_str(), node.unit_address), ("virtio_mmio", Some(0x1000_1000)));
}

/// A PCI guest with MSI-X: vector 0 for configuration, 1 and 2 for the queues.
fn msix_guest() -> (Guest<VirtioPci<Echo>>, Arc<Messages>) {
    let (mut guest, messages) = (Guest::pci(Echo::default()), Arc::new(Messages::default()));
    guest.device = VirtioPci::new(Echo::default(), guest.ram.clone(), Some(messages.clone()));
    guest.device.connect(&Connection { intx: guest.wire.line(), requester_id: 0x18 });
    guest.device.config_write(4, 2, 6);
    let msix = find_capability(&mut guest.device, 0x11, |_, _| true).unwrap();
    guest.device.config_write(msix + 2, 2, 0x8000);
    for vector in 0..3 {
        guest.device.write(1, 16 * vector, 8, 0x2800_0000 + 0x1000 * vector);
        guest.device.write(1, 16 * vector + 8, 4, 40 + vector);
        guest.device.write(1, 16 * vector + 12, 4, 0);
    }
    (guest, messages)
}

/// Walks the capability list as drivers do.
fn find_capability<F: PciFunction>(
    function: &mut F,
    id: u32,
    accept: impl Fn(&mut F, u16) -> bool,
) -> Option<u16> {
    assert_eq!(function.config_read(6, 2) & 0x10, 0x10);
    let mut at = function.config_read(0x34, 1) as u16;
    for _ in 0..48 {
        if at == 0 {
            return None;
        }
        assert!(at >= 0x40 && at.is_multiple_of(4));
        if function.config_read(at, 1) == id && accept(function, at) {
            return Some(at);
        }
        at = function.config_read(at + 1, 1) as u16;
    }
    panic!("the capability list loops");
}

#[test]
fn pci_identity_and_capabilities_are_what_drivers_look_for() {
    let mut device = VirtioPci::new(VirtioRng::new(), ram(), None);
    assert_eq!(device.config_read(0, 4), 0x1044_1af4);
    assert_eq!(device.config_read(8, 4), 0x00ff_0001);
    assert_eq!(device.config_read(0x2c, 4), 0x1100_1af4);
    assert_eq!(device.config_read(0x3c, 2), 0x0100);
    assert_eq!(device.config_read(0x100, 4), 0);
    assert!(find_capability(&mut device, 0x11, |_, _| true).is_none());
    for (kind, offset) in [(1, 0u32), (2, 0x3000), (3, 0x1000), (4, 0x2000)] {
        let is = |device: &mut VirtioPci<_>, at| device.config_read(at + 3, 1) == kind;
        let at = find_capability(&mut device, 9, is).unwrap();
        let words = [4, 8, 12].map(|field| device.config_read(at + field, 4));
        assert_eq!(words, [4, offset, 0x1000]);
        assert_eq!(device.config_read(at + 2, 1), if kind == 2 { 20 } else { 16 });
        assert!(kind != 2 || device.config_read(at + 16, 4) == 4);
    }
    // 64-bit prefetchable BAR 4 of 16 KiB, no others.
    device.config_write(0x20, 4, u32::MAX);
    device.config_write(0x24, 4, u32::MAX);
    assert_eq!((device.config_read(0x20, 4), device.config_read(0x24, 4)), (0xffff_c00c, u32::MAX));
    device.config_write(0x14, 4, u32::MAX);
    assert_eq!(device.config_read(0x14, 4), 0);
}

#[test]
fn registers_are_reached_through_configuration_space() {
    let mut guest = Guest::pci(Echo::default());
    let at = find_capability(&mut guest.device, 9, |device, at| device.config_read(at + 3, 1) == 5).unwrap();
    let aim = |device: &mut VirtioPci<Echo>, bar, offset, len| {
        device.config_write(at + 4, 1, bar);
        device.config_write(at + 8, 4, offset);
        device.config_write(at + 12, 4, len);
    };
    aim(&mut guest.device, 4, 20, 1);
    guest.device.config_write(at + 16, 1, 3);
    assert_eq!(guest.device.status(), 3);
    aim(&mut guest.device, 4, 0x2002, 2);
    assert_eq!(guest.device.config_read(at + 16, 2), 0x1234);
    for (bar, offset, len) in
        [(0, 20, 1), (4, 21, 2), (4, 20, 3), (4, 0x4000, 4), (9, 0, 4), (4, u32::MAX, 1)]
    {
        aim(&mut guest.device, bar, offset, len);
        guest.device.config_write(at + 16, 4, 0);
        assert_eq!((guest.device.config_read(at + 16, 4), guest.device.status()), (0, 3));
    }
}

#[test]
fn common_configuration_takes_any_access_width() {
    let mut device = Guest::pci(Echo::default()).device;
    device.write(4, 32, 8, 0x1122_3344_5566_7780);
    assert_eq!((device.read(4, 32, 4), device.read(4, 36, 4)), (0x5566_7780, 0x1122_3344));
    assert_eq!((device.read(4, 33, 2), device.read(4, 39, 1)), (0x6677, 0x11));
    device.write(4, 36, 4, 0xaabb_ccdd);
    device.write(4, 33, 1, 0xee);
    assert_eq!(device.read(4, 32, 8), 0xaabb_ccdd_5566_ee80);
    assert_eq!(device.read(4, 18, 8), 0x10_0000_0000_0002); // count, status, generation, select, size
}

#[test]
fn messages_replace_the_wire() {
    let (mut guest, messages) = msix_guest();
    for (register, vector) in [(16, 0), (26, 1)] {
        guest.device.write(4, 22, 2, 0);
        guest.device.write(4, register, 2, vector);
        assert_eq!(guest.device.read(4, register, 2), vector);
    }
    guest.device.write(4, 22, 2, 1);
    guest.device.write(4, 26, 2, 3); // there are three vectors, 0 to 2
    assert_eq!(guest.device.read(4, 26, 2), 0xffff);
    guest.start(0);
    guest.device.write(4, 16, 2, 0);
    guest.device.write(4, 22, 2, 0);
    guest.device.write(4, 26, 2, 1);

    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    assert_eq!(messages.take(), [(0x18, 0x2800_1000, 41)]);
    guest.device.set_config(2, 1, 0);
    assert_eq!(messages.take(), [(0x18, 0x2800_0000, 40)]);
    assert!(!guest.wire.level());
    // Masked: pending until unmasked, once.
    guest.device.write(1, 16 + 12, 4, 1);
    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    assert_eq!((messages.take(), guest.device.read(1, 0x800, 8)), (vec![], 0b10));
    guest.device.write(1, 16 + 12, 4, 0);
    assert_eq!((messages.take().len(), guest.device.read(1, 0x800, 8)), (1, 0));
    // The function mask holds back, too; and the pending bit travels with the state.
    let msix = find_capability(&mut guest.device, 0x11, |_, _| true).unwrap();
    guest.device.config_write(msix + 2, 2, 0xc000);
    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    let (other, elsewhere) = msix_guest();
    let mut guest = guest.migrate(other);
    assert_eq!((messages.take(), elsewhere.take()), (vec![], vec![]));
    guest.device.config_write(msix + 2, 2, 0x8000);
    assert_eq!(elsewhere.take(), [(0x18, 0x2800_1000, 41)]);
}

#[test]
fn a_function_that_is_not_bus_master_leaves_memory_alone() {
    let mut guest = Guest::pci(Echo::default());
    guest.start(0);
    guest.device.config_write(4, 2, 2);
    let posted = guest.post(0, &[Part::Out(b"x"), Part::In(1)]);
    guest.kick(0);
    assert_eq!(guest.used(0), None);
    guest.device.config_write(4, 2, 6);
    assert_eq!(guest.used(0), Some((posted.head, 1)));
}

#[test]
fn interrupt_disable_silences_the_pin_but_not_the_status() {
    let mut guest = Guest::pci(Echo::default());
    guest.start(0);
    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    assert!(guest.wire.level());
    guest.device.config_write(4, 2, 0x406);
    assert!(!guest.wire.level());
    assert_eq!(guest.device.config_read(6, 2) & 8, 8);
    guest.device.config_write(4, 2, 6);
    assert!(guest.wire.level());
    guest.device.take_causes();
    assert_eq!((guest.wire.level(), guest.device.config_read(6, 2) & 8), (false, 0));
}

device_conformance!(
    mmio_conformance,
    VirtioMmio::new(Echo::default(), ram(), IrqLine::unconnected()),
    Options { windows: &[mmio::WINDOW_BYTES], self_contained: true, ..Options::default() }
);
device_conformance!(
    pci_conformance,
    VirtioPci::new(Echo::default(), ram(), Some(Arc::new(Messages::default()))),
    Options { windows: &[0, 0x1000, 0, 0, 0x4000], self_contained: true, ..Options::default() }
);
device_conformance!(rng_conformance, VirtioMmio::new(VirtioRng::new(), ram(), IrqLine::unconnected()));
device_conformance!(empty_slot, mmio::EmptySlot);

/// Addresses that are likely to hurt.
fn nasty_address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..0x4000u64).prop_map(|offset| RAM_BASE + offset),
        4 => (0..RAM_BYTES).prop_map(|offset| RAM_BASE + offset),
        1 => (0..0x20u64).prop_map(|back| RAM_BASE + RAM_BYTES - back),
        1 => (0..0x20u64).prop_map(|back| u64::MAX - back),
        1 => any::<u64>(),
    ]
}

fn nasty_len() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..64u32, 2 => (0..16u32).prop_map(|n| 16 * n), 1 => 0..0x10_0000u32, 1 => any::<u32>()]
}

type RawDescriptor = (u64, u32, u16, u16);

fn nasty_table() -> impl Strategy<Value = Vec<RawDescriptor>> {
    prop::collection::vec((nasty_address(), nasty_len(), 0..8u16, 0..20u16), 16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever lies in the rings, the device neither hangs nor panics, and works again after a reset.
    #[test]
    fn hostile_rings_are_survived(
        table in nasty_table(),
        indirect in nasty_table(),
        heads in prop::collection::vec(0..18u16, 16),
        leaps in prop::collection::vec(prop_oneof![4 => 0..17u16, 1 => any::<u16>()], 1..6),
        features in prop_oneof![Just(0), Just(u64::MAX)],
        queue in 0..2usize,
    ) {
        let mut guest = Guest::mmio(Echo::default());
        guest.start(features);
        let ring = guest.rings[queue].clone();
        for (i, &(gpa, len, flags, next)) in (0..).zip(&table) {
            guest.write_descriptor(ring.descriptors, i, gpa, len, flags, next);
        }
        for (i, &(gpa, len, flags, next)) in (0..).zip(&indirect) {
            guest.write_descriptor(RAM_BASE + 0x2000, i, gpa, len, flags, next);
        }
        for (i, head) in (0..).zip(&heads) {
            guest.ram.write(Gpa(ring.driver + 4 + 2 * i), &head.to_le_bytes()).unwrap();
        }
        for leap in leaps {
            let idx = guest.ram_u16(ring.driver + 2).wrapping_add(leap);
            guest.ram.write(Gpa(ring.driver + 2), &idx.to_le_bytes()).unwrap();
            guest.kick(queue);
            guest.device.set_config(1, 1, 0);
        }
        guest.start(features);
        prop_assert_eq!(guest.request(0, &[Part::Out(b"ok"), Part::In(2)]), b"OK");
    }

    /// However a request is cut into descriptors, the device sees the same bytes.
    #[test]
    fn chains_of_any_shape_carry_the_bytes(
        data in prop::collection::vec(any::<u8>(), 1..200),
        cuts in prop::collection::vec(1..60usize, 6),
        indirect: bool,
    ) {
        let mut guest = Guest::pci(Echo::default());
        guest.start(u64::MAX);
        let mut parts = Vec::new();
        let mut left = &data[..];
        for &cut in &cuts {
            let (now, later) = left.split_at(cut.min(left.len()));
            parts.push(Part::Out(now));
            left = later;
        }
        parts.push(Part::Out(left));
        parts.extend(cuts.iter().map(|&cut| Part::In(cut as u32)));
        let posted = if indirect { guest.post_indirect(0, &parts) } else { guest.post(0, &parts) };
        guest.kick(0);
        let room: usize = cuts.iter().sum();
        let expected = data.to_ascii_uppercase();
        let expected = &expected[..data.len().min(room)];
        prop_assert_eq!(guest.used(0), Some((posted.head, expected.len() as u32)));
        prop_assert_eq!(&guest.received(&posted)[..expected.len()], expected);
    }
}
