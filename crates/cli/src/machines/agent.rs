//! QEMU's guest agent (QEMU, docs/interop/qemu-ga-ref), as it runs in most guests: JSON over a virtio-serial port. What
//! comes from the guest is not trusted: its length and its time are limited.

use isomer_devices::backend::CharOutput;
use isomer_machine::GuestPort;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Longest line of an agent that is kept: a piece of a file, encoded, with room to spare.
const LINE_LIMIT: usize = 4 << 20;
/// Lines kept that nobody has asked for.
const LINES_LIMIT: usize = 16;
/// How long the agent may take to say that it listens.
const SYNC_LIMIT: Duration = Duration::from_secs(5);
/// What makes an agent forget a half request, and marks the answer that follows (`guest-sync-delimited`).
const SENTINEL: u8 = 0xff;

/// Why the agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error("the guest agent is not running in the guest, or not yet")]
    Absent,
    #[error("the guest agent does not answer")]
    Silent,
    #[error("the guest agent refuses: {why}")]
    Refused { why: String },
}

/// The host's end of the agent's port. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct AgentLink(Arc<Link>);

#[derive(Default)]
struct Link {
    /// Held for a request and its answer.
    turn: Mutex<Turn>,
    heard: Mutex<Heard>,
    more: Condvar,
    port: Mutex<Option<GuestPort>>,
    next: AtomicU64,
}

/// Is the agent known to listen, and has nothing left to say?
#[derive(Default)]
struct Turn {
    synced: bool,
}

#[derive(Default)]
struct Heard {
    line: Vec<u8>,
    lines: VecDeque<Vec<u8>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CharOutput for AgentLink {
    fn write(&mut self, bytes: &[u8]) {
        let mut heard = lock(&self.0.heard);
        for &byte in bytes {
            match byte {
                SENTINEL => heard.line.clear(),
                b'\n' => {
                    let line = std::mem::take(&mut heard.line);
                    if heard.lines.len() < LINES_LIMIT {
                        heard.lines.push_back(line);
                    }
                }
                _ if heard.line.len() < LINE_LIMIT => heard.line.push(byte),
                _ => {}
            }
        }
        drop(heard);
        self.0.more.notify_all();
    }
}

impl AgentLink {
    /// Another machine, or none.
    pub(super) fn connect(&self, port: Option<GuestPort>) {
        *lock(&self.0.port) = port;
    }

    /// Has an agent opened the port?
    pub(super) fn is_there(&self) -> bool {
        lock(&self.0.port).as_ref().is_some_and(GuestPort::is_open)
    }

    /// Carries out one request; what the agent returns.
    pub(super) fn request(&self, request: &Value, limit: Duration) -> Result<Value, AgentError> {
        let mut turn = lock(&self.0.turn);
        if !self.is_there() {
            turn.synced = false;
            return Err(AgentError::Absent);
        }
        if !turn.synced {
            self.sync()?;
        }
        // Until the answer is here, what comes next may be this one's.
        turn.synced = false;
        let deadline = Instant::now() + limit;
        self.send(request, deadline)?;
        let answer = self.receive(deadline)?;
        turn.synced = true;
        judge(answer)
    }

    /// Makes sure that what comes next answers what is sent next.
    fn sync(&self) -> Result<(), AgentError> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed) + 1;
        let deadline = Instant::now() + SYNC_LIMIT;
        lock(&self.0.heard).lines.clear();
        self.push(&[SENTINEL], deadline)?;
        self.send(&json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } }), deadline)?;
        loop {
            // Answers to what was sent before, and complaints about the half request, come first.
            if self.receive(deadline)?.get("return").and_then(Value::as_u64) == Some(id) {
                return Ok(());
            }
        }
    }

    fn send(&self, request: &Value, deadline: Instant) -> Result<(), AgentError> {
        self.push(format!("{request}\n").as_bytes(), deadline)
    }

    fn push(&self, mut bytes: &[u8], deadline: Instant) -> Result<(), AgentError> {
        while !bytes.is_empty() {
            let port = lock(&self.0.port).clone().ok_or(AgentError::Absent)?;
            let taken = port.send(bytes).min(bytes.len());
            bytes = &bytes[taken..];
            if Instant::now() >= deadline {
                return Err(AgentError::Silent);
            }
            if !bytes.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// The next line that is JSON.
    fn receive(&self, deadline: Instant) -> Result<Value, AgentError> {
        let mut heard = lock(&self.0.heard);
        loop {
            while let Some(line) = heard.lines.pop_front() {
                if let Ok(value) = serde_json::from_slice(&line) {
                    return Ok(value);
                }
            }
            let left = deadline.checked_duration_since(Instant::now()).ok_or(AgentError::Silent)?;
            // Now and then, for the machine may end.
            let left = left.min(Duration::from_millis(500));
            heard = self.0.more.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
            if heard.lines.is_empty() && lock(&self.0.port).is_none() {
                return Err(AgentError::Absent);
            }
        }
    }
}

/// `{"return": ...}` or `{"error": {"desc": ...}}`.
fn judge(mut answer: Value) -> Result<Value, AgentError> {
    if let Some(value) = answer.get_mut("return") {
        return Ok(value.take());
    }
    let why = answer.pointer("/error/desc").and_then(Value::as_str).unwrap_or("it does not say why");
    Err(AgentError::Refused { why: why.chars().take(500).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_among_noise_and_bounded() {
        let mut link = AgentLink::default();
        link.write(b"half a line\xff{\"return\": 7}\nnoise\n{\"ret");
        link.write(b"urn\": {\"pid\": 4}}\n");
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!(judge(link.receive(soon).unwrap()).unwrap(), json!(7));
        // The noise is left aside.
        assert_eq!(judge(link.receive(soon).unwrap()).unwrap(), json!({ "pid": 4 }));
        for _ in 0..100 {
            link.write(&vec![b'x'; LINE_LIMIT / 10]);
        }
        assert!(lock(&link.0.heard).line.len() <= LINE_LIMIT);
        for _ in 0..100 {
            link.write(b"1\n");
        }
        assert!(lock(&link.0.heard).lines.len() <= LINES_LIMIT);
    }

    #[test]
    fn refusals_have_a_reason_and_no_agent_is_told() {
        let refused =
            judge(json!({ "error": { "class": "GenericError", "desc": "no such file" } })).unwrap_err();
        assert_eq!(refused.to_string(), "the guest agent refuses: no such file");
        let link = AgentLink::default();
        assert!(matches!(link.request(&json!({}), Duration::from_secs(1)), Err(AgentError::Absent)));
        assert!(matches!(link.receive(Instant::now()), Err(AgentError::Silent)));
    }
}
