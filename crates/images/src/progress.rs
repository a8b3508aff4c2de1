//! How long work tells what it does: one step after the other.

/// What a step counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things, such as packages.
    Items,
}

/// Whoever shows progress.
pub trait Progress: Sync {
    /// A step begins, of `total` units if that is known. The step before has ended.
    fn begin(&self, what: &str, total: Option<u64>, unit: Unit);
    /// So much more of the step is done.
    fn advance(&self, amount: u64);
    /// What the step is at.
    fn detail(&self, what: &str);
    /// The step has ended.
    fn end(&self);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>, _unit: Unit) {}
    fn advance(&self, _amount: u64) {}
    fn detail(&self, _what: &str) {}
    fn end(&self) {}
}
