//! Host resources behind devices: terminals, pipes and files; disk images. Devices know the traits only.

pub mod char;
