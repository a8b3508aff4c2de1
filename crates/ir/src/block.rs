//! A lifted block: straight-line operations and one terminal.

use crate::{
    op::Op,
    state::SlotDesc,
    types::{FpModel, Type, Value},
};

/// An operation and the first of the values it defines (several are numbered consecutively).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Inst {
    /// What to do.
    pub op: Op,
    /// First result; meaningless when the operation has none.
    pub first: Value,
}

/// What a control transfer is for, so that engines can predict returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LinkHint {
    /// Nothing known.
    None,
    /// A call that returns to `return_offset` bytes from the block's entry.
    Call {
        /// Where the callee returns to.
        return_offset: i64,
    },
    /// A return.
    Return,
}

/// How a block ends. Offsets are bytes from the block's entry, so blocks stay position-independent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Terminal {
    /// Continue at a fixed place.
    Jump {
        /// Where.
        offset: i64,
        /// Call or plain jump.
        hint: LinkHint,
    },
    /// Continue at one of two places.
    Branch {
        /// I8 truth value.
        c: Value,
        /// Where if it is not 0.
        taken: i64,
        /// Where if it is 0.
        not_taken: i64,
    },
    /// Continue at a computed address.
    Indirect {
        /// I64 guest virtual address.
        pc: Value,
        /// Call, return or plain.
        hint: LinkHint,
    },
    /// The last instruction takes the guest's trap `code`.
    Trap {
        /// Guest-defined; see [`crate::Guest::trap`].
        code: u32,
        /// I64 trap value, 0 if none.
        value: Option<Value>,
    },
    /// Continue at a fixed place, but let the executor look first: the mode, the address space or pending
    /// interrupts may have changed.
    Exit {
        /// Where.
        offset: i64,
    },
    /// Continue at a fixed place, but look first if attention was asked for
    /// ([`crate::guest::HelperEnv::reconsider`]): a helper of this block may have done so, or not. For what changes the mode
    /// or what is pending only now and then, such as a kernel's masking of interrupts.
    Attend {
        /// Where.
        offset: i64,
    },
    /// The same as [`Self::Exit`] with a computed address (trap returns).
    ExitIndirect {
        /// I64 guest virtual address.
        pc: Value,
    },
}

impl Terminal {
    /// The value operand, if there is one.
    pub const fn operand(&self) -> Option<Value> {
        match *self {
            Self::Branch { c, .. } => Some(c),
            Self::Indirect { pc, .. } | Self::ExitIndirect { pc } => Some(pc),
            Self::Trap { value, .. } => value,
            Self::Jump { .. } | Self::Exit { .. } | Self::Attend { .. } => None,
        }
    }

    /// The same terminal with its operand replaced.
    #[must_use]
    pub fn clone_with(&self, mut f: impl FnMut(Value) -> Value) -> Self {
        let mut terminal = *self;
        match &mut terminal {
            Self::Branch { c: v, .. } | Self::Indirect { pc: v, .. } | Self::ExitIndirect { pc: v } => {
                *v = f(*v)
            }
            Self::Trap { value, .. } => *value = value.map(f),
            Self::Jump { .. } | Self::Exit { .. } | Self::Attend { .. } => {}
        }
        terminal
    }
}

/// A lifted block.
#[derive(Clone, PartialEq, Debug)]
pub struct Block {
    /// Operations in order.
    pub insts: Vec<Inst>,
    /// Type of each value, by number.
    pub value_types: Vec<Type>,
    /// How it ends.
    pub terminal: Terminal,
    /// The mode word it was lifted for.
    pub mode: u32,
    /// Floating-point rules in force.
    pub fp: FpModel,
    /// Guest instructions in it.
    pub insn_count: u32,
    /// Bytes of guest code it was made from, from its entry.
    pub len: u32,
    /// The guest's slots.
    pub slots: &'static [SlotDesc],
}

impl Block {
    /// The type of a value.
    pub fn type_of(&self, value: Value) -> Type {
        self.value_types[value.0 as usize]
    }

    /// The results of instruction `index`: value and type, in order.
    pub fn results(&self, inst: &Inst) -> impl Iterator<Item = (Value, Type)> + use<> {
        let (types, count) = inst.op.results(|slot| self.slots[usize::from(slot.0)].ty);
        let first = inst.first.0;
        (0..count).map(move |i| (Value(first + i as u32), types[i]))
    }
}
