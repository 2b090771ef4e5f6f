//! Tracks the current version of one document, from the notices and replies on one connection, and compares it with that of a
//! waiter. Pure logic without I/O: `subscriptions` owns the waiters, and `subscription_task` sends the queries.
//!
//! # Order of notices and replies
//!
//! All input comes over one connection from the server that owns the key. It arrives in the order in which that server executed
//! the commands. However, the task that sent a query may process the reply after it has processed later notices. This leads to
//! two rules:
//!
//! 1. **A reply counts only if no notice arrived since its query was sent** ([`VersionTracker::start_query`],
//!    [`VersionTracker::on_reply`]). Such a notice is newer than the reply, or contains the same version.
//! 2. **The process's own write is registered before it is sent** ([`VersionTracker::expect_own`]), and is *pending* until its
//!    notice arrives. All notices that arrive before then are older than the pending version, so they do not wake a waiter that
//!    has it.
//!
//! | order | effect |
//! |---|---|
//! | own notice, then the reply (before Redis 7.2) | the notice makes the version the latest; a waiter that has it keeps waiting |
//! | the reply, then the own notice (since 7.2) | in between the version is pending; a waiter that has it keeps waiting |
//! | another writer's notice, then the own notice | the first does not wake a waiter that has the own version, which is still pending |
//! | own notice, then another writer's | the second wakes, because no version is pending anymore |
//! | the write failed, lost the swap, or its caller was cancelled | the version is no longer pending; its notice wakes waiters like any other |
//! | the server may not publish | the reply reports this; no version is pending, and rule 1 takes the version from the reply |
//! | a subscription starts | earlier notices are unknown; the task queries the version, and until then no waiter is woken |
//! | the connection is lost | all state is dropped and all waiters are woken; see `subscriptions` |

use bytes::Bytes;
use quota_core::store::{Document, Notice, Version};

/// The state of one document.
#[derive(Debug, Default)]
pub(crate) struct VersionTracker {
    /// The last received version, if any; the inner `None` is a missing document.
    latest: Option<Option<Version>>,
    /// The body of the last received version, if its notice contained it.
    body: Option<Bytes>,
    /// Rises with each notice, and with each reply that changes the version.
    epoch: u64,
    /// Versions that this process has sent and whose notices have not arrived.
    own_pending: Vec<Version>,
}

/// When a query was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryEpoch(u64);

impl VersionTracker {
    /// Drops all state, because a subscription starts again. Replies to earlier queries are ignored from now on.
    pub(crate) fn reset(&mut self) {
        (self.latest, self.body) = (None, None);
        self.epoch += 1;
        self.own_pending.clear();
    }

    /// A notice arrived: the document now has this version, and this body if it is known.
    pub(crate) fn on_notice(&mut self, version: Version, body: Option<Bytes>) {
        self.own_pending.retain(|own_pending| *own_pending != version);
        (self.latest, self.body) = (Some(Some(version)), body);
        self.epoch += 1;
    }

    /// Call this before sending a query.
    pub(crate) fn start_query(&self) -> QueryEpoch {
        QueryEpoch(self.epoch)
    }

    /// A reply contains the current version. Returns whether waiters must be woken.
    pub(crate) fn on_reply(&mut self, epoch: QueryEpoch, version: Option<Version>) -> bool {
        let is_new = epoch.0 == self.epoch && self.latest != Some(version);
        if is_new {
            (self.latest, self.body) = (Some(version), None);
            self.epoch += 1;
        }
        is_new
    }

    /// Call this before sending a write of this version whose notice arrives on this connection.
    pub(crate) fn expect_own(&mut self, version: Version) {
        self.own_pending.push(version);
    }

    /// The notice of this version may never arrive.
    pub(crate) fn forget_own(&mut self, version: Version) {
        self.own_pending.retain(|own_pending| *own_pending != version);
    }

    /// Whether the document may have a version other than `seen`.
    pub(crate) fn differs_from(&self, seen: Option<Version>) -> bool {
        let is_own_pending = seen.is_some_and(|seen| self.own_pending.contains(&seen));
        self.latest.is_some_and(|latest| latest != seen) && !is_own_pending
    }

    /// Whether any version was received.
    pub(crate) fn is_known(&self) -> bool {
        self.latest.is_some()
    }

    /// The last received version, and its body if a notice contained it.
    pub(crate) fn notice(&self) -> Notice {
        // An unreadable notice counts as a version that no document has.
        let version = self.latest.flatten().filter(|version| version.number() != 0);
        match (version, self.body.clone()) {
            (Some(version), Some(body)) => Notice::of_document(Document::new(version, body)),
            (version, _) => Notice::of_version(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZERO: Option<Version> = Some(Version::new(10));
    const OWN: Version = Version::new(11);
    const OTHER: Version = Version::new(12);

    fn subscribed() -> VersionTracker {
        let mut tracker = VersionTracker::default();
        tracker.reset();
        let epoch = tracker.start_query();
        assert!(tracker.on_reply(epoch, ZERO));
        tracker
    }

    #[test]
    fn no_waiter_is_woken_before_the_first_version_arrives() {
        let tracker = VersionTracker::default();

        assert!(!tracker.differs_from(ZERO));
        assert!(!tracker.differs_from(None));
    }

    #[test]
    fn a_waiter_with_another_version_is_woken() {
        let tracker = subscribed();

        assert!(tracker.differs_from(None));
        assert!(!tracker.differs_from(ZERO));
    }

    #[test]
    fn an_own_notice_before_the_reply_does_not_wake_the_writer() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        tracker.on_notice(OWN, None);

        assert!(!tracker.differs_from(Some(OWN)));
        assert!(tracker.differs_from(ZERO));
    }

    #[test]
    fn an_own_notice_after_the_reply_does_not_wake_the_writer() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        assert!(!tracker.differs_from(Some(OWN)), "the reply has arrived, the notice has not");
        tracker.on_notice(OWN, None);

        assert!(!tracker.differs_from(Some(OWN)));
    }

    #[test]
    fn an_older_notice_does_not_wake_a_waiter_with_a_pending_version() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        tracker.on_notice(OTHER, None);

        assert!(!tracker.differs_from(Some(OWN)));
        assert!(tracker.differs_from(ZERO));
    }

    #[test]
    fn a_later_write_of_another_process_wakes_the_waiter() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);
        tracker.on_notice(OWN, None);

        tracker.on_notice(OTHER, None);

        assert!(tracker.differs_from(Some(OWN)));
    }

    #[test]
    fn a_forgotten_own_write_is_no_longer_pending() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        tracker.forget_own(OWN);

        assert!(tracker.differs_from(Some(OWN)));
    }

    #[test]
    fn a_reply_older_than_a_notice_is_ignored() {
        let mut tracker = subscribed();
        let epoch = tracker.start_query();
        tracker.on_notice(OTHER, None);

        assert!(!tracker.on_reply(epoch, ZERO));

        assert!(!tracker.differs_from(Some(OTHER)));
    }

    #[test]
    fn a_removed_document_wakes_its_waiter_once() {
        let mut tracker = subscribed();
        let epoch = tracker.start_query();

        assert!(tracker.on_reply(epoch, None));

        assert!(tracker.differs_from(ZERO));
        assert!(!tracker.differs_from(None));
    }

    #[test]
    fn a_reply_from_before_a_new_subscription_is_ignored() {
        let mut tracker = subscribed();
        let epoch = tracker.start_query();
        tracker.reset();

        assert!(!tracker.on_reply(epoch, ZERO));

        assert!(!tracker.differs_from(None));
    }

    #[test]
    fn a_notice_contains_the_body_of_the_latest_version_only() {
        let mut tracker = subscribed();
        let body = Bytes::from_static(b"other");

        tracker.on_notice(OTHER, Some(body.clone()));
        assert_eq!(tracker.notice(), Notice::of_document(Document::new(OTHER, body)));

        let epoch = tracker.start_query();
        assert!(tracker.on_reply(epoch, Some(OWN)));
        assert_eq!(tracker.notice(), Notice::of_version(OWN));
        tracker.reset();
        assert_eq!(tracker.notice(), Notice::default());
    }

    /// A server that executes one command after another, and the messages from it that are still in flight.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        OwnWrite,
        OtherWrite,
        Read,
        /// The next message in flight arrives.
        Arrive,
        /// The task that sent the query processes the oldest reply that has arrived.
        Process,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::OwnWrite),
            Just(Step::OtherWrite),
            Just(Step::Read),
            Just(Step::Arrive),
            Just(Step::Arrive),
            Just(Step::Process),
        ];
        prop::collection::vec(step, 0..60)
    }

    enum InFlight {
        Notice(Version),
        Response(QueryEpoch, Option<Version>, bool),
    }

    proptest! {
        /// Checks every order of messages, from old servers (notice first) and new ones (reply first). Once all messages have
        /// arrived, a change must have woken each waiter with another version, and no waiter with the current one. Older
        /// notices must never wake a waiter that has this process's last write.
        #[test]
        fn no_change_is_missed_and_no_own_write_wakes_its_writer(steps in steps(), answer_first: bool) {
            let mut tracker = subscribed();
            let (mut current, mut next) = (ZERO, 100);
            let mut connection = std::collections::VecDeque::new();
            let mut arrived = std::collections::VecDeque::new();
            let mut everything = steps.clone();
            everything.extend([Step::Arrive; 130]);
            everything.extend([Step::Process; 70]);
            for step in everything {
                match step {
                    Step::OwnWrite => {
                        next += 1;
                        let version = Version::new(next);
                        let epoch = tracker.start_query();
                        tracker.expect_own(version);
                        current = Some(version);
                        let response = InFlight::Response(epoch, current, true);
                        let notice = InFlight::Notice(version);
                        connection.extend(if answer_first { [response, notice] } else { [notice, response] });
                    }
                    Step::OtherWrite => {
                        next += 1;
                        current = Some(Version::new(next));
                        connection.push_back(InFlight::Notice(Version::new(next)));
                    }
                    Step::Read => connection.push_back(InFlight::Response(tracker.start_query(), current, false)),
                    Step::Arrive => match connection.pop_front() {
                        Some(InFlight::Notice(version)) => tracker.on_notice(version, None),
                        Some(response) => arrived.push_back(response),
                        None => {}
                    },
                    Step::Process => {
                        let Some(InFlight::Response(epoch, version, is_own)) = arrived.pop_front() else { continue };
                        if !is_own {
                            tracker.on_reply(epoch, version);
                        }
                        // The version in this reply must wake its own task only if a newer one exists.
                        let newer_exists = current != version;
                        prop_assert!(newer_exists || !tracker.differs_from(version), "woken without a reason");
                    }
                }
            }
            prop_assert!(!tracker.differs_from(current));
            for older in 10..next {
                let older = Some(Version::new(older));
                prop_assert!(older == current || tracker.differs_from(older), "a change was missed");
            }
        }
    }
}
