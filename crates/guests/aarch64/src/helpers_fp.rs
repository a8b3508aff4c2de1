//! Helpers of floating-point, SIMD and cryptographic instructions.

use crate::helpers::helper_rows;

helper_rows! {
    /// Helpers of floating-point and SIMD instructions.
    #[allow(dead_code, reason = "rows are being added")]
    FpHelper at FP_BASE;
    Identity "identity_fp" Pure |_, [a, ..]| Ok(a);
}
