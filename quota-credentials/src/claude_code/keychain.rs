//! Reading Claude Code's item from the keychain of macOS, by the program that comes with the system.
//! What the item holds is judged in `login_file`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::Duration;

use quota_core::{Clock, CredentialError, SecretBuffer};
use tokio::process::Command;

use super::LOGIN_LIMIT;
use crate::{Environment, hash};
use quota_core::process::{Output, output_of, remove_secrets};

/// A locked keychain asks the user for a password, and nobody may be there to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exit code of `security` for an item that is not there: the low byte of errSecItemNotFound, -25300.
const NOT_FOUND: i32 = 44;

/// How much the list of all items may take: a few hundred bytes for each of them.
const LIST_LIMIT: usize = 32 * 1024 * 1024;

/// Prints an item of the keychain. Tests put another program in its place.
#[derive(Debug, Clone)]
pub(super) struct Keychain {
    program: OsString,
    first_arguments: Vec<OsString>,
    /// The account of the items that Claude Code writes: the login name of the user.
    user: Option<OsString>,
}

impl Keychain {
    /// The keychain of this machine, if it has one.
    pub(super) fn of_this_machine() -> Option<Self> {
        cfg!(target_os = "macos").then(|| Self::by("/usr/bin/security", &[]))
    }

    /// A program that takes the arguments of `security` after some of its own.
    pub(super) fn by(program: &str, first_arguments: &[&str]) -> Self {
        let first_arguments = first_arguments.iter().map(OsString::from).collect();
        Self { program: program.into(), first_arguments, user: None }
    }

    /// The same for the user of this environment.
    pub(super) fn for_user_of(self, environment: &Environment) -> Self {
        Self { user: environment.var("USER").or_else(|| environment.var("LOGNAME")), ..self }
    }

    /// Reads an item; `None` if there is none of that name. Dropping the future ends the program.
    ///
    /// The name alone does not identify an item: other programs, and Claude Code itself, leave items of the same name with
    /// other accounts, and `security` prints whichever it finds first.
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
        Clock::system().bounded(PATIENCE, reading).await.unwrap_or_else(|| {
            let advice = "it did not answer in time; run `security unlock-keychain`";
            Err(unreadable(advice, io::ErrorKind::TimedOut.into()))
        })
    }

    /// What an item holds; `None` if there is none.
    async fn password(
        &self,
        item: &str,
        account: Option<&OsStr>,
    ) -> Result<Option<SecretBuffer>, CredentialError> {
        let account = account.into_iter().flat_map(|account| ["-a".as_ref(), account]);
        let arguments = ["find-generic-password".as_ref()].into_iter().chain(account);
        let arguments = arguments.chain(["-s", item, "-w"].map(OsStr::new));
        // Each byte may come as two digits.
        let limit = usize::try_from(2 * LOGIN_LIMIT).unwrap_or(usize::MAX);
        Ok(self.run(arguments, limit).await?.map(|printed| decoded(&printed).unwrap_or(printed)))
    }

    /// How many items have that name. Only their attributes are read, which needs no permission of the user.
    async fn count(&self, item: &str) -> Result<usize, CredentialError> {
        let attributes = ["find-generic-password", "-s", item].map(OsStr::new);
        if self.run(attributes, LIST_LIMIT).await?.is_none() {
            return Ok(0);
        }
        let all = self.run(["dump-keychain".as_ref()], LIST_LIMIT).await?.unwrap_or_default();
        let service = format!("\"svce\"<blob>=\"{item}\"");
        Ok(all.split(|byte| *byte == b'\n').filter(|line| line.trim_ascii() == service.as_bytes()).count())
    }

    /// Runs `security` and returns what it printed; `None` if it says that there is no such item.
    async fn run(
        &self,
        arguments: impl IntoIterator<Item = &OsStr>,
        limit: usize,
    ) -> Result<Option<SecretBuffer>, CredentialError> {
        let mut command = Command::new(&self.program);
        command.args(&self.first_arguments).args(arguments);
        remove_secrets(&mut command, [""; 0]);
        let Output { status, stdout } = output_of(command, limit).await.map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    "`security` could not be run; see whether it is there"
                }
                _ => "its answer could not be read: try again",
            };
            unreadable(advice, error)
        })?;
        match status.code() {
            Some(0) => Ok(Some(stdout)),
            Some(NOT_FOUND) => Ok(None),
            code => {
                let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
                let source = io::Error::other(format!("`security` ended with {code}"));
                Err(unreadable("it is locked or denied; run `security unlock-keychain`", source))
            }
        }
    }

    fn ambiguous(&self, item: &str) -> CredentialError {
        let user = self.user.as_deref().map_or_else(
            || "USER is not set".to_owned(),
            |user| format!("none of them is of the user {}", user.to_string_lossy()),
        );
        let why =
            format!("several items are named {item:?}, and {user}: delete those that are not Claude Code's");
        unreadable(&why, io::ErrorKind::InvalidInput.into())
    }
}

fn unreadable(why: &str, source: io::Error) -> CredentialError {
    CredentialError::unreadable(format!("the keychain could not be read, {why}"), source)
}

/// The bytes of an item, if they were printed as hexadecimal digits: `security` does that if one is not printable ASCII.
fn decoded(printed: &[u8]) -> Option<SecretBuffer> {
    let digits = printed.trim_ascii();
    let mut bytes = SecretBuffer::with_capacity(digits.len().div_ceil(2));
    for pair in digits.chunks(2) {
        bytes.extend_from_slice(&[byte_of(pair)?]);
    }
    Some(bytes)
}

fn byte_of(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// The name of Claude Code's item: it has a suffix if the directory was set by the user.
pub(super) fn item(config_dir: Option<&Path>) -> String {
    match config_dir {
        None => "Claude Code-credentials".to_owned(),
        Some(dir) => {
            let bits = hash::first_64_bits(dir.to_string_lossy().as_bytes());
            format!("Claude Code-credentials-{:08x}", bits >> 32)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_item_of_the_directory_claude_code_uses_by_itself_has_no_suffix() {
        assert_eq!(item(None), "Claude Code-credentials");
    }

    #[test]
    fn the_item_of_another_directory_has_a_suffix_made_from_its_path() {
        // printf /home/me/.claude-work | sha256sum | cut -c1-8
        assert_eq!(item(Some(Path::new("/home/me/.claude-work"))), "Claude Code-credentials-95e632f0");
    }

    #[test]
    fn digits_are_bytes_only_if_there_is_nothing_else() {
        let text_of = |printed: &str| decoded(printed.as_bytes()).map(|bytes| bytes.to_vec());

        assert_eq!(text_of("7b22C3a9227D\n").unwrap(), "{\"é\"}".as_bytes());
        for printed in ["{\"a\": 1}\n", "7b2", "7b2g", "+7b2"] {
            assert_eq!(text_of(printed), None, "{printed}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(printed in any::<Vec<u8>>()) {
            let _ = decoded(&printed);
        }
    }

    #[cfg(unix)]
    mod programs {
        use super::*;

        /// A shell script in the place of `security`; its arguments are in `$*`.
        fn script(text: &str) -> Keychain {
            let keychain = Keychain::by("/bin/sh", &["-c", text, "security"]);
            keychain.for_user_of(&Environment::from_vars([("USER", "me")]))
        }

        /// A keychain with items of the name `a`, each of an account, which it holds; the first is found by the name alone.
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

        async fn found(keychain: &Keychain) -> Option<String> {
            let contents = keychain.read("a").await.unwrap()?;
            Some(String::from_utf8(contents.trim_ascii().to_vec()).unwrap())
        }

        #[tokio::test]
        async fn an_item_is_printed_whole() {
            let contents = script("echo '{}'").read("Claude Code-credentials").await.unwrap().unwrap();

            assert_eq!(&*contents, b"{}\n");
        }

        #[tokio::test]
        async fn of_several_items_of_one_name_the_users_is_read() {
            assert_eq!(found(&with_items(&["unknown", "me", "root"])).await.as_deref(), Some("of-me"));
        }

        #[tokio::test]
        async fn a_single_item_of_another_account_is_read() {
            assert_eq!(found(&with_items(&["default"])).await.as_deref(), Some("of-default"));
        }

        #[tokio::test]
        async fn a_single_item_is_read_without_a_user() {
            let keychain = with_items(&["me"]).for_user_of(&Environment::from_vars([("HOME", "/home/me")]));

            assert_eq!(found(&keychain).await.as_deref(), Some("of-me"));
        }

        #[tokio::test]
        async fn none_of_several_items_of_other_accounts_is_read() {
            let error = with_items(&["unknown", "root"]).read("a").await.unwrap_err();

            assert_eq!(
                error.to_string(),
                "the keychain could not be read, several items are named \"a\", and none of them is of the user me: \
                 delete those that are not Claude Code's"
            );
        }

        #[tokio::test]
        async fn an_item_that_is_printed_in_digits_is_decoded() {
            let contents = script("echo 7b7d").read("a").await.unwrap().unwrap();

            assert_eq!(&*contents, b"{}");
        }

        #[tokio::test]
        async fn an_item_that_is_not_there_is_no_error() {
            assert!(script("echo {}; exit 44").read("a").await.unwrap().is_none());
        }

        #[tokio::test]
        async fn a_locked_keychain_is_told_with_what_to_do() {
            let error = script("echo secret; echo secret >&2; exit 36").read("a").await.unwrap_err();

            assert_eq!(
                error.to_string(),
                "the keychain could not be read, it is locked or denied; run `security unlock-keychain`"
            );
            assert!(!format!("{error:?}").contains("secret"));
        }

        #[tokio::test]
        async fn a_program_that_was_killed_is_not_trusted() {
            assert!(script("echo {}; kill -9 $$").read("a").await.is_err());
        }

        #[tokio::test]
        async fn a_program_that_is_not_there_is_told() {
            let error = Keychain::by("/nowhere/security", &[]).read("a").await.unwrap_err();

            assert!(error.to_string().contains("could not be run"), "{error}");
        }

        #[tokio::test(start_paused = true)]
        async fn a_program_that_hangs_is_given_up() {
            let error = script("exec sleep 600").read("a").await.unwrap_err();

            assert!(error.to_string().contains("did not answer in time"), "{error}");
        }

        #[tokio::test]
        async fn a_program_that_prints_without_end_is_given_up() {
            let error = script("exec cat /dev/zero").read("a").await.unwrap_err();

            assert!(error.to_string().contains("its answer could not be read"), "{error}");
        }
    }
}
