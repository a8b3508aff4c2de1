//! What boots, read into the host's memory: the embedded guest, or files of the user's.

use crate::{Boot, MachineError, Spec, embedded, peripherals::share};
use std::path::{Path, PathBuf};

/// Boot files as they are on disk.
pub(super) struct BootFiles {
    /// Firmware in place of the built-in one.
    pub(super) firmware: Option<Vec<u8>>,
    /// The kernel.
    pub(super) kernel: Option<Vec<u8>>,
    /// The initial RAM disk.
    pub(super) initrd: Option<Vec<u8>>,
    /// The command line, unless the user gave one.
    pub(super) append: &'static str,
}

impl BootFiles {
    /// Reads what `spec` boots.
    pub(super) fn read(spec: &Spec) -> Result<Self, MachineError> {
        match &spec.boot {
            Boot::Embedded => {
                let mounts = share::mounts(spec);
                let told = embedded::Told {
                    command: spec.command.as_deref(),
                    mounts: &mounts,
                    network: !spec.net.is_empty(),
                };
                let guest = embedded::guest(spec.arch, &told)
                    .map_err(|source| MachineError::Host { what: "to unpack the embedded guest", source })?;
                let guest = guest.ok_or_else(|| MachineError::Spec {
                    why: format!("there is no embedded guest for {}", spec.arch.name()),
                    fix: "give a kernel with --kernel".into(),
                })?;
                let append = embedded::COMMAND_LINE;
                Ok(Self { firmware: None, kernel: Some(guest.kernel), initrd: Some(guest.initrd), append })
            }
            Boot::Files { kernel, initrd, firmware } => {
                if kernel.is_none() && firmware.is_none() {
                    return Err(MachineError::Spec {
                        why: "there is nothing to boot".into(),
                        fix: "give a kernel with --kernel, or firmware with --firmware".into(),
                    });
                }
                let read = |what: &'static str, path: &Option<PathBuf>| {
                    path.as_ref().map(|path| read_file(what, path)).transpose()
                };
                let (firmware, kernel) = (read("firmware", firmware)?, read("kernel", kernel)?);
                Ok(Self { firmware, kernel, initrd: read("initrd", initrd)?, append: "" })
            }
        }
    }
}

fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, MachineError> {
    std::fs::read(path).map_err(|source| MachineError::File { what, path: path.to_owned(), source })
}
