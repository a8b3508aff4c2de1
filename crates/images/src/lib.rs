//! Images: where they are kept, how they are fetched, and how a Debian disk is assembled from its archive. Nothing
//! here runs a machine; the network client and the archive formats stay out of everything else.

pub mod debian;
pub mod digest;
pub mod error;
pub mod fetch;
pub mod import;
pub mod places;
pub mod progress;
pub mod seed;
pub mod store;

pub use digest::Expected;
pub use error::ImageError;
pub use fetch::Client;
pub use places::Places;
pub use progress::{Progress, Silent, Unit};
pub use store::{BootFiles, DiskFormat, Entry, Manifest, Store};
