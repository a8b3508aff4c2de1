//! The helper table: guest operations that are not worth IR operations of their own, collected from the modules that
//! own them: system (`helpers_system.rs`), integer (`helpers_integer.rs`), floating point and SIMD (`helpers_fp.rs`).

use crate::{Aarch64, helpers_fp, helpers_integer, helpers_system};
use isomer_ir::{guest::Effects, guest::HelperDesc};

/// First id of [`helpers_system::SystemHelper`].
pub(crate) const SYSTEM_BASE: usize = 0;
/// First id of [`helpers_integer::IntegerHelper`].
pub(crate) const INTEGER_BASE: usize = SYSTEM_BASE + helpers_system::ROWS.len();
/// First id of [`helpers_fp::FpHelper`].
pub(crate) const FP_BASE: usize = INTEGER_BASE + helpers_integer::ROWS.len();
const COUNT: usize = FP_BASE + helpers_fp::ROWS.len();

/// All helpers, by id.
pub(crate) static TABLE: [HelperDesc<Aarch64>; COUNT] =
    collect([helpers_system::ROWS, helpers_integer::ROWS, helpers_fp::ROWS]);

const fn collect<const N: usize>(parts: [&[HelperDesc<Aarch64>]; 3]) -> [HelperDesc<Aarch64>; N] {
    let mut table = [const { HelperDesc { name: "", effects: Effects::Any, run: |_, _| Ok(0) } }; N];
    let (mut part, mut next) = (0, 0);
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            let HelperDesc { name, effects, run } = parts[part][row];
            table[next] = HelperDesc { name, effects, run };
            row += 1;
            next += 1;
        }
        part += 1;
    }
    table
}

/// Defines an enum of helpers, its `id`, and `ROWS` in the same order:
/// `helper_rows! { FpHelper at FP_BASE; Frecpe "frecpe" Pure fp::frecpe; ... }`.
macro_rules! helper_rows {
    ($(#[$doc:meta])* $enum:ident at $base:ident; $($helper:ident $name:literal $effects:ident $run:expr;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub(crate) enum $enum {
            $($helper),*
        }
        impl $enum {
            /// Its id in the IR.
            pub(crate) const fn id(self) -> isomer_ir::types::HelperId {
                isomer_ir::types::HelperId(crate::helpers::$base as u16 + self as u16)
            }
        }
        /// The helpers of this part, in the order of the enum.
        pub(crate) const ROWS: &[isomer_ir::guest::HelperDesc<crate::Aarch64>] = &[
            $(isomer_ir::guest::HelperDesc {
                name: $name,
                effects: isomer_ir::guest::Effects::$effects,
                run: $run,
            }),*
        ];
    };
}
pub(crate) use helper_rows;
