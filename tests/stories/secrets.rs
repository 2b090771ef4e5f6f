//! Tokens appear only in requests to the provider.

use quota::FetchError;
use quota::store::StoreKey;
use quota_sim::{Answer, Change};

use crate::fixture::*;

#[tokio::test]
async fn no_token_is_in_the_store_or_in_our_output() {
    let simulator = provider([account("main"), account("spare"), account("narrow")]).await;
    let store = memory();
    let logins = tokens(["main", "spare", "narrow"]);
    let mut texts = vec![format!("{logins:?}")];
    let quota = process(&simulator, &store, logins, policy());
    let mut events = quota.events();
    let accounts = ["main", "spare", "narrow"].map(|name| quota.account(&id(name)));

    drop(accounts[0].get().await.unwrap());
    for (account, answer) in [
        (&accounts[1], Answer::Unauthorized),
        // No call follows for a day.
        (&accounts[2], Answer::Scope),
        (&accounts[1], Answer::Html),
        (&accounts[1], Answer::ThrottleZero),
    ] {
        simulator.set(account.id().name(), Change::answer(answer)).unwrap();
        texts.push(format!("{:?}", account.refresh().await));
        texts.push(format!("{:?}", within_deadline("an event", events.next()).await));
    }
    texts.extend(accounts.iter().map(|account| format!("{account:?} {:?} {quota:?}", account.peek())));
    quota.close().await;
    let records = accounts.iter().map(|account| StoreKey::account(account.id()));
    for key in records.chain([StoreKey::provider(accounts[0].id().provider())]) {
        let reading = store.read(&key).await.unwrap();
        texts.extend(reading.document.map(|document| String::from_utf8_lossy(&document.body).into_owned()));
    }
    texts.push(format!("{:?}", FetchError::Unauthorized));

    let leaks: Vec<_> = texts.iter().filter(|text| text.contains("sim-token")).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    assert!(texts.len() > 10);
}
