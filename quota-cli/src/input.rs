//! Reads a file or standard input, bounded in size and time.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use quota::file::{open_nonblocking, permissions};

use crate::exit::{CliError, Exit};
use crate::io_cause;
use crate::token_like::masked;

/// The size limit, larger than any real input. Claude Code's state file grows with every project.
const LIMIT: u64 = 64 * 1024 * 1024;
/// The timeout for a pipe or a device. It allows for a program that decrypts a configuration.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);
#[cfg(unix)]
const PIPE: piecemeal::Bounds =
    piecemeal::Bounds { size: LIMIT as usize, first: PIPE_TIMEOUT, all: PIPE_TIMEOUT };

/// Reads a file. `-` is standard input, without a timeout, because a user or a slow program may be writing to it.
///
/// # Errors
///
/// [`CliError`] if the file cannot be read, is larger than 64 MiB, or a pipe or device does not end within a timeout.
pub(crate) fn read_input(path: &Path) -> Result<Vec<u8>, CliError> {
    let read =
        if is_stdin(path) { to_end(io::stdin().lock()) } else { open_nonblocking(path).and_then(read) };
    limited(path, read)
}

/// Reads a file that names programs and hosts. A file that another user can write is rejected. Standard input has the timeout of a
/// pipe.
///
/// # Errors
///
/// As [`read_input`], and [`CliError`] with a `chmod` command if another user can write the file.
pub(crate) fn read_trusted(path: &Path) -> Result<Vec<u8>, CliError> {
    if is_stdin(path) {
        return limited(path, read_stdin());
    }
    let opened = open_nonblocking(path).and_then(|file| Ok((permissions::check(&file, path)?, file)));
    match opened {
        Ok((Err(untrusted), _)) => Err(CliError::new(Exit::Config, untrusted.to_string())),
        Ok((Ok(()), file)) => limited(path, read(file)),
        Err(error) => limited(path, Err(error)),
    }
}

fn limited(path: &Path, read: io::Result<Vec<u8>>) -> Result<Vec<u8>, CliError> {
    read.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            let why = format!("could not read {}: it is larger than 64 MiB", display_name(path));
            CliError::new(Exit::DataErr, why)
        }
        _ => CliError::new(
            Exit::NoInput,
            format!("could not read {}: {}", display_name(path), io_reason(&error)),
        ),
    })
}

fn to_end(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Reads a pipe or a device without blocking, because it may never end.
#[cfg(unix)]
fn read(file: File) -> io::Result<Vec<u8>> {
    if file.metadata()?.is_file() { to_end(file) } else { piecemeal::read(file, true, &PIPE, |_| false) }
}

#[cfg(not(unix))]
fn read(file: File) -> io::Result<Vec<u8>> {
    if file.metadata()?.is_file() { to_end(file) } else { Err(io::Error::other("it is not a regular file")) }
}

#[cfg(unix)]
fn read_stdin() -> io::Result<Vec<u8>> {
    piecemeal::read(io::stdin(), false, &PIPE, |_| false)
}

#[cfg(not(unix))]
fn read_stdin() -> io::Result<Vec<u8>> {
    to_end(io::stdin().lock())
}

/// Reads a pipe or a device piece by piece on this thread, within a timeout.
#[cfg(unix)]
pub(crate) mod piecemeal {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;
    use rustix::time::{ClockId, clock_gettime};

    /// The bounds of a read.
    #[derive(Debug)]
    pub(crate) struct Bounds {
        /// The maximum size, in bytes.
        pub(crate) size: usize,
        /// The timeout until the first byte.
        pub(crate) first: Duration,
        /// The timeout until the end.
        pub(crate) all: Duration,
    }

    /// Reads until the end, or until `is_complete` returns true for a piece. It gets each piece once, in order.
    ///
    /// # Errors
    ///
    /// [`FileTooLarge`](io::ErrorKind::FileTooLarge) and [`TimedOut`](io::ErrorKind::TimedOut) if a bound is exceeded, and
    /// those of the system.
    pub(crate) fn read(
        source: impl AsFd,
        is_nonblocking: bool,
        bounds: &Bounds,
        mut is_complete: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Vec<u8>> {
        let started = now();
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        // If the source can block, poll before each read.
        let mut is_ready = is_nonblocking;
        let mut has_waited = false;
        loop {
            let bound = if bytes.is_empty() { bounds.first } else { bounds.all };
            let left = bound.saturating_sub(now().saturating_sub(started));
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !is_ready {
                let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
                match poll(&mut [PollFd::new(&source, PollFlags::IN)], Some(&left)) {
                    Err(Errno::INTR) => continue,
                    found => is_ready = found? > 0,
                }
                has_waited = true;
                continue;
            }
            is_ready = is_nonblocking;
            match rustix::io::read(&source, &mut piece) {
                // A named pipe without a writer reads as empty, so poll once before it counts as the end.
                Ok(0) if bytes.is_empty() && !has_waited => is_ready = false,
                Ok(0) => return Ok(bytes),
                Ok(read) if bytes.len() + read > bounds.size => {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                Ok(read) => {
                    bytes.extend_from_slice(&piece[..read]);
                    if is_complete(&piece[..read]) {
                        return Ok(bytes);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if is_nonblocking => is_ready = false,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The monotonic clock.
    fn now() -> Duration {
        Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
    }
}

/// The name of the input for errors. If it looks like a token, it is masked.
pub(crate) fn display_name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { masked(&path.display().to_string()).to_owned() }
}

/// The cause of a read error.
pub(crate) fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            format!("it did not end within {} s; use a regular file", PIPE_TIMEOUT.as_secs())
        }
        _ => io_cause::of_read(error),
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode};
    use tempfile::TempDir;

    use super::piecemeal::Bounds;
    use super::*;

    const SHORT: Bounds = Bounds { size: 8, first: Duration::from_millis(1), all: Duration::from_secs(60) };
    const LONG: Bounds = Bounds { size: 8, first: Duration::from_secs(60), all: Duration::from_secs(60) };

    fn named_pipe() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        (dir, path)
    }

    #[test]
    fn a_pipe_without_a_writer_times_out() {
        let (_dir, path) = named_pipe();

        let read = piecemeal::read(open_nonblocking(&path).unwrap(), true, &SHORT, |_| false);

        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_pipe_is_read_up_to_its_end() {
        let (_dir, path) = named_pipe();
        let reader = open_nonblocking(&path).unwrap();
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"12345678").unwrap();
        drop(writer);

        assert_eq!(piecemeal::read(reader, true, &LONG, |_| false).unwrap(), b"12345678");
    }

    #[test]
    fn a_pipe_that_stays_open_is_read_up_to_the_last_piece() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"{}").unwrap();

        let read = piecemeal::read(reader, false, &LONG, |piece| piece.ends_with(b"}"));

        assert_eq!(read.unwrap(), b"{}");
        drop(writer);
    }

    #[test]
    fn a_pipe_without_input_times_out() {
        let (reader, writer) = io::pipe().unwrap();

        let read = piecemeal::read(reader, false, &SHORT, |_| false);

        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(writer);
    }

    #[test]
    fn an_endless_device_is_read_up_to_the_limit() {
        let read = piecemeal::read(open_nonblocking(Path::new("/dev/zero")).unwrap(), true, &LONG, |_| false);

        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn an_empty_device_is_empty() {
        assert_eq!(read_input(Path::new("/dev/null")).unwrap(), b"");
    }

    #[test]
    fn a_directory_is_reported_as_a_directory() {
        let error = read_input(Path::new("/")).unwrap_err().to_string();

        assert_eq!(error, "could not read /: it is a directory");
    }
}
