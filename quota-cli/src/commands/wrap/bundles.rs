//! Writes the certificate files for the command: the certificates that it trusted before, and the proxy's. They are in
//! a private folder, which is removed when the command ends.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quota::file::{FileLock, check_private_folder, create_private_folder, private_temp_folder};
use rustls_native_certs::CertificateResult;

use super::environment::Trusted;

/// The prefix of the folder names.
const PREFIX: &str = "wrap-";
/// The suffix of the file that is locked while a folder is in use. If a process is killed, the system releases its
/// lock.
const LOCK_SUFFIX: &str = ".lock";
/// The number of attempts to find a free name.
const MAX_NAMES: u32 = 1000;

/// Variables, each with its file.
type Files = Vec<(&'static str, PathBuf)>;

/// The files of one run. They are removed when this is dropped.
#[derive(Debug)]
pub(super) struct Bundles {
    folder: PathBuf,
    _lock: FileLock,
}

impl Drop for Bundles {
    fn drop(&mut self) {
        // If this fails, the next run removes the folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Bundles {
    /// Creates a folder, and removes the folders of killed processes.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub(super) fn create(runtime_folder: Option<&Path>) -> io::Result<Self> {
        let parent = parent(runtime_folder)?;
        remove_stale(&parent);
        let own = std::process::id();
        for at in 0..MAX_NAMES {
            let folder = parent.join(format!("{PREFIX}{own}-{at}"));
            // Lock before the folder exists, so that no other process finds the folder unlocked.
            let Some(lock) = FileLock::try_acquire(&folder, LOCK_SUFFIX)? else { continue };
            let lock = lock.remove_on_release();
            if folder.symlink_metadata().is_ok() {
                continue;
            }
            create_private_folder(&folder)?;
            check_private_folder(&folder)?;
            return Ok(Self { folder, _lock: lock });
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Writes a file for each set of trusted certificates. Returns the variables with their files, and a line for each set that
    /// cannot be read.
    ///
    /// # Errors
    ///
    /// The system's error if a file cannot be written.
    pub(super) fn write(
        &self,
        certificate: &str,
        variables: Vec<(&'static str, Trusted)>,
    ) -> io::Result<(Files, Vec<String>)> {
        let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
        let mut changes = Vec::new();
        for (name, trusted) in variables {
            let number = files.len();
            let path = match files.get(&trusted) {
                Some(path) => PathBuf::clone(path),
                None => {
                    let read = certificates(&trusted);
                    problems.extend(problem(&trusted, &read));
                    let path = self.folder.join(format!("certificates-{number}.pem"));
                    write_private(&path, &bundle(certificate, &read))?;
                    files.insert(trusted, path.clone());
                    path
                }
            };
            changes.push((name, path));
        }
        Ok((changes, problems))
    }
}

/// The folder for the files of all runs of this user.
fn parent(runtime_folder: Option<&Path>) -> io::Result<PathBuf> {
    // The session's runtime folder is private, and the system removes it at the end of the session.
    if let Some(folder) =
        runtime_folder.filter(|folder| folder.is_absolute() && check_private_folder(folder).is_ok())
    {
        let own = folder.join("quota");
        create_private_folder(&own)?;
        check_private_folder(&own)?;
        return Ok(own);
    }
    let folder = private_temp_folder();
    create_private_folder(&folder)?;
    check_private_folder(&folder)?;
    Ok(folder)
}

/// Removes the folders whose process has ended without removing them.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        // Strip the suffix of lock files.
        let folder = parent.join(name.split('.').next().unwrap_or(name));
        if let Ok(Some(lock)) = FileLock::try_acquire(&folder, LOCK_SUFFIX) {
            let _lock = lock.remove_on_release();
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, text.as_bytes())
}

fn certificates(trusted: &Trusted) -> CertificateResult {
    match trusted {
        Trusted::Nothing => CertificateResult::default(),
        Trusted::System => system(),
        Trusted::Named(_, path) if path.is_dir() => {
            rustls_native_certs::load_certs_from_paths(None, Some(path))
        }
        Trusted::Named(_, path) => rustls_native_certs::load_certs_from_paths(Some(path), None),
    }
}

/// The system's certificates, ignoring `SSL_CERT_FILE` and `SSL_CERT_DIR`, because not all programs read these
/// variables.
fn system() -> CertificateResult {
    #[cfg(all(unix, not(target_vendor = "apple")))]
    if openssl_probe::has_ssl_cert_env_vars() {
        let mut all = CertificateResult::default();
        for folder in openssl_probe::candidate_cert_dirs() {
            let read = rustls_native_certs::load_certs_from_paths(None, Some(folder));
            all.certs.extend(read.certs);
            all.errors.extend(read.errors);
        }
        return all;
    }
    rustls_native_certs::load_native_certs()
}

/// A line for the user if nothing could be read.
fn problem(trusted: &Trusted, read: &CertificateResult) -> Option<String> {
    let what = match trusted {
        _ if !read.certs.is_empty() => return None,
        Trusted::Nothing => return None,
        Trusted::System => "of this system".to_owned(),
        Trusted::Named(variable, _) => format!("of {variable}"),
    };
    Some(format!("could not read the certificates {what}; the command trusts none of them"))
}

/// The content of a file: the certificate of the proxy, and the others.
fn bundle(certificate: &str, others: &CertificateResult) -> String {
    let mut text = certificate.replace("\r\n", "\n");
    for other in &others.certs {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(other);
        // PEM has at most 64 characters in a line (RFC 7468).
        for line in encoded.as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn private_folder() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder.join("quota")).unwrap().count()
    }

    #[test]
    fn the_files_are_private_and_removed_at_the_end() {
        let runtime = private_folder();
        let bundles = Bundles::create(Some(runtime.path())).unwrap();
        let variables = vec![("NODE_EXTRA_CA_CERTS", Trusted::Nothing)];

        let (changes, problems) = bundles.write(ONE, variables).unwrap();

        let mode = fs::metadata(&changes[0].1).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, problems.len()), (0o600, 0));
        assert_eq!(fs::read_to_string(&changes[0].1).unwrap(), ONE);
        drop(bundles);
        assert_eq!(entries(runtime.path()), 0);
    }

    #[test]
    fn what_was_trusted_before_stays_trusted() {
        let runtime = private_folder();
        let bundles = Bundles::create(Some(runtime.path())).unwrap();
        let before = runtime.path().join("before.pem");
        let other = ONE.replace("AAAA", &"BBBB".repeat(40));
        fs::write(&before, format!("a comment\n{other}")).unwrap();
        let named = Trusted::Named("SSL_CERT_FILE", before);
        let variables = vec![("SSL_CERT_FILE", named.clone()), ("CURL_CA_BUNDLE", named)];

        let (changes, _) = bundles.write(ONE, variables).unwrap();

        let text = fs::read_to_string(&changes[0].1).unwrap();
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(text.starts_with(ONE) && text.lines().all(|line| line.len() <= 64), "{text}");
        assert_eq!(changes[0].1, changes[1].1);
    }

    #[test]
    fn unreadable_certificates_are_reported_and_add_nothing() {
        let runtime = private_folder();
        let bundles = Bundles::create(Some(runtime.path())).unwrap();
        let missing = Trusted::Named("SSL_CERT_FILE", runtime.path().join("missing.pem"));

        let (changes, problems) = bundles.write(ONE, vec![("SSL_CERT_FILE", missing)]).unwrap();

        assert_eq!(fs::read_to_string(&changes[0].1).unwrap(), ONE);
        assert_eq!(
            problems,
            ["could not read the certificates of SSL_CERT_FILE; the command trusts none of them"]
        );
    }

    #[test]
    fn the_folder_of_a_killed_process_is_removed_and_others_stay() {
        let runtime = private_folder();
        let running = Bundles::create(Some(runtime.path())).unwrap();
        let killed = runtime.path().join("quota/wrap-1-0");
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join("certificates-0.pem"), ONE).unwrap();
        fs::write(runtime.path().join("quota/wrap-1-0.lock"), "").unwrap();
        fs::write(runtime.path().join("quota/other"), "").unwrap();

        let next = Bundles::create(Some(runtime.path())).unwrap();

        assert!(!killed.exists() && running.folder.exists() && next.folder.exists());
        // Two folders, their locks, and the other file.
        assert_eq!(entries(runtime.path()), 5);
    }
}
