//! The compact form against the reference evaluator, and what only it has: links, budgets, polls.
#![allow(unsafe_code, reason = "runs code")]

mod flow;
mod machine;
mod operations;
mod random;
