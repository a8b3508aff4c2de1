//! Tests of the console device: the control protocol, back-pressure both ways, ends, saved state, hostile messages.

use super::*;
use crate::{
    backend::{Capture, InputWaker, QueuedOutput},
    virtio::{
        mmio::VirtioMmio,
        testing::{Guest, Part, Posted, Registers},
    },
};
use isomer_core::Device;
use proptest::prelude::*;
use std::sync::mpsc;

type Machine = Guest<VirtioMmio<VirtioConsole>>;

const RX0: usize = 0;
const TX0: usize = 1;
const RX1: usize = 4;
const TX1: usize = 5;

struct Setup {
    guest: Machine,
    handle: ConsoleHandle,
    ports: Vec<PortHandle>,
    outputs: Vec<Capture>,
    opened: mpsc::Receiver<bool>,
}

fn device() -> (VirtioConsole, Vec<Capture>, mpsc::Receiver<bool>) {
    let outputs: Vec<_> = (0..3).map(|_| Capture::new(1 << 20)).collect();
    let (sender, opened) = mpsc::channel();
    let on_open = move |open| sender.send(open).unwrap();
    let ports = vec![
        PortOptions::console(outputs[0].clone()),
        PortOptions::named("isomer.stdin", outputs[1].clone()).on_guest_open(on_open),
        PortOptions::named("isomer.stdout", outputs[2].clone()),
    ];
    (VirtioConsole::new(ports), outputs, opened)
}

fn setup(features: u64) -> Setup {
    let (device, outputs, opened) = device();
    let handle = device.handle();
    let ports = (0..3).map(|index| device.port(index).unwrap()).collect();
    assert!(device.port(3).is_none());
    let mut guest = Guest::mmio(device);
    guest.start(features);
    Setup { guest, handle, ports, outputs, opened }
}

impl Setup {
    /// Posts `count` buffers of `len` bytes for the device to fill.
    fn offer(&mut self, queue: usize, count: usize, len: u32) -> Vec<Posted> {
        let posted = (0..count).map(|_| self.guest.post(queue, &[Part::In(len)])).collect();
        self.guest.kick(queue);
        posted
    }

    /// What the device wrote into `posted`, which was used.
    fn taken(&mut self, queue: usize, posted: &Posted) -> Vec<u8> {
        let (head, written) = self.guest.wait_used(queue);
        assert_eq!(head, posted.head);
        let mut data = self.guest.received(posted);
        data.truncate(written as usize);
        data
    }

    fn control(&mut self, port: u32, event: Event, value: u16) {
        let raw = [&port.to_le_bytes()[..], &(event as u16).to_le_bytes(), &value.to_le_bytes()].concat();
        self.guest.request(CONTROL_TX, &[Part::Out(&raw)]);
    }

    /// The next `count` control messages as `(port, event, value, rest)`.
    fn messages(&mut self, count: usize) -> Vec<(u32, u16, u16, Vec<u8>)> {
        let posted = self.offer(CONTROL_RX, count, 64);
        let decode = |raw: Vec<u8>| {
            let message = Message::decode(&std::array::from_fn(|at| raw[at]));
            (message.port, message.event, message.value, raw[8..].to_vec())
        };
        posted.iter().map(|p| decode(self.taken(CONTROL_RX, p))).collect()
    }

    /// The handshake as Linux does it, up to port 1 being open.
    fn bring_up(&mut self) {
        self.control(0, Event::DeviceReady, 1);
        (0..3).for_each(|port| self.control(port, Event::PortReady, 1));
        self.messages(9);
        self.control(0, Event::PortOpen, 1);
        self.control(1, Event::PortOpen, 1);
    }
}

#[test]
fn ports_are_announced_and_opened() {
    let mut s = setup(u64::MAX);
    s.handle.resize(132, 50);
    assert_eq!((s.guest.device.config(0, 2), s.guest.device.config(2, 2)), (132, 50));
    assert_eq!((s.guest.device.config(4, 4), s.guest.device.config(8, 8)), (3, 0));
    s.control(0, Event::DeviceReady, 1);
    let added: Vec<_> = (0..3).map(|port| (port, Event::DeviceAdd as u16, 1, vec![])).collect();
    assert_eq!(s.messages(3), added);
    (0..3).for_each(|port| s.control(port, Event::PortReady, 1));
    let open = |port| (port, Event::PortOpen as u16, 1, vec![]);
    let named = |port, name: &str| (port, Event::PortName as u16, 1, name.as_bytes().to_vec());
    let expected = [
        (0, Event::ConsolePort as u16, 1, vec![]),
        (0, Event::Resize as u16, 0, vec![132, 0, 50, 0]),
        open(0),
        named(1, "isomer.stdin"),
        open(1),
        named(2, "isomer.stdout"),
        open(2),
    ];
    assert_eq!(s.messages(7), expected);
    s.handle.resize(80, 24);
    assert_eq!(s.messages(1), [(0, Event::Resize as u16, 0, vec![80, 0, 24, 0])]);
    s.handle.set_plugged(2, false);
    s.handle.set_plugged(2, false);
    s.handle.set_plugged(2, true);
    s.handle.set_plugged(9, true);
    let plugged = [(2, Event::DeviceRemove as u16, 1, vec![]), (2, Event::DeviceAdd as u16, 1, vec![])];
    assert_eq!(s.messages(2), plugged);
    s.control(1, Event::PortOpen, 1);
    s.control(1, Event::PortOpen, 0);
    assert_eq!(s.opened.try_iter().collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_driver_without_ports_has_a_console() {
    let mut s = setup(1 << feature_bit::SIZE);
    assert_eq!(s.ports[0].receive(b"typed"), 5);
    let posted = s.offer(RX0, 2, 3);
    assert_eq!((s.taken(RX0, &posted[0]), s.taken(RX0, &posted[1])), (b"typ".to_vec(), b"ed".to_vec()));
    s.guest.request(TX0, &[Part::Out(b"hello "), Part::Out(b"world")]);
    assert_eq!(s.outputs[0].text(), "hello world");
    s.guest.device.take_causes();
    s.handle.resize(100, 30);
    assert_eq!((s.guest.device.take_causes(), s.guest.device.config(0, 4)), (2, 30 << 16 | 100));
    s.handle.resize(100, 30);
    assert_eq!(s.guest.device.take_causes(), 0);
    s.guest.device.set_config(8, 4, u64::from(b'!'));
    assert_eq!(s.outputs[0].text(), "hello world!");
}

#[test]
fn input_waits_for_a_reader_and_ends() {
    let mut s = setup(u64::MAX);
    let waker = InputWaker::new().unwrap();
    s.ports[1].set_waker(waker.clone());
    let woken = || {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&waker, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    let sent = vec![0x42; 100_000];
    assert_eq!(s.ports[1].receive(&sent), 64 << 10);
    assert_eq!(s.ports[1].receive(&sent), 0);
    s.bring_up();
    assert!(s.ports[1].is_guest_open() && !woken());
    let posted = s.offer(RX1, 4, 16 << 10);
    assert!(posted.iter().all(|p| s.taken(RX1, p) == vec![0x42; 16 << 10]));
    assert!(woken());
    assert_eq!(s.ports[1].receive(b"last words"), 10);
    s.ports[1].end_of_input();
    assert_eq!(s.ports[1].receive(b"too late"), 8);
    let end = s.guest.post(CONTROL_RX, &[Part::In(8)]);
    s.guest.kick(CONTROL_RX);
    assert_eq!(s.guest.used(CONTROL_RX), None, "the end overtook the data");
    let posted = s.offer(RX1, 1, 100);
    assert_eq!(s.taken(RX1, &posted[0]), b"last words");
    assert_eq!(s.taken(CONTROL_RX, &end), [1, 0, 0, 0, Event::PortOpen as u8, 0, 0, 0]);
    // After a restart of the guest the end still holds.
    s.guest.start(u64::MAX);
    s.control(0, Event::DeviceReady, 1);
    s.control(1, Event::PortReady, 1);
    let kinds: Vec<_> = s.messages(4).iter().map(|m| m.1).collect();
    assert_eq!(kinds, [1, 1, 1, Event::PortName as u16]);
    let none = s.guest.post(CONTROL_RX, &[Part::In(8)]);
    s.guest.kick(CONTROL_RX);
    assert_eq!((s.guest.used(CONTROL_RX), none.writable.len()), (None, 1));
}

/// Output with as much room as it was given.
#[derive(Clone, Default)]
struct Tight(Arc<Mutex<Room>>);

#[derive(Default)]
struct Room {
    left: usize,
    taken: Vec<u8>,
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl CharOutput for Tight {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().taken.extend(bytes);
    }
    fn offer(&mut self, bytes: &[u8]) -> usize {
        let mut state = self.0.lock().unwrap();
        let taken = state.left.min(bytes.len());
        state.left -= taken;
        state.taken.extend(&bytes[..taken]);
        taken
    }
    fn on_room(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.0.lock().unwrap().wake = Some(wake);
    }
}

impl Tight {
    fn give(&self, room: usize) {
        self.0.lock().unwrap().left = room;
        let wake = self.0.lock().unwrap().wake.clone();
        wake.unwrap()();
    }
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().taken.clone()).unwrap()
    }
}

#[test]
fn output_that_does_not_fit_waits_in_the_queue_even_across_a_save() {
    let (first, second) = (Tight::default(), Tight::default());
    let machine =
        |output: &Tight| Guest::mmio(VirtioConsole::new(vec![PortOptions::console(output.clone())]));
    let mut guest = machine(&first);
    guest.start(0);
    guest.post(TX0, &[Part::Out(b"one "), Part::Out(b"two ")]);
    guest.post(TX0, &[Part::Out(b"three")]);
    guest.kick(TX0);
    assert_eq!((first.text().as_str(), guest.used(TX0)), ("", None));
    first.give(6);
    assert_eq!((first.text().as_str(), guest.used(TX0)), ("one tw", None));
    guest.kick(TX0);
    guest.device.quiesce();
    first.give(100);
    assert_eq!(first.text(), "one tw", "a parked device works");
    first.give(0);
    let mut guest = guest.migrate(machine(&second));
    second.give(3);
    assert!(guest.used(TX0).is_some() && guest.used(TX0).is_none());
    second.give(100);
    assert_eq!(second.text(), "o three");
    assert!(guest.used(TX0).is_some());
}

#[test]
fn a_slow_pipe_gets_everything() {
    use std::io::Read as _;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let output = QueuedOutput::new(crate::backend::FdOutput::new(writer), 256).unwrap();
    let mut guest = Guest::mmio(VirtioConsole::new(vec![PortOptions::console(output)]));
    guest.start(0);
    let block: Vec<u8> = (0..4096u32).map(|i| (i % 253) as u8).collect();
    for _ in 0..32 {
        guest.post(TX0, &[Part::Out(&block)]);
    }
    guest.kick(TX0); // must not wait for the pipe, which holds half of it
    let mut all = vec![0; 32 * 4096];
    std::fs::File::from(reader).read_exact(&mut all).unwrap();
    assert!(all.chunks(4096).all(|chunk| chunk == block));
    for _ in 0..32 {
        guest.wait_used(TX0);
    }
}

#[test]
fn state_is_carried_over() {
    let mut s = setup(u64::MAX);
    s.handle.resize(120, 40);
    s.bring_up();
    s.messages(1);
    assert_eq!(s.ports[1].receive(b"unread"), 6);
    s.handle.resize(90, 30); // a message the driver has no buffer for
    let (device, outputs, opened) = device();
    let (handle, ports) = (device.handle(), (0..3).map(|i| device.port(i).unwrap()).collect());
    let guest = s.guest.migrate(Guest::mmio(device));
    let mut s = Setup { guest, handle, ports, outputs, opened };
    assert_eq!(s.opened.try_recv(), Ok(true));
    assert_eq!(s.messages(1), [(0, Event::Resize as u16, 0, vec![90, 0, 30, 0])]);
    let posted = s.offer(RX1, 1, 100);
    assert_eq!(s.taken(RX1, &posted[0]), b"unread");
    s.guest.request(7, &[Part::Out(b"result")]);
    assert_eq!((s.outputs[2].text(), s.outputs[0].text()), ("result".into(), String::new()));
}

#[test]
fn impossible_states_are_refused() {
    let (mut console, ..) = device();
    let good = || device().0.save();
    assert!(console.restore(ConsoleState { ports: vec![], ..good() }).is_err());
    assert!(console.restore(ConsoleState { messages: vec![vec![0; 7]], ..good() }).is_err());
    assert!(console.restore(ConsoleState { messages: vec![vec![0; 8]; 500], ..good() }).is_err());
    assert_eq!(console.save(), good());
    console.restore(ConsoleState { size: (1, 2), messages: vec![vec![0; 8]], ..good() }).unwrap();
    assert_eq!(console.save().size, (1, 2));
}

#[test]
fn a_reset_closes_ports_and_keeps_unread_input() {
    let mut s = setup(u64::MAX);
    s.bring_up();
    assert_eq!(s.ports[1].receive(b"kept"), 4);
    s.guest.start(u64::MAX);
    assert_eq!(s.opened.try_iter().collect::<Vec<_>>(), [true, false]);
    s.bring_up();
    let posted = s.offer(RX1, 1, 100);
    assert_eq!(s.taken(RX1, &posted[0]), b"kept");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any control messages and chain shapes: nothing breaks, and nothing grows without bound.
    #[test]
    fn hostile_drivers_are_survived(
        steps in prop::collection::vec((0usize..8, any::<[u8; 8]>(), 0u16..9, 0u32..4, 0usize..9, 0u32..40), 1..300),
    ) {
        let mut s = setup(u64::MAX);
        for (queue, mut raw, event, port, len, room) in steps {
            if queue < 7 {
                raw[..4].copy_from_slice(&port.to_le_bytes());
                raw[4..6].copy_from_slice(&event.to_le_bytes());
            }
            let queue = if event < 6 { CONTROL_TX } else { queue };
            s.guest.post(queue, &[Part::Out(&raw[..len]), Part::In(room)]);
            s.guest.kick(queue);
            while s.guest.used(queue).is_some() {}
            s.ports[port.min(2) as usize].receive(&raw);
            s.handle.resize(room as u16, event);
        }
        prop_assert_eq!(s.guest.device.status() & 64, 0);
        s.guest.device.quiesce();
        let state = s.guest.device.device().save();
        prop_assert!(state.messages.len() <= 64 + 8 * 3);
        s.guest.start(u64::MAX);
        s.guest.request(TX1, &[Part::Out(b"alive")]);
        prop_assert!(s.outputs[1].text().ends_with("alive"));
    }
}
