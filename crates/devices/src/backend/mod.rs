//! Host resources behind devices: terminals, pipes and files; disk images. Devices know the traits only.

pub mod block;
pub mod char;
pub mod image;
mod image_lock;
mod qcow2;

pub use block::{BlockBackend, BlockError};
pub use char::CharOutput;
pub use image::{Image, ImageFormat, ImageOptions};
