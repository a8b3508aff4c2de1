//! Digests (FIPS 180-4): computing them while data passes, and comparing with what was promised.

use crate::{ImageError, error::file};
use sha2::{Digest, Sha256, Sha512};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

/// A digest that somebody promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// SHA-256, in lower-case hexadecimal.
    Sha256(String),
    /// SHA-512.
    Sha512(String),
}

impl Expected {
    /// A SHA-256 digest, if `hex` is one.
    ///
    /// # Errors
    /// A message for the user.
    pub fn sha256(hex: &str) -> Result<Self, String> {
        Ok(Self::Sha256(hexadecimal(hex, 64)?))
    }

    /// A SHA-512 digest, if `hex` is one.
    ///
    /// # Errors
    /// A message for the user.
    pub fn sha512(hex: &str) -> Result<Self, String> {
        Ok(Self::Sha512(hexadecimal(hex, 128)?))
    }

    /// What kind it is.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Sha512(_) => "SHA-512",
        }
    }

    /// The digest.
    pub fn hex(&self) -> &str {
        let (Self::Sha256(hex) | Self::Sha512(hex)) = self;
        hex
    }

    /// Reads `reader` to its end and compares; `what` names it in the error.
    ///
    /// # Errors
    /// [`ImageError::Digest`], or what reading says.
    pub fn check(&self, what: &str, path: &Path) -> Result<(), ImageError> {
        let reader = File::open(path).map_err(file("open", path))?;
        let found = match self {
            Self::Sha256(_) => digest::<Sha256>(reader),
            Self::Sha512(_) => digest::<Sha512>(reader),
        }
        .map_err(file("read", path))?;
        if found == self.hex() {
            return Ok(());
        }
        Err(ImageError::Digest {
            what: what.to_owned(),
            kind: self.kind(),
            expected: self.hex().to_owned(),
            found,
        })
    }
}

impl FromStr for Expected {
    type Err = String;

    /// By its length.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.len() {
            128 => Self::sha512(text),
            _ => Self::sha256(text),
        }
    }
}

fn hexadecimal(text: &str, len: usize) -> Result<String, String> {
    if text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("write the digest as {len} hexadecimal digits"))
}

/// The SHA-256 digest of a file, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_of(path: &Path) -> Result<String, ImageError> {
    let reader = File::open(path).map_err(file("open", path))?;
    digest::<Sha256>(reader).map_err(file("read", path))
}

fn digest<D: Digest>(mut reader: impl Read) -> io::Result<String> {
    let mut digest = D::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match reader.read(&mut block) {
            Ok(0) => return Ok(hex(&digest.finalize())),
            Ok(count) => digest.update(&block[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked_and_wrong_ones_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-4's example.
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path).unwrap(), right);
        Expected::sha256(&right.to_uppercase()).unwrap().check("abc", &path).unwrap();
        let wrong = right.replace('b', "c").parse::<Expected>().unwrap();
        assert!(matches!(wrong.check("abc", &path), Err(ImageError::Digest { kind: "SHA-256", .. })));
        let long = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                    2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        long.parse::<Expected>().unwrap().check("abc", &path).unwrap();
        assert!(Expected::sha256("12").is_err() && Expected::sha512(right).is_err());
        assert!("zz".repeat(32).parse::<Expected>().is_err());
    }
}
