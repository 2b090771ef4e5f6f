//! The version of a credential source, which identifies its current credential without reading it.

use std::path::PathBuf;

use crate::clock::Clock;
use crate::file::{self, FileVersion};

/// Identifies the credential that a source would read now, without reading it.
///
/// The manager compares it with the version of the previous read, and reads again only if they differ; see
/// [`CredentialSource::version`](super::CredentialSource::version).
#[derive(Debug, Clone)]
pub struct SourceVersion {
    /// The files that the credential depends on, in the order of the source.
    files: Vec<Option<FileVersion>>,
    /// Whether a write to one of the files could leave its version unchanged.
    is_unsettled: bool,
    /// Whether the credential can change without a change of the files.
    is_undetectable: bool,
}

impl SourceVersion {
    /// The version of a source that cannot detect changes without a read, such as a command, a keyring or a server.
    ///
    /// The manager uses its credential for up to five minutes.
    #[must_use]
    pub fn undetectable() -> Self {
        Self { files: Vec::new(), is_unsettled: false, is_undetectable: true }
    }

    /// The version of a source that reads these files. A file may be missing.
    ///
    /// The files are not opened. If the metadata of one cannot be read, or a file was written in the last two seconds, the version
    /// equals no other version. Without any file this is [`undetectable`](Self::undetectable), because otherwise the
    /// manager would never read again.
    pub async fn of_files(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let version = file::blocking(move || Ok(Self::of_files_at(&paths, &Clock::system()))).await;
        version.unwrap_or_else(|_| Self { files: Vec::new(), is_unsettled: true, is_undetectable: false })
    }

    fn of_files_at(paths: &[PathBuf], clock: &Clock) -> Self {
        let is_undetectable = paths.is_empty();
        let mut version = Self { files: Vec::new(), is_unsettled: false, is_undetectable };
        for path in paths {
            let found = FileVersion::at(path);
            version.is_unsettled |= match &found {
                Ok(found) => !found.is_settled(clock.now()),
                Err(error) => !file::is_not_found(error),
            };
            version.files.push(found.ok());
        }
        version
    }

    /// The version of a source that also reads data whose changes it [cannot detect](Self::undetectable).
    #[must_use]
    pub fn and_undetectable(mut self) -> Self {
        self.is_undetectable = true;
        self
    }

    /// Whether a source with this version now would read the same files as with `other`.
    pub(crate) fn has_same_files(&self, other: &Self) -> bool {
        !self.is_unsettled && !other.is_unsettled && self.files == other.files
    }

    /// Whether the files were written so long ago that no program is replacing them now.
    pub(crate) fn is_settled(&self) -> bool {
        !self.is_unsettled
    }

    /// The versions of the files, in the order of the source.
    pub(crate) fn files(&self) -> &[Option<FileVersion>] {
        &self.files
    }

    /// Whether the credential depends on files.
    pub(crate) fn has_files(&self) -> bool {
        self.is_unsettled || !self.files.is_empty()
    }

    /// Whether the credential can change without a change of the files.
    pub(crate) fn is_undetectable(&self) -> bool {
        self.is_undetectable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_without_files_is_undetectable() {
        let version = SourceVersion::of_files([]).await;

        assert!(version.is_undetectable() && !version.has_files());
    }

    #[tokio::test]
    async fn a_missing_file_is_a_version() {
        let path = PathBuf::from("/does/not/exist");
        let of_files = async || SourceVersion::of_files([path.clone()]).await;

        assert!(of_files().await.has_same_files(&of_files().await));
        assert!(!of_files().await.is_undetectable());
    }
}
