//! What every [`Device`] must do whatever it models: survive any access, save and restore without loss,
//! refuse states that are not its own. One line in a device's tests runs all of it: [`device_conformance!`].
//!
//! [`device_conformance!`]: crate::device_conformance

use isomer_core::{Device, DynDevice, State};
use std::{cell::Cell, fmt::Debug};

/// What the checks need to know about a device.
pub struct Options<D: Device> {
    /// Bytes in each register window, in region order.
    pub windows: &'static [u64],
    /// Reads depend on registers and earlier accesses alone (no shared guest memory, no host clock), so a
    /// restored device must answer exactly as the one it was saved from.
    pub self_contained: bool,
    /// Blanks what reset keeps on purpose (the contents of a flash), before states are compared.
    pub forget_kept: fn(&mut D::State),
}

impl<D: Device> Default for Options<D> {
    fn default() -> Self {
        Self { windows: &[0x1000], self_contained: false, forget_kept: |_| () }
    }
}

impl<D: Device> Debug for Options<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({}, windows {:x?})", D::NAME, self.windows)
    }
}

/// Makes a module of tests that hold a device to the contract of [`isomer_core::Device`].
///
/// `device_conformance!(module_name, constructor)`, or with [`Options`](crate::conformance::Options) as third
/// argument. The constructor expression is evaluated for every fresh device and must give equal ones.
#[macro_export]
macro_rules! device_conformance {
    ($name:ident, $make:expr) => {
        $crate::device_conformance!($name, $make, $crate::conformance::Options::default());
    };
    ($name:ident, $make:expr, $options:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn any_access_is_survived() {
                $crate::conformance::any_access_is_survived(|| $make, &$options);
            }
            #[test]
            fn a_restored_device_is_the_saved_one() {
                $crate::conformance::a_restored_device_is_the_saved_one(|| $make, &$options);
            }
            #[test]
            fn reset_is_power_on() {
                $crate::conformance::reset_is_power_on(|| $make, &$options);
            }
            #[test]
            fn foreign_and_truncated_states_are_refused() {
                $crate::conformance::foreign_and_truncated_states_are_refused(|| $make, &$options);
            }
            #[test]
            fn damaged_states_are_survived() {
                $crate::conformance::damaged_states_are_survived(|| $make, &$options);
            }
        }
    };
}

const SIZES: [usize; 4] = [1, 2, 4, 8];

/// Splitmix64: the same accesses in every run.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// One access.
#[derive(Clone, Copy, Debug)]
struct Access {
    region: usize,
    offset: u64,
    size: usize,
    write: Option<u64>,
}

thread_local! {
    static LAST: Cell<Option<Access>> = const { Cell::new(None) };
}

/// Names the access under way when a device panics.
struct Blame;

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while performing {:x?}", LAST.get());
        }
    }
}

fn perform<D: Device>(device: &mut D, access: Access) -> u64 {
    LAST.set(Some(access));
    let Access { region, offset, size, write } = access;
    if let Some(value) = write {
        Device::write(device, region, offset, size, value);
        return 0;
    }
    let value = Device::read(device, region, offset, size);
    assert!(size == 8 || value >> (8 * size) == 0, "{access:x?} read {value:#x}: more than {size} bytes");
    value
}

fn value_of(size: usize, random: &mut Random) -> u64 {
    let any = random.next();
    let value = match any % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => random.below(256),
        _ => any,
    };
    if size == 8 { value } else { value & ((1 << (8 * size)) - 1) }
}

/// An access that is likely to reach something, and now and then nothing.
fn any_access(windows: &[u64], random: &mut Random) -> Access {
    let beyond = u64::from(random.below(16) == 0);
    let region = random.below(windows.len() as u64 + beyond) as usize;
    let len = windows.get(region).copied().unwrap_or(0x1000);
    let size = SIZES[random.below(4) as usize];
    let near = match random.below(8) {
        0..=2 => random.below(0x40),
        3 => random.below(0x200),
        4 => random.below(len),
        // Register banks start at powers of two.
        5 => (1u64 << random.below(32)).wrapping_add(random.below(0x40)) % len.max(1),
        6 => len.wrapping_sub(16).wrapping_add(random.below(32)),
        _ => random.next() >> random.below(64),
    };
    let aligned = random.below(4) != 0;
    let offset = if aligned { near & !(size as u64 - 1) } else { near };
    let write = (random.below(2) == 0).then(|| value_of(size, random));
    Access { region, offset, size, write }
}

fn storm<D: Device>(device: &mut D, windows: &[u64], random: &mut Random, count: usize) {
    (0..count).for_each(|_| {
        perform(device, any_access(windows, random));
    });
}

fn saved<D: Device>(device: &D) -> State {
    DynDevice::save(device).expect("a device's own state can be encoded")
}

/// Every size at every low offset, at the window's end and at the end of the address space; then thousands of
/// fixed pseudo-random accesses with saves and restores in between.
pub fn any_access_is_survived<D: Device>(make: impl Fn() -> D, options: &Options<D>) {
    let _blame = Blame;
    let mut random = Random(1);
    let mut device = make();
    for region in 0..=options.windows.len() {
        let len = options.windows.get(region).copied().unwrap_or(0);
        let end = len.saturating_sub(16)..len.saturating_add(32);
        for offset in (0..0x300).chain(end).chain(u64::MAX - 16..=u64::MAX) {
            for size in SIZES {
                perform(&mut device, Access { region, offset, size, write: None });
                let write = Some(value_of(size, &mut random));
                perform(&mut device, Access { region, offset, size, write });
            }
        }
    }
    for _ in 0..8 {
        storm(&mut device, options.windows, &mut random, 500);
        device.quiesce();
        let state = Device::save(&device);
        Device::restore(&mut device, state).expect("a device takes its own state");
        device.resume();
    }
}

/// save -> restore into a fresh device -> save gives the same state, as values and as bytes; a self-contained
/// device then answers as the original does.
pub fn a_restored_device_is_the_saved_one<D: Device>(make: impl Fn() -> D, options: &Options<D>) {
    let _blame = Blame;
    for seed in 0..12 {
        let mut random = Random(seed);
        let mut original = make();
        storm(&mut original, options.windows, &mut random, 400 * seed as usize);
        original.quiesce();
        let mut copy = make();
        Device::restore(&mut copy, Device::save(&original)).expect("a fresh device takes a saved state");
        assert_eq!(Device::save(&copy), Device::save(&original));
        let mut copy = make();
        DynDevice::restore(&mut copy, &saved(&original)).expect("a fresh device takes a stored state");
        assert_eq!(saved(&copy), saved(&original));
        original.resume();
        copy.resume();
        for _ in 0..if options.self_contained { 500 } else { 0 } {
            let access = any_access(options.windows, &mut random);
            let (expected, found) = (perform(&mut original, access), perform(&mut copy, access));
            assert_eq!(found, expected, "{access:x?} on the restored device");
        }
    }
}

/// After reset, nothing of the past is left.
pub fn reset_is_power_on<D: Device>(make: impl Fn() -> D, options: &Options<D>) {
    let _blame = Blame;
    let state = |device: &D| {
        let mut state = Device::save(device);
        (options.forget_kept)(&mut state);
        state
    };
    let power_on = state(&make());
    for seed in 100..104 {
        let mut device = make();
        storm(&mut device, options.windows, &mut Random(seed), 2000);
        Device::reset(&mut device);
        assert_eq!(state(&device), power_on);
    }
}

/// A state of another device, of another version, or cut short changes nothing.
pub fn foreign_and_truncated_states_are_refused<D: Device>(make: impl Fn() -> D, options: &Options<D>) {
    let _blame = Blame;
    let mut device = make();
    let foreign = State { device: "another".into(), ..saved(&device) };
    let newer = State { version: D::VERSION + 1, ..saved(&device) };
    storm(&mut device, options.windows, &mut Random(7), 1000);
    device.quiesce();
    let before = saved(&device);
    assert!(DynDevice::restore(&mut device, &foreign).is_err(), "a foreign state was taken");
    assert!(DynDevice::restore(&mut device, &newer).is_err(), "another version's state was taken");
    let len = before.bytes.len();
    for cut in (0..len).step_by((len / 100).max(1)).chain(len.checked_sub(1)) {
        let short = State { bytes: before.bytes[..cut].to_vec(), ..before.clone() };
        assert!(DynDevice::restore(&mut device, &short).is_err(), "{cut} of {len} bytes were taken");
    }
    assert_eq!(saved(&device), before, "a refused state changed the device");
}

/// A damaged state is taken or refused, but the device neither panics nor changes when it refuses.
pub fn damaged_states_are_survived<D: Device>(make: impl Fn() -> D, options: &Options<D>) {
    let _blame = Blame;
    let mut random = Random(3);
    let mut device = make();
    storm(&mut device, options.windows, &mut random, 1000);
    let whole = saved(&device);
    for _ in 0..if whole.bytes.is_empty() { 0 } else { 200 } {
        device.quiesce();
        let mut damaged = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(damaged.bytes.len() as u64) as usize;
            damaged.bytes[at] = random.next() as u8;
        }
        let before = saved(&device);
        if DynDevice::restore(&mut device, &damaged).is_err() {
            assert_eq!(saved(&device), before, "a refused state changed the device");
        }
        device.resume();
        storm(&mut device, options.windows, &mut random, 50);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_core::StateError;

    /// Two registers; `FORGETS` loses the second on restore, `KEEPS` keeps it over reset.
    #[derive(Default)]
    struct Pair<const FORGETS: bool, const KEEPS: bool>([u64; 2]);

    impl<const FORGETS: bool, const KEEPS: bool> Device for Pair<FORGETS, KEEPS> {
        const NAME: &'static str = "pair";
        const VERSION: u32 = 1;
        type State = [u64; 2];

        fn read(&mut self, _: usize, offset: u64, size: usize) -> u64 {
            let value = self.0.get((offset / 8) as usize).copied().unwrap_or(0);
            if size == 8 { value } else { value & ((1 << (8 * size)) - 1) }
        }
        fn write(&mut self, _: usize, offset: u64, _: usize, value: u64) {
            if let Some(register) = self.0.get_mut((offset / 8) as usize) {
                *register = value;
            }
        }
        fn reset(&mut self) {
            self.0 = [0, if KEEPS { self.0[1] } else { 0 }];
        }
        fn save(&self) -> [u64; 2] {
            self.0
        }
        fn restore(&mut self, state: [u64; 2]) -> Result<(), StateError> {
            self.0 = [state[0], if FORGETS { 0 } else { state[1] }];
            Ok(())
        }
    }

    device_conformance!(
        pair,
        Pair::<false, false>::default(),
        Options { windows: &[16], self_contained: true, ..Options::default() }
    );

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_lossy_restore_is_noticed() {
        a_restored_device_is_the_saved_one(Pair::<true, false>::default, &Options::default());
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_lossy_reset_is_noticed() {
        reset_is_power_on(Pair::<false, true>::default, &Options::default());
    }
}
