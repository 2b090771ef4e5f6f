//! What is known of one document from notices and answers on one connection, and whether that is news to somebody.
//! Nothing here does I/O or waits; see `board` for who waits, and `keeper` for what is asked.
//!
//! # The orders in which things can come
//!
//! Everything known here comes from one connection to the server that owns the key, so it is in the order in which that
//! server carried it out. An answer, though, is handed to the task that asked, and may be looked at after notices that
//! came behind it. Hence two rules:
//!
//! 1. **An answer counts only if no notice came in since it was asked** ([`Topic::ask`], [`Topic::told`]). If one did,
//!    it is from after the answer or says the same.
//! 2. **A version that this process writes is announced before it is sent** ([`Topic::writes`]), and is *awaited* until its
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
//! | the connection is lost | all of this is forgotten and everybody is woken; see `board` |

use quota_core::Version;

/// What is known of one document.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    /// The last version heard of, if any was.
    latest: Option<Option<Version>>,
    /// Rises with every notice, and with every answer that says something new.
    generation: u64,
    /// Versions of this process on their way, whose notices have not come.
    awaited: Vec<Version>,
}

/// When an answer was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked(u64);

impl Topic {
    /// Forgets all, for a subscription begins anew. Answers that were asked before are too old from now on.
    pub(crate) fn begin(&mut self) {
        self.latest = None;
        self.generation += 1;
        self.awaited.clear();
    }

    /// A notice came: the document is now in this version.
    pub(crate) fn heard(&mut self, version: Version) {
        self.awaited.retain(|awaited| *awaited != version);
        self.latest = Some(Some(version));
        self.generation += 1;
    }

    /// Something is about to be asked.
    pub(crate) fn ask(&self) -> Asked {
        Asked(self.generation)
    }

    /// An answer says which version stands. Whether that was worth telling.
    pub(crate) fn told(&mut self, asked: Asked, version: Option<Version>) -> bool {
        let is_new = asked.0 == self.generation && self.latest != Some(version);
        if is_new {
            self.latest = Some(version);
            self.generation += 1;
        }
        is_new
    }

    /// A write of this version is about to be sent, and its notice will come here.
    pub(crate) fn writes(&mut self, version: Version) {
        self.awaited.push(version);
    }

    /// The notice of this version may never come.
    pub(crate) fn gives_up(&mut self, version: Version) {
        self.awaited.retain(|awaited| *awaited != version);
    }

    /// Whether the document may have moved past `seen`.
    pub(crate) fn is_news_to(&self, seen: Option<Version>) -> bool {
        let is_ahead = seen.is_some_and(|seen| self.awaited.contains(&seen));
        self.latest.is_some_and(|latest| latest != seen) && !is_ahead
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZERO: Option<Version> = Some(Version::new(10));
    const OWN: Version = Version::new(11);
    const OTHER: Version = Version::new(12);

    fn standing() -> Topic {
        let mut topic = Topic::default();
        topic.begin();
        let asked = topic.ask();
        assert!(topic.told(asked, ZERO));
        topic
    }

    #[test]
    fn nobody_is_told_anything_before_the_version_is_known() {
        let topic = Topic::default();

        assert!(!topic.is_news_to(ZERO));
        assert!(!topic.is_news_to(None));
    }

    #[test]
    fn whoever_knows_less_is_told() {
        let topic = standing();

        assert!(topic.is_news_to(None));
        assert!(!topic.is_news_to(ZERO));
    }

    #[test]
    fn an_own_notice_before_the_answer_is_no_news_to_the_writer() {
        let mut topic = standing();
        topic.writes(OWN);

        topic.heard(OWN);

        assert!(!topic.is_news_to(Some(OWN)));
        assert!(topic.is_news_to(ZERO));
    }

    #[test]
    fn an_own_notice_after_the_answer_is_no_news_to_the_writer() {
        let mut topic = standing();
        topic.writes(OWN);

        assert!(!topic.is_news_to(Some(OWN)), "the answer has come, the notice has not");
        topic.heard(OWN);

        assert!(!topic.is_news_to(Some(OWN)));
    }

    #[test]
    fn an_older_notice_is_no_news_to_whoever_knows_a_version_on_its_way() {
        let mut topic = standing();
        topic.writes(OWN);

        topic.heard(OTHER);

        assert!(!topic.is_news_to(Some(OWN)));
        assert!(topic.is_news_to(ZERO));
    }

    #[test]
    fn what_another_writes_after_the_own_version_is_news() {
        let mut topic = standing();
        topic.writes(OWN);
        topic.heard(OWN);

        topic.heard(OTHER);

        assert!(topic.is_news_to(Some(OWN)));
    }

    #[test]
    fn a_write_that_was_given_up_is_awaited_no_longer() {
        let mut topic = standing();
        topic.writes(OWN);

        topic.gives_up(OWN);

        assert!(topic.is_news_to(Some(OWN)));
    }

    #[test]
    fn an_answer_older_than_a_notice_is_not_believed() {
        let mut topic = standing();
        let asked = topic.ask();
        topic.heard(OTHER);

        assert!(!topic.told(asked, ZERO));

        assert!(!topic.is_news_to(Some(OTHER)));
    }

    #[test]
    fn a_document_that_has_gone_is_news_once() {
        let mut topic = standing();
        let asked = topic.ask();

        assert!(topic.told(asked, None));

        assert!(topic.is_news_to(ZERO));
        assert!(!topic.is_news_to(None));
    }

    #[test]
    fn an_answer_from_before_a_new_subscription_is_not_believed() {
        let mut topic = standing();
        let asked = topic.ask();
        topic.begin();

        assert!(!topic.told(asked, ZERO));

        assert!(!topic.is_news_to(None));
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
        LookAt,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::OwnWrite),
            Just(Step::OtherWrite),
            Just(Step::Read),
            Just(Step::Arrive),
            Just(Step::Arrive),
            Just(Step::LookAt),
        ];
        prop::collection::vec(step, 0..60)
    }

    enum OnWire {
        Notice(Version),
        Answer(Asked, Option<Version>, bool),
    }

    proptest! {
        /// In every order, both of old servers (notice first) and of new ones (answer first): once everything has
        /// arrived, a change is news to all who do not know it, and to nobody who does; and whoever knows the own last
        /// write is never woken by what is older.
        #[test]
        fn no_change_is_missed_and_no_own_write_wakes_its_writer(steps in steps(), answer_first: bool) {
            let mut topic = standing();
            let (mut stands, mut next) = (ZERO, 100);
            let mut wire = std::collections::VecDeque::new();
            let mut arrived = std::collections::VecDeque::new();
            let mut everything = steps.clone();
            everything.extend([Step::Arrive; 130]);
            everything.extend([Step::LookAt; 70]);
            for step in everything {
                match step {
                    Step::OwnWrite => {
                        next += 1;
                        let version = Version::new(next);
                        let asked = topic.ask();
                        topic.writes(version);
                        stands = Some(version);
                        let answer = OnWire::Answer(asked, stands, true);
                        let notice = OnWire::Notice(version);
                        wire.extend(if answer_first { [answer, notice] } else { [notice, answer] });
                    }
                    Step::OtherWrite => {
                        next += 1;
                        stands = Some(Version::new(next));
                        wire.push_back(OnWire::Notice(Version::new(next)));
                    }
                    Step::Read => wire.push_back(OnWire::Answer(topic.ask(), stands, false)),
                    Step::Arrive => match wire.pop_front() {
                        Some(OnWire::Notice(version)) => topic.heard(version),
                        Some(answer) => arrived.push_back(answer),
                        None => {}
                    },
                    Step::LookAt => {
                        let Some(OnWire::Answer(asked, version, is_own)) = arrived.pop_front() else { continue };
                        if !is_own {
                            topic.told(asked, version);
                        }
                        // What this task has learnt is news to it only if something newer was heard of.
                        let newer_exists = stands != version;
                        prop_assert!(newer_exists || !topic.is_news_to(version), "woken without a reason");
                    }
                }
            }
            prop_assert!(!topic.is_news_to(stands));
            for older in 10..next {
                let older = Some(Version::new(older));
                prop_assert!(older == stands || topic.is_news_to(older), "a change was missed");
            }
        }
    }
}
