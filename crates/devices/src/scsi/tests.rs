//! Units as an initiator sees them, over a transfer of plain bytes.

use super::*;
use crate::backend::{Image, ImageFormat, ImageOptions};
use proptest::prelude::*;
use tempfile::TempDir;

/// What is sent, and room for what is answered.
struct Bytes {
    out: Vec<u8>,
    room: Vec<u8>,
}

impl Transfer for Bytes {
    fn out_len(&self) -> u64 {
        self.out.len() as u64
    }
    fn in_len(&self) -> u64 {
        self.room.len() as u64
    }
    fn take(&self, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.out[..into.len()]);
        Ok(())
    }
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.room[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn read_disk(&mut self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()> {
        disk.read_vectored(offset, (&mut self.room[..len as usize]).into())
    }
    fn write_disk(&self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()> {
        disk.write_vectored(offset, (&self.out[..len as usize]).into())
    }
}

fn unit(dir: &TempDir, kind: UnitKind, read_only: bool) -> Unit {
    let path = dir.path().join("disk.img");
    if !path.exists() {
        Image::create(&path, ImageFormat::Raw, (1 << 20) + 512, None).unwrap();
    }
    let options = ImageOptions { format: Some(ImageFormat::Raw), read_only, ..ImageOptions::default() };
    Unit::new(kind, Arc::new(Image::open(&path, &options).unwrap()), "unit-7")
}

fn run(unit: &Unit, cdb: &[u8], out: &[u8], room: usize) -> Result<Vec<u8>, Failure> {
    let mut all = [0; CDB_BYTES];
    all[..cdb.len()].copy_from_slice(cdb);
    let mut data = Bytes { out: out.to_vec(), room: vec![0xee; room] };
    let moved = unit.execute(&all, &mut data)? as usize;
    data.room.truncate(moved);
    Ok(data.room)
}

#[test]
fn a_disk_tells_what_it_is() {
    let dir = TempDir::new().unwrap();
    let disk = unit(&dir, UnitKind::Disk, false);
    let inquiry = run(&disk, &[0x12, 0, 0, 0, 96], &[], 96).unwrap();
    assert_eq!((inquiry.len(), inquiry[0], inquiry[4], &inquiry[8..16]), (36, 0, 31, &b"ISOMER  "[..]));
    assert_eq!(run(&disk, &[0x12, 0, 0, 0, 5], &[], 96).unwrap().len(), 5);
    assert_eq!(run(&disk, &[0x12, 1, 0x80, 0, 96], &[], 96).unwrap(), *b"\0\x80\0\x06unit-7");
    for page in run(&disk, &[0x12, 1, 0, 0, 96], &[], 96).unwrap()[4..].to_vec() {
        let answer = run(&disk, &[0x12, 1, page, 0, 200], &[], 200).unwrap();
        assert_eq!((answer[1], answer.len()), (page, 4 + be16(&answer, 2) as usize));
    }
    assert_eq!(run(&disk, &[0x25], &[], 8).unwrap(), [0, 0, 8, 0, 0, 0, 2, 0]);
    let long = run(&disk, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], &[], 32).unwrap();
    assert_eq!((be64(&long, 0), be32(&long, 8), long[13], long[14]), (2048, 512, 3, 0x80));
    let caching = run(&disk, &[0x1a, 0, 8, 0, 64], &[], 64).unwrap();
    assert_eq!((caching.len(), caching[0], caching[2], caching[6]), (24, 23, 0x10, 4));
    assert_eq!(run(&disk, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16], &[], 16).unwrap()[3], 8);
}

#[test]
fn data_goes_in_and_out() {
    let dir = TempDir::new().unwrap();
    let disk = unit(&dir, UnitKind::Disk, false);
    let data: Vec<u8> = (0..1024_u32).map(|n| (n % 251) as u8).collect();
    for (write, read) in [
        (&[0x2a_u8, 8, 0, 0, 0, 9, 0, 0, 2][..], &[0x28_u8, 0, 0, 0, 0, 9, 0, 0, 2][..]),
        (&[0x0a, 0, 0, 20, 2], &[0x08, 0, 0, 20, 2]),
        (&[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 2], &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 2]),
        (&[0xaa, 0, 0, 0, 0, 40, 0, 0, 0, 2], &[0xa8, 0, 0, 0, 0, 40, 0, 0, 0, 2]),
    ] {
        run(&disk, write, &data, 0).unwrap();
        assert_eq!(run(&disk, read, &[], 1024).unwrap(), data);
        assert_eq!(run(&disk, read, &[], 1023), Err(Failure::Overrun));
        assert_eq!(run(&disk, write, &data[1..], 0), Err(Failure::Overrun));
    }
    run(&disk, &[0x35], &[], 0).unwrap();
    run(&disk, &[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1], &[0; 512], 0).unwrap();
    assert_eq!(run(&disk, &[0x28, 0, 0, 0, 0, 9, 0, 0, 1], &[], 512).unwrap(), [0; 512]);
    assert!(run(&disk, &[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1], &[1; 512], 0).is_err());
    let unmap = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]].concat();
    run(&disk, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24], &unmap, 0).unwrap();
    assert_eq!(run(&disk, &[0x08, 0, 0, 0, 0], &[], 256 * 512).unwrap().len(), 256 * 512);
}

#[test]
fn wrong_commands_get_their_sense() {
    let dir = TempDir::new().unwrap();
    let disk = unit(&dir, UnitKind::Disk, false);
    let check =
        |cdb: &[u8], out: &[u8], sense| assert_eq!(run(&disk, cdb, out, 4096), Err(Failure::Check(sense)));
    check(&[0xff], &[], Sense::INVALID_OPCODE);
    check(&[0x43], &[], Sense::INVALID_OPCODE); // of CD-ROMs
    check(&[0x28, 0, 0, 0, 8, 1, 0, 0, 1], &[], Sense::OUT_OF_RANGE);
    check(&[0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1], &[], Sense::OUT_OF_RANGE);
    check(&[[0x88].as_slice(), &[0xff; 13]].concat(), &[], Sense::OUT_OF_RANGE);
    check(&[0x12, 1, 0xc7, 0, 99], &[], Sense::INVALID_FIELD);
    check(&[0x12, 0, 1, 0, 99], &[], Sense::INVALID_FIELD);
    check(&[0x1a, 0, 0xc8, 0, 99], &[], Sense::INVALID_FIELD);
    check(&[0x2f, 2, 0, 0, 0, 0, 0, 0, 1], &[], Sense::INVALID_FIELD);
    check(&[0x42, 0, 0, 0, 0, 0, 0, 0, 4], &[0; 4], Sense::PARAMETER_LENGTH);
    check(&[0x42, 0, 0, 0, 0, 0, 0, 0, 8], &[0, 0, 0xff, 0xf0, 0, 0, 0, 0], Sense::PARAMETER_LENGTH);
    let read_only = {
        drop(disk);
        unit(&dir, UnitKind::Disk, true)
    };
    assert_eq!(
        run(&read_only, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1], &[0; 512], 0),
        Err(Sense::WRITE_PROTECTED.into())
    );
    assert_eq!(run(&read_only, &[0x1a, 0, 8, 0, 64], &[], 64).unwrap()[2], 0x90);
}

#[test]
fn a_cdrom_has_one_track() {
    let dir = TempDir::new().unwrap();
    let cdrom = unit(&dir, UnitKind::Cdrom, true);
    assert_eq!(run(&cdrom, &[0x12, 0, 0, 0, 96], &[], 96).unwrap()[..2], [5, 0x80]);
    assert_eq!(run(&cdrom, &[0x25], &[], 8).unwrap(), [0, 0, 2, 0, 0, 0, 8, 0]); // the last block is short
    assert_eq!(run(&cdrom, &[0x28, 0, 0, 0, 2, 0, 0, 0, 1], &[], 2048).unwrap().len(), 2048);
    let toc = run(&cdrom, &[0x43, 0, 0, 0, 0, 0, 0, 0, 99], &[], 99).unwrap();
    assert_eq!(
        (toc.len(), &toc[..4], toc[14], &toc[16..20]),
        (20, &[0, 18, 1, 1][..], 0xaa, &[0, 0, 2, 1][..])
    );
    assert_eq!(run(&cdrom, &[0x43, 2, 0, 0, 0, 0, 1, 0, 99], &[], 99).unwrap()[8..12], [0, 0, 2, 0]);
    assert_eq!(run(&cdrom, &[0x46, 0, 0, 0, 0, 0, 0, 0, 99], &[], 99).unwrap()[6..8], [0, 8]);
    assert_eq!(run(&cdrom, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], &[], 8).unwrap()[5], 2);
    assert_eq!(
        run(&cdrom, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1], &[0; 2048], 0),
        Err(Sense::INVALID_OPCODE.into())
    );
    assert_eq!(run(&cdrom, &[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 99], &[], 99).unwrap()[8], 0x2a);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any command ends, and moves no more than there is.
    #[test]
    fn any_command_is_survived(
        mut cdb in any::<[u8; CDB_BYTES]>(),
        op in prop_oneof![any::<u8>(), prop::sample::select(vec![0x08_u8, 0x12, 0x1a, 0x28, 0x2a, 0x41, 0x42, 0x43, 0x4a, 0x5a, 0x88, 0x93, 0x9e])],
        cdrom in any::<bool>(),
        small in any::<bool>(),
        (out, room) in (0usize..2000, 0usize..2000),
    ) {
        let dir = TempDir::new().unwrap();
        let unit = unit(&dir, if cdrom { UnitKind::Cdrom } else { UnitKind::Disk }, cdrom);
        cdb[0] = op;
        if small {
            cdb[2..7].fill(0);
        }
        let mut data = Bytes { out: vec![0; out], room: vec![0; room] };
        if let Ok(moved) = unit.execute(&cdb, &mut data) {
            prop_assert!(moved <= (out.max(room)) as u64);
        }
    }
}
