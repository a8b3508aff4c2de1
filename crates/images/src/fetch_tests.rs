//! Downloads from a server on this host's loopback that breaks off, changes its file, or refuses.

use super::*;
use crate::Silent;
use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What the server has, and how it behaves.
#[derive(Clone)]
struct Served {
    content: Vec<u8>,
    tag: &'static str,
    /// Bytes after which a connection breaks off.
    breaks_after: usize,
}

struct Server {
    address: SocketAddr,
    served: Arc<Mutex<Served>>,
    /// Requests with a range that were answered with one.
    resumed: Arc<AtomicUsize>,
}

impl Server {
    fn start(served: Served) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            served: Arc::new(Mutex::new(served)),
            resumed: Arc::default(),
        };
        let (served, resumed) = (server.served.clone(), server.resumed.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.lock().unwrap().clone();
                let _ = answer(stream, &served, &resumed);
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }
}

fn answer(mut stream: std::net::TcpStream, served: &Served, resumed: &AtomicUsize) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let find = |name: &str| {
        headers.iter().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    if request.contains("/missing") {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let range =
        find("range").and_then(|range| range.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok());
    let from: usize = range.filter(|_| find("if-range").as_deref() == Some(served.tag)).unwrap_or(0);
    let body = &served.content[from.min(served.content.len())..];
    let head = match from {
        0 => "HTTP/1.1 200 OK\r\n".to_owned(),
        _ => {
            resumed.fetch_add(1, Ordering::Relaxed);
            let last = served.content.len() - 1;
            format!("HTTP/1.1 206 Partial\r\nContent-Range: bytes {from}-{last}/{}\r\n", last + 1)
        }
    };
    write!(
        stream,
        "{head}ETag: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        served.tag,
        body.len()
    )?;
    if !request.starts_with("HEAD") {
        stream.write_all(&body[..body.len().min(served.breaks_after)])?;
    }
    Ok(())
}

fn content(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

fn digest_of(bytes: &[u8]) -> Expected {
    Expected::Sha256(crate::digest::hex(&Sha256::digest(bytes)))
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let bytes = content(300_000, 0);
    let server = Server::start(Served { content: bytes.clone(), tag: "\"a\"", breaks_after: 70_000 });
    let dir = tempfile::tempdir().unwrap();
    let done =
        Client::new().download(&server.url(), dir.path(), "file", Some(&digest_of(&bytes)), &Silent).unwrap();
    assert!(fs::read(done).unwrap() == bytes);
    assert!(server.resumed.load(Ordering::Relaxed) >= 3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no leavings");
}

#[test]
fn a_beginning_of_an_older_file_is_not_gone_on_with() {
    let (old, new) = (content(100_000, 1), content(120_000, 2));
    let server = Server::start(Served { content: new.clone(), tag: "\"new\"", breaks_after: usize::MAX });
    let dir = tempfile::tempdir().unwrap();
    let part = Part::open(dir.path(), "file", &server.url()).unwrap();
    part.writer(0).unwrap().write_all(&old[..50_000]).unwrap();
    part.set_tag(Some("\"old\"")).unwrap();
    drop(part);
    let done = Client::new().download(&server.url(), dir.path(), "file", None, &Silent).unwrap();
    assert!(fs::read(done).unwrap() == new);
    assert_eq!(server.resumed.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_there_and_right_is_kept_and_what_is_wrong_is_not() {
    let bytes = content(1000, 3);
    let server = Server::start(Served { content: bytes.clone(), tag: "\"a\"", breaks_after: usize::MAX });
    let dir = tempfile::tempdir().unwrap();
    let get = |expected: &Expected| {
        Client::new().download(&server.url(), dir.path(), "file", Some(expected), &Silent)
    };
    let wrong = digest_of(b"something else");
    assert!(matches!(get(&wrong), Err(ImageError::Digest { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing wrong is kept");
    get(&digest_of(&bytes)).unwrap();
    // The server is not asked again.
    server.served.lock().unwrap().content = content(1000, 4);
    let done = get(&digest_of(&bytes)).unwrap();
    assert!(fs::read(done).unwrap() == bytes);
}

#[test]
fn refusals_and_silence_are_errors_with_a_fix() {
    let server = Server::start(Served { content: Vec::new(), tag: "\"a\"", breaks_after: 0 });
    let dir = tempfile::tempdir().unwrap();
    let missing = format!("http://{}/missing", server.address);
    let client = Client::new();
    assert_eq!(client.get(&missing).unwrap(), None);
    let refused = client.download(&missing, dir.path(), "file", None, &Silent);
    assert!(matches!(refused, Err(ImageError::Download { why, .. }) if why.contains("404")));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(client.get(&format!("http://{closed}/")), Err(ImageError::Download { .. })));
}

#[test]
fn two_processes_do_not_write_the_same_download() {
    let dir = tempfile::tempdir().unwrap();
    let first = Part::open(dir.path(), "file", "http://x/").unwrap();
    assert!(matches!(Part::open(dir.path(), "file", "http://x/"), Err(ImageError::Busy { .. })));
    drop(first);
    assert!(Part::open(dir.path(), "file", "http://x/").is_ok());
}
