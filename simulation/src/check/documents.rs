//! The rules for the documents that the store applies, loses and delivers.

use jiff::Timestamp;
use quota_core::store::{Document, StoreKey, Version};

use super::{Checker, as_ms};
use crate::facts::Facts;
use crate::ledger::Caller;
use crate::names::{login_in, number_in};

impl Checker {
    /// The store has applied a write.
    pub(crate) fn applied(
        &mut self,
        now: Timestamp,
        writer: Caller,
        key: &StoreKey,
        before: Option<&[u8]>,
        body: &[u8],
        version: Version,
    ) {
        let new = Facts::of(version, body);
        self.note(now, ("wrote", writer.process, key, body), || {
            format!("p{} wrote {key} {new:?}", writer.process)
        });
        if !new.is_record {
            return;
        }
        let old = before.map(|before| Facts::of(version, before));
        if let Some(old) = &old {
            self.check_write(now, writer, key, old, &new);
        }
        if new.succeeded > old.and_then(|old| old.succeeded)
            && let Some(login) = new.plan.as_deref().and_then(login_in)
        {
            self.ledger.stored(writer.manager, login, now);
        }
        if let (Some(serial), Some(login)) = (new.serial, new.plan.as_deref().and_then(login_in)) {
            let subject = self.expects.subject(number_in(key.as_str()), login);
            self.stored.entry(subject).or_default().push((now, serial));
        }
        if let Some((fence, _)) = new.lease {
            self.holders.entry((key.clone(), fence)).or_insert(writer.process);
        }
        self.check_hold_write(now, key, before.is_some(), &new);
        self.written.insert(key.clone(), new);
    }

    /// The store has lost writes of a document. `left` is what remains.
    pub(crate) fn lost(&mut self, now: Timestamp, key: &StoreKey, left: Option<&Document>) {
        self.note(now, ("lost", key), || format!("store lost {key}"));
        match left {
            Some(document) => {
                self.written.insert(key.clone(), Facts::of(document.version, &document.body));
            }
            None => {
                self.written.remove(key);
            }
        }
    }

    /// A manager has received a document.
    pub(crate) fn delivered(
        &mut self,
        now: Timestamp,
        manager: usize,
        key: &StoreKey,
        document: Option<&Document>,
    ) {
        let Some(document) = document else {
            self.note(now, ("got nothing", manager, key), || format!("m{manager} got nothing for {key}"));
            return;
        };
        let slot = (manager, key.clone());
        let is_same =
            self.delivered.get(&slot).is_some_and(|(_, facts)| facts.version == document.version.number());
        let version = document.version.number();
        self.note(now, ("got", manager, key, version), || format!("m{manager} got {key} version {version}"));
        if !is_same {
            let written = self.written.get(key).filter(|facts| facts.version == version).cloned();
            let facts = written.unwrap_or_else(|| Facts::of(document.version, &document.body));
            self.delivered.insert(slot, (now, facts));
        }
    }

    /// A manager has received a document with a notice.
    pub(crate) fn noticed(&mut self, now: Timestamp, manager: usize, key: &StoreKey, document: &Document) {
        let version = document.version.number();
        self.note(now, ("noticed", manager, key, version), || {
            format!("m{manager} noticed {key} version {version}")
        });
    }

    /// A cleared hold does not reappear, and waits that the provider did not request are spread.
    fn check_hold_write(&mut self, now: Timestamp, key: &StoreKey, is_replacement: bool, new: &Facts) {
        let old = self.written.get(key).filter(|_| is_replacement);
        // A repair after a loss writes an earlier clearing again.
        let last = self.cleared.get(key).map_or(0, |(_, fence)| *fence);
        if old.is_some_and(|old| new.cleared_fence > old.cleared_fence.max(last)) {
            self.cleared.insert(key.clone(), (now, new.cleared_fence));
        }
        let is_known = old.is_some_and(|old| {
            old.hold.as_ref().map(|hold| hold.fence) == new.hold.as_ref().map(|hold| hold.fence)
        });
        let Some(hold) = new.hold.as_ref().filter(|_| !is_known) else { return };
        let margin_ms = as_ms(self.expects.clock_error);
        if self.cleared.get(key).is_some_and(|(at, _)| hold.since_ms + margin_ms < at.as_millisecond()) {
            self.violated(
                now,
                "cleared-stays-cleared",
                format!("{key}: the hold since {} is back", hold.since_ms),
            );
        }
        if !hold.has_retry_after && self.waits.len() < FIRST_WAITS && hold.fence > 0 {
            let wait = hold.until_ms - hold.since_ms;
            self.waits.insert((key.clone(), hold.fence), wait);
            if self.waits.values().filter(|other| **other == wait).count() >= EQUAL_WAITS {
                self.violated(now, "waits-are-spread", format!("{EQUAL_WAITS} holds of {wait} ms"));
            }
        }
    }

    /// Only the process that holds a lease ends it before its time, and a later call is never followed by an earlier one.
    fn check_order(&mut self, now: Timestamp, writer: Caller, key: &StoreKey, old: &Facts, new: &Facts) {
        if let (Some(before), Some(after)) = (old.succeeded, new.succeeded)
            && after < before
        {
            self.violated(now, "later-call-stays", format!("{key}: call {after} replaced {before}"));
        }
        // Without a stated login, each account has a record of its own.
        let account = (!self.expects.states_login).then(|| number_in(key.as_str()));
        if new.succeeded > old.succeeded
            && let Some(login) = new.plan.as_deref().and_then(login_in)
            && let Some(serial) = self.ledger.last_serial(writer.manager, login, account)
            && new.serial < Some(serial)
            // Headers may be dated between the grant of a lease and its call.
            && new.serial.is_none_or(|left| self.ledger.has_issued(login, left))
        {
            self.violated(
                now,
                "later-call-counts",
                format!("{key}: after call {serial} the record has {:?}", new.serial),
            );
        }
        let Some((fence, until_ms)) = old.lease else { return };
        let is_ended =
            new.lease.is_none() && until_ms > now.as_millisecond() + as_ms(self.expects.clock_error);
        let holder = self.holders.get(&(key.clone(), fence)).copied();
        if is_ended && holder != Some(writer.process) && self.expects.is_store_reliable {
            self.violated(
                now,
                "only-the-holder-ends-a-lease",
                format!("{key}: p{} ended {fence} of {holder:?}", writer.process),
            );
        }
    }

    /// Compares a record with the one that it replaces.
    fn check_write(&mut self, now: Timestamp, writer: Caller, key: &StoreKey, old: &Facts, new: &Facts) {
        if new.revision <= old.revision {
            self.violated(now, "revision-rises", format!("{key}: {} after {}", new.revision, old.revision));
        }
        if new.fence < old.fence {
            self.violated(now, "fence-rises", format!("{key}: {} after {}", new.fence, old.fence));
        }
        let is_forgotten = new.forgotten_ms > old.forgotten_ms;
        let is_same_login = old.login == new.login && old.plan == new.plan;
        if !is_forgotten && is_same_login {
            self.check_order(now, writer, key, old, new);
        }
        if let (Some((old_fence, until_ms)), Some((new_fence, _))) = (old.lease, new.lease)
            && old_fence != new_fence
            && until_ms > now.as_millisecond() + 1
            && !is_forgotten
            && is_same_login
            && self.expects.is_store_reliable
        {
            let left = until_ms - now.as_millisecond();
            self.violated(
                now,
                "one-lease",
                format!("{key}: {new_fence} replaced {old_fence}, which had {left} ms left"),
            );
        }
        if let (Some(old_serial), Some(new_serial)) = (old.serial, new.serial)
            && let Some(login) = new.plan.as_deref().and_then(login_in)
            && is_same_login
            && !is_forgotten
            && self.is_older(login, new_serial, old_serial)
        {
            self.violated(now, "newer-reading-stays", format!("{key}: {new_serial} replaced {old_serial}"));
        }
        if let Some(owner) = &new.owner
            && new.plan.as_ref().is_some_and(|plan| plan != owner)
        {
            self.violated(
                now,
                "record-of-one-login",
                format!("{key}: readings of {:?} in the record of {owner}", new.plan),
            );
        }
        if let (Some(login), Some(plan)) = (&new.login, &new.plan)
            && login != plan
            && self.expects.states_login
        {
            self.violated(
                now,
                "record-of-one-login",
                format!("{key}: readings of {plan} in the record of {login}"),
            );
        }
    }
}

/// If this many of the first waits that quota chose are equal, they are not spread at random.
const EQUAL_WAITS: usize = 3;
const FIRST_WAITS: usize = 8;
