//! A file that holds a token and nothing else.
//! The files of other programs have shapes of their own; see `claude_code`.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};

use crate::unreadable::unreadable;
use crate::{Environment, token};
use quota_core::file;

/// More than any token needs.
const LIMIT: u64 = 64 * 1024;

/// Finds a token in a file that holds nothing else.
///
/// ```
/// use quota_core::CredentialSource;
/// use quota_credentials::FileToken;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("token");
/// # std::fs::write(&path, "sk-ant-oat01-abc\n")?;
/// # #[cfg(unix)]
/// # std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let source = FileToken::new(path);
///
/// let credential = source.credential(&"anthropic/main".parse()?).await?;
/// assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// White space around the token is not part of it. On Unix a file that anybody but its owner may read or write is
/// refused, with the command that mends it. A file says neither whose the login is nor how long the token is good for.
#[derive(Debug, Clone)]
pub struct FileToken {
    path: PathBuf,
}

impl FileToken {
    /// Looks at this file. A leading `~/` is the home directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::in_environment(path, &Environment::process())
    }

    /// The same, where the home directory is that of another environment.
    #[must_use]
    pub fn in_environment(path: impl Into<PathBuf>, environment: &Environment) -> Self {
        Self { path: environment.expand(path.into()) }
    }
}

#[async_trait]
impl CredentialSource for FileToken {
    /// Reads the file; the account does not matter. The future may be dropped.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if there is no such file or nothing in it, [`CredentialError::Unreadable`] if it
    /// may not or could not be read, others may read it, or it holds anything but one token. Both name the file and never
    /// what it holds.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let path = self.path.clone();
        file::blocking(move || Ok(read(&path)))
            .await
            .unwrap_or_else(|error| Err(unreadable(&self.path, error)))
    }
}

fn read(path: &Path) -> Result<Credential, CredentialError> {
    let nothing = |what| {
        let then = if cfg!(unix) { format!(", then run `{}`", mend(path)) } else { String::new() };
        CredentialError::not_logged_in(format!("{} {what}; put a token in it{then}", path.display()))
    };
    let file = match file::open(path) {
        Ok(file) => file,
        Err(error) if file::is_not_found(&error) => return Err(nothing("does not exist")),
        Err(error) => return Err(unreadable(path, error)),
    };
    refuse_if_exposed(path, &file)?;
    let contents = file::read(file, LIMIT).map_err(|error| unreadable(path, error))?;
    let text = std::str::from_utf8(file::strip_bom(&contents));
    match text.map_or(Err(token::NotAToken), token::take) {
        Ok(Some(secret)) => Ok(token::credential(secret)),
        Ok(None) => Err(nothing("is empty")),
        Err(flaw) => Err(CredentialError::unreadable(
            format!("{} does not hold a token and nothing else; put one in it, on one line", path.display()),
            flaw,
        )),
    }
}

/// Refuses a file that others can read, so that it is mended before the token is used, and not noticed years later.
#[cfg(unix)]
fn refuse_if_exposed(path: &Path, file: &std::fs::File) -> Result<(), CredentialError> {
    use std::io;
    use std::os::unix::fs::PermissionsExt;

    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    if metadata.permissions().mode() & 0o066 == 0 {
        return Ok(());
    }
    let (shown, mend) = (path.display(), mend(path));
    let why = format!("others than its owner may read or change {shown}; run `{mend}`");
    Err(CredentialError::unreadable(why, io::Error::from(io::ErrorKind::PermissionDenied)))
}

#[cfg(not(unix))]
fn refuse_if_exposed(_path: &Path, _file: &std::fs::File) -> Result<(), CredentialError> {
    Ok(())
}

/// The command that leaves the file to its owner, ready to be pasted into a shell.
fn mend(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%:".contains(&byte);
    if path.bytes().all(is_plain) && !path.starts_with('-') {
        return format!("chmod 600 {path}");
    }
    format!("chmod 600 -- '{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
