//! Control and status registers (volume II, chapter 2).
