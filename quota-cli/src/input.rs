//! Reading what the user names: a file, or standard input.
//! What it means is each command's own business.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use quota::accounts::rights;

use crate::exit::{Exit, Failure};

/// More than any input is. Claude Code's state file grows with every project.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The bytes of a file; `-` is standard input.
///
/// # Errors
///
/// [`Failure`] if it cannot be read, or never ends.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    if is_stdin(path) {
        return limited(path, read(&mut io::stdin().lock()));
    }
    limited(path, File::open(path).and_then(|mut file| read(&mut file)))
}

/// The same of a file that names programs and hosts: it is refused if another user may have written it.
///
/// # Errors
///
/// As those of [`bytes`], and [`Failure`] with the command that closes the file to others.
pub(crate) fn trusted_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    if is_stdin(path) {
        return bytes(path);
    }
    let opened = File::open(path).and_then(|file| Ok((rights::check(&file, path)?, file)));
    let found = match opened {
        Ok((Err(untrusted), _)) => return Err(Failure::new(Exit::Config, untrusted.to_string())),
        Ok((Ok(()), mut file)) => read(&mut file),
        Err(error) => Err(error),
    };
    limited(path, found)
}

fn read(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LIMIT + 1).read_to_end(&mut bytes).map(|_| bytes)
}

fn limited(path: &Path, found: io::Result<Vec<u8>>) -> Result<Vec<u8>, Failure> {
    let bytes = found.map_err(|error| {
        Failure::new(Exit::NoInput, format!("could not read {}: {}", name(path), why(&error)))
    })?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::new(
            Exit::DataErr,
            format!("{}: longer than 64 MiB, so it is none of what can be read here", name(path)),
        ));
    }
    Ok(bytes)
}

/// The input as errors call it.
pub(crate) fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// What the system said, in words.
pub(crate) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
