//! Access to the gateway: its tokens, its certificate, and the addresses that require them.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use quota::file::open_nonblocking;
#[cfg(unix)]
use quota::file::permissions;
use quota_server::{AccessTokens, Limits, Listener, Tls};

use crate::cli::ServeArgs;
use crate::exit::{CliError, Exit};
use crate::input;

/// The name of the systemd credential with the tokens.
const CREDENTIAL: &str = "quota-tokens";

/// The token file: `--token-file`, or the systemd credential.
pub(super) enum TokenFile {
    Named(PathBuf),
    Credential(PathBuf),
}

impl TokenFile {
    /// Finds the file when the program starts. A reload reads the same file, so a file that has disappeared does not
    /// open the gateway to all clients.
    pub(super) fn find(options: &ServeArgs) -> Option<Self> {
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
        options.token_file.clone().map(Self::Named).or_else(|| credential(directory.as_deref()))
    }
}

/// The tokens in the file; without a file, none.
///
/// # Errors
///
/// [`CliError`] if the file cannot be read, is not private, or has an invalid line.
pub(super) fn tokens(options: &ServeArgs, file: Option<&TokenFile>) -> Result<AccessTokens, CliError> {
    let Some(TokenFile::Named(path) | TokenFile::Credential(path)) = file else {
        return Ok(AccessTokens::default());
    };
    let invalid = |why: &str| CliError::new(Exit::Config, format!("{}: {why}", input::display_name(path)));
    if options.adopt_presented {
        return Err(invalid("--adopt-presented cannot be used with tokens; remove one of them"));
    }
    let text = String::from_utf8(input::read_trusted(path)?).map_err(|_| invalid("it is not UTF-8 text"))?;
    // systemd protects its credentials itself. It may use an access control list, which looks like a group permission.
    if matches!(file, Some(TokenFile::Named(_)))
        && !open_nonblocking(path).is_ok_and(|file| is_private(&file))
    {
        return Err(invalid(&format!(
            "other users may read it; run: chmod 600 {}",
            input::display_name(path)
        )));
    }
    AccessTokens::parse(&text).map_err(|error| invalid(&error.to_string()))
}

/// The file of the systemd credential, if the unit has one. A file that cannot be examined counts as present, so that
/// reading it fails.
fn credential(directory: Option<&OsStr>) -> Option<TokenFile> {
    let path = Path::new(directory?).join(CREDENTIAL);
    path.try_exists().unwrap_or(true).then_some(TokenFile::Credential(path))
}

/// Whether only this user can read the file. A pipe has no other reader.
#[cfg(unix)]
fn is_private(file: &File) -> bool {
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    !is_file || permissions::is_private(file).unwrap_or(false)
}

#[cfg(not(unix))]
fn is_private(_file: &File) -> bool {
    true
}

/// The certificate of `--tls-cert` and `--tls-key`.
///
/// # Errors
///
/// [`CliError`] if they cannot be read, or do not match.
pub(super) fn tls(options: &ServeArgs) -> Result<Option<Tls>, CliError> {
    let (Some(chain), Some(key)) = (&options.tls_cert, &options.tls_key) else { return Ok(None) };
    let tls = Tls::from_pem(&input::read_input(chain)?, &input::read_input(key)?);
    tls.map(Some).map_err(|error| {
        let names = [chain, key].map(|path| input::display_name(path)).join(", ");
        CliError::new(Exit::Config, format!("{names}: {error}"))
    })
}

/// Checks that other machines cannot connect without a token and TLS.
///
/// # Errors
///
/// [`CliError`] that names the unprotected address.
pub(super) fn check_exposure(
    options: &ServeArgs,
    listeners: &[Listener],
    has_tokens: bool,
    has_tls: bool,
) -> Result<(), CliError> {
    let exposed = listeners.iter().find(|listener| !listener.is_local());
    let Some(exposed) = exposed.filter(|_| !(options.open_to_network || has_tokens && has_tls)) else {
        return Ok(());
    };
    let address = exposed.display("http");
    let why = format!(
        "other machines could connect to {address}; use --token-file, --tls-cert and --tls-key, or accept that with --open-to-network"
    );
    Err(CliError::new(Exit::Usage, why))
}

/// The number of file descriptors that the process needs besides connections.
#[cfg(unix)]
const OTHER_FILES: u64 = 128;

/// Raises the limit on open files as far as the connections need, and reduces the maximum number of connections if
/// necessary.
///
/// The limit is not raised further, because hook commands inherit it, and some programs close every possible descriptor
/// when they start.
#[cfg(unix)]
pub(super) fn fit_to_open_files(limits: &mut Limits) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = limits.max_connections as u64 + OTHER_FILES;
    let wanted = maximum.map_or(needed, |maximum| maximum.min(needed));
    let Some(current) = current.filter(|current| *current < needed) else { return };
    let is_raised =
        current < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok();
    let files = if is_raised { wanted } else { current };
    limits.max_connections = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(1).max(1);
}

#[cfg(not(unix))]
pub(super) fn fit_to_open_files(_limits: &mut Limits) {}
