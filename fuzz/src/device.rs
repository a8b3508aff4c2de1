//! Drives any [`Device`] with a stream of accesses, saves, restores and resets, and holds it to the trait's contract.

use crate::input::Input;
use isomer_core::{Device, DynDevice};

/// Where a device's registers are.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes in each register window, in region order.
    pub windows: &'static [u64],
    /// Offsets that registers are at or near, where that is not the start of the window.
    pub landmarks: &'static [u64],
}

impl Shape {
    /// One window.
    pub const fn window(bytes: &'static [u64; 1]) -> Self {
        Self { windows: bytes, landmarks: &[] }
    }
}

/// Runs the operations that `data` stands for on a device from `make`, which must give equal ones. `event` is what
/// the world outside does to the device: input arrives, time passes.
///
/// An operation is a byte: kind (bits 3:0), log2 of the access size (5:4), region (7:6); then its operands.
pub fn drive<D: Device>(
    data: &[u8],
    shape: Shape,
    make: impl Fn() -> D,
    mut event: impl FnMut(&mut D, &mut Input<'_>),
) {
    let mut input = Input::new(data);
    let mut device = make();
    while !input.is_empty() {
        let op = input.u8();
        let (size, region) = (1 << (op >> 4 & 3), usize::from(op >> 6));
        match op & 15 {
            0..=4 => {
                let offset = offset(&mut input, shape, region);
                let value = Device::read(&mut device, region, offset, size);
                assert!(
                    size == 8 || value >> (8 * size) == 0,
                    "{value:#x} read with {size} bytes at {offset:#x}"
                );
            }
            5..=10 => {
                let offset = offset(&mut input, shape, region);
                Device::write(&mut device, region, offset, size, input.uint(size));
            }
            11 => device = migrate(device, &make),
            12 => restore_damaged(&mut device, &mut input),
            13 => Device::reset(&mut device),
            _ => event(&mut device, &mut input),
        }
    }
    Device::quiesce(&mut device);
}

/// No events.
pub fn nothing<D>(_: &mut D, _: &mut Input<'_>) {}

/// Two bytes: below 0x4000 the offset itself; then one near a landmark; then one near the window's end; and at the top,
/// eight bytes of any offset follow.
fn offset(input: &mut Input<'_>, shape: Shape, region: usize) -> u64 {
    let short = u64::from(input.u16());
    let len = shape.windows.get(region).copied().unwrap_or(0x1000);
    match short >> 14 {
        1 if !shape.landmarks.is_empty() => {
            let landmark = shape.landmarks[(short >> 8 & 63) as usize % shape.landmarks.len()];
            landmark.wrapping_add(short & 0xff)
        }
        2 => len.wrapping_sub(short & 31),
        3 => input.u64(),
        _ => short & 0x3fff,
    }
}

/// The device's state in a fresh device, which goes on in its place.
fn migrate<D: Device>(mut device: D, make: &impl Fn() -> D) -> D {
    Device::quiesce(&mut device);
    let state = DynDevice::save(&device).expect("a state can be encoded");
    let mut copy = make();
    DynDevice::restore(&mut copy, &state).expect("a fresh device takes a saved state");
    let copied = DynDevice::save(&copy).expect("a state can be encoded");
    assert_eq!(copied, state, "save, restore, save");
    Device::reset(&mut device);
    drop(device);
    DynDevice::restore(&mut copy, &state).expect("a device takes the same state again");
    Device::resume(&mut copy);
    copy
}

/// Changes a few bytes of the device's own state and offers it. A refused state must change nothing.
fn restore_damaged<D: Device>(device: &mut D, input: &mut Input<'_>) {
    Device::quiesce(device);
    let before = DynDevice::save(device).expect("a state can be encoded");
    let mut damaged = before.clone();
    for _ in 0..=input.below(3) {
        let at = usize::from(input.u16()).checked_rem(damaged.bytes.len()).unwrap_or(0);
        if let Some(byte) = damaged.bytes.get_mut(at) {
            *byte = input.u8();
        }
    }
    if DynDevice::restore(device, &damaged).is_err() {
        let after = DynDevice::save(device).expect("a state can be encoded");
        assert_eq!(after, before, "a refused state changed the device");
    }
    Device::resume(device);
}
