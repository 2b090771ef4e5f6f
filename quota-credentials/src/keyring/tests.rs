//! In-memory keyrings that contain items, fail, or never respond.

use std::any::Any;
use std::collections::HashMap;
use std::sync::OnceLock;

use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error, mock};
use quota_core::{Clock, MemoryStore, QuotaManager};

use super::*;

/// One store for all tests. Each test uses its own service in it.
fn in_memory() -> keyring_core::Result<Arc<CredentialStore>> {
    static STORE: OnceLock<Arc<CredentialStore>> = OnceLock::new();
    Ok(Arc::clone(STORE.get_or_init(|| mock::Store::new().expect("the mock store can always be created"))))
}

fn entry(service: &str, user: &str) -> Entry {
    in_memory().unwrap().build(service, user, None).unwrap()
}

fn main_account() -> AccountId {
    "anthropic/main".parse().unwrap()
}

async fn read_token(source: &Keyring) -> Result<String, CredentialError> {
    source.credential(&main_account()).await.map(|credential| credential.secret.expose().to_owned())
}

fn source(service: &str) -> Keyring {
    Keyring::with_store(service.into(), in_memory)
}

#[tokio::test]
async fn the_item_of_the_account_or_of_a_set_user_is_read() {
    entry("found", "anthropic/main").set_secret(b"sk-ant-oat01-abc\n").unwrap();
    entry("found", "other").set_secret(b"sk-ant-oat01-def").unwrap();

    assert_eq!(read_token(&source("found")).await.unwrap(), "sk-ant-oat01-abc");
    assert_eq!(read_token(&source("found").user("other")).await.unwrap(), "sk-ant-oat01-def");
}

#[tokio::test]
async fn each_call_reads_the_item_again_and_writes_nothing() {
    let item = entry("again", "anthropic/main");
    item.set_secret(b"one").unwrap();
    let source = source("again");
    assert_eq!(read_token(&source).await.unwrap(), "one");

    item.set_secret(b"two").unwrap();

    assert_eq!(read_token(&source).await.unwrap(), "two");
    assert_eq!(item.get_secret().unwrap(), b"two");
}

#[tokio::test]
async fn a_missing_or_blank_item_is_not_logged_in() {
    entry("empty", "anthropic/main").set_secret(b" \n").unwrap();

    let missing = read_token(&source("missing")).await.unwrap_err();
    let empty = read_token(&source("empty")).await.unwrap_err();

    let text = "the keyring item of anthropic/main for missing does not exist; create it with a token";
    assert_eq!(missing.to_string(), text);
    for error in [missing, empty] {
        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_error_does_not_repeat_the_item() {
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

        let error = read_token(&source("n")).await.unwrap_err();

        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
    }
    item.set_secret(b"n33dle n33dle").unwrap();
    let error = read_token(&source("n")).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
}

#[tokio::test]
async fn a_token_given_as_the_service_is_hidden() {
    let source = Keyring::with_store("sk-ant-n33dle".into(), in_memory);

    let error = read_token(&source).await.unwrap_err();

    assert!(!format!("{source:?} {error}").contains("n33dle"), "{error}");
}

#[tokio::test]
async fn an_error_without_a_keyring_says_what_to_do() {
    let source = Keyring::with_store("a".into(), || Err(Error::PlatformFailure("no bus".into())));

    let error = read_token(&source).await.unwrap_err();

    assert!(error.to_string().contains("use a file or a variable"), "{error}");
}

/// A keyring that never responds.
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
async fn a_lookup_times_out_and_the_next_one_fails_at_once() {
    let source = Keyring::with_store("a".into(), || Ok(Arc::new(Stuck)));

    let first = read_token(&source).await.unwrap_err();
    let second = read_token(&source).await.unwrap_err();

    assert!(first.to_string().ends_with("the keyring timed out; unlock it"), "{first}");
    assert!(second.to_string().ends_with("is still waiting for the keyring; unlock it"), "{second}");
}

#[tokio::test]
async fn a_keyring_that_panics_is_an_error_each_time() {
    let source = Keyring::with_store("a".into(), || panic!("broken"));

    for _ in 0..2 {
        let error = read_token(&source).await.unwrap_err();

        assert!(error.to_string().ends_with("library panicked; report it"), "{error}");
    }
}

#[tokio::test]
async fn concurrent_lookups_wait_for_each_other() {
    entry("shared", "anthropic/main").set_secret(b"sk-ant-oat01-abc").unwrap();
    let source = source("shared");

    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let source = source.clone();
        callers.spawn(async move { read_token(&source).await });
    }

    let found = callers.join_all().await;
    assert!(found.iter().all(Result::is_ok), "{found:?}");
}

/// Reads the token of a manager's account, a hundred times.
async fn read_through(main: &quota_core::Account) -> Vec<String> {
    let mut tokens = Vec::new();
    for _ in 0..100 {
        let credential = main.credential(Duration::from_secs(10)).await.unwrap().unwrap();
        tokens.push(credential.secret.expose().to_owned());
    }
    tokens.dedup();
    tokens
}

#[tokio::test]
async fn a_manager_reads_the_item_again_after_five_minutes() {
    let item = entry("cached", "anthropic/main");
    item.set_secret(b"one").unwrap();
    let clock = Clock::virtual_at("2026-06-01T12:00:00Z".parse().unwrap());
    let quota = QuotaManager::builder(MemoryStore::new()).clock(clock).build().unwrap();
    let main = quota.account(&main_account());
    main.set_credentials(source("cached"));
    let first = read_through(&main).await;

    item.set_secret(b"two").unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(200)).await;
    tokio::time::resume();
    let before = read_through(&main).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(100)).await;
    tokio::time::resume();

    assert_eq!(
        (first, before, read_through(&main).await),
        (vec!["one".into()], vec!["one".into()], vec!["two".into()])
    );
}
