//! The NoCloud seed: a small CD (ECMA-119, with Joliet's long names) by the volume name `cidata`, from which cloud-init
//! takes a machine's name and how to log in.

/// Bytes of a sector.
const SECTOR: usize = 2048;
/// Sectors: 16 for systems, then primary volume, Joliet volume, terminator, two path tables each, two directories.
const PRIMARY: usize = 16;
const JOLIET: usize = 17;
const TERMINATOR: usize = 18;
const PATH_TABLES: usize = 19;
const ROOT: usize = 23;
const JOLIET_ROOT: usize = 24;
const FILES: usize = 25;

/// The seed of the machine `name`: root's console needs no password, for whoever has the machine has its console.
pub fn iso(name: &str) -> Vec<u8> {
    let user = format!(
        "#cloud-config\nhostname: {name}\ndisable_root: false\nssh_pwauth: false\n\
         packages: [qemu-guest-agent]\n\
         bootcmd:\n - [passwd, --delete, root]\n"
    );
    let meta = format!("instance-id: {name}\nlocal-hostname: {name}\n");
    volume(&[("meta-data", "META_DAT.;1", meta.as_bytes()), ("user-data", "USER_DAT.;1", user.as_bytes())])
}

/// A volume of files, each with its Joliet name and its plain one, in the order of both.
fn volume(files: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut next = FILES;
    let mut places = Vec::new();
    for (_, _, data) in files {
        places.push(next);
        next += data.len().div_ceil(SECTOR).max(1);
    }
    let mut image = vec![0; next * SECTOR];
    put(&mut image, PRIMARY, &descriptor(1, next, PATH_TABLES, ROOT));
    put(&mut image, JOLIET, &descriptor(2, next, PATH_TABLES + 2, JOLIET_ROOT));
    put(&mut image, TERMINATOR, b"\xffCD001\x01");
    for (at, root, big) in [
        (PATH_TABLES, ROOT, false),
        (PATH_TABLES + 1, ROOT, true),
        (PATH_TABLES + 2, JOLIET_ROOT, false),
        (PATH_TABLES + 3, JOLIET_ROOT, true),
    ] {
        put(&mut image, at, &path_table(root, big));
    }
    for (root, joliet) in [(ROOT, false), (JOLIET_ROOT, true)] {
        let mut directory = record(&[0], root, SECTOR, true);
        directory.extend(record(&[1], root, SECTOR, true));
        for ((long, plain, data), place) in files.iter().zip(&places) {
            let name = if joliet { ucs2(long) } else { plain.as_bytes().to_vec() };
            directory.extend(record(&name, *place, data.len(), false));
        }
        put(&mut image, root, &directory);
    }
    for ((_, _, data), place) in files.iter().zip(&places) {
        put(&mut image, *place, data);
    }
    image
}

fn put(image: &mut [u8], sector: usize, data: &[u8]) {
    image[sector * SECTOR..][..data.len()].copy_from_slice(data);
}

/// A number in both byte orders (7.3.3).
fn both32(value: usize) -> [u8; 8] {
    let value = value as u32;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn both16(value: u16) -> [u8; 4] {
    let (l, b) = (value.to_le_bytes(), value.to_be_bytes());
    [l[0], l[1], b[0], b[1]]
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A volume descriptor (8.4, 8.5).
fn descriptor(kind: u8, sectors: usize, tables: usize, root: usize) -> Vec<u8> {
    let joliet = kind == 2;
    let text = |text: &str, len: usize| {
        let mut bytes = if joliet { ucs2(text) } else { text.as_bytes().to_vec() };
        while bytes.len() < len {
            bytes.extend(if joliet { &[0, b' '][..] } else { b" " });
        }
        bytes.truncate(len);
        bytes
    };
    let mut bytes = vec![0; SECTOR];
    let mut at = |offset: usize, data: &[u8]| bytes[offset..offset + data.len()].copy_from_slice(data);
    at(0, &[kind]);
    at(1, b"CD001\x01");
    at(8, &text("", 32));
    at(40, &text("cidata", 32));
    at(80, &both32(sectors));
    if joliet {
        // UCS-2, level 3.
        at(88, b"%/E");
    }
    at(120, &both16(1));
    at(124, &both16(1));
    at(128, &both16(SECTOR as u16));
    at(132, &both32(10));
    at(140, &(tables as u32).to_le_bytes());
    at(148, &((tables + 1) as u32).to_be_bytes());
    at(156, &record(&[0], root, SECTOR, true));
    // Identifiers, and dates that are not specified.
    at(190, &text("", 623));
    for date in [813, 830, 847, 864] {
        at(date, b"0000000000000000\0");
    }
    at(881, &[1]);
    bytes
}

/// A path table with the root alone (9.4).
fn path_table(root: usize, big: bool) -> Vec<u8> {
    let root = root as u32;
    let mut bytes = vec![1, 0];
    bytes.extend(if big { root.to_be_bytes() } else { root.to_le_bytes() });
    bytes.extend(if big { [0, 1] } else { [1, 0] });
    bytes.extend([0, 0]);
    bytes
}

/// A directory record (9.1).
fn record(name: &[u8], place: usize, len: usize, directory: bool) -> Vec<u8> {
    let total = (33 + name.len()).next_multiple_of(2);
    let mut bytes = vec![0; total];
    bytes[0] = total as u8;
    bytes[2..10].copy_from_slice(&both32(place));
    bytes[10..18].copy_from_slice(&both32(len));
    // The first of January 2026.
    bytes[18..25].copy_from_slice(&[126, 1, 1, 0, 0, 0, 0]);
    bytes[25] = if directory { 2 } else { 0 };
    bytes[28..32].copy_from_slice(&both16(1));
    bytes[32] = name.len() as u8;
    bytes[33..33 + name.len()].copy_from_slice(name);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_where_its_descriptors_say() {
        let image = iso("dev");
        assert_eq!(image.len() % SECTOR, 0);
        let sector = |at: usize| &image[at * SECTOR..(at + 1) * SECTOR];
        assert_eq!(&sector(PRIMARY)[40..46], b"cidata");
        assert_eq!(&sector(PRIMARY)[80..84], &((image.len() / SECTOR) as u32).to_le_bytes());
        let root = u32::from_le_bytes(sector(JOLIET)[158..162].try_into().unwrap()) as usize;
        let names = ucs2("user-data");
        let directory = sector(root);
        let at = directory.windows(names.len()).position(|window| window == names).unwrap() - 33;
        let place = u32::from_le_bytes(directory[at + 2..at + 6].try_into().unwrap()) as usize;
        assert!(sector(place).starts_with(b"#cloud-config\nhostname: dev\n"));
    }
}
