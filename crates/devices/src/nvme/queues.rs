//! Submission and completion queues (NVMe 1.4, 4.1), and the interrupts of the latter.

use super::spec::{COMMAND_BYTES, COMPLETION_BYTES, Command, Status};
use crate::pci::{Intx, Msix};
use isomer_core::{Gpa, GuestMemory};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// I/O queues of either kind.
pub(super) const MAX_IO_QUEUES: u16 = 16;
/// Most entries of a queue.
pub(super) const MAX_ENTRIES: u32 = 1024;

/// A ring in guest memory, wholly in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    pub(super) base: u64,
    /// Entries, 2 to [`MAX_ENTRIES`].
    pub(super) entries: u16,
}

impl Ring {
    /// A ring of `entries`, if it can be one.
    pub(super) fn new(
        memory: &GuestMemory,
        base: u64,
        entries: u32,
        entry_bytes: u64,
    ) -> Result<Self, Status> {
        if !(2..=MAX_ENTRIES).contains(&entries) {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        if !base.is_multiple_of(super::prp::PAGE) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        if !memory.is_ram(Gpa(base), (u64::from(entries) * entry_bytes) as usize) {
            return Err(Status::INVALID_FIELD);
        }
        Ok(Self { base, entries: entries as u16 })
    }

    fn after(&self, at: u16) -> u16 {
        if at + 1 == self.entries { 0 } else { at + 1 }
    }
}

/// A submission queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Submission {
    pub(super) ring: Ring,
    pub(super) completion: u16,
    head: u16,
    tail: u16,
    /// Commands taken and not completed; event requests do not count.
    outstanding: u16,
    /// It is being deleted: no command is taken any more.
    closing: bool,
}

/// A completion queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Completion {
    pub(super) ring: Ring,
    pub(super) vector: u16,
    pub(super) interrupts: bool,
    head: u16,
    tail: u16,
    phase: bool,
    /// Entries promised to commands that were taken.
    promised: u16,
}

impl Completion {
    fn used(&self) -> u16 {
        let entries = self.ring.entries;
        (self.tail + entries - self.head) % entries
    }

    fn has_room(&self) -> bool {
        u32::from(self.used()) + u32::from(self.promised) + 1 < u32::from(self.ring.entries)
    }
}

/// All queues; number 0 is the administrator's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queues {
    submission: Vec<Option<Submission>>,
    completion: Vec<Option<Completion>>,
    /// Where the next search for a command starts.
    turn: u16,
    /// INTMS: the pin is masked.
    pub(super) masked: bool,
}

/// A command in hand.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) queue: u16,
    pub(super) command: Command,
}

impl Queues {
    /// No queues but room for them.
    pub(super) fn none() -> Self {
        let count = usize::from(MAX_IO_QUEUES) + 1;
        Self { submission: vec![None; count], completion: vec![None; count], turn: 0, masked: false }
    }

    pub(super) fn add_completion(
        &mut self,
        id: u16,
        ring: Ring,
        vector: u16,
        interrupts: bool,
    ) -> Result<(), Status> {
        match self.completion.get_mut(usize::from(id)) {
            Some(place @ None) => {
                let queue =
                    Completion { ring, vector, interrupts, head: 0, tail: 0, phase: true, promised: 0 };
                *place = Some(queue);
                Ok(())
            }
            _ => Err(Status::INVALID_QUEUE),
        }
    }

    pub(super) fn add_submission(&mut self, id: u16, ring: Ring, completion: u16) -> Result<(), Status> {
        let there = self.completion.get(usize::from(completion)).is_some_and(Option::is_some);
        // The administrator's completions are its own.
        if !there || (completion == 0) != (id == 0) {
            return Err(Status::INVALID_CQ);
        }
        match self.submission.get_mut(usize::from(id)) {
            Some(place @ None) => {
                *place =
                    Some(Submission { ring, completion, head: 0, tail: 0, outstanding: 0, closing: false });
                Ok(())
            }
            _ => Err(Status::INVALID_QUEUE),
        }
    }

    /// Takes no more commands from I/O queue `id`. `Ok(false)`: some are still in hand.
    pub(super) fn close_submission(&mut self, id: u16) -> Result<bool, Status> {
        match self.submission.get_mut(usize::from(id)) {
            Some(place @ Some(_)) if id != 0 => {
                if let Some(queue) = place {
                    queue.closing = true;
                    if queue.outstanding > 0 {
                        return Ok(false);
                    }
                }
                *place = None;
                Ok(true)
            }
            _ => Err(Status::INVALID_QUEUE),
        }
    }

    pub(super) fn remove_completion(&mut self, id: u16) -> Result<(), Status> {
        let used = self.submission.iter().flatten().any(|queue| queue.completion == id);
        match self.completion.get_mut(usize::from(id)) {
            Some(place @ Some(_)) if id != 0 => {
                if used {
                    return Err(Status::INVALID_QUEUE_DELETION);
                }
                *place = None;
                Ok(())
            }
            _ => Err(Status::INVALID_QUEUE),
        }
    }

    /// The driver wrote a doorbell. Values and queues that do not exist are ignored.
    pub(super) fn ring(&mut self, id: u16, completion: bool, value: u32) {
        let id = usize::from(id);
        if completion {
            if let Some(Some(queue)) = self.completion.get_mut(id)
                && value < u32::from(queue.ring.entries)
                // Only what was posted can be taken.
                && (value as u16 + queue.ring.entries - queue.head) % queue.ring.entries <= queue.used()
            {
                queue.head = value as u16;
            }
        } else if let Some(Some(queue)) = self.submission.get_mut(id)
            && value < u32::from(queue.ring.entries)
        {
            queue.tail = value as u16;
        }
    }

    /// Is there a command that can be answered?
    pub(super) fn has_work(&self) -> bool {
        self.submission.iter().flatten().any(|queue| {
            let answers = self.completion.get(usize::from(queue.completion));
            let room = answers.is_some_and(|answers| answers.as_ref().is_some_and(Completion::has_room));
            room && !queue.closing && queue.head != queue.tail
        })
    }

    /// The next command that can be answered, from the queues by turns.
    pub(super) fn take(&mut self, memory: &GuestMemory) -> Option<Taken> {
        let count = self.submission.len() as u16;
        for step in 0..count {
            let id = (self.turn + step) % count;
            let Some(Some(queue)) = self.submission.get_mut(usize::from(id)) else { continue };
            let Some(Some(answers)) = self.completion.get_mut(usize::from(queue.completion)) else {
                continue;
            };
            if queue.closing || queue.head == queue.tail || !answers.has_room() {
                continue;
            }
            let mut raw = [0; COMMAND_BYTES as usize];
            let at = queue.ring.base + u64::from(queue.head) * COMMAND_BYTES;
            // The ring is RAM, which does not go away.
            memory.read(Gpa(at), &mut raw).ok()?;
            queue.head = queue.ring.after(queue.head);
            queue.outstanding += 1;
            answers.promised += 1;
            self.turn = (id + 1) % count;
            return Some(Taken { queue: id, command: Command::new(&raw) });
        }
        None
    }

    /// A command that will be answered when there is something to tell is not in hand any more.
    pub(super) fn hold(&mut self, id: u16) {
        if let Some(Some(queue)) = self.submission.get_mut(usize::from(id)) {
            queue.outstanding = queue.outstanding.saturating_sub(1);
            if let Some(Some(answers)) = self.completion.get_mut(usize::from(queue.completion)) {
                answers.promised = answers.promised.saturating_sub(1);
            }
        }
    }

    /// Answers a command that was taken; returns the vector to signal.
    pub(super) fn complete(
        &mut self,
        memory: &GuestMemory,
        taken: &Taken,
        status: Status,
        result: u32,
    ) -> Option<u16> {
        let queue = self.submission.get_mut(usize::from(taken.queue))?.as_mut()?;
        queue.outstanding = queue.outstanding.saturating_sub(1);
        let answers = self.completion.get_mut(usize::from(queue.completion))?.as_mut()?;
        answers.promised = answers.promised.saturating_sub(1);
        let words = [
            result,
            0,
            u32::from(queue.head) | u32::from(taken.queue) << 16,
            u32::from(taken.command.id()) | u32::from(answers.phase) << 16 | u32::from(status.0) << 17,
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let at = answers.ring.base + u64::from(answers.tail) * COMPLETION_BYTES;
        // The phase bit comes last: a driver that polls finds the rest there.
        let _ = memory.write(Gpa(at), &bytes[..12]);
        let _ = memory.write(Gpa(at + 12), &bytes[12..]);
        answers.tail = answers.ring.after(answers.tail);
        answers.phase ^= answers.tail == 0;
        answers.interrupts.then_some(answers.vector)
    }

    /// Drives the pin: it is up while a queue that interrupts has answers nobody took.
    pub(super) fn drive(&self, intx: &Intx) {
        let waiting = self.completion.iter().flatten().any(|queue| queue.interrupts && queue.used() > 0);
        intx.set(waiting && !self.masked);
    }

    /// Tells the driver, by message or pin.
    pub(super) fn interrupt(&self, vector: u16, msix: Option<&Arc<Msix>>, intx: &Intx) {
        if let Some(msix) = msix.filter(|msix| msix.is_enabled()) {
            msix.signal(vector);
        }
        self.drive(intx);
    }

    /// Could queues in `memory` have saved this, with nothing in hand?
    pub(super) fn is_plausible(&self, memory: &GuestMemory, vectors: u16) -> bool {
        let count = usize::from(MAX_IO_QUEUES) + 1;
        let ring_fits =
            |ring: &Ring, bytes| Ring::new(memory, ring.base, ring.entries.into(), bytes) == Ok(*ring);
        let submission_fits = |queue: &Submission| {
            ring_fits(&queue.ring, COMMAND_BYTES)
                && queue.head < queue.ring.entries
                && queue.tail < queue.ring.entries
                && queue.outstanding == 0
                && !queue.closing
                && self.completion.get(usize::from(queue.completion)).is_some_and(Option::is_some)
        };
        let completion_fits = |queue: &Completion| {
            ring_fits(&queue.ring, COMPLETION_BYTES)
                && queue.head < queue.ring.entries
                && queue.tail < queue.ring.entries
                && queue.promised == 0
                && queue.vector < vectors
        };
        self.submission.len() == count
            && self.completion.len() == count
            && usize::from(self.turn) < count
            && self.submission.iter().flatten().all(submission_fits)
            && self.completion.iter().flatten().all(completion_fits)
    }
}
