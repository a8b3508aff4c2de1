//! Waiting: what wakes a hart, what does not, and that it costs nothing.

use crate::{asm::*, machine::*};
use isomer_core::VcpuSignal;
use isomer_engine::{Control, EngineKind, Exit, FirmwareCx, FirmwareResult, Request, SoftVcpu};
use isomer_riscv64::{Cpu, Riscv64, trap::irq};
use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

const INTERPRETER: EngineKind = EngineKind::Interpreter;
/// The machine timer's input line, here anybody's.
const LINE: u32 = 7;
/// The time before something wakes a sleeper.
const NAP: Duration = Duration::from_millis(150);
/// What a sleep may cost in CPU time.
const CHEAP: Duration = Duration::from_millis(30);
/// A lost wake-up costs a second, the engine's longest sleep: less than that, and none was lost.
const PROMPT: Duration = Duration::from_millis(900);

/// The calling thread's CPU time.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// Runs a hart on its own thread to its end; gives the hart, why it ended, and what it cost.
fn spawn(mut hart: SoftVcpu<Riscv64>) -> JoinHandle<(SoftVcpu<Riscv64>, Exit, Duration)> {
    std::thread::spawn(move || {
        let start = cpu_time();
        let exit = hart.run(None);
        (hart, exit, cpu_time() - start)
    })
}

/// Waits for a hart that ends by itself.
fn ended(
    machine: &Machine,
    thread: JoinHandle<(SoftVcpu<Riscv64>, Exit, Duration)>,
) -> (SoftVcpu<Riscv64>, Exit, Duration) {
    let start = Instant::now();
    while !thread.is_finished() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_micros(200));
    }
    let hung = !thread.is_finished();
    machine.stop();
    let ended = thread.join().unwrap();
    assert!(!hung, "hung: {:?}", ended.0.stats());
    ended
}

fn signal(machine: &Machine, hart: usize) -> Arc<VcpuSignal> {
    machine.group.peers()[hart].signal().clone()
}

/// Enables the machine timer interrupt, to wake up but not to take, and waits.
fn wait_for_line(p: &mut Asm) {
    p.li(T0, irq::MTI).op(csrrw(ZERO, csr::MIE, T0)).op(WFI);
}

#[test]
fn a_line_wakes_a_sleeper_that_costs_nothing() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut p = Asm::new(CODE);
        wait_for_line(&mut p);
        p.li(A0, 5);
        finish(&mut p, A0);
        machine.write(CODE, &p.finish());
        let thread = spawn(machine.hart(0, engine, CODE));
        std::thread::sleep(NAP);
        assert!(!thread.is_finished());
        let start = Instant::now();
        // Another line does not.
        signal(&machine, 0).set_line(3, true);
        std::thread::sleep(NAP);
        assert!(!thread.is_finished());
        signal(&machine, 0).set_line(LINE, true);
        let (hart, exit, cost) = ended(&machine, thread);
        assert_eq!(exit, Exit::Stopped);
        assert!(start.elapsed() < NAP + PROMPT, "{:?}", start.elapsed());
        assert!(cost < CHEAP && hart.stats().sleeps <= 4, "{cost:?} {:?}", hart.stats());
    }
}

/// A line that rises at any moment around `wfi`, thousands of times.
#[test]
fn no_rise_is_lost_around_the_instruction() {
    const ROUNDS: u64 = 2000;
    let machine = Machine::new(1);
    let mut p = Asm::new(CODE);
    // Counts, waits, counts, waits for the line to fall.
    p.li(A1, DATA).li(A2, ROUNDS).li(A0, 0).li(T0, irq::MTI).op(csrrw(ZERO, csr::MIE, T0));
    let round = p.mark();
    p.ops(&[addi(A0, A0, 1), sd(A0, 0, A1), WFI, sd(A0, 8, A1)]);
    let high = p.mark();
    p.ops(&[csrr(T1, 0x344), and(T1, T1, T0)]).branch(bne, T1, ZERO, high).branch(bne, A0, A2, round);
    finish(&mut p, A0);
    machine.write(CODE, &p.finish());
    let thread = machine.spawn(machine.hart(0, INTERPRETER, CODE));
    let signal = signal(&machine, 0);
    let wait = |at: u64, value: u64| {
        let start = Instant::now();
        while machine.read_u64(at) < value {
            assert!(start.elapsed() < PROMPT, "hart and line are stuck in round {value}");
            std::hint::spin_loop();
        }
    };
    for round in 1..=ROUNDS {
        wait(DATA, round);
        // From right away to long after it is asleep.
        (0..(round % 64) * (round % 64)).for_each(|_| std::hint::spin_loop());
        signal.set_line(LINE, true);
        wait(DATA + 8, round);
        signal.set_line(LINE, false);
    }
    machine.join(vec![thread]);
}

/// A program in supervisor mode that sets its timer to a3 ticks from now, waits until it is due, and ends with the ticks
/// it took.
fn timer_program() -> Asm {
    let mut p = Asm::new(CODE);
    p.li(T0, irq::STI).op(csrrw(ZERO, csr::SIE, T0));
    p.ops(&[csrr(A1, csr::TIME), add(A2, A1, A3), csrrw(ZERO, csr::STIMECMP, A2), WFI]);
    p.ops(&[csrr(A2, csr::TIME), sub(A2, A2, A1)]);
    finish(&mut p, A2);
    p
}

#[test]
fn a_timer_wakes_its_hart_when_it_is_due() {
    let ticks = |time: Duration| time.as_nanos() as u64 / 100;
    for engine in ENGINES {
        // Far enough to sleep, at once, and in the past.
        for (after, least) in [(ticks(NAP), ticks(NAP)), (0, 0), (u64::MAX, 0)] {
            let machine = Machine::new(1);
            machine.write(CODE, &timer_program().finish());
            let mut hart = machine.hart(0, engine, CODE);
            enter_supervisor(hart.cpu_mut());
            hart.cpu_mut().x[A3 as usize] = after;
            let (hart, exit, cost) = ended(&machine, spawn(hart));
            let took = machine.results.lock().unwrap()[0].unwrap();
            assert_eq!(exit, Exit::Stopped);
            assert!(took >= least && took < least + ticks(PROMPT), "{engine:?} {took} of {least} ticks");
            assert!(cost < CHEAP && hart.stats().sleeps <= 4, "{cost:?} {:?}", hart.stats());
        }
    }
}

#[test]
fn a_hart_without_a_deadline_sleeps_until_it_is_asked() {
    let machine = Machine::new(1);
    machine.write(CODE, &timer_program().finish());
    let mut hart = machine.hart(0, INTERPRETER, CODE);
    enter_supervisor(hart.cpu_mut());
    // As far as the counter goes, from a clock that has just started.
    hart.cpu_mut().x[A3 as usize] = u64::MAX >> 1;
    let thread = spawn(hart);
    std::thread::sleep(NAP);
    assert!(!thread.is_finished());
    let peer = &machine.group.peers()[0];
    peer.post(Request::Call(Box::new(|_: &Riscv64, cpu: &mut Cpu| {
        (cpu.mie, cpu.mip) = (cpu.mie | irq::SSI, cpu.mip | irq::SSI);
    })));
    let start = Instant::now();
    let (hart, _, cost) = ended(&machine, thread);
    assert!(start.elapsed() < PROMPT && cost < CHEAP && hart.stats().sleeps <= 3, "{:?}", hart.stats());
}

/// Harts that are off cost nothing, start when asked, and can do so again and again.
#[test]
fn a_hart_goes_off_and_on() {
    const ROUNDS: u64 = 500;
    let machine = Machine::new(1);
    let mut p = Asm::new(CODE);
    // Counts, then powers itself off, by a call that never returns.
    p.li(A1, DATA).ops(&[ld(A0, 0, A1), addi(A0, A0, 1), sd(A0, 0, A1), ECALL, j(0)]);
    machine.write(CODE, &p.finish());
    let firmware = Calls(|_: FirmwareCx<'_, Riscv64>| FirmwareResult::PowerOff);
    let mut hart = machine.hart_off(0, INTERPRETER, Some(Box::new(firmware)));
    enter_supervisor(hart.cpu_mut());
    let thread = spawn(hart);
    std::thread::sleep(NAP);
    let peer = machine.group.peers()[0].clone();
    assert!(!peer.is_powered() && machine.read_u64(DATA) == 0);
    for round in 0..ROUNDS {
        let start = Instant::now();
        while !peer.claim_power_on() {
            assert!(start.elapsed() < PROMPT, "it does not go off in round {round}");
            std::hint::spin_loop();
        }
        assert!(!peer.claim_power_on(), "it is for one to power it on");
        assert_eq!(machine.read_u64(DATA), round);
        peer.post(Request::PowerOn(Box::new(|_: &Riscv64, cpu: &mut Cpu| cpu.header.pc = CODE)));
    }
    let start = Instant::now();
    while peer.is_powered() && start.elapsed() < PROMPT {}
    peer.set_control(Control::Stop);
    let (hart, exit, cost) = ended(&machine, thread);
    assert_eq!((exit, machine.read_u64(DATA)), (Exit::Stopped, ROUNDS));
    assert!(cost < CHEAP * 10, "{cost:?} {:?}", hart.stats());
}

/// Changed code concerns nobody who sleeps: they look when they wake.
#[test]
fn changed_code_wakes_nobody() {
    let machine = Machine::new(2);
    let mut p = Asm::new(CODE);
    wait_for_line(&mut p);
    finish_hart(&mut p, 1, A0);
    machine.write(CODE, &p.finish());
    let sleeper = spawn(machine.hart(1, INTERPRETER, CODE));
    std::thread::sleep(Duration::from_millis(20));
    let mut p = Asm::new(DATA);
    p.li(A2, DATA + 0x800).li(A3, 3000);
    let round = p.mark();
    p.ops(&[sd(A3, 0, A2), addi(A3, A3, -1)]).branch(bne, A3, ZERO, round);
    finish(&mut p, A3);
    machine.write(DATA, &p.finish());
    let (worker, _) = machine.run_hart(machine.hart(0, INTERPRETER, DATA));
    assert!(worker.stats().blocks > 3000);
    signal(&machine, 1).set_line(LINE, true);
    let (sleeper, _, cost) = ended(&machine, sleeper);
    assert!(sleeper.stats().sleeps < 10 && cost < CHEAP, "{cost:?} {:?}", sleeper.stats());
}

/// Requests that give a sleeper nothing to run leave it asleep, count as done, and do not pile up.
#[test]
fn requests_that_can_wait_do() {
    let machine = Machine::new(1);
    let mut p = Asm::new(CODE);
    wait_for_line(&mut p);
    finish(&mut p, A0);
    machine.write(CODE, &p.finish());
    let thread = spawn(machine.hart(0, INTERPRETER, CODE));
    std::thread::sleep(NAP);
    let peer = &machine.group.peers()[0];
    for n in 0..100_000 {
        let ticket = match n % 3 {
            0 => peer.post(Request::SyncCode),
            1 => peer.post(Request::FlushTlb(isomer_ir::guest::TlbFlush::default())),
            _ => peer.post(Request::Protect(isomer_core::Gpa(RAM))),
        };
        assert!(peer.is_done(ticket));
    }
    signal(&machine, 0).set_line(LINE, true);
    let (hart, exit, cost) = ended(&machine, thread);
    assert_eq!(exit, Exit::Stopped);
    assert!(hart.stats().sleeps <= 3 && cost < CHEAP, "{cost:?} {:?}", hart.stats());
}

/// Pausing works wherever the hart is, asleep too, and it goes on as if nothing had been.
#[test]
fn a_paused_hart_goes_on_where_it_was() {
    const ROUNDS: usize = 200;
    let machine = Machine::new(1);
    let mut p = Asm::new(CODE);
    // Counts while the line is low, sleeps a little now and then.
    p.li(T0, irq::STI).op(csrrw(ZERO, csr::SIE, T0)).li(A1, DATA).li(A3, 500).li(A5, 1 << 9);
    let (round, go_on) = (p.mark(), p.label());
    p.ops(&[addi(A0, A0, 1), sd(A0, 0, A1), ld(A2, 8, A1), addi(A4, A4, 1)]).branch(bne, A4, A5, go_on);
    p.ops(&[mv(A4, ZERO), csrr(T1, csr::TIME), add(T1, T1, A3), csrrw(ZERO, csr::STIMECMP, T1), WFI]);
    p.bind(go_on).branch(beq, A2, ZERO, round);
    finish(&mut p, A0);
    machine.write(CODE, &p.finish());
    let mut hart = machine.hart(0, INTERPRETER, CODE);
    enter_supervisor(hart.cpu_mut());
    let peer = machine.group.peers()[0].clone();
    let mut thread = machine.spawn(hart);
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_micros(20 * (round as u64 % 20)));
        peer.set_control(Control::Pause);
        let (hart, exit) = thread.join().unwrap();
        assert_eq!(exit, Exit::Paused);
        // Stored or about to be.
        let (counted, stored) = (hart.cpu().x[A0 as usize], machine.read_u64(DATA));
        assert!(counted == stored, "{counted} {stored}");
        peer.set_control(Control::Run);
        thread = machine.spawn(hart);
    }
    machine.write_u64(DATA + 8, 1);
    let (hart, exit) = machine.join(vec![thread]).pop().unwrap();
    assert_eq!((exit, hart.cpu().x[A0 as usize]), (Exit::Stopped, machine.read_u64(DATA)));
}
