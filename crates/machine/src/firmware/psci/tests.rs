//! Every function on a machine made by hand.

use super::*;
use proptest::prelude::*;

const CODE: u64 = 0x4000_0000;

const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;

/// Four CPUs, two a cluster.
#[derive(Default)]
struct Bench {
    on: [bool; 4],
    started: Vec<(usize, Gpa, u64)>,
    events: Vec<PowerEvent>,
}

impl Machine for Bench {
    fn cpus(&self) -> usize {
        self.on.len()
    }
    fn affinity(&self, cpu: usize) -> u64 {
        1 << 31 | (((cpu / 2) << 8) | (cpu % 2)) as u64
    }
    fn is_on(&self, cpu: usize) -> bool {
        self.on[cpu]
    }
    fn start(&mut self, cpu: usize, entry: Gpa, context: u64) -> bool {
        let was_off = !std::mem::replace(&mut self.on[cpu], true);
        if was_off {
            self.started.push((cpu, entry, context));
        }
        was_off
    }
    fn is_code(&self, entry: Gpa) -> bool {
        entry.0 >= CODE
    }
    fn power(&mut self, event: PowerEvent) {
        self.events.push(event);
    }
    fn entropy(&mut self) -> u64 {
        0x8123_4567_89ab_cdef
    }
}

fn bench() -> Bench {
    Bench { on: [true, false, false, false], ..Bench::default() }
}

/// Calls, and expects a value.
fn get(bench: &mut Bench, x: [u64; 4]) -> i64 {
    match call(bench, 0, x) {
        Done::Return([Some(x0), None, None, None]) => x0 as i64,
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_and_features() {
    let mut bench = bench();
    let mut ask = |id: u64, arg: u64| get(&mut bench, [id, arg, 0, 0]);
    assert_eq!(ask(0x8400_0000, 0), 0x1_0001);
    assert_eq!(ask(0x8000_0000, 0), 0x1_0002);
    assert_eq!(ask(0x8400_0050, 0), 0x1_0000);
    assert_eq!(ask(0x8400_0006, 0), 2);
    for there in
        [0x8400_0001u64, 0xc400_0001, 0x8400_0002, CPU_ON, 0x8400_0008, 0x8400_000a, 0xc400_0012, 0x8000_0000]
    {
        assert_eq!(ask(0x8400_000a, there), 0, "{there:#x}");
    }
    for absent in [0x8400_0005u64, 0xc400_0002, 0x8400_0007, 0x8400_000e, 0x8400_0050, 0x8000_0001, 0] {
        assert_eq!(ask(0x8400_000a, absent), NOT_SUPPORTED, "{absent:#x}");
    }
    assert_eq!((ask(0x8000_0001, 0x8000_8000), ask(0x8000_0001, 0x8000_0002)), (1, NOT_SUPPORTED));
    assert_eq!((ask(0x8400_0051, 0xc400_0053), ask(0x8400_0051, 0xc400_0052)), (0, NOT_SUPPORTED));
    assert_eq!((ask(0xc400_0000, 0), ask(0xdead_beef, 0)), (NOT_SUPPORTED, NOT_SUPPORTED));
}

#[test]
fn cpus_are_started_once() {
    let mut bench = bench();
    assert_eq!(get(&mut bench, [CPU_ON, 0x101, CODE, 7]), 0);
    assert_eq!(bench.started, [(3, Gpa(CODE), 7)]);
    assert_eq!(get(&mut bench, [CPU_ON, 0x101, CODE, 7]), -4);
    assert_eq!(get(&mut bench, [CPU_ON, 0x102, CODE, 0]), INVALID_PARAMETERS);
    assert_eq!(get(&mut bench, [CPU_ON, 0x8000_0001, CODE, 0]), INVALID_PARAMETERS, "not an affinity");
    assert_eq!(get(&mut bench, [CPU_ON, 1, 0, 0]), -9);
    assert_eq!(get(&mut bench, [CPU_ON, 1, CODE + 2, 0]), -9);
    // The 32-bit form has 32-bit arguments.
    assert_eq!(get(&mut bench, [0x8400_0003, 0xff00_0000_0001, CODE, 1 << 32 | 9]), 0);
    assert_eq!(bench.started[1..], [(1, Gpa(CODE), 9)]);
}

#[test]
fn affinities_are_on_or_off() {
    let mut bench = bench();
    let mut ask = |target: u64, level: u64| get(&mut bench, [AFFINITY_INFO, target, level, 0]);
    assert_eq!([ask(0, 0), ask(1, 0), ask(0x100, 0)], [0, 1, 1]);
    assert_eq!([ask(1, 1), ask(0x100, 1), ask(0x100, 2)], [0, 1, 0]);
    assert_eq!([ask(2, 0), ask(0, 4), ask(1 << 24, 0)], [INVALID_PARAMETERS; 3]);
}

#[test]
fn power_ends_the_machine() {
    let mut bench = bench();
    for (id, arg) in [(0x8400_0008, 0), (0x8400_0009, 0), (0xc400_0012, 0)] {
        assert_eq!(call(&mut bench, 0, [id, arg, 0, 0]), Done::Stop);
    }
    assert_eq!(bench.events, [PowerEvent::Off, PowerEvent::Reset, PowerEvent::Reset]);
    assert_eq!(get(&mut bench, [0xc400_0012, 1, 0, 0]), INVALID_PARAMETERS);
    assert_eq!(get(&mut bench, [0xc400_0012, 0x8000_0000, 0, 0]), NOT_SUPPORTED);
    assert_eq!(call(&mut bench, 0, [0x8400_0002, 0, 0, 0]), Done::Off);
    assert_eq!(call(&mut bench, 0, [0xc400_0001, 0x1_0000, CODE, 0]), Done::Wait);
    assert_eq!(get(&mut bench, [0xc400_0001, 1 << 31, CODE, 0]), INVALID_PARAMETERS);
}

#[test]
fn entropy_comes_in_the_width_asked_for() {
    let mut bench = bench();
    let mut ask = |id: u64, bits: u64| match call(&mut bench, 0, [id, bits, 0, 0]) {
        Done::Return([Some(0), Some(high), Some(middle), Some(low)]) => Ok([high, middle, low]),
        Done::Return([Some(error), None, None, None]) => Err(error as i64),
        other => panic!("{other:?}"),
    };
    let all = 0x8123_4567_89ab_cdef;
    assert_eq!(ask(0xc400_0053, 192), Ok([all; 3]));
    assert_eq!(ask(0xc400_0053, 68), Ok([0, 8, all]));
    assert_eq!(ask(0x8400_0053, 33), Ok([0, 1, 0x8123_4567]));
    assert_eq!(ask(0x8400_0053, 96), Ok([0x8123_4567; 3]));
    for (id, bits) in [(0xc400_0053, 0), (0xc400_0053, 193), (0x8400_0053, 97)] {
        assert_eq!(ask(id, bits), Err(INVALID_PARAMETERS));
    }
}

proptest! {
    /// Any call is answered, and starts CPUs only where there is code.
    #[test]
    fn any_call_is_answered(low in 0u64..0x60, high in prop::sample::select(vec![0x8000_0000u64, 0x8400_0000, 0xc400_0000, 0]), args: [u64; 3]) {
        let mut bench = bench();
        let done = call(&mut bench, 0, [high | low, args[0], args[1], args[2]]);
        prop_assert!(!matches!(done, Done::Return([None, ..])));
        prop_assert!(bench.started.iter().all(|(_, entry, _)| entry.0 >= CODE));
    }
}
