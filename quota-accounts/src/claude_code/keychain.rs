//! Reading Claude Code's item from the keychain of macOS, by the program that comes with the system.
//! What the item holds is judged in `login_file`.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quota_core::{Clock, CredentialError};
use secrecy::zeroize::Zeroizing;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::LOGIN_LIMIT;
use crate::file::Contents;
use crate::hash;

/// A locked keychain asks the user for a password, and nobody may be there to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exit code of `security` for an item that is not there: the low byte of errSecItemNotFound, -25300.
const NOT_FOUND: i32 = 44;

/// Prints an item of the keychain. Tests put another program in its place.
#[derive(Debug, Clone)]
pub(super) struct Keychain {
    program: OsString,
    first_arguments: Vec<OsString>,
}

impl Keychain {
    /// The keychain of this machine, if it has one.
    pub(super) fn of_this_machine() -> Option<Self> {
        cfg!(target_os = "macos").then(|| Self::by("/usr/bin/security", &[]))
    }

    /// A program that takes the arguments of `security` after some of its own.
    pub(super) fn by(program: &str, first_arguments: &[&str]) -> Self {
        let first_arguments = first_arguments.iter().map(OsString::from).collect();
        Self { program: program.into(), first_arguments }
    }

    /// Reads an item; `None` if there is none of that name. Dropping the future ends the program.
    pub(super) async fn read(&self, item: &str) -> Result<Option<Contents>, CredentialError> {
        let child = Command::new(&self.program)
            .args(&self.first_arguments)
            .args(["find-generic-password", "-s", item, "-w"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unreadable("`security` could not be run: see whether it is there", error))?;
        let Some(answer) = Clock::system().bounded(PATIENCE, answer_of(child)).await else {
            let advice = "it did not answer in time: run `security unlock-keychain`";
            return Err(unreadable(advice, io::ErrorKind::TimedOut.into()));
        };
        match answer.map_err(|error| unreadable("its answer could not be read: try again", error))? {
            (Some(0), printed) => Ok(Some(decoded(printed))),
            (Some(NOT_FOUND), _) => Ok(None),
            (code, _) => {
                let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
                let source = io::Error::other(format!("`security` ended with {code}"));
                Err(unreadable("it is locked or denied: run `security unlock-keychain`", source))
            }
        }
    }
}

fn unreadable(why: &str, source: io::Error) -> CredentialError {
    CredentialError::unreadable(format!("the keychain could not be read, {why}"), source)
}

/// Waits for what a program prints, and for its exit code.
async fn answer_of(mut child: Child) -> io::Result<(Option<i32>, Contents)> {
    let mut printed = Zeroizing::new(Vec::with_capacity(8 * 1024));
    if let Some(stdout) = child.stdout.take() {
        // Each byte may come as two digits.
        stdout.take(2 * LOGIN_LIMIT + 1).read_to_end(&mut printed).await?;
    }
    if printed.len() as u64 > 2 * LOGIN_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((child.wait().await?.code(), printed))
}

/// The bytes of an item: `security` prints them as hexadecimal digits if one is not printable ASCII.
fn decoded(printed: Contents) -> Contents {
    let digits = printed.trim_ascii();
    let pairs: Option<Vec<u8>> = digits.chunks(2).map(byte_of).collect();
    pairs.map_or_else(|| printed.clone(), Zeroizing::new)
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
        let text_of = |printed: &str| decoded(Zeroizing::new(printed.as_bytes().to_vec())).to_vec();

        assert_eq!(text_of("7b22C3a9227D\n"), "{\"é\"}".as_bytes());
        for printed in ["{\"a\": 1}\n", "7b2", "7b2g", "+7b2"] {
            assert_eq!(text_of(printed), printed.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(printed in any::<Vec<u8>>()) {
            let _ = decoded(Zeroizing::new(printed));
        }
    }

    #[cfg(unix)]
    mod programs {
        use super::*;

        /// A shell script in the place of `security`; `$0` to `$3` are the arguments.
        fn script(text: &str) -> Keychain {
            Keychain::by("/bin/sh", &["-c", text])
        }

        #[tokio::test]
        async fn an_item_is_asked_for_by_its_name_and_printed_whole() {
            let keychain = script(r#"printf '%s\n' "$0 $1 ($2) $3""#);

            let contents = keychain.read("Claude Code-credentials").await.unwrap().unwrap();

            assert_eq!(*contents, b"find-generic-password -s (Claude Code-credentials) -w\n");
        }

        #[tokio::test]
        async fn an_item_that_is_printed_in_digits_is_decoded() {
            let contents = script("echo 7b7d").read("a").await.unwrap().unwrap();

            assert_eq!(*contents, b"{}");
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
                "the keychain could not be read, it is locked or denied: run `security unlock-keychain`"
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
