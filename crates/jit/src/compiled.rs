//! What the compilers give.

/// Compiled code, not yet anywhere: position-independent, without relocations, entered at its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Host code.
    pub code: Vec<u8>,
    /// The bytes of the guest's page it was made from: sorted ranges, start and end, that do not touch.
    pub ranges: Vec<(u16, u16)>,
    /// Guest instructions in it.
    pub insns: u32,
}

/// Why something was not compiled. The code stays with a lower tier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Nothing can be lifted there, or an operation has no code on this host.
    #[error("there is nothing to compile at this address: {0}")]
    Nothing(&'static str),
    /// The code generator refused.
    #[error("the code generator refused the region: {0}")]
    Codegen(String),
}
