//! Secrets that are never displayed, and byte buffers that may contain one.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Deref;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// A secret, such as an access token. `Debug` hides it, it has no `Display`, it cannot be serialized, and dropping it zeroes its
/// memory.
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
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        // Copy and zero the value. A conversion would shrink the string to its length, which can leave a copy in freed
        // memory.
        let value = Zeroizing::new(value.into());
        Self(SecretString::from(value.as_str()))
    }

    /// The value, for code that sends or stores it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Bytes that may contain a secret, such as the content of a login file. Dropping them zeroes their memory.
///
/// A `Zeroizing<Vec<u8>>` that grows leaves a copy of its content in freed memory. This buffer moves itself to larger memory and
/// zeroes the old one.
///
/// ```
/// use std::io::Write;
///
/// use quota_core::secret::SecretBuffer;
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
    /// An empty buffer with this capacity in bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Reads at most `limit` bytes until the reader's end. `expected` is the expected size and sets the initial capacity.
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

/// The size of one read.
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
            let (address, is_full) = (buffer.as_ptr(), buffer.len() == buffer.0.capacity());

            buffer.extend_from_slice(&[byte]);

            // Memory that the allocator extends in place or moves is not zeroed.
            assert_eq!(buffer.as_ptr() != address, is_full, "{byte}");
        }
        assert_eq!(buffer.len(), 256);
    }

    #[test]
    fn a_reader_of_the_limit_size_is_read() {
        let bytes = vec![7; 3 * CHUNK];

        let read = SecretBuffer::read(&*bytes, 0, bytes.len()).unwrap();

        assert_eq!(&*read, bytes);
    }

    #[test]
    fn a_reader_over_the_limit_is_rejected() {
        let error = SecretBuffer::read(io::repeat(7), 0, CHUNK).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
