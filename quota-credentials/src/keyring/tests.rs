//! Keyrings in memory, that hold what they are told, fail, or never answer.

use std::any::Any;
use std::collections::HashMap;
use std::sync::OnceLock;

use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error, mock};

use super::*;

/// One store for all tests, as a machine has one; each test has a service of its own in it.
fn in_memory() -> keyring_core::Result<Arc<CredentialStore>> {
    static STORE: OnceLock<Arc<CredentialStore>> = OnceLock::new();
    Ok(Arc::clone(STORE.get_or_init(|| mock::Store::new().expect("memory is there"))))
}

fn entry(service: &str, user: &str) -> Entry {
    in_memory().unwrap().build(service, user, None).unwrap()
}

fn main_account() -> AccountId {
    "anthropic/main".parse().unwrap()
}

async fn found(source: &Keyring) -> Result<String, CredentialError> {
    source.credential(&main_account()).await.map(|credential| credential.secret.expose().to_owned())
}

fn source(service: &str) -> Keyring {
    Keyring::with_store(service.into(), in_memory)
}

#[tokio::test]
async fn the_item_of_the_account_is_found() {
    entry("found", "anthropic/main").set_secret(b"sk-ant-oat01-abc\n").unwrap();
    entry("found", "somebody").set_secret(b"sk-ant-oat01-def").unwrap();

    assert_eq!(found(&source("found")).await.unwrap(), "sk-ant-oat01-abc");
    assert_eq!(found(&source("found").user("somebody")).await.unwrap(), "sk-ant-oat01-def");
}

#[tokio::test]
async fn the_item_is_read_anew_each_time_and_nothing_is_written() {
    let item = entry("anew", "anthropic/main");
    item.set_secret(b"one").unwrap();
    let source = source("anew");
    assert_eq!(found(&source).await.unwrap(), "one");

    item.set_secret(b"two").unwrap();

    assert_eq!(found(&source).await.unwrap(), "two");
    assert_eq!(item.get_secret().unwrap(), b"two");
}

#[tokio::test]
async fn an_item_that_is_not_there_or_empty_is_no_login() {
    entry("empty", "anthropic/main").set_secret(b" \n").unwrap();

    let missing = found(&source("missing")).await.unwrap_err();
    let empty = found(&source("empty")).await.unwrap_err();

    let text = "the item of anthropic/main for missing is not in the keyring: put a token in it";
    assert_eq!(missing.to_string(), text);
    for error in [missing, empty] {
        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn what_an_item_holds_is_in_no_error() {
    let item = entry("n", "anthropic/main");
    let errors = [
        Error::BadEncoding(b"n33dle".to_vec()),
        Error::BadDataFormat(b"n33dle".to_vec(), "n33dle".into()),
        Error::NoStorageAccess("n33dle".into()),
        Error::PlatformFailure("n33dle".into()),
        Error::Ambiguous(Vec::new()),
    ];
    for error in errors {
        item.set_secret(b"n33dle").unwrap();
        item.as_any().downcast_ref::<mock::Cred>().unwrap().set_error(error);

        let error = found(&source("n")).await.unwrap_err();

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
    }
    item.set_secret(b"n33dle n33dle").unwrap();
    let error = found(&source("n")).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
}

#[tokio::test]
async fn a_token_where_a_name_belongs_is_not_repeated() {
    let source = Keyring::with_store("sk-ant-n33dle".into(), in_memory);

    let error = found(&source).await.unwrap_err();

    assert!(!format!("{source:?} {error}").contains("n33dle"), "{error}");
}

#[tokio::test]
async fn a_machine_without_a_keyring_says_what_to_do() {
    let source = Keyring::with_store("a".into(), || Err(Error::PlatformFailure("no bus".into())));

    let error = found(&source).await.unwrap_err();

    assert!(error.to_string().contains("use a file or a variable instead"), "{error}");
}

/// A keyring whose question nobody answers.
#[derive(Debug)]
struct Stuck;

impl CredentialStoreApi for Stuck {
    fn vendor(&self) -> String {
        String::new()
    }

    fn id(&self) -> String {
        String::new()
    }

    fn build(&self, _: &str, _: &str, _: Option<&HashMap<&str, &str>>) -> keyring_core::Result<Entry> {
        loop {
            std::thread::park();
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyring_that_does_not_answer_is_given_up_and_not_asked_again_meanwhile() {
    let source = Keyring::with_store("a".into(), || Ok(Arc::new(Stuck)));

    let first = found(&source).await.unwrap_err();
    let second = found(&source).await.unwrap_err();

    assert!(first.to_string().ends_with("did not answer in time; unlock it"), "{first}");
    assert!(second.to_string().ends_with("has not answered the last question yet; unlock it"), "{second}");
}

#[tokio::test]
async fn a_keyring_that_breaks_strands_nobody() {
    let source = Keyring::with_store("a".into(), || panic!("broken"));

    for _ in 0..2 {
        let error = found(&source).await.unwrap_err();

        assert!(error.to_string().ends_with("library broke; report it"), "{error}");
    }
}
