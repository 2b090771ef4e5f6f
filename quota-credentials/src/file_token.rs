//! A token in a file that contains nothing else. The login files of other programs have their own formats; see
//! `claude_code` and `login_file`.

use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use quota_core::file;
use quota_core::provider::SourceVersion;
use quota_core::{AccountId, Credential, CredentialError, CredentialSource};

use crate::error::read_error;
use crate::{Environment, token};

/// The maximum size of a file. Tokens are much shorter.
const LIMIT: u64 = 64 * 1024;

/// Reads a token from a file that contains nothing else.
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
/// White space around the token is ignored. On Unix, a file that other users may read or write is rejected, and the error names the
/// command that fixes it. A file provides no login and no expiry.
#[derive(Debug, Clone)]
pub struct FileToken {
    path: PathBuf,
}

impl FileToken {
    /// Reads this file. A leading `~/` means the home directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::in_environment(path, &Environment::process())
    }

    /// Reads this file. A leading `~/` means the home directory of this environment.
    #[must_use]
    pub fn in_environment(path: impl Into<PathBuf>, environment: &Environment) -> Self {
        Self { path: environment.expand(path.into()) }
    }
}

#[async_trait]
impl CredentialSource for FileToken {
    /// Returns the file's token for any account. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotLoggedIn`] if the file is missing or blank. [`CredentialError::Unreadable`] if it cannot be read, other
    /// users may read or write it, or it does not contain exactly one token. Both errors name the file, and never show its content.
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let path = self.path.clone();
        file::blocking(move || Ok(read(&path)))
            .await
            .unwrap_or_else(|error| Err(read_error(&self.path, error)))
    }

    async fn version(&self, _account: &AccountId) -> Option<SourceVersion> {
        Some(SourceVersion::of_files([self.path.clone()]).await)
    }
}

fn read(path: &Path) -> Result<Credential, CredentialError> {
    let missing = |problem| {
        let chmod = if cfg!(unix) { format!(", then run `{}`", chmod_hint(path)) } else { String::new() };
        format!("{} {problem}; put a token in it{chmod}", path.display())
    };
    let file = match file::open(path) {
        Ok(file) => file,
        Err(error) if file::is_not_found(&error) => {
            return Err(CredentialError::not_logged_in(missing("does not exist")));
        }
        Err(error) => return Err(read_error(path, error)),
    };
    check_permissions(path, &file)?;
    let contents = file::read(file, LIMIT).map_err(|error| read_error(path, error))?;
    token::require(
        file::strip_bom(&contents),
        || missing("is empty"),
        || format!("{} does not contain exactly one token; put one token in it, on one line", path.display()),
    )
}

/// Rejects a file that other users can read or write.
#[cfg(unix)]
fn check_permissions(path: &Path, file: &File) -> Result<(), CredentialError> {
    use std::io;
    use std::os::unix::fs::PermissionsExt;

    let metadata = file.metadata().map_err(|error| read_error(path, error))?;
    if metadata.permissions().mode() & 0o066 == 0 {
        return Ok(());
    }
    let reason = format!("{} is accessible to other users; run `{}`", path.display(), chmod_hint(path));
    Err(CredentialError::unreadable(reason, io::Error::from(io::ErrorKind::PermissionDenied)))
}

#[cfg(not(unix))]
fn check_permissions(_path: &Path, _file: &File) -> Result<(), CredentialError> {
    Ok(())
}

/// The command that restricts access to the owner of the file, quoted for a shell.
fn chmod_hint(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%:".contains(&byte);
    if path.bytes().all(is_plain) && !path.starts_with('-') {
        return format!("chmod 600 {path}");
    }
    format!("chmod 600 -- '{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
