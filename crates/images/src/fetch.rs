//! Downloads over HTTP: resumable, checked, and through the proxies that the environment names (`http_proxy`,
//! `https_proxy`, `no_proxy`).

use crate::{Expected, ImageError, Progress, Unit, error::file, places::make_private};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes read at a time.
const BLOCK_BYTES: usize = 1 << 16;
/// Answers kept in memory may be this long.
const MEMORY_LIMIT_BYTES: u64 = 64 << 20;
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How often an interrupted download goes on by itself.
const TRIES: usize = 5;

/// Fetches over HTTP and HTTPS.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

/// What came of one attempt.
enum Attempt {
    Whole,
    /// It broke off with this error; what came is kept.
    Broken(String),
}

impl Client {
    /// A client. Proxies are the environment's.
    pub fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("isomer/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(SILENCE))
            .build();
        Self { agent: config.into() }
    }

    /// A small answer, in memory; `None` where the server has nothing there.
    ///
    /// # Errors
    /// When the server cannot be reached or answers with an error.
    pub fn get(&self, url: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let answer = self.agent.get(url).call().map_err(|error| unreachable(url, &error))?;
        match answer.status().as_u16() {
            200 => {}
            404 | 410 => return Ok(None),
            status => return Err(refused(url, status)),
        }
        let mut bytes = Vec::new();
        let mut body = answer.into_body().into_reader().take(MEMORY_LIMIT_BYTES + 1);
        body.read_to_end(&mut bytes).map_err(|error| broken(url, &error.to_string()))?;
        if bytes.len() as u64 > MEMORY_LIMIT_BYTES {
            return Err(broken(url, "the answer is far too long"));
        }
        Ok(Some(bytes))
    }

    /// Downloads into `folder` as `name`; what is there and has the digest is kept, what was begun is gone on with.
    /// Without a digest, a finished file is fetched again. Progress counts bytes, within a step of the caller's.
    ///
    /// # Errors
    /// When the server cannot be reached, or what it sends is not what `expected` says: that is deleted.
    pub fn download(
        &self,
        url: &str,
        folder: &Path,
        name: &str,
        expected: Option<&Expected>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, ImageError> {
        make_private(folder)?;
        let done = folder.join(name);
        if let Some(expected) = expected
            && done.exists()
        {
            if expected.check(url, &done).is_ok() {
                progress.advance(fs::metadata(&done).map_or(0, |metadata| metadata.len()));
                return Ok(done);
            }
            fs::remove_file(&done).map_err(file("remove", &done))?;
        }
        let part = Part::open(folder, name, url)?;
        let mut tries = 0;
        loop {
            let before = part.len()?;
            match self.attempt(url, &part, progress)? {
                Attempt::Whole => break,
                Attempt::Broken(why) => {
                    // As long as something comes, it goes on.
                    tries = if part.len()? > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(broken(url, &why));
                    }
                    tracing::info!("{url} broke off ({why}); going on");
                    std::thread::sleep(Duration::from_millis(500 << tries));
                }
            }
        }
        if let Some(expected) = expected
            && let Err(error) = expected.check(url, &part.path)
        {
            part.discard();
            return Err(error);
        }
        part.finish(&done)?;
        Ok(done)
    }

    /// As [`Self::download`], as a step of its own.
    ///
    /// # Errors
    /// The same.
    pub fn download_step(
        &self,
        url: &str,
        folder: &Path,
        name: &str,
        expected: Option<&Expected>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, ImageError> {
        let total = self.agent.head(url).call().ok().and_then(|answer| content_length(&answer));
        progress.begin(&format!("Downloading {name}"), total, Unit::Bytes);
        let done = self.download(url, folder, name, expected, progress);
        progress.end();
        done
    }

    fn attempt(&self, url: &str, part: &Part, progress: &dyn Progress) -> Result<Attempt, ImageError> {
        let have = part.len()?;
        let mut request = self.agent.get(url);
        let tag = part.tag();
        if let Some(tag) = tag.as_ref().filter(|_| have > 0) {
            request = request.header("Range", format!("bytes={have}-")).header("If-Range", tag);
        }
        let answer = match request.call() {
            Ok(answer) => answer,
            Err(error @ (ureq::Error::HostNotFound | ureq::Error::BadUri(_))) => {
                return Err(unreachable(url, &error));
            }
            Err(error) => return Ok(Attempt::Broken(error.to_string())),
        };
        let from = match answer.status().as_u16() {
            206 if starts_at(&answer) == Some(have) => have,
            200 => 0,
            // Nothing is behind what we have: it is all there, or another file. Begin anew and see.
            206 | 416 => {
                part.truncate()?;
                return Ok(Attempt::Broken("the server has another file now".into()));
            }
            status @ (500..=599 | 429) => return Ok(Attempt::Broken(format!("the server answers {status}"))),
            status => return Err(refused(url, status)),
        };
        part.set_tag(validator(&answer))?;
        let total = content_length(&answer);
        if from == have {
            // Bytes of an earlier run count, those of this one were counted already.
            progress.advance(part.uncounted(have));
        }
        let mut out = part.writer(from)?;
        let mut body = answer.into_body().into_reader();
        let mut block = vec![0; BLOCK_BYTES];
        let mut came = 0;
        loop {
            match body.read(&mut block) {
                Ok(0) => break,
                Ok(count) => {
                    out.write_all(&block[..count]).map_err(file("write", &part.path))?;
                    came += count as u64;
                    part.count(from + came);
                    progress.advance(count as u64);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Attempt::Broken(error.to_string())),
            }
        }
        out.sync_data().map_err(file("write", &part.path))?;
        Ok(match total {
            Some(total) if came < total => Attempt::Broken("the connection ended early".into()),
            _ => Attempt::Whole,
        })
    }
}

type Answer = ureq::http::Response<ureq::Body>;

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

fn content_length(answer: &Answer) -> Option<u64> {
    header(answer, "content-length")?.parse().ok()
}

/// Where a partial answer begins: `bytes FROM-TO/TOTAL` (RFC 9110, 14.4).
fn starts_at(answer: &Answer) -> Option<u64> {
    header(answer, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// What tells that a file is still the same: a strong entity tag, or its date (RFC 9110, 13.1.5).
fn validator(answer: &Answer) -> Option<&str> {
    header(answer, "etag").filter(|tag| !tag.starts_with("W/")).or_else(|| header(answer, "last-modified"))
}

/// A download that has begun. Its lock keeps a second process away.
struct Part {
    path: PathBuf,
    tag_path: PathBuf,
    counted: std::sync::atomic::AtomicU64,
    _lock: File,
}

impl Part {
    fn open(folder: &Path, name: &str, url: &str) -> Result<Self, ImageError> {
        // Another URL's beginning must not be gone on with.
        let id = crate::digest::hex(&Sha256::digest(url.as_bytes())[..6]);
        let path = folder.join(format!("{name}.{id}.part"));
        let lock = OpenOptions::new().create(true).append(true).open(&path).map_err(file("write", &path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| ImageError::Busy { what: name.to_owned() })?;
        let tag_path = path.with_extension("tag");
        Ok(Self { path, tag_path, counted: Default::default(), _lock: lock })
    }

    fn len(&self) -> Result<u64, ImageError> {
        Ok(fs::metadata(&self.path).map_err(file("look at", &self.path))?.len())
    }

    fn truncate(&self) -> Result<(), ImageError> {
        self.writer(0).map(drop)
    }

    fn uncounted(&self, have: u64) -> u64 {
        have.saturating_sub(self.counted.swap(have, std::sync::atomic::Ordering::Relaxed))
    }

    fn count(&self, have: u64) {
        self.counted.store(have, std::sync::atomic::Ordering::Relaxed);
    }

    /// Writes from `from` on; what was behind it is gone.
    fn writer(&self, from: u64) -> Result<File, ImageError> {
        let open = || {
            let mut out = OpenOptions::new().write(true).open(&self.path)?;
            out.set_len(from)?;
            out.seek(SeekFrom::Start(from))?;
            Ok(out)
        };
        open().map_err(file("write", &self.path))
    }

    fn tag(&self) -> Option<String> {
        fs::read_to_string(&self.tag_path).ok().filter(|tag| !tag.is_empty())
    }

    fn set_tag(&self, tag: Option<&str>) -> Result<(), ImageError> {
        fs::write(&self.tag_path, tag.unwrap_or_default()).map_err(file("write", &self.tag_path))
    }

    fn discard(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.tag_path);
    }

    fn finish(self, done: &Path) -> Result<(), ImageError> {
        fs::rename(&self.path, done).map_err(file("rename", &self.path))?;
        let _ = fs::remove_file(&self.tag_path);
        Ok(())
    }
}

fn unreachable(url: &str, error: &ureq::Error) -> ImageError {
    ImageError::Download {
        url: url.to_owned(),
        why: error.to_string(),
        fix: "check the network, and http_proxy and https_proxy in the environment".into(),
    }
}

fn broken(url: &str, why: &str) -> ImageError {
    ImageError::Download {
        url: url.to_owned(),
        why: why.to_owned(),
        fix: "try again: what has come is kept, and the download goes on from there".into(),
    }
}

fn refused(url: &str, status: u16) -> ImageError {
    let fix = match status {
        404 | 410 => "there is nothing at this address: check its spelling",
        401 | 403 | 407 => "the server or a proxy does not let you in",
        _ => "try again later, or another server",
    };
    ImageError::Download { url: url.to_owned(), why: format!("the server answers {status}"), fix: fix.into() }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
