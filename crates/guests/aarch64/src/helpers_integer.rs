//! Helpers of integer instructions: pointer authentication, checksums, landing checks.

use crate::helpers::helper_rows;

helper_rows! {
    /// Helpers of integer instructions.
    #[allow(dead_code, reason = "rows are being added")]
    IntegerHelper at INTEGER_BASE;
    Identity "identity" Pure |_, [a, ..]| Ok(a);
}
