//! Our side: the program on a CPU in user mode, without a kernel.

use super::{image::Image, record, subject::Subject};
use crate::suites::bare::mixture;
use anyhow::{Context, Result, bail};
use isomer_core::{Bus, Clock, Gpa, GuestMemory};
use isomer_engine::{EngineKind, Exit, Group, Jit, SoftVcpu, Trace, VcpuConfig};
use isomer_ir::Guest;
use std::sync::Arc;

/// Instructions between looks at whether it is done.
const SLICE: u64 = 20_000;
/// More instructions than any sequence takes, harness included.
const LIMIT_A_RECORD: u64 = 20_000;

/// What a run gives.
pub(crate) struct Outcome {
    pub(crate) records: Vec<u8>,
    /// Instructions, harness included.
    pub(crate) insns: u64,
}

/// Runs a program to its end.
///
/// # Errors
/// When it does not end, or the host lacks memory.
pub(crate) fn run<S: Subject>(image: &Image, subject: &S, engine: EngineKind) -> Result<Outcome> {
    let guest = subject.guest();
    let (base, len) = image.memory();
    let memory = GuestMemory::new(&[(Gpa(base), len)])?;
    for (address, bytes) in image.segments() {
        memory.write(Gpa(address), bytes)?;
    }
    let group = Group::new(1);
    let mut vcpu = SoftVcpu::new(VcpuConfig {
        guest: guest.clone(),
        cpu: subject.bare_cpu(image),
        index: 0,
        group,
        memory: memory.clone(),
        mmio: Arc::new(Bus::default()),
        clock: Arc::new(Clock::host()),
        firmware: None,
        trace: Trace::default(),
        engine,
        jit: Jit::for_engine(engine, guest)?,
        code_limit_bytes: 4 << 20,
    });
    vcpu.power_on();
    vcpu.mix(image.segments().iter().fold(0, |seed, (_, bytes)| seed ^ mixture(bytes)));
    let read = |at: u64| -> Result<u64> {
        let mut value = [0; 8];
        memory.read(Gpa(at), &mut value)?;
        Ok(u64::from_le_bytes(value))
    };
    let [current, done, insns] = Image::progress();
    let (at, len) = image.records();
    let limit = (len / record::BYTES) as u64 * LIMIT_A_RECORD;
    while read(done)? == 0 {
        let exit = vcpu.run(Some(SLICE));
        if matches!(exit, Exit::Wedged { .. }) || vcpu.stats().insns > limit {
            let number = image.record_at(read(current)?);
            let state = guest.describe(vcpu.cpu());
            bail!("{engine:?} does not come to the end of record {number}\n{state}");
        }
    }
    let mut records = vec![0; len];
    memory.read(Gpa(at), &mut records).context("the records are not in memory")?;
    Ok(Outcome { records, insns: read(insns)? })
}
