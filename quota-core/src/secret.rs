//! A value that must not be seen, and bytes that may hold one.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Deref;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// A secret, such as an access token. It is not shown by `Debug`, has no `Display`, cannot be serialized, and its memory
/// is wiped when it is dropped.
///
/// ```
/// use quota_core::Secret;
///
/// let token = Secret::new("sk-ant-oat01-abc");
/// assert_eq!(format!("{token:?}"), "Secret(***)");
/// assert_eq!(token.expose(), "sk-ant-oat01-abc");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Hides a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        // Copied and wiped: giving the text away would shrink it to its length, which can leave a copy behind.
        let value = Zeroizing::new(value.into());
        Self(SecretString::from(value.as_str()))
    }

    /// Shows the value, to the code that sends it to its owner and to nobody else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Bytes that may hold a secret, such as a login file that is read or written. They are wiped when dropped.
///
/// A `Zeroizing<Vec<u8>>` that grows leaves a copy of what it held in freed memory. This buffer moves to larger memory
/// itself, and wipes what it leaves.
///
/// ```
/// use std::io::Write;
///
/// use quota_core::SecretBuffer;
///
/// let mut buffer = SecretBuffer::default();
/// write!(buffer, "{{\"token\":\"{}\"}}", "sk-ant-oat01-abc")?;
/// assert_eq!(&*buffer, br#"{"token":"sk-ant-oat01-abc"}"#);
/// assert_eq!(format!("{buffer:?}"), "SecretBuffer(***)");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct SecretBuffer(Zeroizing<Vec<u8>>);

impl SecretBuffer {
    /// An empty buffer with room for so many bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Reads everything a reader gives, if that is no more than `limit` bytes. `expected` is how many there will probably be.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::FileTooLarge`] beyond the limit, otherwise the reader's own error.
    pub fn read(reader: impl Read, expected: usize, limit: usize) -> io::Result<Self> {
        let mut buffer = Self::with_capacity(expected.min(limit));
        let mut reader = reader.take((limit as u64).saturating_add(1));
        let mut chunk = Zeroizing::new([0; CHUNK]);
        loop {
            match reader.read(&mut *chunk) {
                Ok(0) => return Ok(buffer),
                Ok(read) if buffer.len() + read > limit => return Err(io::ErrorKind::FileTooLarge.into()),
                Ok(read) => buffer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let len = self.0.len() + bytes.len();
        if len > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(len.max(2 * self.0.capacity())));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }
}

/// How much of a reader is read at once.
const CHUNK: usize = 4096;

impl Deref for SecretBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SecretBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for SecretBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBuffer(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_buffer_moves_when_it_grows() {
        let mut buffer = SecretBuffer::with_capacity(1);
        for byte in 0..=255_u8 {
            let (place, is_full) = (buffer.as_ptr(), buffer.len() == buffer.0.capacity());

            buffer.extend_from_slice(&[byte]);

            // Memory that was extended where it is, or moved by the allocator, was not wiped by anyone.
            assert_eq!(buffer.as_ptr() != place, is_full, "{byte}");
        }
        assert_eq!(buffer.len(), 256);
    }

    #[test]
    fn a_reader_with_as_much_as_the_limit_is_read() {
        let bytes = vec![7; 3 * CHUNK];

        let read = SecretBuffer::read(&*bytes, 0, bytes.len()).unwrap();

        assert_eq!(&*read, bytes);
    }

    #[test]
    fn a_reader_beyond_the_limit_is_refused() {
        let error = SecretBuffer::read(io::repeat(7), 0, CHUNK).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
