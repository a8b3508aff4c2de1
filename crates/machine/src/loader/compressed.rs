//! Compressed boot files: gzip (RFC 1952) and zstd (RFC 8878), unpacked within a limit.

use super::error::{LoadError, Role};
use std::{
    borrow::Cow,
    io::{ErrorKind, Read},
};

/// log2 of the largest zstd window, in bytes: what `zstd --ultra -22 --long` and the kernel's own build use at most.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The file's content: as it is, or unpacked if it is compressed. `limit` is in bytes.
pub(super) fn unpack(role: Role, bytes: &[u8], limit: u64) -> Result<Cow<'_, [u8]>, LoadError> {
    if bytes.starts_with(&GZIP) {
        return read_all(role, "gzip", flate2::bufread::GzDecoder::new(bytes), limit).map(Cow::Owned);
    }
    if bytes.starts_with(&ZSTD) {
        let damaged = |e: std::io::Error| LoadError::Damaged { role, format: "zstd", why: e.to_string() };
        let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
        return read_all(role, "zstd", decoder.single_frame(), limit).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(bytes))
}

/// Reads to the end, growing with what arrives and never past `limit`.
fn read_all(role: Role, format: &'static str, decoder: impl Read, limit: u64) -> Result<Vec<u8>, LoadError> {
    let mut content = Vec::new();
    decoder.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(|e| {
        let why = match e.kind() {
            ErrorKind::UnexpectedEof => "the compressed data ends early".to_owned(),
            _ => e.to_string(),
        };
        LoadError::Damaged { role, format, why }
    })?;
    if content.len() as u64 > limit {
        return Err(LoadError::UnpacksTooLarge { role, ram_mib: limit >> 20 });
    }
    if content.is_empty() {
        return Err(LoadError::Empty { role });
    }
    Ok(content)
}
