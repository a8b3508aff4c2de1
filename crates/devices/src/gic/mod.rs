//! What the Arm Generic Interrupt Controllers have in common: interrupt numbers, the state of each interrupt, and the
//! registers with a field for each (GICv2 architecture specification IHI 0048B; GICv3 and v4, IHI 0069H).

pub(crate) mod lines;

/// Software-generated interrupts, numbered from 0.
pub const SGIS: u32 = 16;
/// The first private peripheral interrupt.
pub const FIRST_PPI: u32 = 16;
/// The first shared peripheral interrupt; those before are each CPU's own.
pub const FIRST_SPI: u32 = 32;
/// The most SPIs a distributor has: INTIDs 32 to 1019.
pub const MAX_SPIS: u32 = 988;
/// The INTID that acknowledging gives when there is nothing to acknowledge.
pub const SPURIOUS: u32 = 1023;
/// The lowest INTID with a special meaning.
pub(crate) const SPECIAL: u32 = 1020;

/// Priority bits that exist: 32 levels, lower values first.
pub const PRIORITY_MASK: u8 = 0xf8;
/// The priority of a CPU that handles nothing.
pub(crate) const IDLE: u8 = 0xff;

/// A wire's number at a controller's inputs: the CPU it belongs to above the INTID (0 for SPIs).
pub(crate) const fn input_number(cpu: usize, intid: u32) -> u32 {
    (cpu as u32) << 16 | intid & 0xffff
}

/// The CPU and INTID of an input.
pub(crate) const fn input_of(number: u32) -> (usize, u32) {
    ((number >> 16) as usize, number & 0xffff)
}

/// The device tree's interrupt specifier (Linux Documentation/devicetree/bindings/interrupt-controller/arm,gic.yaml).
pub mod specifier {
    use super::{FIRST_PPI, FIRST_SPI};

    /// Triggered by a rising edge.
    pub const EDGE: u32 = 1;
    /// Triggered by a high level.
    pub const LEVEL: u32 = 4;

    /// SPI `number`, counted from the first SPI.
    pub const fn spi(number: u32, trigger: u32) -> [u32; 3] {
        [0, number, trigger]
    }

    /// PPI of INTID `intid`.
    pub const fn ppi(intid: u32, trigger: u32) -> [u32; 3] {
        [1, intid - FIRST_PPI, trigger]
    }

    /// The INTID a specifier means, if it is one.
    pub const fn intid(cells: [u32; 3]) -> Option<u32> {
        match cells[0] {
            0 => Some(FIRST_SPI + cells[1]),
            1 => Some(FIRST_PPI + cells[1]),
            _ => None,
        }
    }
}
