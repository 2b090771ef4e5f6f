//! Reads Claude Code's item from the macOS keychain with the program `security`. `login_file` parses the content of the item.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::Duration;

use quota_core::process::{Output, output_of, remove_secrets};
use quota_core::secret::SecretBuffer;
use quota_core::{Clock, CredentialError};
use tokio::process::Command;

use super::LOGIN_LIMIT;
use crate::{Environment, token};

/// The timeout of a read. A locked keychain waits for the user's password.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The exit code of `security` for a missing item: the low byte of errSecItemNotFound, -25300.
const NOT_FOUND: i32 = 44;

/// The maximum length of the list of all items. Each item takes a few hundred bytes.
const LIST_LIMIT: usize = 32 * 1024 * 1024;

/// The keychain, read by `security`, or by another program in tests.
#[derive(Debug, Clone)]
pub(super) struct Keychain {
    program: OsString,
    first_arguments: Vec<OsString>,
    /// The account of the items that Claude Code writes: the login name of the user.
    user: Option<OsString>,
}

impl Keychain {
    /// The keychain of this machine. `None` on systems other than macOS.
    pub(super) fn system() -> Option<Self> {
        cfg!(target_os = "macos").then(|| Self::with_program("/usr/bin/security", &[]))
    }

    /// Uses a program that takes `first_arguments` before the arguments of `security`.
    pub(super) fn with_program(program: &str, first_arguments: &[&str]) -> Self {
        let first_arguments = first_arguments.iter().map(OsString::from).collect();
        Self { program: program.into(), first_arguments, user: None }
    }

    /// Sets the user to that of this environment.
    pub(super) fn for_user_of(self, environment: &Environment) -> Self {
        Self { user: environment.var("USER").or_else(|| environment.var("LOGNAME")), ..self }
    }

    /// Reads an item; `None` if no item has this name. Dropping the future kills the program.
    ///
    /// The name alone does not identify an item. Other programs, and Claude Code itself, create items with the same name for other
    /// accounts, and `security` prints the first one.
    pub(super) async fn read(&self, item: &str) -> Result<Option<SecretBuffer>, CredentialError> {
        let reading = async {
            if let Some(user) = &self.user
                && let Some(found) = self.password(item, Some(user)).await?
            {
                return Ok(Some(found));
            }
            match self.count(item).await? {
                0 => Ok(None),
                1 => self.password(item, None).await,
                _ => Err(self.ambiguous(item)),
            }
        };
        Clock::system().bounded(READ_TIMEOUT, reading).await.unwrap_or_else(|| {
            let cause = "timed out; run `security unlock-keychain`";
            Err(read_error(cause, io::ErrorKind::TimedOut.into()))
        })
    }

    /// Reads the content of an item; `None` if it does not exist.
    async fn password(
        &self,
        item: &str,
        account: Option<&OsStr>,
    ) -> Result<Option<SecretBuffer>, CredentialError> {
        let account = account.into_iter().flat_map(|account| ["-a".as_ref(), account]);
        let arguments = ["find-generic-password".as_ref()].into_iter().chain(account);
        let arguments = arguments.chain(["-s", item, "-w"].map(OsStr::new));
        // `security` may print each byte as two digits.
        let limit = usize::try_from(2 * LOGIN_LIMIT).unwrap_or(usize::MAX);
        Ok(self.run(arguments, limit).await?.map(|output| decode_hex(&output).unwrap_or(output)))
    }

    /// The number of items with this name. Reading attributes needs no permission from the user.
    async fn count(&self, item: &str) -> Result<usize, CredentialError> {
        let attributes = ["find-generic-password", "-s", item].map(OsStr::new);
        if self.run(attributes, LIST_LIMIT).await?.is_none() {
            return Ok(0);
        }
        let all = self.run(["dump-keychain".as_ref()], LIST_LIMIT).await?.unwrap_or_default();
        let service = format!("\"svce\"<blob>=\"{item}\"");
        Ok(all.split(|byte| *byte == b'\n').filter(|line| line.trim_ascii() == service.as_bytes()).count())
    }

    /// Runs `security` and returns its output; `None` if it reports that the item does not exist.
    async fn run(
        &self,
        arguments: impl IntoIterator<Item = &OsStr>,
        limit: usize,
    ) -> Result<Option<SecretBuffer>, CredentialError> {
        let mut command = Command::new(&self.program);
        command.args(&self.first_arguments).args(arguments);
        remove_secrets(&mut command, [""; 0]);
        let Output { status, stdout } = output_of(command, limit).await.map_err(|error| {
            let cause = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    "could not run `security`; check that it exists"
                }
                _ => "could not read the output of `security`; try again",
            };
            read_error(cause, error)
        })?;
        match status.code() {
            Some(0) => Ok(Some(stdout)),
            Some(NOT_FOUND) => Ok(None),
            code => {
                let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
                let source = io::Error::other(format!("`security` exited with {code}"));
                Err(read_error("it is locked or denies access; run `security unlock-keychain`", source))
            }
        }
    }

    fn ambiguous(&self, item: &str) -> CredentialError {
        let user = self.user.as_deref().map_or_else(
            || "USER is not set".to_owned(),
            |user| format!("none of them belongs to user {}", user.to_string_lossy()),
        );
        let cause =
            format!("several items are named {item:?}, and {user}; delete those that are not Claude Code's");
        read_error(&cause, io::ErrorKind::InvalidInput.into())
    }
}

fn read_error(cause: &str, source: io::Error) -> CredentialError {
    CredentialError::unreadable(format!("could not read the keychain: {cause}"), source)
}

/// Decodes hexadecimal digits. `security` prints them if an item contains a byte that is not printable ASCII.
fn decode_hex(output: &[u8]) -> Option<SecretBuffer> {
    let digits = output.trim_ascii();
    let mut bytes = SecretBuffer::with_capacity(digits.len().div_ceil(2));
    for pair in digits.chunks(2) {
        bytes.extend_from_slice(&[decode_byte(pair)?]);
    }
    Some(bytes)
}

fn decode_byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// The name of Claude Code's item. It has a suffix if the user has set the directory.
pub(super) fn item_name(config_dir: Option<&Path>) -> String {
    match config_dir {
        None => "Claude Code-credentials".to_owned(),
        Some(dir) => {
            let hash = token::sha256_prefix_u64(dir.to_string_lossy().as_bytes());
            format!("Claude Code-credentials-{:08x}", hash >> 32)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_item_of_the_default_directory_has_no_suffix() {
        assert_eq!(item_name(None), "Claude Code-credentials");
    }

    #[test]
    fn the_item_of_another_directory_has_a_suffix() {
        // printf /home/me/.claude-work | sha256sum | cut -c1-8
        assert_eq!(item_name(Some(Path::new("/home/me/.claude-work"))), "Claude Code-credentials-95e632f0");
    }

    #[test]
    fn only_pure_hex_output_is_decoded() {
        let text_of = |printed: &str| decode_hex(printed.as_bytes()).map(|bytes| bytes.to_vec());

        assert_eq!(text_of("7b22C3a9227D\n").unwrap(), "{\"é\"}".as_bytes());
        for printed in ["{\"a\": 1}\n", "7b2", "7b2g", "+7b2"] {
            assert_eq!(text_of(printed), None, "{printed}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_from_their_digits(bytes in any::<Vec<u8>>()) {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();

            prop_assert_eq!(decode_hex(digits.as_bytes()).unwrap().to_vec(), bytes);
        }

        #[test]
        fn other_output_is_not_decoded(output in any::<Vec<u8>>()) {
            let digits = output.trim_ascii();
            let is_hex = digits.iter().all(u8::is_ascii_hexdigit) && digits.len() % 2 == 0;

            prop_assert_eq!(decode_hex(&output).is_some(), is_hex);
        }
    }

    #[cfg(unix)]
    mod programs {
        use super::*;

        /// A shell script in place of `security`; its arguments are in `$*`.
        fn script(text: &str) -> Keychain {
            let keychain = Keychain::with_program("/bin/sh", &["-c", text, "security"]);
            keychain.for_user_of(&Environment::from_vars([("USER", "me")]))
        }

        /// A keychain with an item named `a` for each account, which contains the account. A search by name finds the first item.
        fn with_items(accounts: &[&str]) -> Keychain {
            let services: String = accounts.iter().map(|_| "    \"svce\"<blob>=\"a\"\n").collect();
            let by_account: String = accounts
                .iter()
                .map(|account| format!("'find-generic-password -a {account} -s a -w') echo of-{account};;\n"))
                .collect();
            let by_name = accounts.first().map_or_else(String::new, |first| {
                format!(
                    "'find-generic-password -s a -w') echo of-{first};; 'find-generic-password -s a') echo;;"
                )
            });
            let list = format!("dump-keychain) printf '%s' '{services}    \"svce\"<blob>=\"ab\"';;");
            script(&format!("case \"$*\" in {by_account} {by_name} {list} *) exit 44;; esac"))
        }

        async fn read(keychain: &Keychain) -> Option<String> {
            let contents = keychain.read("a").await.unwrap()?;
            Some(String::from_utf8(contents.trim_ascii().to_vec()).unwrap())
        }

        #[tokio::test]
        async fn an_item_is_read_completely() {
            let contents = script("echo '{}'").read("Claude Code-credentials").await.unwrap().unwrap();

            assert_eq!(&*contents, b"{}\n");
        }

        #[tokio::test]
        async fn the_item_of_the_user_is_read_if_there_are_several() {
            assert_eq!(read(&with_items(&["unknown", "me", "root"])).await.as_deref(), Some("of-me"));
        }

        #[tokio::test]
        async fn a_single_item_of_another_account_is_read() {
            assert_eq!(read(&with_items(&["default"])).await.as_deref(), Some("of-default"));
        }

        #[tokio::test]
        async fn a_single_item_is_read_without_a_user() {
            let keychain = with_items(&["me"]).for_user_of(&Environment::from_vars([("HOME", "/home/me")]));

            assert_eq!(read(&keychain).await.as_deref(), Some("of-me"));
        }

        #[tokio::test]
        async fn several_items_of_other_accounts_are_ambiguous() {
            let error = with_items(&["unknown", "root"]).read("a").await.unwrap_err();

            assert_eq!(
                error.to_string(),
                "could not read the keychain: several items are named \"a\", and none of them belongs to user me; \
                 delete those that are not Claude Code's"
            );
        }

        #[tokio::test]
        async fn an_item_printed_as_hex_is_decoded() {
            let contents = script("echo 7b7d").read("a").await.unwrap().unwrap();

            assert_eq!(&*contents, b"{}");
        }

        #[tokio::test]
        async fn a_missing_item_is_not_an_error() {
            assert!(script("echo {}; exit 44").read("a").await.unwrap().is_none());
        }

        #[tokio::test]
        async fn a_locked_keychain_is_an_error_with_a_hint() {
            let error = script("echo secret; echo secret >&2; exit 36").read("a").await.unwrap_err();

            assert_eq!(
                error.to_string(),
                "could not read the keychain: it is locked or denies access; run `security unlock-keychain`"
            );
            assert!(!format!("{error:?}").contains("secret"));
        }

        #[tokio::test]
        async fn the_output_of_a_killed_program_is_discarded() {
            assert!(script("echo {}; kill -9 $$").read("a").await.is_err());
        }

        #[tokio::test]
        async fn a_missing_program_is_an_error() {
            let error = Keychain::with_program("/nowhere/security", &[]).read("a").await.unwrap_err();

            assert!(error.to_string().contains("could not run `security`"), "{error}");
        }

        #[tokio::test(start_paused = true)]
        async fn a_program_that_hangs_times_out() {
            let error = script("exec sleep 600").read("a").await.unwrap_err();

            assert!(error.to_string().contains("timed out"), "{error}");
        }

        #[tokio::test]
        async fn endless_output_is_an_error() {
            let error = script("exec cat /dev/zero").read("a").await.unwrap_err();

            assert!(error.to_string().contains("could not read the output"), "{error}");
        }
    }
}
