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

fn visit(board: &Arc<Board>) -> Visit {
    let keeper = |_| task::spawn(std::future::pending());
    board.visit(&key(CHANNEL), keeper).unwrap().expect("the connection stands")
}

/// A board with a subscription that stands, and a document of version one.
fn standing() -> (Arc<Board>, Visit) {
    let board = Arc::new(Board::default());
    let visit = visit(&board);
    board.subscribing(CHANNEL);
    board.hear(&push(PushKind::Subscribe, &[CHANNEL]));
    board.trip(CHANNEL, None).stands(Some(ONE));
    (board, visit)
}

fn is_woken(visit: &Visit, seen: Option<Version>) -> bool {
    let mut news = pin!(visit.news(seen));
    news.as_mut().now_or_never().is_some()
}

#[tokio::test]
async fn a_notice_wakes_those_to_whom_it_is_news() {
    let (board, visit) = standing();
    assert!(!is_woken(&visit, Some(ONE)));

    board.hear(&notice(TWO));

    assert!(is_woken(&visit, Some(ONE)));
    assert!(!is_woken(&visit, Some(TWO)));
}

#[tokio::test]
async fn a_notice_that_cannot_be_read_wakes_everybody() {
    let (board, visit) = standing();

    board.hear(&push(PushKind::Message, &[CHANNEL, "?"]));

    assert!(is_woken(&visit, Some(ONE)));
}

#[tokio::test]
async fn a_write_whose_caller_left_is_news_like_any_other() {
    let (board, visit) = standing();

    drop(board.trip(CHANNEL, Some(TWO)));

    assert!(is_woken(&visit, Some(TWO)), "it is not known to have happened");
    board.hear(&notice(TWO));
    assert!(is_woken(&visit, Some(ONE)));
}

#[tokio::test]
async fn a_write_of_which_no_notice_was_sent_is_known_by_its_answer() {
    let (board, visit) = standing();

    board.trip(CHANNEL, Some(TWO)).wrote(TWO, false);

    assert!(!is_woken(&visit, Some(TWO)));
    assert!(is_woken(&visit, Some(ONE)));
}

#[tokio::test]
async fn a_write_is_awaited_only_under_a_subscription_that_stands() {
    let board = Arc::new(Board::default());
    let visit = visit(&board);
    let trip = board.trip(CHANNEL, Some(TWO));
    board.subscribing(CHANNEL);
    board.hear(&push(PushKind::Subscribe, &[CHANNEL]));

    trip.wrote(TWO, true);
    board.trip(CHANNEL, None).stands(Some(ONE));

    assert!(is_woken(&visit, Some(TWO)), "its notice may have come before the subscription");
}

#[tokio::test]
async fn the_end_of_the_connection_wakes_everybody_and_lets_nobody_in() {
    let (board, visit) = standing();

    board.hear(&PushInfo { kind: PushKind::Disconnection, data: Vec::new() });

    assert!(is_woken(&visit, Some(ONE)));
    let keeper = |_| -> Result<Task, Failure> { panic!("no keeper is needed") };
    assert!(board.visit(&key(CHANNEL), keeper).unwrap().is_none());
    assert!(!board.is_out_of_step());
}

#[tokio::test]
async fn what_was_not_asked_for_and_looks_like_an_answer_ends_the_connection() {
    for (kind, channel) in [
        (PushKind::SUnsubscribe, CHANNEL),
        (PushKind::Unsubscribe, CHANNEL),
        (PushKind::Subscribe, "another"),
        (PushKind::Subscribe, CHANNEL),
        (PushKind::PSubscribe, CHANNEL),
    ] {
        let (board, visit) = standing();

        board.hear(&push(kind.clone(), &[channel]));

        assert!(board.is_out_of_step(), "{kind}");
        assert!(is_woken(&visit, Some(ONE)), "{kind}");
    }
}

#[tokio::test]
async fn a_failure_is_told_to_those_who_wait_and_the_next_one_begins_anew() {
    let (board, visitor) = standing();

    board.fail(CHANNEL, Failure::NoRights);

    assert!(matches!(visitor.news(Some(ONE)).await, Err(Failure::NoRights)));
    let again = visit(&board);
    assert!(!is_woken(&again, Some(ONE)), "nothing is known yet");
}

#[tokio::test]
async fn a_subscription_that_is_confirmed_late_does_not_end_the_connection() {
    let board = Arc::new(Board::default());
    let _visit = visit(&board);
    board.subscribing(CHANNEL);
    board.fail(CHANNEL, Failure::Late);
    let again = visit(&board);
    board.subscribing(CHANNEL);

    board.hear(&push(PushKind::Subscribe, &[CHANNEL]));
    board.hear(&push(PushKind::Subscribe, &[CHANNEL]));

    assert!(!board.is_over());
    board.hear(&notice(TWO));
    assert!(is_woken(&again, Some(ONE)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_given_up_only_after_a_whole_pause_without_anybody() {
    let clock = quota_core::Clock::system();
    let pause = || clock.sleep(std::time::Duration::from_secs(120));
    let (board, first) = standing();
    let mut deserted = pin!(board.deserted(CHANNEL, pause));
    let seconds = std::time::Duration::from_secs;

    assert!(clock.bounded(seconds(1000), deserted.as_mut()).await.is_none(), "somebody waits");
    drop(first);
    assert!(clock.bounded(seconds(100), deserted.as_mut()).await.is_none());
    drop(visit(&board));
    assert!(clock.bounded(seconds(100), deserted.as_mut()).await.is_none(), "somebody was here meanwhile");

    assert!(clock.bounded(seconds(1000), deserted).await.is_some());
}

#[tokio::test]
async fn a_shelved_subscription_hears_on_and_is_taken_up_as_it_is() {
    let (board, first) = standing();
    drop(first);
    board.deserted(CHANNEL, || std::future::ready(())).await;
    assert_eq!(board.shelve(CHANNEL), Shelved::Yes);
    board.hear(&notice(TWO));

    let keeper = |start| {
        assert_eq!(start, Start::Standing);
        task::spawn(std::future::pending())
    };
    let again = board.visit(&key(CHANNEL), keeper).unwrap().expect("the connection stands");

    assert!(!is_woken(&again, Some(TWO)));
    assert!(is_woken(&again, Some(ONE)));
}

#[tokio::test]
async fn too_many_shelved_subscriptions_are_noticed() {
    let board = Arc::new(Board::default());
    let mut last = Shelved::Yes;
    for index in 0..=MOST_SHELVED {
        let channel: Arc<str> = format!("channel {index}").into();
        drop(board.visit(&key(&channel), |_| task::spawn(std::future::pending())).unwrap());
        board.subscribing(&channel);
        board.hear(&push(PushKind::SSubscribe, &[&*channel]));
        assert_eq!(last, Shelved::Yes);
        last = board.shelve(&channel);
    }

    assert_eq!(last, Shelved::TooMany);
}

#[tokio::test]
async fn a_topic_that_somebody_wants_is_not_taken_away() {
    let (board, visit) = standing();

    assert!(!board.remove(CHANNEL));
    drop(visit);

    assert!(board.remove(CHANNEL));
}

#[tokio::test]
async fn what_is_waited_for_can_be_asked_for_and_nothing_else() {
    let (board, visit) = standing();
    assert_eq!(board.somebody_waits().map(|key| key.channel), Some(CHANNEL.into()));

    drop(visit);

    assert!(board.somebody_waits().is_none());
}
