//! What is known of one document from notices and answers on one connection, and whether that is news to somebody.
//! Nothing here does I/O or waits; see `subscriptions` for who waits, and `subscription_task` for what is asked.
//!
//! # The orders in which things can come
//!
//! Everything known here comes from one connection to the server that owns the key, so it is in the order in which that
//! server carried it out. An answer, though, is handed to the task that asked, and may be looked at after notices that
//! came behind it. Hence two rules:
//!
//! 1. **An answer counts only if no notice came in since it was asked** ([`VersionTracker::start_query`], [`VersionTracker::on_reply`]). If one did,
//!    it is from after the answer or says the same.
//! 2. **A version that this process writes is announced before it is sent** ([`VersionTracker::expect_own`]), and is *awaited* until its
//!    notice has come. Whoever knows an awaited version is ahead of all notices that have come: they are older, and no news.
//!
//! | order | what happens |
//! |---|---|
//! | own notice, then the answer (before Redis 7.2) | the notice makes the version the latest; whoever knows it waits on |
//! | the answer, then the own notice (since 7.2) | between the two the version is awaited: whoever knows it waits on |
//! | another's notice, then the own one | the first is no news to whoever knows the own, for that is still awaited |
//! | own notice, then another's | the second is news: nothing is awaited any more |
//! | the writer lost, failed or left | its version is awaited no longer; should its notice come, it is news like any other |
//! | the server may not publish | the answer says so: nothing is awaited, and rule 1 takes the version from the answer |
//! | a subscription begins | notices of before are unknown: the version is looked up, and until then nobody is told anything |
//! | the connection is lost | all of this is forgotten and everybody is woken; see `subscriptions` |

use quota_core::Version;

/// What is known of one document.
#[derive(Debug, Default)]
pub(crate) struct VersionTracker {
    /// The last version heard of, if any was.
    latest: Option<Option<Version>>,
    /// Rises with every notice, and with every answer that says something new.
    epoch: u64,
    /// Versions of this process on their way, whose notices have not come.
    own_pending: Vec<Version>,
}

/// When an answer was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryEpoch(u64);

impl VersionTracker {
    /// Forgets all, for a subscription begins anew. Answers that were asked before are too old from now on.
    pub(crate) fn reset(&mut self) {
        self.latest = None;
        self.epoch += 1;
        self.own_pending.clear();
    }

    /// A notice came: the document is now in this version.
    pub(crate) fn on_notice(&mut self, version: Version) {
        self.own_pending.retain(|own_pending| *own_pending != version);
        self.latest = Some(Some(version));
        self.epoch += 1;
    }

    /// Something is about to be asked.
    pub(crate) fn start_query(&self) -> QueryEpoch {
        QueryEpoch(self.epoch)
    }

    /// An answer says which version stands. Whether that was worth telling.
    pub(crate) fn on_reply(&mut self, epoch: QueryEpoch, version: Option<Version>) -> bool {
        let is_new = epoch.0 == self.epoch && self.latest != Some(version);
        if is_new {
            self.latest = Some(version);
            self.epoch += 1;
        }
        is_new
    }

    /// A write of this version is about to be sent, and its notice will come here.
    pub(crate) fn expect_own(&mut self, version: Version) {
        self.own_pending.push(version);
    }

    /// The notice of this version may never come.
    pub(crate) fn forget_own(&mut self, version: Version) {
        self.own_pending.retain(|own_pending| *own_pending != version);
    }

    /// Whether the document may have moved past `seen`.
    pub(crate) fn differs_from(&self, seen: Option<Version>) -> bool {
        let is_own_pending = seen.is_some_and(|seen| self.own_pending.contains(&seen));
        self.latest.is_some_and(|latest| latest != seen) && !is_own_pending
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
    fn nobody_is_told_anything_before_the_version_is_known() {
        let tracker = VersionTracker::default();

        assert!(!tracker.differs_from(ZERO));
        assert!(!tracker.differs_from(None));
    }

    #[test]
    fn whoever_knows_less_is_told() {
        let tracker = subscribed();

        assert!(tracker.differs_from(None));
        assert!(!tracker.differs_from(ZERO));
    }

    #[test]
    fn an_own_notice_before_the_answer_is_no_news_to_the_writer() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        tracker.on_notice(OWN);

        assert!(!tracker.differs_from(Some(OWN)));
        assert!(tracker.differs_from(ZERO));
    }

    #[test]
    fn an_own_notice_after_the_answer_is_no_news_to_the_writer() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        assert!(!tracker.differs_from(Some(OWN)), "the answer has come, the notice has not");
        tracker.on_notice(OWN);

        assert!(!tracker.differs_from(Some(OWN)));
    }

    #[test]
    fn an_older_notice_is_no_news_to_whoever_knows_a_version_on_its_way() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        tracker.on_notice(OTHER);

        assert!(!tracker.differs_from(Some(OWN)));
        assert!(tracker.differs_from(ZERO));
    }

    #[test]
    fn what_another_writes_after_the_own_version_is_news() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);
        tracker.on_notice(OWN);

        tracker.on_notice(OTHER);

        assert!(tracker.differs_from(Some(OWN)));
    }

    #[test]
    fn a_write_that_was_given_up_is_awaited_no_longer() {
        let mut tracker = subscribed();
        tracker.expect_own(OWN);

        tracker.forget_own(OWN);

        assert!(tracker.differs_from(Some(OWN)));
    }

    #[test]
    fn an_answer_older_than_a_notice_is_not_believed() {
        let mut tracker = subscribed();
        let epoch = tracker.start_query();
        tracker.on_notice(OTHER);

        assert!(!tracker.on_reply(epoch, ZERO));

        assert!(!tracker.differs_from(Some(OTHER)));
    }

    #[test]
    fn a_document_that_has_gone_is_news_once() {
        let mut tracker = subscribed();
        let epoch = tracker.start_query();

        assert!(tracker.on_reply(epoch, None));

        assert!(tracker.differs_from(ZERO));
        assert!(!tracker.differs_from(None));
    }

    #[test]
    fn an_answer_from_before_a_new_subscription_is_not_believed() {
        let mut tracker = subscribed();
        let epoch = tracker.start_query();
        tracker.reset();

        assert!(!tracker.on_reply(epoch, ZERO));

        assert!(!tracker.differs_from(None));
    }

    /// A server that carries out one thing after another, and what of it is still on its way to this process.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        OwnWrite,
        OtherWrite,
        Read,
        /// The next thing on the wire arrives.
        Arrive,
        /// The oldest answer that has arrived is looked at by the task that asked.
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
        /// In every order, both of old servers (notice first) and of new ones (answer first): once everything has
        /// arrived, a change is news to all who do not know it, and to nobody who does; and whoever knows the own last
        /// write is never woken by what is older.
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
                        Some(InFlight::Notice(version)) => tracker.on_notice(version),
                        Some(response) => arrived.push_back(response),
                        None => {}
                    },
                    Step::Process => {
                        let Some(InFlight::Response(epoch, version, is_own)) = arrived.pop_front() else { continue };
                        if !is_own {
                            tracker.on_reply(epoch, version);
                        }
                        // What this task has learnt is news to it only if something newer was heard of.
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
