//! Tests of the network card against a cable whose other end is a list of frames.

use super::*;
use crate::{
    backend::net::{Checksum, FrameMeta, NetWaker, Segmentation},
    virtio::{
        feature,
        mmio::VirtioMmio,
        pci::VirtioPci,
        testing::{Guest, Part, Registers, ram},
    },
};
use isomer_core::{Device, IrqLine};
use mio::{Events, Poll, Token, Waker};
use std::{
    collections::VecDeque,
    sync::{Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);

/// What a test sees of the cable.
#[derive(Debug, Default)]
struct Wires {
    sent: Vec<(FrameMeta, Vec<u8>)>,
    incoming: VecDeque<(FrameMeta, Vec<u8>)>,
    guest: Offloads,
    resets: u32,
    /// Whatever is sent comes back at once.
    echo: bool,
}

#[derive(Clone, Debug)]
struct Far {
    wires: Arc<Mutex<Wires>>,
    waker: NetWaker,
}

impl Far {
    fn arrive(&self, meta: FrameMeta, frame: Vec<u8>) {
        self.wires.lock().unwrap().incoming.push_back((meta, frame));
        self.waker.wake().unwrap();
    }

    fn wait(&self, what: impl Fn(&Wires) -> bool) {
        let start = Instant::now();
        while !what(&self.wires.lock().unwrap()) {
            assert!(start.elapsed() < Duration::from_secs(20), "it did not happen");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// The backend at the far end.
#[derive(Debug)]
struct Cable {
    poll: Poll,
    far: Far,
}

fn cable() -> (Box<dyn NetBackend>, Far) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let far = Far { wires: Arc::default(), waker };
    (Box::new(Cable { poll, far: far.clone() }), far)
}

impl NetBackend for Cable {
    fn offloads(&self) -> Offloads {
        Offloads { checksum: true, tso4: true, tso6: true }
    }
    fn mtu(&self) -> u16 {
        1500
    }
    fn waker(&self) -> NetWaker {
        self.far.waker.clone()
    }
    fn set_guest_offloads(&mut self, offloads: Offloads) {
        self.far.wires.lock().unwrap().guest = offloads;
    }
    fn reset(&mut self) {
        self.far.wires.lock().unwrap().resets += 1;
    }
    fn send(&mut self, meta: &FrameMeta, frame: &mut [u8]) {
        let mut wires = self.far.wires.lock().unwrap();
        wires.sent.push((*meta, frame.to_vec()));
        if wires.echo {
            wires.incoming.push_back((*meta, frame.to_vec()));
        }
    }
    fn poll(&mut self, wait: bool) {
        let timeout = if wait { None } else { Some(Duration::ZERO) };
        self.poll.poll(&mut Events::with_capacity(4), timeout).unwrap();
    }
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<FrameMeta> {
        let (meta, next) = self.far.wires.lock().unwrap().incoming.pop_front()?;
        *frame = next;
        Some(meta)
    }
}

type Machine = Guest<VirtioMmio<VirtioNet>>;

fn card(pairs: u16) -> (VirtioNet, Far) {
    let (backend, far) = cable();
    (VirtioNet::new(backend, &NetOptions { mac: MAC, pairs }), far)
}

fn machine(pairs: u16, features: u64) -> (Machine, Far) {
    let (device, far) = card(pairs);
    let mut guest = Guest::mmio(device);
    guest.start(features);
    (guest, far)
}

/// An Ethernet frame of `len` bytes.
fn frame(to: MacAddr, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&OTHER.0);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// A UDP packet between two ports, enough of one to be steered.
fn flow_frame(to: MacAddr, from_guest: bool, port: u16) -> Vec<u8> {
    let mut frame = frame(to, 60);
    frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    let (guest, far) = ([10, 0, 2, 15], [10, 0, 2, 2]);
    let (source, destination) = if from_guest { (guest, far) } else { (far, guest) };
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&destination);
    let ports = if from_guest { [port, 53] } else { [53, port] };
    frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
    frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
    frame
}

const NO_HEADER: [u8; 12] = [0; 12];

fn command(guest: &mut Machine, queue: usize, class: u8, kind: u8, data: &[u8]) -> u8 {
    guest.request(queue, &[Part::Out(&[class, kind]), Part::Out(data), Part::In(1)])[0]
}

#[test]
fn frames_travel_both_ways() {
    let (mut guest, far) = machine(1, u64::MAX);
    let sent = frame(OTHER, 1000);
    // Header and frame in odd pieces.
    let all = [&NO_HEADER[..], &sent].concat();
    guest.request(1, &[Part::Out(&all[..5]), Part::Out(&all[5..100]), Part::Out(&all[100..])]);
    far.wait(|wires| wires.sent == [(FrameMeta::default(), sent.clone())]);

    let arriving = frame(MAC, 600);
    let posted = guest.post(0, &[Part::In(2000)]);
    far.arrive(FrameMeta::default(), arriving.clone());
    assert_eq!(guest.wait_used(0), (posted.head, 612));
    let got = guest.received(&posted);
    assert_eq!(got[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(got[12..612], arriving);
    let stats = guest.device.device().stats().clone();
    assert_eq!((stats.sent.load(Ordering::Relaxed), stats.received_bytes.load(Ordering::Relaxed)), (1, 600));
}

#[test]
fn answers_do_not_wait_for_another_event() {
    let (mut guest, far) = machine(1, u64::MAX);
    far.wires.lock().unwrap().echo = true;
    let posted = guest.post(0, &[Part::In(2000)]);
    let sent = frame(MAC, 60);
    guest.request(1, &[Part::Out(&NO_HEADER), Part::Out(&sent)]);
    assert_eq!(guest.wait_used(0), (posted.head, 72));
}

#[test]
fn long_frames_take_several_buffers_and_wait_for_them() {
    let (mut guest, far) = machine(1, u64::MAX);
    let partial = Checksum::Partial { start: 34, offset: 16 };
    let segmentation = Segmentation { ipv6: false, size: 1448, header_len: 66, ecn: false };
    let meta = FrameMeta { checksum: partial, segmentation: Some(segmentation) };
    let long = frame(MAC, 60_000);
    far.arrive(meta, long.clone());
    let first: Vec<_> = (0..8).map(|_| guest.post(0, &[Part::In(4096)])).collect();
    guest.kick(0);
    far.wait(|wires| wires.incoming.is_empty());
    // All or nothing: the driver sees none of it before there is room for the rest.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.used(0), None);
    let rest: Vec<_> = (0..8).map(|_| guest.post(0, &[Part::In(4096)])).collect();
    guest.kick(0);
    let mut got = Vec::new();
    for posted in first.iter().chain(&rest).take(15) {
        let (head, written) = guest.wait_used(0);
        assert_eq!(head, posted.head);
        got.extend_from_slice(&guest.received(posted)[..written as usize]);
    }
    assert_eq!(got[..12], [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 15, 0]);
    assert!(got[12..] == long);
}

#[test]
fn short_buffers_without_merging_lose_the_frame() {
    let (mut guest, far) = machine(1, !(1_u64 << 15));
    let small = guest.post(0, &[Part::In(500)]);
    far.arrive(FrameMeta::default(), frame(MAC, 600));
    far.arrive(FrameMeta::default(), frame(MAC, 60));
    guest.kick(0);
    assert_eq!(guest.wait_used(0), (small.head, 72));
    assert_eq!(guest.device.device().stats().receive_drops.load(Ordering::Relaxed), 1);
}

#[test]
fn malformed_buffers_are_survived() {
    let (mut guest, far) = machine(1, u64::MAX);
    let wild = [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    let ethernet = frame(OTHER, 60);
    for parts in [
        &[Part::Out(b"short")][..],
        &[Part::Out(&NO_HEADER)],
        &[Part::Out(&NO_HEADER), Part::Out(&ethernet[..13])],
        &[Part::Out(&wild), Part::Out(&ethernet)],
        &[Part::In(100)],
        &[Part::Out(&NO_HEADER), Part::Out(&[0; 70_000])],
    ] {
        assert_eq!(guest.request(1, parts).len(), 0);
    }
    assert_eq!(guest.device.device().stats().send_errors.load(Ordering::Relaxed), 6);
    assert!(far.wires.lock().unwrap().sent.is_empty());
    assert_eq!(guest.device.status() & 64, 0);
    // A receive buffer that is none breaks its queue.
    guest.post(0, &[Part::Out(b"not writable")]);
    far.arrive(FrameMeta::default(), frame(MAC, 60));
    guest.kick(0);
    let start = Instant::now();
    while guest.device.status() & 64 == 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn offloads_follow_negotiation_and_commands() {
    let guest_bits = 1 << 1 | 1 << 7 | 1 << 8;
    let all = Offloads { checksum: true, tso4: true, tso6: true };
    let (mut guest, far) = machine(1, u64::MAX);
    far.wait(|wires| wires.guest == all);
    // CTRL_GUEST_OFFLOADS_SET: checksums alone; then what was never negotiated.
    assert_eq!(command(&mut guest, 2, 5, 0, &(1u64 << 1).to_le_bytes()), 0);
    far.wait(|wires| wires.guest == Offloads { checksum: true, ..Offloads::default() });
    assert_eq!(command(&mut guest, 2, 5, 0, &(1u64 << 10).to_le_bytes()), 1);
    let (_guest, far) = machine(1, !guest_bits);
    far.wait(|wires| wires.guest == Offloads::default());
    // Segments without checksums are not possible.
    let (_guest, far) = machine(1, !(1_u64 << 1));
    std::thread::sleep(Duration::from_millis(5));
    far.wait(|wires| wires.guest == Offloads::default());
}

#[test]
fn the_driver_chooses_what_it_receives() {
    let (mut guest, far) = machine(1, u64::MAX);
    let group = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    let reaches = |guest: &mut Machine, to: MacAddr| {
        let posted = guest.post(0, &[Part::In(2000)]);
        guest.kick(0);
        far.arrive(FrameMeta::default(), frame(to, 60));
        far.arrive(FrameMeta::default(), frame(MacAddr::BROADCAST, 61));
        let (head, written) = guest.wait_used(0);
        assert_eq!(head, posted.head);
        if written == 72 {
            let second = guest.post(0, &[Part::In(2000)]);
            guest.kick(0);
            assert_eq!(guest.wait_used(0), (second.head, 73));
        }
        written == 72
    };
    assert!(reaches(&mut guest, MAC) && !reaches(&mut guest, OTHER));
    assert_eq!(command(&mut guest, 2, 0, 0, &[1]), 0); // promiscuous
    assert!(reaches(&mut guest, OTHER));
    assert_eq!(command(&mut guest, 2, 0, 0, &[0]), 0);
    assert_eq!(command(&mut guest, 2, 0, 1, &[0]), 0); // not all groups
    assert!(!reaches(&mut guest, group));
    let tables = [&0u32.to_le_bytes()[..], &1u32.to_le_bytes(), &group.0].concat();
    assert_eq!(command(&mut guest, 2, 1, 0, &tables), 0);
    assert!(reaches(&mut guest, group));
    assert_eq!(command(&mut guest, 2, 1, 1, &OTHER.0), 0); // another address
    assert!(reaches(&mut guest, OTHER) && !reaches(&mut guest, MAC));
    assert_eq!(guest.device.config(0, 8) & 0xffff_ffff_ffff, 0x0900_0000_5452);
    for (class, kind, data) in [
        (0, 9, &[1][..]),
        (0, 0, &[]),
        (1, 1, &[1, 2, 3]),
        (1, 0, &[1, 0, 0, 0]),
        (1, 0, &[0xff; 8]),
        (2, 0, &[1, 0]),
        (9, 9, &[]),
        (4, 0, &[1, 0]),
    ] {
        assert_eq!(command(&mut guest, 2, class, kind, data), 1, "{class} {kind}");
    }
}

#[test]
fn flows_return_on_the_pair_they_left_on() {
    let (mut guest, far) = machine(4, u64::MAX);
    assert_eq!((guest.rings.len(), guest.device.config(8, 2)), (9, 4));
    assert_eq!(command(&mut guest, 8, 4, 0, &4u16.to_le_bytes()), 0);
    assert_eq!(command(&mut guest, 8, 4, 0, &5u16.to_le_bytes()), 1);
    assert_eq!(command(&mut guest, 8, 4, 0, &0u16.to_le_bytes()), 1);
    let posted: Vec<_> = (0..4).map(|pair| guest.post(2 * pair, &[Part::In(2000)])).collect();
    (0..4).for_each(|pair| guest.kick(2 * pair));
    for (pair, posted) in posted.iter().enumerate() {
        let port = 1000 + pair as u16;
        let sent = flow_frame(OTHER, true, port);
        guest.request(2 * pair + 1, &[Part::Out(&NO_HEADER), Part::Out(&sent)]);
        far.arrive(FrameMeta::default(), flow_frame(MAC, false, port));
        assert_eq!(guest.wait_used(2 * pair), (posted.head, 72));
    }
    // Without multi-queue the control queue is the third.
    let (mut guest, _far) = machine(4, !(1_u64 << 22));
    assert_eq!(command(&mut guest, 2, 0, 0, &[1]), 0);
}

#[test]
fn a_reset_ends_the_session() {
    let (mut guest, far) = machine(2, u64::MAX);
    command(&mut guest, 4, 1, 1, &OTHER.0);
    Device::reset(&mut guest.device);
    assert_eq!(far.wires.lock().unwrap().resets, 1);
    assert_eq!(guest.device.config(0, 8) & 0xffff_ffff_ffff, 0x5634_1200_5452);
    guest.start(!feature::EVENT_IDX);
    let sent = frame(OTHER, 60);
    guest.request(1, &[Part::Out(&NO_HEADER), Part::Out(&sent)]);
    far.wait(|wires| wires.sent.len() == 1);
}

#[test]
fn a_machine_continues_elsewhere() {
    let (mut guest, _far) = machine(2, u64::MAX);
    command(&mut guest, 4, 0, 0, &[1]);
    command(&mut guest, 4, 5, 0, &2u64.to_le_bytes());
    let posted = guest.post(0, &[Part::In(2000)]);
    let (device, far) = card(2);
    let mut guest = guest.migrate(Guest::mmio(device));
    far.wait(|wires| wires.guest == Offloads { checksum: true, ..Offloads::default() });
    far.arrive(FrameMeta::default(), frame(OTHER, 60)); // promiscuous
    assert_eq!(guest.wait_used(0), (posted.head, 72));
    let (other, _far) = card(1);
    let mut other = VirtioMmio::new(other, ram(), IrqLine::unconnected());
    Device::quiesce(&mut guest.device);
    assert!(Device::restore(&mut other, Device::save(&guest.device)).is_err());
}

crate::device_conformance!(
    mmio_conformance,
    VirtioMmio::new(card(2).0, ram(), IrqLine::unconnected()),
    crate::conformance::Options { windows: &[0x200], ..Default::default() }
);
crate::device_conformance!(
    pci_conformance,
    VirtioPci::new(card(1).0, ram(), None),
    crate::conformance::Options { windows: &[0, 0, 0, 0, 0x4000], ..Default::default() }
);
