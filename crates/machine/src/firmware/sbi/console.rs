//! Debug console extension (SBI 2.0, 12), and the console behind it and the legacy calls.

use super::{Answer, Call, Done, SbiError};
use isomer_core::Gpa;
use isomer_devices::backend::char::{CharInput, CharOutput, InputWaker};
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Input held for the guest, in bytes.
const INPUT_LEN: usize = 4096;
/// Most bytes one call moves: longer ones are done in part, which the specification allows.
const CALL_LEN_MAX: u64 = 64 << 10;
const CHUNK_LEN: usize = 4096;

/// The debug console of a machine. Clones share it.
#[derive(Clone)]
pub struct Console(Arc<Mutex<Ends>>);

struct Ends {
    output: Box<dyn CharOutput>,
    input: VecDeque<u8>,
    waker: Option<InputWaker>,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Console({} bytes to read)", self.lock().input.len())
    }
}

impl CharInput for Console {
    /// Takes what it has room for.
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut ends = self.lock();
        let taken = bytes.len().min(INPUT_LEN - ends.input.len());
        ends.input.extend(&bytes[..taken]);
        taken
    }
}

impl Console {
    pub(super) fn new(output: Box<dyn CharOutput>) -> Self {
        Self(Arc::new(Mutex::new(Ends { output, input: VecDeque::new(), waker: None })))
    }

    /// Whom to tell when the guest has read input and there is room again.
    pub fn set_waker(&self, waker: InputWaker) {
        self.lock().waker = Some(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all bytes, however long that takes.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.lock().output.write(bytes);
    }

    /// Writes what there is room for.
    fn offer(&self, bytes: &[u8]) -> usize {
        self.lock().output.offer(bytes).min(bytes.len())
    }

    /// Takes up to `len` bytes of input.
    pub(super) fn read(&self, len: usize) -> Vec<u8> {
        let mut ends = self.lock();
        let was_full = ends.input.len() == INPUT_LEN;
        let len = len.min(ends.input.len());
        let bytes: Vec<_> = ends.input.drain(..len).collect();
        if let Some(waker) = ends.waker.as_ref().filter(|_| was_full && len > 0) {
            waker.wake();
        }
        bytes
    }

    /// Puts bytes back in front that could not be delivered.
    fn unread(&self, bytes: &[u8]) {
        let mut ends = self.lock();
        bytes.iter().rev().for_each(|byte| ends.input.push_front(*byte));
    }
}

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    match call.function {
        0 => write(call),
        1 => read(call),
        2 => {
            call.shared.console.write(&[call.args[0] as u8]);
            Ok(Done::Value(0))
        }
        _ => Err(SbiError::NotSupported),
    }
}

/// The buffer the arguments name: all of it must be RAM, also what is beyond what one call moves.
fn buffer(call: &Call<'_>) -> Result<(Gpa, usize), SbiError> {
    let [len, low, high, ..] = call.args;
    if high != 0 || call.shared.memory.region(Gpa(low), len).is_none() {
        return Err(SbiError::InvalidParam);
    }
    Ok((Gpa(low), len.min(CALL_LEN_MAX) as usize))
}

fn write(call: &mut Call<'_>) -> Answer {
    let (start, len) = buffer(call)?;
    let mut chunk = [0; CHUNK_LEN];
    let mut done = 0;
    while done < len {
        let bytes = &mut chunk[..(len - done).min(CHUNK_LEN)];
        let at = start.wrapping_add(done as u64);
        call.shared.memory.read(at, bytes).map_err(|_| SbiError::Failed)?;
        let taken = call.shared.console.offer(bytes);
        done += taken;
        if taken < bytes.len() {
            break;
        }
    }
    Ok(Done::Value(done as u64))
}

fn read(call: &mut Call<'_>) -> Answer {
    let (start, len) = buffer(call)?;
    let bytes = call.shared.console.read(len);
    if call.shared.memory.write(start, &bytes).is_err() {
        call.shared.console.unread(&bytes);
        return Err(SbiError::Failed);
    }
    Ok(Done::Value(bytes.len() as u64))
}
