//! The guarantees of the notices that a store sends.

use bytes::Bytes;

use super::{TTL, boxed, changed, fresh_key, join_all, read, swap};
use crate::record::Record;
use crate::store::{CasOutcome, Document, Notice, QuotaStore, StoreKey, Version};

cases! {
    async fn the_document_of_a_notice_is_not_newer_than_a_read(store) {
        let key = fresh_key();
        let check = async |notice: &Notice| {
            let Some(noticed) = notice.document().as_ref().map(number) else { return };
            let current = read(store, &key).await.document.as_ref().map(number);
            assert!(current >= Some(noticed), "the notice has {noticed}, and a later read {current:?}");
        };

        let follow = follow_numbers(store, &key, check);
        let write = async { let _ = count_up(store, &key).await; };

        join_all([boxed(follow), boxed(write)]).await;
    }

    async fn the_version_of_a_notice_is_that_of_its_document(store) {
        let key = fresh_key();
        let (mut documents, mut versions) = (Vec::new(), Vec::new());

        let follow = follow_numbers(store, &key, async |notice| {
            assert!(notice.body.is_none() || notice.version.is_some(), "a body without a version: {notice:?}");
            documents.extend(notice.document());
        });
        let write = async { versions = count_up(store, &key).await; };

        join_all([boxed(follow), boxed(write)]).await;
        for document in documents {
            assert_eq!(versions.get(number(&document)), Some(&document.version), "{document:?}");
        }
    }

    /// Follows a record as a manager does, but reads between the notices, so that these are late.
    async fn a_late_notice_does_not_look_like_a_lost_write(store) {
        let key = fresh_key();
        let write = async {
            let (mut record, mut version) = (Record::default(), None);
            for _ in 0..=LAST_NUMBER {
                record.bump_revision();
                match swap(store, &key, version, &record.encode(), TTL).await {
                    CasOutcome::Applied(applied) => version = Some(applied),
                    CasOutcome::Conflict(found) => panic!("no other writer of {key}, but the store has {found:?}"),
                }
                tokio::task::yield_now().await;
            }
        };
        let follow = async {
            let decode = |document: &Document| Record::decode(&document.body).expect("the writer wrote records");
            let (mut known, mut seen) = (Record::default(), None);
            while known.revision() <= LAST_NUMBER as u64 {
                let notice = changed(store, &key, seen).await;
                if let Some(noticed) = notice.document().as_ref().map(decode)
                    && noticed.is_newer_than(&known) == Some(true)
                {
                    known = noticed;
                }
                let reading = read(store, &key).await;
                let stored = reading.document.as_ref().map(decode).unwrap_or_default();
                assert!(!stored.is_behind(&known), "the store has {stored:?}, and a notice brought {known:?}");
                known = stored;
                seen = notice.version.or(reading.version());
            }
        };

        join_all([boxed(follow), boxed(write)]).await;
    }
}

/// The writers write this many numbers or records.
const LAST_NUMBER: usize = 30;

/// Writes the numbers up to [`LAST_NUMBER`] in sequence, and returns the version of each.
async fn count_up(store: &dyn QuotaStore, key: &StoreKey) -> Vec<Version> {
    let mut versions = Vec::new();
    for number in 0..=LAST_NUMBER {
        let body = Bytes::from(number.to_string());
        match swap(store, key, versions.last().copied(), &body, TTL).await {
            CasOutcome::Applied(version) => versions.push(version),
            CasOutcome::Conflict(found) => panic!("no other writer of {key}, but the store has {found:?}"),
        }
        // Let the followers run.
        tokio::task::yield_now().await;
    }
    versions
}

fn number(document: &Document) -> usize {
    let text = String::from_utf8_lossy(&document.body);
    text.parse().unwrap_or_else(|_| panic!("the writer wrote numbers, not {text:?}"))
}

/// Waits for notices until the last number is stored. Reads after each notice.
async fn follow_numbers(store: &dyn QuotaStore, key: &StoreKey, mut on_notice: impl AsyncFnMut(&Notice)) {
    let (mut seen, mut latest) = (None, None);
    while latest != Some(LAST_NUMBER) {
        let notice = changed(store, key, seen).await;
        on_notice(&notice).await;
        let reading = read(store, key).await;
        latest = reading.document.as_ref().map(number);
        // Do this as a follower does after a late notice.
        seen = notice.version.or(reading.version());
    }
}
