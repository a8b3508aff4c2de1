//! Kernel and initial RAM disk: the host boots them directly. The RAM disk has a static shell and the few modules that
//! lead to the root file system; udev in the guest loads the others.

use super::{deb::Deb, packages::Package, tree::Tree};
use crate::{ImageError, error::file};
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// What leads to the root file system, in the order in which it is loaded; what a kernel has built in is not there.
const MODULES: &[&str] =
    &["crc32c_generic", "crc32c", "libcrc32c", "virtio_blk", "virtio_scsi", "sd_mod", "nvme", "ext4"];
/// First process of the initial RAM disk.
const INIT: &[u8] = include_bytes!("files/initrd-init");
/// Programs of busybox that it uses.
const APPLETS: &[&str] = &["sh", "mount", "insmod", "switch_root", "sleep", "cat", "mkdir", "umount"];
/// Modules that make no sense in a virtual machine, by the beginning of their path below `kernel/`.
const LEFT_OUT: &[&str] = &[
    "sound/",
    "drivers/accel/",
    "drivers/accessibility/",
    "drivers/ata/",
    "drivers/auxdisplay/",
    "drivers/bluetooth/",
    "drivers/bus/",
    "drivers/clk/",
    "drivers/comedi/",
    "drivers/counter/",
    "drivers/cpufreq/",
    "drivers/crypto/",
    "drivers/devfreq/",
    "drivers/dma/",
    "drivers/edac/",
    "drivers/extcon/",
    "drivers/firewire/",
    "drivers/fpga/",
    "drivers/gnss/",
    "drivers/gpu/",
    "drivers/hid/",
    "drivers/hwmon/",
    "drivers/hwspinlock/",
    "drivers/i3c/",
    "drivers/iio/",
    "drivers/infiniband/",
    "drivers/interconnect/",
    "drivers/isdn/",
    "drivers/leds/",
    "drivers/mailbox/",
    "drivers/media/",
    "drivers/memory/",
    "drivers/memstick/",
    "drivers/mfd/",
    "drivers/misc/",
    "drivers/mmc/",
    "drivers/most/",
    "drivers/mtd/",
    "drivers/mux/",
    "drivers/net/arcnet/",
    "drivers/net/can/",
    "drivers/net/dsa/",
    "drivers/net/ethernet/",
    "drivers/net/hamradio/",
    "drivers/net/ieee802154/",
    "drivers/net/phy/",
    "drivers/net/usb/",
    "drivers/net/wireless/",
    "drivers/net/wwan/",
    "drivers/nfc/",
    "drivers/ntb/",
    "drivers/parport/",
    "drivers/pcmcia/",
    "drivers/phy/",
    "drivers/pinctrl/",
    "drivers/platform/",
    "drivers/power/",
    "drivers/pps/",
    "drivers/pwm/",
    "drivers/rapidio/",
    "drivers/regulator/",
    "drivers/remoteproc/",
    "drivers/rpmsg/",
    "drivers/slimbus/",
    "drivers/soc/",
    "drivers/soundwire/",
    "drivers/spi/",
    "drivers/spmi/",
    "drivers/staging/",
    "drivers/thermal/",
    "drivers/thunderbolt/",
    "drivers/usb/",
    "drivers/w1/",
    "net/bluetooth/",
    "net/can/",
    "net/mac80211/",
    "net/nfc/",
    "net/wireless/",
];

/// What a kernel's package has given.
pub(super) struct Unpacked {
    /// The kernel.
    pub(super) image: Vec<u8>,
    /// What `uname -r` prints.
    pub(super) release: String,
}

/// Unpacks a kernel's modules into the tree, and the kernel for the host. dpkg is not told: the kernel comes from the
/// host, and an upgrade in the guest would not change it.
pub(super) fn unpack(
    tree: &mut Tree,
    package: &Package,
    path: &Path,
    image: &str,
) -> Result<Unpacked, ImageError> {
    let deb = Deb::new(&package.name, path);
    let mut archive = deb.data()?;
    let mut found = None;
    for entry in archive.entries().map_err(|error| deb.wrong(error.to_string()))? {
        let mut entry = entry.map_err(|error| deb.wrong(error.to_string()))?;
        let name = entry.path().map_err(|error| deb.wrong(error.to_string()))?.to_string_lossy().into_owned();
        if let Some(release) = name.trim_start_matches("./").strip_prefix(image) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| deb.wrong(error.to_string()))?;
            found = Some(Unpacked { image: bytes, release: release.to_owned() });
            break;
        }
    }
    let found = found.ok_or_else(|| deb.wrong(format!("there is no {image}* in it")))?;
    let kernel = format!("usr/lib/modules/{}/", found.release);
    tree.unpack(&deb, |path| {
        let Some(below) = path.to_str().and_then(|path| path.strip_prefix(&kernel)) else { return false };
        let module = below.strip_prefix("kernel/").unwrap_or_default();
        !LEFT_OUT.iter().any(|left_out| module.starts_with(left_out))
    })?;
    Ok(found)
}

/// The static busybox of its package.
pub(super) fn busybox(package: &Package, path: &Path) -> Result<Vec<u8>, ImageError> {
    let deb = Deb::new(&package.name, path);
    let mut archive = deb.data()?;
    for entry in archive.entries().map_err(|error| deb.wrong(error.to_string()))? {
        let mut entry = entry.map_err(|error| deb.wrong(error.to_string()))?;
        if entry.path().is_ok_and(|path| path.ends_with("bin/busybox")) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| deb.wrong(error.to_string()))?;
            return Ok(bytes);
        }
    }
    Err(deb.wrong("there is no bin/busybox in it"))
}

/// The initial RAM disk: a cpio archive in the newc format (Linux, Documentation/driver-api/early-userspace).
pub(super) fn initrd(root: &Path, release: &str, shell: &[u8]) -> Result<Vec<u8>, ImageError> {
    let folder = root.join("usr/lib/modules").join(release).join("kernel");
    let mut known = BTreeMap::new();
    collect(&folder, &mut known).map_err(file("list", &folder))?;
    let mut loaded = Vec::new();
    for name in MODULES {
        add_module(name, &known, &mut HashSet::new(), &mut loaded)?;
    }
    let mut archive = Cpio::default();
    for directory in ["bin", "dev", "modules", "proc", "root", "sys"] {
        archive.add(directory, 0o040_755, b"");
    }
    archive.add("bin/busybox", 0o100_755, shell);
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), 0o120_777, b"busybox");
    }
    for (index, (name, data)) in loaded.iter().enumerate() {
        archive.add(&format!("modules/{index:02}-{name}.ko"), 0o100_644, data);
    }
    archive.add("init", 0o100_755, INIT);
    Ok(archive.finish())
}

/// All modules by name, with `_` for `-`, as the kernel does.
fn collect(folder: &Path, known: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), known)?;
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".ko.xz").or_else(|| name.strip_suffix(".ko")) {
            known.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

/// Adds a module after those it depends on.
fn add_module(
    name: &str,
    known: &BTreeMap<String, PathBuf>,
    above: &mut HashSet<String>,
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), ImageError> {
    let Some(path) = known.get(name) else { return Ok(()) };
    if loaded.iter().any(|(known, _)| known == name) || !above.insert(name.to_owned()) {
        return Ok(());
    }
    let bytes = fs::read(path).map_err(file("read", path))?;
    let data = match bytes.starts_with(b"\xfd7zXZ\0") {
        true => {
            let mut data = Vec::new();
            liblzma::read::XzDecoder::new(&bytes[..]).read_to_end(&mut data).map_err(file("unpack", path))?;
            data
        }
        false => bytes,
    };
    for needed in depends(&data) {
        add_module(&needed, known, above, loaded)?;
    }
    loaded.push((name.to_owned(), data));
    Ok(())
}

/// The `depends=` line of a module's information, a list of strings that end with NUL.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A cpio archive of root's files.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    files: usize,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: usize, data: &[u8]) {
        self.files += 1;
        let fields = [self.files, mode, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("usr/lib/modules/6.12/kernel/fs");
        fs::create_dir_all(&folder).unwrap();
        let module =
            |depends: &str| format!("\x7fELF...\0license=GPL\0depends={depends}\0name=x\0").into_bytes();
        for (name, needs) in [("ext4", "jbd2,mb-cache"), ("jbd2", "ext4"), ("mb-cache", ""), ("xfs", "")] {
            let packed = liblzma::write::XzEncoder::new(Vec::new(), 0);
            let mut packed = packed;
            std::io::Write::write_all(&mut packed, &module(needs)).unwrap();
            fs::write(folder.join(format!("{name}.ko.xz")), packed.finish().unwrap()).unwrap();
        }
        let archive = initrd(dir.path(), "6.12", b"shell").unwrap();
        let text = String::from_utf8_lossy(&archive);
        let place = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name}"));
        assert!(place("modules/00-jbd2.ko") < place("modules/01-mb_cache.ko"));
        assert!(place("modules/01-mb_cache.ko") < place("modules/02-ext4.ko"));
        assert!(!text.contains("xfs") && text.contains("TRAILER!!!") && archive.len().is_multiple_of(4));
        assert_eq!(depends(b"\0depends=\0"), Vec::<String>::new());
    }
}
