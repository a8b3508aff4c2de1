//! What the vCPUs of one machine share: mailboxes for remote fences and calls, and who runs or sleeps.

use crate::{EngineKind, Jit};
use isomer_core::{Gpa, VcpuSignal};
use isomer_ir::{Guest, guest::TlbFlush};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

/// Something a vCPU does at its next poll, before it runs more guest code.
pub enum Request<G: Guest> {
    /// Drop cached translations.
    FlushTlb(TlbFlush),
    /// Forget translated code that may be older than stores made before this request.
    SyncCode,
    /// Code was translated from this granule: stores to it must be noticed.
    Protect(Gpa),
    /// Leave the powered-off state with the CPU as the closure leaves it.
    PowerOn(Box<dyn FnOnce(&G, &mut G::Cpu) + Send>),
    /// Look at or change the CPU.
    Call(Box<dyn FnOnce(&G, &mut G::Cpu) + Send>),
    /// Go on with another engine: [`crate::SoftVcpu::switch_engine`].
    SwitchEngine {
        /// Which.
        kind: EngineKind,
        /// Its compilers.
        jit: Option<Arc<Jit<G>>>,
    },
}

impl<G: Guest> std::fmt::Debug for Request<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FlushTlb(what) => write!(f, "FlushTlb({what:?})"),
            Self::SyncCode => f.write_str("SyncCode"),
            Self::Protect(gpa) => write!(f, "Protect({gpa})"),
            Self::PowerOn(_) => f.write_str("PowerOn"),
            Self::Call(_) => f.write_str("Call"),
            Self::SwitchEngine { kind, .. } => write!(f, "SwitchEngine({})", kind.name()),
        }
    }
}

/// What the machine wants of a vCPU's thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Control {
    /// Run guest code.
    Run = 0,
    /// Return from `run` at an instruction boundary and be ready to continue.
    Pause = 1,
    /// Return from `run` for good.
    Stop = 2,
}

/// Off: somebody may claim the right to power it on.
const OFF: u8 = 0;
/// Somebody is about to say how it starts: nothing runs yet.
const CLAIMED: u8 = 1;
/// Runs guest code.
const ON: u8 = 2;

/// The shared side of one vCPU.
pub struct Peer<G: Guest> {
    signal: Arc<VcpuSignal>,
    mailbox: Mutex<Vec<Request<G>>>,
    posted: AtomicU64,
    drained: AtomicU64,
    /// Runs no guest code now, and will empty its mailbox before it does.
    quiet: AtomicBool,
    /// One of [`OFF`], [`CLAIMED`] and [`ON`].
    power: AtomicU8,
    control: AtomicU8,
    /// Somebody wants to know where it is.
    sample: AtomicBool,
}

impl<G: Guest> std::fmt::Debug for Peer<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer(powered: {})", self.is_powered())
    }
}

impl<G: Guest> Peer<G> {
    fn new() -> Self {
        Self {
            signal: Arc::default(),
            mailbox: Mutex::default(),
            posted: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            quiet: AtomicBool::new(true),
            power: AtomicU8::new(OFF),
            control: AtomicU8::new(Control::Run as u8),
            sample: AtomicBool::new(false),
        }
    }

    /// Interrupt inputs and the kick.
    pub fn signal(&self) -> &Arc<VcpuSignal> {
        &self.signal
    }

    /// Is it powered on (HSM started, PSCI on), or about to be?
    pub fn is_powered(&self) -> bool {
        self.power.load(Ordering::SeqCst) != OFF
    }

    /// May it run guest code?
    pub(crate) fn is_on(&self) -> bool {
        self.power.load(Ordering::SeqCst) == ON
    }

    /// Claims the right to power it on: true for exactly one caller while it is off. It runs once that caller has posted
    /// [`Request::PowerOn`], not before.
    pub fn claim_power_on(&self) -> bool {
        self.power.compare_exchange(OFF, CLAIMED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn set_powered(&self, on: bool) {
        self.power.store(if on { ON } else { OFF }, Ordering::SeqCst);
    }

    pub(crate) fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
    }

    /// Asks its thread to run, pause or stop.
    pub fn set_control(&self, control: Control) {
        self.control.store(control as u8, Ordering::SeqCst);
        self.signal.kick();
    }

    /// What its thread was last asked.
    pub fn control(&self) -> Control {
        match self.control.load(Ordering::SeqCst) {
            0 => Control::Run,
            1 => Control::Pause,
            _ => Control::Stop,
        }
    }

    /// Asks where it is ([`crate::Samples`]), if it runs guest code.
    pub fn ask_for_sample(&self) {
        if !self.quiet.load(Ordering::SeqCst) {
            self.sample.store(true, Ordering::SeqCst);
            self.signal.attention().store(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn take_sample_request(&self) -> bool {
        self.sample.load(Ordering::Relaxed) && self.sample.swap(false, Ordering::SeqCst)
    }

    /// Leaves a request; the ticket tells [`Self::is_done`] which one is meant. A vCPU that sleeps is woken only by
    /// requests that can give it something to run; the others it carries out when it wakes anyway.
    pub fn post(&self, request: Request<G>) -> u64 {
        let wakes = matches!(request, Request::PowerOn(_) | Request::Call(_));
        let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        if mailbox.len() >= MAILBOX_LIMIT {
            compact(&mut mailbox);
        }
        mailbox.push(request);
        let ticket = self.posted.fetch_add(1, Ordering::SeqCst) + 1;
        drop(mailbox);
        if wakes || !self.quiet.load(Ordering::SeqCst) {
            self.signal.kick();
        }
        ticket
    }

    /// Has the request been carried out, or will it be before any further guest code runs?
    pub fn is_done(&self, ticket: u64) -> bool {
        self.drained.load(Ordering::SeqCst) >= ticket || self.quiet.load(Ordering::SeqCst)
    }

    /// Takes all requests, and the ticket of the last for [`Self::acknowledge`] when they are carried out.
    pub(crate) fn take(&self) -> (Vec<Request<G>>, u64) {
        let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut *mailbox), self.posted.load(Ordering::SeqCst))
    }

    pub(crate) fn acknowledge(&self, ticket: u64) {
        self.drained.store(ticket, Ordering::SeqCst);
    }
}

/// Requests a vCPU that does not run for long may collect before the droppable ones become one.
const MAILBOX_LIMIT: usize = 256;

/// Replaces all flushes, fences and protections by one flush of everything, which does what they would: entries
/// filled afterwards respect protections. Calls stay, in order, and the last engine asked for.
fn compact<G: Guest>(mailbox: &mut Vec<Request<G>>) {
    let engine = mailbox.iter().rposition(|request| matches!(request, Request::SwitchEngine { .. }));
    let engine = engine.map(|at| mailbox.remove(at));
    mailbox.retain(|request| matches!(request, Request::PowerOn(_) | Request::Call(_)));
    mailbox.extend(engine);
    mailbox.push(Request::FlushTlb(TlbFlush::default()));
    mailbox.push(Request::SyncCode);
}

/// All vCPUs of one machine.
#[derive(Debug)]
pub struct Group<G: Guest> {
    peers: Vec<Arc<Peer<G>>>,
}

impl<G: Guest> Group<G> {
    /// `count` vCPUs, all powered off.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { peers: (0..count).map(|_| Arc::new(Peer::new())).collect() })
    }

    /// The vCPUs, by index.
    pub fn peers(&self) -> &[Arc<Peer<G>>] {
        &self.peers
    }
}

/// A group without its guest's type, for whoever only starts and stops.
pub trait Controls: Send + Sync {
    /// Asks every vCPU's thread to run, pause or stop.
    fn set_control(&self, control: Control);

    /// Asks every vCPU that runs guest code where it is: [`Peer::ask_for_sample`].
    fn ask_for_samples(&self);
}

impl<G: Guest> Controls for Group<G> {
    fn set_control(&self, control: Control) {
        self.peers.iter().for_each(|peer| peer.set_control(control));
    }

    fn ask_for_samples(&self) {
        self.peers.iter().for_each(|peer| peer.ask_for_sample());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_riscv64::{Cpu, Riscv64};

    #[test]
    fn an_unread_mailbox_does_not_grow_and_keeps_calls() {
        let peer = Peer::<Riscv64>::new();
        let mut last = 0;
        for n in 0..100_000_u64 {
            last = peer.post(match n % 4 {
                0 => Request::Protect(Gpa(n << 12)),
                1 => Request::SyncCode,
                2 => Request::FlushTlb(TlbFlush { address_space: Some(n), ..TlbFlush::default() }),
                _ if n % 400 == 3 => Request::SwitchEngine { kind: EngineKind::Jit, jit: None },
                _ if n == 99_999 => Request::SwitchEngine { kind: EngineKind::Reference, jit: None },
                _ if n == 5003 => Request::Call(Box::new(|_: &Riscv64, cpu: &mut Cpu| cpu.mip = 5)),
                _ => Request::FlushTlb(TlbFlush::default()),
            });
        }
        let (requests, ticket) = peer.take();
        assert!(requests.len() <= MAILBOX_LIMIT + 1 && ticket == last);
        assert_eq!(requests.iter().filter(|request| matches!(request, Request::Call(_))).count(), 1);
        let everything = |request: &Request<Riscv64>| matches!(request, Request::FlushTlb(what) if *what == TlbFlush::default());
        assert!(requests.iter().any(everything), "what was dropped is done by more");
        let engine = requests.iter().rev().find_map(|request| match request {
            Request::SwitchEngine { kind, .. } => Some(*kind),
            _ => None,
        });
        assert_eq!(engine, Some(EngineKind::Reference), "the last counts");
    }

    #[test]
    fn requests_count_as_done_while_quiet_and_wait_while_not() {
        let peer = Peer::<Riscv64>::new();
        let ticket = peer.post(Request::SyncCode);
        assert!(peer.is_done(ticket) && !peer.signal().take_attention(), "it sleeps on");
        peer.set_quiet(false);
        assert!(!peer.is_done(ticket));
        let next = peer.post(Request::SyncCode);
        assert!(peer.signal().take_attention());
        let (requests, last) = peer.take();
        assert_eq!((requests.len(), last), (2, next));
        assert!(!peer.is_done(ticket), "taken is not done");
        peer.acknowledge(last);
        assert!(peer.is_done(ticket) && peer.is_done(next) && !peer.is_done(next + 1));
    }
}
