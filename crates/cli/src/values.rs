//! Values users type: sizes, times, disks, shares, trace categories. Errors say what would have been right.

use isomer_devices::backend::{ImageFormat, share::Owners};
use isomer_engine::Trace;
use isomer_machine::{BoardOptions, DiskBus, DiskSpec, GicVersion, ShareKind, ShareSpec, ShareTrust};
use std::{path::PathBuf, time::Duration};

/// Binary units, whatever the spelling: `M`, `MB` and `MiB` are the same.
const SIZE_UNITS: &[(&str, u32)] = &[
    ("k", 10),
    ("kb", 10),
    ("kib", 10),
    ("m", 20),
    ("mb", 20),
    ("mib", 20),
    ("g", 30),
    ("gb", 30),
    ("gib", 30),
    ("t", 40),
    ("tb", 40),
    ("tib", 40),
];

/// A size in bytes: a whole number and a unit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text);
    if number.is_empty() {
        return Err("write a whole number and a unit, as in 512M or 2G".into());
    }
    if unit.is_empty() {
        return Err(format!("add a unit: {number}M or {number}G"));
    }
    let unit = unit.to_ascii_lowercase();
    let Some(&(_, shift)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err("write a whole number and one of the units K, M, G, T, as in 512M".into());
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "no memory is that large".into())
}

const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// A time: numbers with units (`1h30m`), or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const SHAPE: &str = "write a time as in 30s, 500ms, 5m or 1h30m";
    let (mut rest, mut total_ms) = (text, 0u64);
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let digits = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(digits);
        let scale = match TIME_UNITS.iter().find(|(name, _)| *name == unit) {
            Some(&(_, scale)) => scale,
            None if unit.is_empty() && number == text => 1000,
            None => return Err(SHAPE.into()),
        };
        let number: u64 = number.parse().map_err(|_| SHAPE)?;
        let sum = number.checked_mul(scale).and_then(|ms| total_ms.checked_add(ms));
        // A century is as good as for ever, and any later instant might not exist.
        total_ms = sum.filter(|&ms| ms < 100 * 366 * 86_400_000).ok_or("that is too long")?;
        rest = next;
    }
    match total_ms {
        0 if text.is_empty() => Err(SHAPE.into()),
        0 => Err("the time must be longer than nothing; leave the option out for no limit".into()),
        ms => Ok(Duration::from_millis(ms)),
    }
}

/// Digits at the start, and the rest.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Bytes a disk's serial number may have: what virtio-blk and NVMe both hold.
const SERIAL_BYTES: usize = 20;

/// `FILE[,format=raw|qcow2][,ro][,ephemeral][,cache=MODE][,discard=unmap|ignore][,serial=TEXT][,bus=virtio|nvme|scsi]`, where `,,` is a comma of the file's name.
pub(crate) fn disk(text: &str) -> Result<DiskSpec, String> {
    let mut words = split_commas(text).into_iter();
    let path = words.next().filter(|path| !path.is_empty()).ok_or("the file's name is missing")?;
    let mut disk = DiskSpec { path: PathBuf::from(path), ..DiskSpec::default() };
    for word in words {
        match word.split_once('=').unwrap_or((&word, "")) {
            ("format", name) if disk.format.is_none() => disk.format = Some(name.parse()?),
            ("format", _) => return Err("the format is given twice".into()),
            ("ro", "") => disk.read_only = true,
            ("ephemeral", "") => disk.ephemeral = true,
            ("cache", mode) => disk.cache = mode.parse()?,
            ("discard", "unmap") => disk.keep_discarded = false,
            ("discard", "ignore") => disk.keep_discarded = true,
            ("bus", "virtio") => disk.bus = DiskBus::Virtio,
            ("bus", "nvme") => disk.bus = DiskBus::Nvme,
            ("bus", "scsi") => disk.bus = DiskBus::Scsi,
            ("serial", serial) => disk.serial = self::serial(serial)?,
            _ => {
                return Err(format!(
                    "`{word}` is not an option of a disk: use format=raw or qcow2, ro, ephemeral, cache=writeback, writethrough, none or unsafe, discard=unmap or ignore, serial=TEXT, bus=virtio, nvme or scsi (and `,,` for a comma in the file's name)"
                ));
            }
        }
    }
    if disk.read_only && disk.ephemeral {
        return Err("ro refuses writes and ephemeral forgets them: use one of the two".into());
    }
    Ok(disk)
}

/// A disc in a CD-ROM drive: a file's name and nothing else.
pub(crate) fn cdrom(text: &str) -> Result<DiskSpec, String> {
    let path = Some(text).filter(|path| !path.is_empty()).ok_or("the file's name is missing")?;
    // What is on a disc is nobody's image format.
    let format = Some(ImageFormat::Raw);
    Ok(DiskSpec {
        path: path.into(),
        format,
        read_only: true,
        bus: DiskBus::Scsi,
        cdrom: true,
        ..DiskSpec::default()
    })
}

fn serial(text: &str) -> Result<String, String> {
    let fits = (1..=SERIAL_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong =
        || format!("`{text}` is not a serial number: use 1 to {SERIAL_BYTES} letters, digits and signs");
    fits.then(|| text.to_owned()).ok_or_else(wrong)
}

/// `HOST[:GUEST][,ro][,type=virtiofs|9p][,cache=none|auto|always][,owner=host|UID:GID][,locks=guest|host]`, where
/// `,,` is a comma of a name.
pub(crate) fn share(text: &str) -> Result<ShareSpec, String> {
    let mut words = split_commas(text).into_iter();
    let names = words.next().unwrap_or_default();
    // The last colon: tags have none, directories may.
    let (host, guest) = match names.rsplit_once(':') {
        Some((_, "")) => return Err("the guest's name after the colon is missing".into()),
        Some((host, guest)) => (host, Some(guest.to_owned())),
        None => (&*names, None),
    };
    if host.is_empty() {
        return Err("the directory's name is missing".into());
    }
    let mut share = ShareSpec { path: PathBuf::from(host), guest, ..ShareSpec::default() };
    for word in words {
        match word.split_once('=').unwrap_or((&word, "")) {
            ("ro", "") => share.read_only = true,
            ("type", "virtiofs") => share.kind = ShareKind::VirtioFs,
            ("type", "9p") => share.kind = ShareKind::NineP,
            ("cache", "none") => share.trust = ShareTrust::Nothing,
            ("cache", "auto") => share.trust = ShareTrust::Second,
            ("cache", "always") => share.trust = ShareTrust::Always,
            ("owner", owner) => share.owners = Some(self::owner(owner)?),
            ("locks", "guest") => share.host_locks = false,
            ("locks", "host") => share.host_locks = true,
            _ => {
                return Err(format!(
                    "`{word}` is not an option of a share: use ro, type=virtiofs or 9p, cache=none, auto or always, owner=UID:GID or host, locks=guest or host (and `,,` for a comma in a name)"
                ));
            }
        }
    }
    if share.kind == ShareKind::NineP && (share.trust != ShareTrust::Second || share.host_locks) {
        return Err(
            "with type=9p the guest chooses its cache when it mounts, and locks always reach the host: \
                    leave cache and locks out"
                .into(),
        );
    }
    Ok(share)
}

fn owner(text: &str) -> Result<Owners, String> {
    if text == "host" {
        return Ok(Owners::Host);
    }
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    let (uid, gid) =
        numbers.ok_or("write owner=UID:GID with two numbers, as in owner=1000:1000, or owner=host")?;
    Ok(Owners::Fixed { uid, gid })
}

/// Splits at single commas; a doubled one stands for itself.
fn split_commas(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words
}

/// Options of `--board`.
pub(crate) fn board(text: &str) -> Result<BoardOptions, String> {
    let mut board = BoardOptions::default();
    for word in text.split(',') {
        match word {
            "gic=2" => board.gic = GicVersion::V2,
            "gic=3" => board.gic = GicVersion::V3,
            "el2" => board.el2 = true,
            _ => return Err(format!("`{word}` is not an option of a board: use gic=2, gic=3 or el2")),
        }
    }
    Ok(board)
}

/// Categories of `--trace`.
pub(crate) fn trace(text: &str) -> Result<Trace, String> {
    let trace: Trace =
        text.parse().map_err(|error: isomer_engine::trace::UnknownCategory| error.to_string())?;
    if trace.any() { Ok(trace) } else { Err("name at least one of insn, mmu and irq".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_devices::backend::CacheMode;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("512M", 512 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30), ("64k", 64 << 10), ("1t", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("0M"), Ok(0));
        for wrong in ["", "M", "512", "-1G", "1.5G", "1X", "1 G", "99999999999999999999G", "16777216T", "1G2"]
        {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(size("512").unwrap_err().contains("512M"));
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("90", 90_000),
            ("1s500ms", 1500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in
            ["", "0", "0s", "s", "-1s", "1d", "1s5", "5 m", "1.5s", "999999999999999999h", "99999999h"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn disks() {
        let full = disk("a,,b.img,format=qcow2,ephemeral").unwrap();
        assert_eq!(full.path, PathBuf::from("a,b.img"));
        assert_eq!(full.format, Some(ImageFormat::Qcow2));
        assert!(full.ephemeral && !full.read_only);
        let plain = disk("a=b.img,ro").unwrap();
        assert_eq!((plain.path, plain.format, plain.read_only), (PathBuf::from("a=b.img"), None, true));
        let tuned = disk("a,cache=none,discard=ignore,serial=disk-1").unwrap();
        assert_eq!(disk("a,bus=nvme").unwrap().bus, DiskBus::Nvme);
        assert_eq!(disk("a,bus=scsi").unwrap().bus, DiskBus::Scsi);
        let disc = cdrom("a,b.iso").unwrap();
        assert_eq!((disc.path, disc.cdrom, disc.read_only), (PathBuf::from("a,b.iso"), true, true));
        assert!(cdrom("").is_err());
        assert_eq!((tuned.cache, tuned.keep_discarded, &*tuned.serial), (CacheMode::None, true, "disk-1"));
        for wrong in [
            "",
            ",ro",
            "a,",
            "a,rw",
            "a,cache=fast",
            "a,bus=ide",
            "a,discard=",
            "a,serial=",
            "a,serial=with space",
            "a,serial=123456789012345678901",
            "a,format",
            "a,format=",
            "a,format=vdi",
            "a,format=raw,format=raw",
            "a,ro=no",
            "a,ro,ephemeral",
        ] {
            assert!(disk(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares() {
        let plain = share("a:b").unwrap();
        assert_eq!((plain.path, plain.guest.as_deref()), (PathBuf::from("a"), Some("b")));
        assert!(!plain.read_only && plain.kind == ShareKind::VirtioFs && plain.owners.is_none());
        let full = share("/a:b,,c:/src,ro,cache=none,owner=1000:100,locks=host").unwrap();
        assert_eq!((full.path, full.guest.as_deref()), (PathBuf::from("/a:b,c"), Some("/src")));
        assert!(full.read_only && full.host_locks && full.trust == ShareTrust::Nothing);
        assert_eq!(full.owners, Some(Owners::Fixed { uid: 1000, gid: 100 }));
        assert_eq!(share(".,type=9p").unwrap().kind, ShareKind::NineP);
        assert_eq!(share(".,owner=host").unwrap().owners, Some(Owners::Host));
        for wrong in [
            "",
            ":b",
            "a:",
            ",ro",
            "a,rw",
            "a,type=nfs",
            "a,type=9p,cache=none",
            "a,type=9p,locks=host",
            "a,owner=me",
            "a,owner=1",
        ] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn boards() {
        let board = |text| super::board(text).map(|board| (board.gic, board.el2));
        assert_eq!(board("gic=2,el2"), Ok((GicVersion::V2, true)));
        assert_eq!(board("gic=3"), Ok((GicVersion::V3, false)));
        assert!(board("").is_err() && board("gic").is_err() && board("el3").is_err());
    }

    #[test]
    fn traces() {
        assert!(trace("insn,irq").unwrap().insn);
        assert!(trace("").is_err() && trace(",").is_err() && trace("cpu").is_err());
    }
}
