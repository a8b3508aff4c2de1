//! `isomer cp`: files through the guest agent; directories as a tar archive that a `tar` in the guest makes or unpacks.

use super::{
    BOOT_LIMIT, Home, MachineError,
    client::{Client, PIECE_BYTES, Streams},
};
use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Host(&'a Path),
    Guest { machine: &'a str, path: &'a str },
}

/// `NAME:PATH` is in a machine. A path of the host's with a colon is written with a slash before it.
fn end(text: &str) -> End<'_> {
    match text.split_once(':') {
        Some((machine, path)) if !machine.contains('/') && !machine.is_empty() && !path.is_empty() => {
            End::Guest { machine, path }
        }
        _ => End::Host(Path::new(text)),
    }
}

fn usage(why: String, fix: &str) -> MachineError {
    MachineError::Usage { why, fix: fix.to_owned() }
}

/// Copies, and returns the number of bytes carried.
pub(super) fn copy(home: &Home, from: &str, to: &str) -> Result<u64, MachineError> {
    let connect = |name: &str| {
        let mut client = Client::connect(&home.existing(name)?)?;
        client.wait_for_agent(BOOT_LIMIT)?;
        Ok::<_, MachineError>(client)
    };
    match (end(from), end(to)) {
        (End::Host(from), End::Guest { machine, path }) => {
            let metadata = fs::metadata(from).map_err(|source| MachineError::file("read", from, source))?;
            let mut client = connect(machine)?;
            let path = place(&mut client, path, from)?;
            match metadata.is_dir() {
                true => put_directory(&mut client, from, &path),
                false => put_file(&mut client, from, &path, metadata.permissions().mode() & 0o777),
            }
        }
        (End::Guest { machine, path }, End::Host(to)) => {
            let mut client = connect(machine)?;
            let name = path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty());
            let target = match (to.is_dir(), name) {
                (true, Some(name)) => to.join(name),
                _ => to.to_owned(),
            };
            match is_directory(&mut client, path)? {
                true => get_directory(&mut client, path, &target),
                false => get_file(&mut client, path, &target),
            }
        }
        _ => Err(usage(
            "one end of a copy is in a machine, the other one on this host".into(),
            "as in: isomer cp ./file dev:/root/, or isomer cp dev:/etc/os-release .",
        )),
    }
}

/// Where a thing goes: into a directory that exists, under its own name.
fn place(client: &mut Client, path: &str, from: &Path) -> Result<String, MachineError> {
    if !is_directory(client, path)? {
        return Ok(path.to_owned());
    }
    let from = fs::canonicalize(from).unwrap_or_else(|_| from.to_owned());
    let name = from.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        usage(format!("{} has no name that a guest could have", from.display()), "give it one")
    })?;
    Ok(format!("{}/{name}", path.trim_end_matches('/')))
}

fn is_directory(client: &mut Client, path: &str) -> Result<bool, MachineError> {
    Ok(client.run("/usr/bin/test", &["-d", path])? == 0)
}

fn put_file(client: &mut Client, from: &Path, path: &str, mode: u32) -> Result<u64, MachineError> {
    let read = |source| MachineError::file("read", from, source);
    let mut file = File::open(from).map_err(read)?;
    let handle = client.open(path, "w")?;
    let mut block = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut block).map_err(read)? {
            0 => break,
            count => {
                client.write(handle, &block[..count])?;
                bytes += count as u64;
            }
        }
    }
    client.close(handle)?;
    done(client.run("/bin/chmod", &[&format!("{mode:o}"), path])?, "chmod", "")?;
    Ok(bytes)
}

fn get_file(client: &mut Client, path: &str, to: &Path) -> Result<u64, MachineError> {
    let handle = client.open(path, "r")?;
    let write = |source| MachineError::file("write", to, source);
    let mut file = File::create(to).map_err(write)?;
    let mut bytes = 0;
    loop {
        let piece = client.read(handle)?;
        if piece.is_empty() {
            break;
        }
        file.write_all(&piece).map_err(write)?;
        bytes += piece.len() as u64;
    }
    client.close(handle)?;
    Ok(bytes)
}

fn put_directory(client: &mut Client, from: &Path, path: &str) -> Result<u64, MachineError> {
    let read = |source| MachineError::file("read", from, source);
    let mut builder = tar::Builder::new(spool()?);
    builder.follow_symlinks(false);
    builder.append_dir_all(".", from).map_err(read)?;
    let mut archive = builder.into_inner().map_err(read)?;
    let bytes = archive.seek(SeekFrom::End(0)).map_err(read)?;
    archive.rewind().map_err(read)?;
    done(client.run("/bin/mkdir", &["-p", path])?, "mkdir", "")?;
    let command = ["tar", "-x", "-C", path].map(str::to_owned);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let streams = Streams { input: Some(&mut archive), stdout: &mut stdout, stderr: &mut stderr };
    let code = client.exec(&command, streams)?;
    done(code, "tar", &String::from_utf8_lossy(&stderr))?;
    Ok(bytes)
}

fn get_directory(client: &mut Client, path: &str, to: &Path) -> Result<u64, MachineError> {
    let command = ["tar", "-c", "-C", path, "."].map(str::to_owned);
    let (mut archive, mut stderr) = (spool()?, Vec::new());
    let streams = Streams { input: None, stdout: &mut archive, stderr: &mut stderr };
    let code = client.exec(&command, streams)?;
    done(code, "tar", &String::from_utf8_lossy(&stderr))?;
    let write = |source| MachineError::file("write", to, source);
    let bytes = archive.seek(SeekFrom::End(0)).map_err(write)?;
    archive.rewind().map_err(write)?;
    fs::create_dir_all(to).map_err(write)?;
    // The library lets nothing out of the directory, which matters: the archive is the guest's.
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(false);
    archive.unpack(to).map_err(write)?;
    fs::set_permissions(to, Permissions::from_mode(0o755)).map_err(write)?;
    Ok(bytes)
}

fn spool() -> Result<File, MachineError> {
    let folder: PathBuf = std::env::temp_dir();
    tempfile::tempfile().map_err(|source: io::Error| MachineError::file("write to", &folder, source))
}

fn done(code: u8, what: &str, said: &str) -> Result<(), MachineError> {
    match code {
        0 => Ok(()),
        code => Err(MachineError::Refused {
            code: "isomer::machines::copy".into(),
            message: format!("{what} in the guest exited with {code} {}", said.trim()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(end("dev:/etc/x"), End::Guest { machine: "dev", path: "/etc/x" });
        for host in ["file", "./a:b", "/a:b", ":x", "dev:"] {
            assert_eq!(end(host), End::Host(Path::new(host)));
        }
    }
}
