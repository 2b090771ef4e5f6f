//! The list of usable fallback accounts agrees with `route`: after each change of a login, and after a restart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::{
    AccountConfig, AccountsConfig, FallbackAccountManager, Request, RoutingMode, RoutingPolicy,
};
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::{
    AccountId, Clock, Credential, CredentialError, CredentialSource, FetchError, MemoryStore, ProviderId,
    QuotaManager, UsageFetcher, UsageReport, WindowId, WindowReading,
};
use tempfile::TempDir;

use crate::support::{BOTH, Kind, id, minutes, percent};

/// A login: its name, and how much of its window is used.
type Login = (&'static str, f64);

const MAIN: Login = ("of main", 40.0);

/// The logins of `main`, `b` and `c`. `None` is an account that is not logged in.
#[derive(Debug, Clone)]
struct World {
    logins: Arc<Mutex<[Option<Login>; 3]>>,
    clock: Clock,
}

impl World {
    fn login(&self, account: &AccountId) -> Option<Login> {
        let at = ["main", "b", "c"].iter().position(|name| *name == account.name()).expect("a known account");
        self.logins.lock().expect("no thread panics")[at]
    }
}

#[async_trait]
impl CredentialSource for World {
    async fn credential(&self, account: &AccountId) -> Result<Credential, CredentialError> {
        let (name, _) = self.login(account).ok_or_else(|| CredentialError::not_logged_in("log in"))?;
        let hash = name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let login = LoginInfo::new(LoginId::new(name)).fingerprint(CredentialFingerprint::from_hash(hash));
        Ok(Credential::new(format!("n33dle {name}")).login(login))
    }
}

#[async_trait]
impl UsageFetcher for World {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("example")
    }

    async fn fetch(&self, account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        let (_, used) = self.login(account).ok_or_else(|| FetchError::not_logged_in("log in"))?;
        let reset = self.clock.now() + jiff::SignedDuration::from_hours(2);
        let window = WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(reset);
        Ok(UsageReport::polled([window]))
    }
}

/// What happens before the question: the logins at first, a restart if any, and the logins after that.
#[derive(Debug, Clone, Copy)]
struct Story {
    kind: Kind,
    before: [Login; 2],
    after: [Option<Login>; 2],
    has_restart: bool,
}

impl Story {
    /// The router after the story. The accounts in `disabled` are disabled.
    async fn router(&self, disabled: &[AccountId]) -> (FallbackAccountManager, TempDir) {
        let clock = Clock::virtual_at("2026-06-01T12:00:00Z".parse().expect("a timestamp"));
        let logins = Arc::new(Mutex::new([Some(MAIN), Some(self.before[0]), Some(self.before[1])]));
        let world = World { logins: Arc::clone(&logins), clock: clock.clone() };
        let dir = tempfile::tempdir().expect("a temporary folder");
        let build = || build(self.kind, &world, &dir, disabled);
        let mut router = build();
        router.refresh_quota_for_due_accounts().await;
        router.flush().await.expect("the file can be written");
        minutes(&clock, 1).await;
        if self.has_restart {
            router = build();
        }
        *logins.lock().expect("no thread panics") = [Some(MAIN), self.after[0], self.after[1]];
        if self.has_restart {
            router.load().await.expect("the file can be read");
        }
        clock.sleep(Duration::from_secs(2)).await;
        (router, dir)
    }
}

fn build(kind: Kind, world: &World, dir: &TempDir, disabled: &[AccountId]) -> FallbackAccountManager {
    let mut config = AccountsConfig::new(id("main"));
    for name in ["b", "c"] {
        config.upsert(AccountConfig::new(id(name)).disabled(disabled.contains(&id(name))));
    }
    let policy = RoutingPolicy::default().mode(RoutingMode::FallbackFirst);
    let builder = FallbackAccountManager::builder(config).policy(policy);
    let builder = builder.state_file(dir.path().join("accounts.state.json"));
    let clock = world.clock.clone();
    let builder = match kind {
        Kind::Without => builder.fetcher(world.clone()).credentials(world.clone()).clock(clock),
        Kind::With => {
            let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone())).clock(clock);
            let quota = quota.provider(world.clone(), world.clone());
            builder.quota_manager(quota.build().expect("a valid policy"))
        }
    };
    builder.build().expect("a valid configuration")
}

fn stories(kind: Kind, has_restart: bool) -> impl Iterator<Item = Story> {
    let befores = |name: &'static str| [(name, 40.0), (name, 100.0)];
    let afters = |new: &'static str| {
        [None, Some(Some((new, 40.0))), Some(Some((new, 100.0))), Some(None), Some(Some(MAIN))]
    };
    let (of_b, of_c) = (befores("of b"), befores("of c"));
    let pairs = of_b.into_iter().flat_map(move |b| of_c.into_iter().map(move |c| [b, c]));
    pairs.flat_map(move |before| {
        afters("new of b").into_iter().flat_map(move |b| {
            afters("new of c").into_iter().map(move |c| {
                let after = [b.unwrap_or(Some(before[0])), c.unwrap_or(Some(before[1]))];
                Story { kind, before, after, has_restart }
            })
        })
    })
}

async fn check(story: Story) {
    let (router, _dir) = story.router(&[]).await;
    let listed = router.usable_fallback_accounts().await;

    // With the first of them disabled, a request gets the next one, and without any, the main account.
    for count in 0..=listed.len() {
        let (router, _dir) = story.router(&listed[..count]).await;
        let route = router.route(Request::new()).await.expect("the main account is available");
        let expected = listed.get(count).cloned().unwrap_or_else(|| id("main"));
        assert_eq!(route.account(), &expected, "{story:?} {listed:?} {:?}", route.skipped());
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_agrees_with_route_after_each_change_of_a_login() {
    for kind in BOTH {
        for story in stories(kind, false) {
            check(story).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_agrees_with_route_after_a_restart_and_a_load() {
    for kind in BOTH {
        for story in stories(kind, true) {
            check(story).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_not_logged_in_is_not_listed() {
    for kind in BOTH {
        let before = [("of b", 40.0), ("of c", 40.0)];
        let story = Story { kind, before, after: [None, Some(before[1])], has_restart: true };

        let (router, _dir) = story.router(&[]).await;

        assert_eq!(router.usable_fallback_accounts().await, [id("c")], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_login_in_an_exhausted_account_is_listed() {
    for kind in BOTH {
        let (before, new) = ([("of b", 100.0), ("of c", 100.0)], Some(("new of b", 10.0)));
        let story = Story { kind, before, after: [new, Some(before[1])], has_restart: false };

        let (router, _dir) = story.router(&[]).await;

        assert_eq!(router.usable_fallback_accounts().await, [id("b")], "{kind:?}");
    }
}
