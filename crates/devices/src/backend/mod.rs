//! Host resources behind devices: terminals, pipes and files; disk images. Devices know the traits only.

pub mod block;
pub mod char;
pub mod escape;
pub(crate) mod guest_buffers;
mod host_file;
pub mod image;
mod image_lock;
pub mod image_tools;
mod layer;
pub mod net;
pub mod output;
pub mod powercut;
pub mod pump;
mod qcow2;
pub mod share;
pub mod storm;
pub mod terminal;

pub use block::{BlockBackend, BlockError};
pub use char::{Capture, CharInput, CharOutput, Discard, InputWaker, Tee};
pub use escape::{ConsoleCommand, EscapeFilter};
pub use image::{CacheMode, Image, ImageFormat, ImageOptions};
pub use output::{FdOutput, LogFile, QueuedOutput};
pub use pump::{InputPump, PumpEvent};
pub use terminal::{RawMode, restore_terminal, terminal_size};
