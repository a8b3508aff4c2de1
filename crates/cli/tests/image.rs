//! `isomer image` from outside, and beside `qemu-img` where there is one.

use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

fn isomer(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isomer")).arg("image").args(args).current_dir(dir).output().unwrap()
}

/// Exit code and JSON of `isomer image ARGS`.
fn json(dir: &Path, args: &[&str]) -> (i32, Value) {
    let output = isomer(dir, &[args, &["--format", "json"]].concat());
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), value)
}

fn ok(dir: &Path, args: &[&str]) -> Value {
    let (code, value) = json(dir, args);
    assert_eq!(code, 0, "{args:?}: {value}");
    value
}

/// `qemu-img ARGS`, where it is installed.
fn qemu_img(dir: &Path, args: &[&str]) -> Option<Output> {
    let output = Command::new("qemu-img").args(args).current_dir(dir).output();
    match output {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.unwrap()),
    }
}

/// `qemu-img check` has nothing to say against it. It does not check raw images.
fn qemu_finds_clean(dir: &Path, file: &str) {
    if file.ends_with(".img") {
        return;
    }
    if let Some(output) = qemu_img(dir, &["check", file]) {
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// A raw disk of 8 MiB and one sector: data at odd places, holes between.
fn raw_disk(path: &Path) -> Vec<u8> {
    let mut disk = vec![0; (8 << 20) + 512];
    for (at, len, value) in
        [(512, 700, 1), (0x1_0000, 0x1_0000, 2), (0x30_0100, 0x2_0000, 3), (8 << 20, 512, 4)]
    {
        disk[at..at + len].fill(value);
    }
    let file = File::create(path).unwrap();
    file.set_len(disk.len() as u64).unwrap();
    for (at, len) in [(0, 0x2_0000), (0x30_0000, 0x3_0000), (8 << 20, 512)] {
        file.write_all_at(&disk[at..at + len], at as u64).unwrap();
    }
    disk
}

#[test]
fn disks_are_copied_between_formats_and_back() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let disk = raw_disk(&dir.join("a.img"));
    let made = ok(dir, &["convert", "a.img", "b.qcow2"]);
    assert_eq!((&made["format"], &made["size_bytes"]), (&"qcow2".into(), &disk.len().into()));
    qemu_finds_clean(dir, "b.qcow2");
    let checked = ok(dir, &["check", "b.qcow2"]);
    // Only units of 64 KiB that are not all zeros are there.
    assert_eq!((&checked["clean"], &checked["data_clusters"]), (&true.into(), &6.into()));
    ok(dir, &["convert", "b.qcow2", "c.img"]);
    assert!(fs::read(dir.join("c.img")).unwrap() == disk);
    if let Some(output) = qemu_img(dir, &["compare", "a.img", "b.qcow2"]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    // What qemu-img makes, compressed and with other clusters, is read as well.
    if qemu_img(dir, &["convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k", "a.img", "d.qcow2"]).is_some()
    {
        ok(dir, &["convert", "d.qcow2", "e.img"]);
        assert!(fs::read(dir.join("e.img")).unwrap() == disk);
        let checked = ok(dir, &["check", "d.qcow2"]);
        assert!(checked["compressed_clusters"].as_u64() > Some(0), "{checked}");
    }
    let (code, error) = json(dir, &["convert", "a.img", "b.qcow2"]);
    assert_eq!((code, &error["error"]["code"]), (1, &"isomer::block::host".into()));
    qemu_finds_clean(dir, "b.qcow2"); // refused, not overwritten
}

#[test]
fn overlays_show_their_base_and_leave_it_alone() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let disk = raw_disk(&dir.join("base.img"));
    let made = ok(dir, &["create", "--backing", "base.img", "top.qcow2"]);
    assert_eq!(made["size_bytes"], disk.len());
    ok(dir, &["create", "-b", "top.qcow2", "over.qcow2", "16M"]);
    for file in ["top.qcow2", "over.qcow2"] {
        qemu_finds_clean(dir, file);
    }
    let info = ok(dir, &["info", "over.qcow2"]);
    let names: Vec<_> =
        info["images"].as_array().unwrap().iter().map(|i| i["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["over.qcow2", "top.qcow2", "base.img"]);
    assert_eq!(
        (&info["images"][0]["backing_format"], &info["images"][1]["backing_format"]),
        (&"qcow2".into(), &"raw".into())
    );
    if let Some(output) = qemu_img(dir, &["info", "--output=json", "over.qcow2"]) {
        let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(theirs["virtual-size"], info["images"][0]["size_bytes"]);
        assert_eq!(theirs["backing-filename"], "top.qcow2");
        assert_eq!(theirs["backing-filename-format"], "qcow2");
        assert_eq!(theirs["cluster-size"], info["images"][0]["cluster_bytes"]);
    }
    ok(dir, &["convert", "over.qcow2", "flat.img"]);
    let flat = fs::read(dir.join("flat.img")).unwrap();
    assert!(
        flat[..disk.len()] == disk && flat[disk.len()..].iter().all(|b| *b == 0) && flat.len() == 16 << 20
    );
    let (code, error) = json(dir, &["create", "-O", "raw", "-b", "base.img", "no.img"]);
    assert_eq!((code, &error["error"]["code"]), (1, &"isomer::image::raw_overlay".into()));
    let text = String::from_utf8(isomer(dir, &["info", "top.qcow2"]).stdout).unwrap();
    assert!(text.contains("backing file: base.img (raw)"), "{text}");
}

#[test]
fn sizes_change_and_shrinking_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    for name in ["a.img", "a.qcow2"] {
        ok(dir, &["create", name, "1M"]);
        let resized = ok(dir, &["resize", name, "+1M"]);
        assert_eq!((&resized["from_bytes"], &resized["size_bytes"]), (&(1 << 20).into(), &(2 << 20).into()));
        ok(dir, &["resize", name, "40G"]);
        assert_eq!(ok(dir, &["info", name])["images"][0]["size_bytes"], 40_u64 << 30);
        qemu_finds_clean(dir, name);
        let (code, error) = json(dir, &["resize", name, "-1G"]);
        assert_eq!((code, &error["error"]["code"]), (1, &"isomer::image::shrink".into()));
        ok(dir, &["resize", "--shrink", name, "512K"]);
        qemu_finds_clean(dir, name);
        let (_, error) = json(dir, &["resize", "--shrink", name, "-1M"]);
        assert_eq!(error["error"]["code"], "isomer::image::size");
    }
    let (code, error) = json(dir, &["create", "b.img", "100T"]);
    assert_eq!((code, &error["error"]["code"]), (1, &"isomer::block::size".into()));
    assert_eq!(isomer(dir, &["create", "b.img"]).status.code(), Some(2));
}

#[test]
fn a_longer_base_does_not_shine_through_where_an_overlay_grew() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    raw_disk(&dir.join("base.img"));
    ok(dir, &["create", "-b", "base.img", "top.qcow2", "1M"]);
    ok(dir, &["resize", "top.qcow2", "8M"]);
    qemu_finds_clean(dir, "top.qcow2");
    ok(dir, &["convert", "top.qcow2", "flat.img"]);
    let flat = fs::read(dir.join("flat.img")).unwrap();
    assert!(flat[0x1_0000] == 2 && flat[1 << 20..].iter().all(|b| *b == 0));
}

#[test]
fn leaks_and_corruption_are_found_and_leaks_repaired() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    raw_disk(&dir.join("a.img"));
    ok(dir, &["convert", "a.img", "b.qcow2"]);
    let file = File::options().read(true).write(true).open(dir.join("b.qcow2")).unwrap();
    let read = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let block = read(read(48));
    let l2 = read(read(40)) & 0x00ff_ffff_ffff_fe00;
    let data = (0..64).map(|n| l2 + 8 * n).find(|at| read(*at) != 0).unwrap();
    let (entry, cluster) = (read(data), (read(data) & 0x00ff_ffff_ffff_fe00) >> 16);
    // An entry that is gone leaks its cluster.
    file.write_all_at(&[0; 8], data).unwrap();
    let (code, checked) = json(dir, &["check", "b.qcow2"]);
    assert_eq!((code, &checked["leaks"], &checked["corruptions"]), (3, &1.into(), &0.into()), "{checked}");
    let checked = ok(dir, &["check", "--repair", "b.qcow2"]);
    assert_eq!((&checked["repaired"], &checked["clean"]), (&1.into(), &true.into()));
    qemu_finds_clean(dir, "b.qcow2");
    // An entry whose cluster counts as free is corruption, and is left alone.
    file.write_all_at(&entry.to_be_bytes(), data).unwrap();
    let (code, checked) = json(dir, &["check", "--repair", "b.qcow2"]);
    assert_eq!((code, &checked["clean"], &checked["repaired"]), (1, &false.into(), &0.into()));
    assert!(checked["corruptions"].as_u64() >= Some(1), "{checked}");
    file.write_all_at(&1_u16.to_be_bytes(), block + 2 * cluster).unwrap();
    ok(dir, &["check", "b.qcow2"]);
}

#[test]
fn an_image_in_use_is_described_and_not_touched() {
    use isomer_devices::backend::{Image, ImageOptions};
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    ok(dir, &["create", "a.qcow2", "1M"]);
    let held = Image::open(&dir.join("a.qcow2"), &ImageOptions::default()).unwrap();
    assert_eq!(ok(dir, &["info", "a.qcow2"])["images"][0]["in_use"], "writing");
    for args in [
        &["check", "a.qcow2"][..],
        &["resize", "a.qcow2", "2M"],
        &["convert", "a.qcow2", "b.img"],
        &["create", "-b", "a.qcow2", "c.qcow2"],
    ] {
        let (code, error) = json(dir, args);
        assert_eq!((code, &error["error"]["code"]), (1, &"isomer::block::locked".into()), "{args:?}");
        assert!(error["error"]["help"].is_string());
    }
    if let Some(output) = qemu_img(dir, &["check", "a.qcow2"]) {
        assert!(!output.status.success(), "qemu-img does not see the lock");
    }
    drop(held);
    ok(dir, &["check", "a.qcow2"]);
}
