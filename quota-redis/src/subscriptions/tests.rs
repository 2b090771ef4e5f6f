use futures_util::FutureExt as _;

use super::*;
use crate::task;

const CHANNEL: &str = "quota:1:{anthropic/main}@0";
const ONE: Version = Version::new(1);
const TWO: Version = Version::new(2);

fn push(kind: PushKind, data: &[&str]) -> PushInfo {
    let text = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
    PushInfo { kind, data: data.iter().map(text).collect() }
}

fn notice(version: Version) -> PushInfo {
    push(PushKind::Message, &[CHANNEL, &format!("{:016x}", version.number())])
}

fn key(channel: &str) -> Key {
    Key { text: "quota:1:{anthropic/main}".into(), channel: channel.into() }
}

fn add_waiter(subscriptions: &Arc<Subscriptions>) -> Waiter {
    let spawn_task = |_| task::spawn(std::future::pending());
    subscriptions.add_waiter(&key(CHANNEL), spawn_task).unwrap().expect("the connection is open")
}

/// A confirmed subscription to a document of version one, with a waiter.
fn subscribed() -> (Arc<Subscriptions>, Waiter) {
    let subscriptions = Arc::new(Subscriptions::default());
    let waiter = add_waiter(&subscriptions);
    subscriptions.expect_confirmation(CHANNEL);
    subscriptions.on_push(push(PushKind::Subscribe, &[CHANNEL]));
    subscriptions.start_query(CHANNEL, None).on_version(Some(ONE));
    (subscriptions, waiter)
}

fn is_woken(waiter: &Waiter, seen: Option<Version>) -> bool {
    let mut news = pin!(waiter.changed(seen));
    news.as_mut().now_or_never().is_some()
}

#[tokio::test]
async fn a_notice_wakes_only_waiters_with_another_version() {
    let (subscriptions, waiter) = subscribed();
    assert!(!is_woken(&waiter, Some(ONE)));

    subscriptions.on_push(notice(TWO));

    assert!(is_woken(&waiter, Some(ONE)));
    assert!(!is_woken(&waiter, Some(TWO)));
}

#[tokio::test]
async fn an_unreadable_notice_wakes_all_waiters_without_content() {
    let (subscriptions, waiter) = subscribed();

    subscriptions.on_push(push(PushKind::Message, &[CHANNEL, "?"]));

    assert_eq!(waiter.changed(Some(ONE)).await.unwrap(), Notice::default());
}

#[tokio::test]
async fn a_notice_brings_the_document_to_the_current_waiter_and_the_next() {
    let (subscriptions, waiter) = subscribed();
    let document = quota_core::store::Document::new(TWO, bytes::Bytes::from_static(b"two"));

    subscriptions.on_push(push(PushKind::Message, &[CHANNEL, "0000000000000002 two"]));

    assert_eq!(waiter.changed(Some(ONE)).await.unwrap(), Notice::of_document(document.clone()));
    drop(waiter);
    let next = add_waiter(&subscriptions);
    assert_eq!(next.changed(Some(ONE)).await.unwrap(), Notice::of_document(document));
}

#[tokio::test]
async fn a_confirmation_ends_the_wait_of_a_subscribed_waiter_once() {
    let (subscriptions, waiter) = subscribed();

    subscriptions.confirm();

    assert_eq!(waiter.changed(Some(ONE)).await.unwrap(), Notice::unchanged());
    assert!(!is_woken(&add_waiter(&subscriptions), Some(ONE)));
}

#[tokio::test]
async fn a_subscription_without_a_version_is_not_confirmed() {
    let subscriptions = Arc::new(Subscriptions::default());
    let waiter = add_waiter(&subscriptions);
    subscriptions.expect_confirmation(CHANNEL);
    subscriptions.on_push(push(PushKind::Subscribe, &[CHANNEL]));

    subscriptions.confirm();

    assert!(!is_woken(&waiter, Some(ONE)), "a write may have preceded the subscription");
}

#[tokio::test]
async fn awaited_keys_are_probed_in_turn() {
    let subscriptions = Arc::new(Subscriptions::default());
    let waiter = |channel: &str| {
        let spawn_task = |_| task::spawn(std::future::pending());
        subscriptions.add_waiter(&key(channel), spawn_task).unwrap().expect("the connection is open")
    };
    let _waiters: Vec<_> = ["a", "b", "c"].into_iter().map(waiter).collect();

    let probed: Vec<_> =
        (0..6).map(|_| subscriptions.next_awaited_key().expect("there are waiters").channel).collect();

    let mut first: Vec<&str> = probed[..3].iter().map(|channel| &**channel).collect();
    first.sort_unstable();
    assert_eq!(first, ["a", "b", "c"]);
    assert_eq!(probed[..3], probed[3..]);
}

#[tokio::test]
async fn a_write_whose_caller_was_cancelled_wakes_like_any_other() {
    let (subscriptions, waiter) = subscribed();

    drop(subscriptions.start_query(CHANNEL, Some(TWO)));

    assert!(is_woken(&waiter, Some(TWO)), "whether it was applied is unknown");
    subscriptions.on_push(notice(TWO));
    assert!(is_woken(&waiter, Some(ONE)));
}

#[tokio::test]
async fn a_write_without_a_notice_counts_by_its_reply() {
    let (subscriptions, waiter) = subscribed();

    subscriptions.start_query(CHANNEL, Some(TWO)).on_applied(TWO, false);

    assert!(!is_woken(&waiter, Some(TWO)));
    assert!(is_woken(&waiter, Some(ONE)));
}

#[tokio::test]
async fn a_write_is_pending_only_under_a_confirmed_subscription() {
    let subscriptions = Arc::new(Subscriptions::default());
    let waiter = add_waiter(&subscriptions);
    let query = subscriptions.start_query(CHANNEL, Some(TWO));
    subscriptions.expect_confirmation(CHANNEL);
    subscriptions.on_push(push(PushKind::Subscribe, &[CHANNEL]));

    query.on_applied(TWO, true);
    subscriptions.start_query(CHANNEL, None).on_version(Some(ONE));

    assert!(is_woken(&waiter, Some(TWO)), "its notice may precede the subscription");
}

#[tokio::test]
async fn closing_wakes_all_waiters_and_admits_no_more() {
    let (subscriptions, waiter) = subscribed();

    subscriptions.on_push(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });

    assert!(is_woken(&waiter, Some(ONE)));
    let spawn_task = |_| -> Result<Task, Error> { panic!("no task is needed") };
    assert!(subscriptions.add_waiter(&key(CHANNEL), spawn_task).unwrap().is_none());
    assert!(!subscriptions.is_desynced());
}

#[tokio::test]
async fn an_unexpected_confirmation_closes_the_connection() {
    for (kind, channel) in [
        (PushKind::SUnsubscribe, CHANNEL),
        (PushKind::Unsubscribe, CHANNEL),
        (PushKind::Subscribe, "another"),
        (PushKind::Subscribe, CHANNEL),
        (PushKind::PSubscribe, CHANNEL),
    ] {
        let (subscriptions, waiter) = subscribed();

        subscriptions.on_push(push(kind.clone(), &[channel]));

        assert!(subscriptions.is_desynced(), "{kind}");
        assert!(is_woken(&waiter, Some(ONE)), "{kind}");
    }
}

#[tokio::test]
async fn a_failure_reaches_the_waiters_and_the_next_one_subscribes_again() {
    let (subscriptions, waiter) = subscribed();

    subscriptions.fail(CHANNEL, Error::PermissionDenied);

    assert!(matches!(waiter.changed(Some(ONE)).await, Err(Error::PermissionDenied)));
    let again = add_waiter(&subscriptions);
    assert!(!is_woken(&again, Some(ONE)), "no version has arrived yet");
}

#[tokio::test]
async fn a_late_confirmation_keeps_the_connection() {
    let subscriptions = Arc::new(Subscriptions::default());
    let _visit = add_waiter(&subscriptions);
    subscriptions.expect_confirmation(CHANNEL);
    subscriptions.fail(CHANNEL, Error::Timeout);
    let again = add_waiter(&subscriptions);
    subscriptions.expect_confirmation(CHANNEL);

    subscriptions.on_push(push(PushKind::Subscribe, &[CHANNEL]));
    subscriptions.on_push(push(PushKind::Subscribe, &[CHANNEL]));

    assert!(!subscriptions.is_closed());
    subscriptions.on_push(notice(TWO));
    assert!(is_woken(&again, Some(ONE)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_only_after_a_whole_pause_without_waiters() {
    let clock = quota_core::Clock::system();
    let pause = || clock.sleep(std::time::Duration::from_secs(120));
    let (subscriptions, first) = subscribed();
    let mut wait_idle = pin!(subscriptions.wait_idle(CHANNEL, pause));
    let seconds = std::time::Duration::from_secs;

    assert!(clock.bounded(seconds(1000), wait_idle.as_mut()).await.is_none(), "there is a waiter");
    drop(first);
    assert!(clock.bounded(seconds(100), wait_idle.as_mut()).await.is_none());
    drop(add_waiter(&subscriptions));
    assert!(clock.bounded(seconds(100), wait_idle.as_mut()).await.is_none(), "a waiter came and left");

    assert!(clock.bounded(seconds(1000), wait_idle).await.is_some());
}

#[tokio::test]
async fn a_parked_subscription_receives_notices_and_is_reused() {
    let (subscriptions, first) = subscribed();
    drop(first);
    subscriptions.wait_idle(CHANNEL, || std::future::ready(())).await;
    assert_eq!(subscriptions.park(CHANNEL), Parked::Yes);
    subscriptions.on_push(notice(TWO));

    let spawn_task = |start| {
        assert_eq!(start, StartFrom::Subscribed);
        task::spawn(std::future::pending())
    };
    let again = subscriptions.add_waiter(&key(CHANNEL), spawn_task).unwrap().expect("the connection is open");

    assert!(!is_woken(&again, Some(TWO)));
    assert!(is_woken(&again, Some(ONE)));
}

#[tokio::test]
async fn too_many_parked_subscriptions_are_reported() {
    let subscriptions = Arc::new(Subscriptions::default());
    let mut last = Parked::Yes;
    for index in 0..=MAX_PARKED {
        let channel: Arc<str> = format!("channel {index}").into();
        drop(subscriptions.add_waiter(&key(&channel), |_| task::spawn(std::future::pending())).unwrap());
        subscriptions.expect_confirmation(&channel);
        subscriptions.on_push(push(PushKind::SSubscribe, &[&*channel]));
        assert_eq!(last, Parked::Yes);
        last = subscriptions.park(&channel);
    }

    assert_eq!(last, Parked::TooMany);
}

#[tokio::test]
async fn a_subscription_with_a_waiter_is_not_removed() {
    let (subscriptions, waiter) = subscribed();

    assert!(!subscriptions.remove_if_idle(CHANNEL));
    drop(waiter);

    assert!(subscriptions.remove_if_idle(CHANNEL));
}

#[tokio::test]
async fn only_keys_with_waiters_are_probed() {
    let (subscriptions, waiter) = subscribed();
    assert_eq!(subscriptions.next_awaited_key().map(|key| key.channel), Some(CHANNEL.into()));

    drop(waiter);

    assert!(subscriptions.next_awaited_key().is_none());
}
