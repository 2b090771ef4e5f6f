//! Each login has a record of its own: accounts of one login share it, and logins of one account never mix.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quota_core::manager::StaleReason;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::policy::{CooldownPolicy, CooldownScope};
use quota_core::record::{Hold, HoldReason, Record, Seed};
use quota_core::store::{LoginAlias, StoreKey, find_record_key};
use quota_core::{
    Account, AccountId, Credential, CredentialError, CredentialSource, Event, FetchError, Freshness, Policy,
    QuotaManager, QuotaStore, Secret, Snapshot,
};

use crate::store_outage::env_with_toggle_store;
use crate::support::*;

fn login(name: &str) -> LoginInfo {
    let hash = name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    LoginInfo::new(LoginId::new(name)).fingerprint(CredentialFingerprint::from_hash(hash))
}

fn log_in(env: &Env, account: &str, name: &str) {
    env.provider.set_login(&id(account), Ok(login(name)));
}

/// A process without credentials and fetchers, such as a dashboard on another host.
fn dashboard(env: &Env) -> QuotaManager {
    QuotaManager::builder(Arc::clone(&env.store)).clock(env.clock.clone()).build().unwrap()
}

async fn stored(env: &Env, login: &str) -> Option<Record> {
    let key = StoreKey::login(id("main").provider(), &LoginId::new(login));
    let document = env.store.read(&key).await.unwrap().document?;
    Some(Record::decode(&document.body).unwrap())
}

fn reason(account: &Account) -> Option<StaleReason> {
    match account.peek().freshness() {
        Freshness::Stale { reason, .. } => Some(reason),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_peek_notices_another_login_after_a_second_and_shows_its_record() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    log_in(&env, "other", "b");
    env.provider.answer(polled(7.0));
    drop(env.quota.account(&id("other")).get().await);

    log_in(&env, "main", "b");
    env.clock.sleep(SECOND * 2).await;
    drop(main.peek());
    run_ready_tasks().await;

    let usage = main.peek();
    assert_eq!((last_read(&usage), usage.login_id()), (Some(7.0), Some(&LoginId::new("b"))));
    assert_eq!(env.provider.calls(), 2);
}

/// Reads with `read` after the login changed from a to b. Returns the login of the readings a moment later.
async fn login_after_a_read(read: impl AsyncFn(&Account), unread: Duration) -> Option<LoginId> {
    let mut policy = Policy::default();
    policy.max_age = MINUTE * 60;
    let env = env_with(policy);
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(unread).await;
    log_in(&env, "main", "b");
    read(&main).await;
    run_ready_tasks().await;
    main.peek().login_id().cloned()
}

#[tokio::test(start_paused = true)]
async fn a_get_with_a_max_age_notices_another_login() {
    let read = async |main: &Account| drop(main.get_with_max_age(MINUTE * 30).await);

    assert_eq!(login_after_a_read(read, SECOND * 2).await, Some(LoginId::new("b")));
}

#[tokio::test(start_paused = true)]
async fn the_first_get_after_a_long_time_notices_another_login() {
    let read = async |main: &Account| drop(main.get().await);

    assert_eq!(login_after_a_read(read, MINUTE * 20).await, Some(LoginId::new("b")));
}

#[tokio::test(start_paused = true)]
async fn a_check_of_the_same_login_shows_hidden_readings_again() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 60).await;
    env.provider.set_login(&id("main"), Err(CredentialError::timed_out("a hanging keychain")));
    drop(main.get().await);
    assert!(main.peek().snapshot().is_empty());

    log_in(&env, "main", "a");
    env.clock.sleep(SECOND * 2).await;
    drop(main.peek());
    run_ready_tasks().await;

    assert_eq!((last_read(&main.peek()), env.provider.calls()), (Some(40.0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_switch_to_an_unread_login_hides_the_old_readings() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let mut events = env.quota.events();

    log_in(&env, "main", "b");
    env.clock.sleep(SECOND * 2).await;
    drop(main.peek());
    run_ready_tasks().await;

    assert!(main.peek().snapshot().is_empty());
    assert!(
        matches!(events.next().await, Some(Event::LoginChanged { account, .. }) if account == id("main"))
    );
}

#[tokio::test(start_paused = true)]
async fn switching_back_shows_the_first_record_without_a_call() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    for name in ["b", "a"] {
        log_in(&env, "main", name);
        env.clock.sleep(SECOND * 2).await;
        drop(main.peek());
        run_ready_tasks().await;
    }

    assert_eq!((last_read(&main.peek()), env.provider.calls()), (Some(40.0), 1));
}

#[tokio::test(start_paused = true)]
async fn two_hosts_with_two_logins_under_one_name_never_mix() {
    let env = env();
    let other_provider = quota_core::testing::FakeProvider::answering("example", 95.0);
    log_in(&env, "main", "work");
    other_provider.set_login(&id("main"), Ok(login("home")));
    let other_host = another_process(&env.store, &env.clock, &other_provider, Policy::default());
    let (work, home) = (env.quota.account(&id("main")), other_host.account(&id("main")));

    drop((work.get().await, home.get().await));
    env.clock.sleep(MINUTE).await;
    drop((work.sync().await, home.sync().await));

    assert_eq!((last_read(&work.peek()), last_read(&home.peek())), (Some(40.0), Some(95.0)));
}

#[tokio::test(start_paused = true)]
async fn two_accounts_with_one_login_share_one_call() {
    let env = env_with(no_rate_limit());
    let _delayed = env.provider.clone().with_delay(SECOND);
    log_in(&env, "main", "a");
    log_in(&env, "copy", "a");
    let (main, copy) = (env.quota.account(&id("main")), env.quota.account(&id("copy")));
    let mut events = env.quota.events();

    let (one, other) = tokio::join!(main.refresh(), copy.refresh());

    assert!(one.unwrap().fetched && other.unwrap().fetched);
    assert_eq!(env.provider.calls(), 1);
    let mut refreshed = Vec::new();
    while refreshed.len() < 2 {
        if let Some(Event::Refreshed { account, .. }) = events.next().await {
            refreshed.push(account);
        }
    }
    refreshed.sort();
    assert_eq!(refreshed, [id("copy"), id("main")]);
}

#[tokio::test(start_paused = true)]
async fn accounts_know_whether_another_one_holds_their_login() {
    let env = env();
    let accounts = [("main", "a"), ("again", "a"), ("other", "b")].map(|(name, login)| {
        log_in(&env, name, login);
        env.quota.account(&id(name))
    });

    for account in &accounts {
        drop(account.get().await);
    }

    assert_eq!(accounts.map(|account| account.peek().is_login_shared()), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_hold_applies_to_all_accounts_of_the_login_and_names_each_caller() {
    let env = env_with(no_rate_limit());
    log_in(&env, "main", "a");
    log_in(&env, "copy", "a");
    env.provider.then_fail(FetchError::unavailable("out of service"));
    let (main, copy) = (env.quota.account(&id("main")), env.quota.account(&id("copy")));
    drop(main.get().await);

    let error = copy.get().await.unwrap_err();

    assert_eq!(env.provider.calls(), 1);
    assert!(error.to_string().starts_with("example/copy is on hold"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_shared_refresh_names_the_caller() {
    let env = env_with(no_rate_limit());
    let _delayed = env.provider.clone().with_delay(SECOND);
    log_in(&env, "main", "a");
    log_in(&env, "copy", "a");
    env.provider.then_fail(FetchError::unavailable("out of service"));
    let (main, copy) = (env.quota.account(&id("main")), env.quota.account(&id("copy")));

    let (one, other) = tokio::join!(main.refresh(), copy.refresh());

    let errors = [one.unwrap_err(), other.unwrap_err()].map(|error| error.to_string());
    assert_eq!(errors, ["could not fetch usage for example/main", "could not fetch usage for example/copy"]);
}

#[tokio::test(start_paused = true)]
async fn another_login_is_neither_called_less_nor_held_by_the_first() {
    let policy = no_rate_limit().cooldown(CooldownPolicy::new(MINUTE, CooldownScope::Account));
    let env = env_with(policy);
    log_in(&env, "main", "a");
    env.provider.then_fail(FetchError::throttled(Some(MINUTE * 60)));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);

    log_in(&env, "main", "b");
    let usage = main.refresh().await.unwrap().usage;

    assert_eq!((last_read(&usage), usage.hold()), (Some(40.0), None));
    assert!(stored(&env, "a").await.unwrap().hold().is_some());
}

#[tokio::test(start_paused = true)]
async fn before_the_first_check_a_peek_shows_only_seeds() {
    let env = env();
    log_in(&env, "main", "a");
    drop(env.quota.account(&id("main")).get().await);
    let restarted = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let main = restarted.account(&id("main"));
    let before = reason(&main);

    main.seed(&Seed::new(Snapshot::of(&polled(55.0), noon() - MINUTE))).unwrap();

    assert_eq!(before, Some(StaleReason::LoginNotCheckedYet));
    assert_eq!(last_read(&main.peek()), Some(55.0));
}

#[tokio::test(start_paused = true)]
async fn what_was_observed_before_the_first_check_joins_the_record_of_the_login() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    let hold = Hold::new(noon(), noon() + MINUTE * 10, HoldReason::RateLimited);
    main.seed(&Seed::new(Snapshot::of(&polled(55.0), noon() - MINUTE)).hold(hold)).unwrap();

    env.clock.sleep(SECOND * 10).await;

    let record = stored(&env, "a").await.unwrap();
    assert!(record.hold().is_some());
    assert_eq!(record.snapshot(), main.peek().snapshot());
    let name = env.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    assert_eq!(name.document, None);
}

#[tokio::test(start_paused = true)]
async fn a_seed_of_another_login_is_dropped_at_the_first_check() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    let seed = Seed::new(Snapshot::of(&polled(55.0), noon() - MINUTE)).login_id(LoginId::new("b"));
    main.seed(&seed).unwrap();

    drop(main.sync().await);

    assert!(main.peek().snapshot().is_empty());
    assert_eq!(env.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_observation_is_written_at_the_close_of_a_process_that_never_checked() {
    let env = env();
    log_in(&env, "main", "a");
    drop(env.quota.account(&id("main")).observe(&headers(12.0)).unwrap());

    assert!(env.quota.close().await);

    let record = stored(&env, "a").await.unwrap();
    assert_eq!(record.login_id(), Some(&LoginId::new("a")));
    assert!(!record.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn callers_of_the_first_login_get_its_readings_after_two_switches() {
    let env = env_with(no_rate_limit());
    let _delayed = env.provider.clone().with_delay(SECOND * 5);
    log_in(&env, "main", "a");
    env.provider.then_answer(polled(11.0));
    let main = env.quota.account(&id("main"));
    let first = tokio::spawn({
        let main = main.clone();
        async move { main.refresh().await }
    });
    run_ready_tasks().await;
    for name in ["b", "a"] {
        log_in(&env, "main", name);
        env.clock.sleep(SECOND).await;
        drop(main.credential(SECOND).await);
    }

    let refreshed = first.await.unwrap().unwrap();

    assert!(refreshed.fetched);
    assert_eq!(last_read(&refreshed.usage), Some(11.0));
    assert_eq!(last_read(&main.peek()), Some(11.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlives_its_login_is_stored_in_the_record_of_that_login() {
    let env = env_with(no_rate_limit());
    let _delayed = env.provider.clone().with_delay(SECOND * 5);
    log_in(&env, "main", "a");
    env.provider.then_answer(polled(11.0));
    let main = env.quota.account(&id("main"));
    main.refresh_in_background();
    run_ready_tasks().await;

    log_in(&env, "main", "b");
    drop(main.credential(SECOND).await);
    env.clock.sleep(SECOND * 10).await;

    assert!(main.peek().snapshot().is_empty());
    assert!(!stored(&env, "a").await.unwrap().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_explicit_refresh_does_not_join_the_call_of_the_old_login() {
    let env = env_with(no_rate_limit());
    let _delayed = env.provider.clone().with_delay(SECOND * 5);
    log_in(&env, "main", "a");
    env.provider.then_answer(polled(11.0));
    env.provider.then_answer(polled(22.0));
    let main = env.quota.account(&id("main"));
    main.refresh_in_background();
    run_ready_tasks().await;

    log_in(&env, "main", "b");
    let refreshed = main.refresh().await.unwrap();

    assert!(refreshed.fetched);
    assert_eq!((last_read(&refreshed.usage), env.provider.calls()), (Some(22.0), 2));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_changes_while_a_refresh_is_queued_is_the_one_that_is_called() {
    let env = env();
    let _delayed = env.provider.clone().with_delay(SECOND * 3);
    log_in(&env, "busy", "x");
    log_in(&env, "main", "a");
    env.quota.account(&id("busy")).refresh_in_background();
    run_ready_tasks().await;
    let main = env.quota.account(&id("main"));
    let refresh = tokio::spawn({
        let main = main.clone();
        async move { main.refresh().await }
    });
    run_ready_tasks().await;

    log_in(&env, "main", "b");
    let refreshed = refresh.await.unwrap().unwrap();

    assert_eq!(refreshed.usage.login_id(), Some(&LoginId::new("b")));
    assert_eq!(env.provider.calls_for(&id("main")), 1);
}

#[tokio::test(start_paused = true)]
async fn an_alias_leads_readers_without_a_credential_to_the_record() {
    let env = env();
    log_in(&env, "main", "a");
    drop(env.quota.account(&id("main")).get().await);

    let usage = dashboard(&env).account(&id("main")).sync().await;

    assert_eq!((last_read(&usage), usage.login_id()), (Some(40.0), Some(&LoginId::new("a"))));
    let key = find_record_key(&*env.store, &id("main")).await.unwrap();
    assert_eq!(key, env.quota.account(&id("main")).record_key().await);
}

#[tokio::test(start_paused = true)]
async fn a_reader_follows_the_alias_to_the_next_login() {
    let env = env_with(no_rate_limit());
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let reader = dashboard(&env).account(&id("main"));
    drop(reader.sync().await);

    log_in(&env, "main", "b");
    env.provider.answer(polled(7.0));
    drop(main.refresh().await);
    env.clock.sleep(MINUTE * 2).await;
    drop(reader.peek());
    run_ready_tasks().await;

    assert_eq!(last_read(&reader.peek()), Some(7.0));
}

#[tokio::test(start_paused = true)]
async fn only_a_refresh_that_finds_another_login_writes_the_alias() {
    let env = env_with(no_rate_limit());
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.refresh().await);
    let version = async || env.store.read(&LoginAlias::key(&id("main"))).await.unwrap().version();
    let written = version().await;
    drop((main.sync().await, main.refresh().await));
    let restarted = another_process(&env.store, &env.clock, &env.provider, no_rate_limit());
    drop(restarted.account(&id("main")).refresh().await);
    let unchanged = version().await;

    log_in(&env, "main", "b");
    drop(main.sync().await);
    drop(main.refresh().await);

    assert!(written.is_some());
    assert_eq!(written, unchanged);
    assert_ne!(version().await, written);
}

#[tokio::test(start_paused = true)]
async fn a_logged_out_host_shows_the_record_of_the_alias() {
    let env = env();
    log_in(&env, "main", "a");
    drop(env.quota.account(&id("main")).get().await);
    let elsewhere = quota_core::testing::FakeProvider::answering("example", 1.0);
    elsewhere.set_login(&id("main"), Err(CredentialError::not_logged_in("log in")));
    let other_host = another_process(&env.store, &env.clock, &elsewhere, Policy::default());

    let usage = other_host.account(&id("main")).sync().await;

    assert_eq!(last_read(&usage), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn forgetting_one_of_two_accounts_keeps_the_record_of_the_login() {
    let env = env();
    log_in(&env, "main", "a");
    log_in(&env, "copy", "a");
    let (main, copy) = (env.quota.account(&id("main")), env.quota.account(&id("copy")));
    drop((main.get().await, copy.get().await));

    env.quota.forget(&id("copy")).await.unwrap();

    assert_eq!((last_read(&main.peek()), last_read(&copy.peek())), (Some(40.0), None));
    assert!(!stored(&env, "a").await.unwrap().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn forgetting_the_only_account_forgets_the_record_of_its_login() {
    let env = env();
    log_in(&env, "main", "a");
    drop(env.quota.account(&id("main")).get().await);

    dashboard(&env).forget(&id("main")).await.unwrap();

    assert!(stored(&env, "a").await.unwrap().snapshot().is_empty());
    let key = find_record_key(&*env.store, &id("main")).await.unwrap();
    assert_eq!(key, StoreKey::account(&id("main")));
}

#[tokio::test(start_paused = true)]
async fn a_follower_continues_for_the_account_that_remains() {
    let env = env();
    log_in(&env, "main", "a");
    log_in(&env, "copy", "a");
    let (main, copy) = (env.quota.account(&id("main")), env.quota.account(&id("copy")));
    drop((main.get().await, copy.get().await));
    env.quota.forget(&id("main")).await.unwrap();
    drop(main);
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    env.clock.sleep(SECOND * 10).await;
    env.provider.answer(polled(66.0));
    drop(other_process.account(&id("copy")).refresh().await);

    env.clock.sleep(SECOND).await;

    assert_eq!(last_read(&copy.peek()), Some(66.0));
}

#[tokio::test(start_paused = true)]
async fn a_switch_during_a_follower_read_shows_only_the_new_login() {
    let env = env_with(no_rate_limit());
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let other_process = another_process(&env.store, &env.clock, &env.provider, no_rate_limit());
    let writer = other_process.account(&id("main"));
    drop(writer.sync().await);
    main.set_login(LoginId::new("b"));
    env.clock.sleep(SECOND).await;

    drop(writer.refresh().await);
    env.clock.sleep(SECOND).await;

    assert!(main.peek().snapshot().is_empty());
    assert_eq!(main.peek().login_id(), Some(&LoginId::new("b")));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_notified_of_the_switch_and_of_the_new_record() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let mut changes = main.watch();
    env.clock.sleep(SECOND * 2).await;

    log_in(&env, "main", "b");
    env.provider.answer(polled(3.0));
    drop(main.refresh().await);

    let mut last = None;
    while last != Some(3.0) {
        last = last_read(&changes.next().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_check_does_not_undo_a_later_one() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.set_credentials(SlowFirst::default());
    let slow = tokio::spawn({
        let main = main.clone();
        async move { drop(main.credential(SECOND * 20).await) }
    });
    run_ready_tasks().await;
    main.set_credentials(Fixed("b"));
    drop(main.credential(SECOND).await);

    slow.await.unwrap();

    assert_eq!(main.peek().login_id(), Some(&LoginId::new("b")));
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_an_outage_survives_a_switch_of_login_and_back() {
    let own_cooldown = CooldownPolicy::new(MINUTE, CooldownScope::Account);
    let (env, store) = env_with_toggle_store(false, no_rate_limit().cooldown(own_cooldown));
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_fail(FetchError::throttled(Some(MINUTE * 60)));
    drop(main.refresh().await);
    let switch = async |name| {
        log_in(&env, "main", name);
        env.clock.sleep(SECOND * 2).await;
        drop(main.credential(SECOND).await);
    };

    switch("b").await;
    let held_by_b = main.peek().hold();
    store.hooks.set(false);
    env.clock.sleep(SECOND * 5).await;
    switch("a").await;
    drop(main.sync().await);

    assert_eq!(held_by_b, None);
    assert!(main.peek().hold().is_some());
    assert!(stored(&env, "a").await.unwrap().hold().is_some());
}

/// States the login `a` after five seconds.
#[derive(Debug, Default)]
struct SlowFirst(Mutex<VecDeque<()>>);

#[async_trait]
impl CredentialSource for SlowFirst {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let _ = self.0.lock().unwrap().pop_front();
        tokio::time::sleep(SECOND * 5).await;
        Ok(Credential::new(Secret::new("a")).login(login("a")))
    }
}

#[derive(Debug)]
struct Fixed(&'static str);

#[async_trait]
impl CredentialSource for Fixed {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        Ok(Credential::new(Secret::new(self.0)).login(login(self.0)))
    }
}

/// Reads the account for three seconds. Returns how often its credential was read.
async fn reads_in_three_seconds(env: &Env, main: &Account) -> usize {
    let before = env.provider.credential_reads();
    for _ in 0..300 {
        drop((main.get().await.unwrap(), main.peek()));
        run_ready_tasks().await;
        env.clock.sleep(Duration::from_millis(10)).await;
    }
    env.provider.credential_reads() - before
}

#[tokio::test(start_paused = true)]
async fn the_login_of_a_fresh_account_is_checked_at_most_once_a_second() {
    let env = env();
    log_in(&env, "main", "a");
    let main = env.quota.account(&id("main"));
    drop(main.get().await.unwrap());

    let reads = reads_in_three_seconds(&env, &main).await;

    assert!((2..=3).contains(&reads), "{reads}");
    assert_eq!(env.provider.calls(), 1);
}

/// A process that ends within a minute.
fn short_lived(env: &Env) -> QuotaManager {
    QuotaManager::builder(Arc::clone(&env.store))
        .provider(env.provider.clone(), env.provider.clone())
        .clock(env.clock.clone())
        .deadline(MINUTE)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_short_lived_process_checks_the_login_once() {
    let env = env();
    log_in(&env, "main", "a");
    drop(env.quota.account(&id("main")).get().await.unwrap());
    let before = env.provider.credential_reads();
    let main = short_lived(&env).account(&id("main"));
    drop(main.sync().await);

    let reads = reads_in_three_seconds(&env, &main).await;

    assert_eq!((env.provider.credential_reads() - before, reads, env.provider.calls()), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_sync_ends_although_the_first_check_of_the_login_hangs() {
    let env = env();
    env.provider.then_hang_credential();
    let main = env.quota.account(&id("main"));

    let usage = main.sync().await;

    assert_eq!(env.clock.now(), noon() + Policy::default().fetch_timeout);
    assert_eq!((reason(&main), usage.snapshot().is_empty()), (Some(StaleReason::LoginNotCheckedYet), true));
}

#[tokio::test(start_paused = true)]
async fn a_sync_of_a_short_lived_process_ends_at_its_deadline() {
    let env = env();
    env.provider.then_hang_credential();
    let quota = QuotaManager::builder(Arc::clone(&env.store))
        .provider(env.provider.clone(), env.provider.clone())
        .clock(env.clock.clone())
        .deadline(SECOND * 3)
        .build()
        .unwrap();

    drop(quota.account(&id("main")).sync().await);

    assert_eq!(env.clock.now(), noon() + SECOND * 3);
}
