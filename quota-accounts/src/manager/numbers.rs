//! Where an account's numbers are: in a quota manager that others share, or here alone.
//! Everything above asks in the same way.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::{
    Account, AccountId, Answer, FetchError, Freshness, Hold, HoldReason, Joined, Lineage, ProviderId,
    QuotaError, Seed, Usage, Window,
};

use super::own::Own;
use crate::Role;
use crate::routing::Candidate;

/// Why a refresh brought nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// The quota manager brought nothing.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// Nobody was named who asks this provider.
    #[error("nothing here fetches usage from {provider}")]
    #[non_exhaustive]
    NoFetcher {
        /// The provider.
        provider: ProviderId,
    },
    /// Nobody may ask now.
    #[error("{account} is on hold until {}: {}", hold.until, hold.why)]
    #[non_exhaustive]
    Held {
        /// The account.
        account: AccountId,
        /// Until when, and why.
        hold: Hold,
    },
    /// Whoever asks the provider broke: its panic was caught, and nothing follows from it. The next refresh starts anew.
    #[error("the refresh of {account} broke in the middle")]
    #[non_exhaustive]
    Broken {
        /// The account.
        account: AccountId,
    },
    /// The account was given to another login meanwhile.
    #[error("somebody else is asking about {account}")]
    #[non_exhaustive]
    Busy {
        /// The account.
        account: AccountId,
    },
    /// The provider was asked, or was to be asked, and there was no usable answer.
    #[error("could not fetch usage for {account}")]
    #[non_exhaustive]
    Fetch {
        /// The account.
        account: AccountId,
        /// What went wrong.
        #[source]
        error: FetchError,
    },
}

/// The numbers of one account.
#[derive(Debug)]
pub(super) enum Numbers {
    /// A quota manager's: never copied here, so nothing here can be older.
    Shared(Account),
    /// Our own.
    Own(Box<Own>),
}

impl Numbers {
    #[inline]
    pub(super) fn candidate<'a>(&self, id: &'a AccountId, role: Role) -> Candidate<'a> {
        match self {
            Self::Shared(account) => Candidate::answered(id, role, account.peek()),
            Self::Own(own) => {
                let candidate = Candidate::recorded(id, role, own.record(), own.fresh_for());
                candidate.identity_unknown(own.is_withheld())
            }
        }
    }

    /// Has the memory of what is known of a few accounts fetched, without looking at it.
    ///
    /// All answers are taken before the first is read: taking one orders memory, and between two of them nothing is fetched at
    /// once. As many as this a thread takes without counting references.
    pub(super) fn touch<'a>(few: impl IntoIterator<Item = &'a Self>) {
        let mut few = few.into_iter();
        let answers: [Option<Answer>; Self::TOUCHED] = std::array::from_fn(|_| match few.next()? {
            Self::Shared(account) => Some(account.peek()),
            Self::Own(_) => None,
        });
        for answer in answers.iter().flatten() {
            std::hint::black_box(answer.snapshot().windows().first().map(Window::used));
        }
    }

    /// How many accounts are fetched from memory at once.
    pub(super) const TOUCHED: usize = 8;

    pub(super) fn now(&self) -> Timestamp {
        match self {
            Self::Shared(account) => account.peek().now(),
            Self::Own(own) => own.now(),
        }
    }

    pub(super) fn is_stale(&self) -> bool {
        self.is_stale_for(None)
    }

    /// Whether what is known is not fresh for a request of `model`.
    pub(super) fn is_stale_for(&self, model: Option<&str>) -> bool {
        match self {
            Self::Shared(account) => account.is_stale_for(model),
            Self::Own(own) => own.is_stale_for(model),
        }
    }

    /// Whether nobody may ask now.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Self::Shared(account) => account.peek().hold().is_some(),
            Self::Own(own) => own.is_held(),
        }
    }

    /// Asks `f` about the login that the numbers are of.
    fn with_lineage<R>(&self, f: impl FnOnce(Option<&Lineage>) -> R) -> R {
        match self {
            Self::Shared(account) => f(account.peek().lineage()),
            Self::Own(own) => f(own.record().lineage()),
        }
    }

    /// The login that the numbers are of, where that was said.
    pub(super) fn lineage(&self) -> Option<Lineage> {
        self.with_lineage(|lineage| lineage.cloned())
    }

    /// Whether it was said whose the numbers are.
    pub(super) fn is_stated(&self) -> bool {
        self.with_lineage(|lineage| lineage.is_some())
    }

    /// Whether the numbers are of another login than this. What is not said on either side contradicts nothing.
    pub(super) fn are_of_another(&self, lineage: Option<&Lineage>) -> bool {
        let Some(lineage) = lineage else { return false };
        self.with_lineage(|own| own.is_some_and(|own| own != lineage))
    }

    /// Has whoever asks the provider say whose login it is by now, and asks if it is another's.
    pub(super) async fn notice_login(&self) -> Result<(), RefreshError> {
        match self {
            // It looks at the login only where it would ask.
            Self::Shared(_) => self.insist().await,
            Self::Own(_) => self.freshen().await,
        }
    }

    /// Says which login the account holds, where whoever asks the provider cannot. From then on it must be said at each
    /// change: a fetcher that finds another one is not asked.
    pub(super) fn set_login(&self, lineage: &Lineage) {
        match self {
            Self::Shared(account) => account.set_login(lineage.clone()),
            Self::Own(own) => own.set_login(lineage),
        }
    }

    /// Counts a request that this account served, and says whether it is one after which to ask.
    pub(super) fn count_request(&self) -> bool {
        match self {
            Self::Shared(account) => account.needs_refresh(account.count_request()),
            Self::Own(own) => own.needs_refresh(own.count_request()),
        }
    }

    /// Makes what is known fresh, if it is not.
    pub(super) async fn freshen(&self) -> Result<(), RefreshError> {
        self.freshen_for(None).await
    }

    /// The same for a request of `model`.
    pub(super) async fn freshen_for(&self, model: Option<&str>) -> Result<(), RefreshError> {
        match self {
            Self::Shared(account) => {
                let answer = account.get_for(model).await?;
                match answer.error() {
                    Some(error) if answer.is_stale_for(model) => Err(error.clone().into()),
                    _ => Ok(()),
                }
            }
            Self::Own(own) => {
                // What is stale for this model alone is of a window that only a complete answer reports.
                let is_the_models = own.is_stale_for(model) && !own.is_stale_for(None);
                let fresh_for = own.fresh_for();
                own.refresh(match is_the_models {
                    true => Freshness::CompleteWithin(fresh_for),
                    false => Freshness::Within(fresh_for),
                })
                .await
            }
        }
    }

    /// Asks now, if the rules allow, whatever is known.
    pub(super) async fn insist(&self) -> Result<(), RefreshError> {
        match self {
            Self::Shared(account) => account.refresh().await?.error.map_or(Ok(()), |error| Err(error.into())),
            Self::Own(own) => own.refresh(Freshness::Since(own.now())).await,
        }
    }

    /// Joins what was kept; whether it was of the login that the account holds now.
    pub(super) fn seed(&self, seed: &Seed) -> bool {
        match self {
            Self::Shared(account) => account.seed(seed).is_ok(),
            Self::Own(own) => own.seed(seed) == Joined::Yes,
        }
    }

    /// Joins what was seen on ordinary traffic; whether it was of the login that the account holds now.
    pub(super) fn observe(&self, usage: &Usage) -> bool {
        match self {
            Self::Shared(account) => account.observe(usage).is_ok(),
            Self::Own(own) => own.observe(usage) == Joined::Yes,
        }
    }

    /// What is to be kept of it for the next run.
    pub(super) fn known(&self) -> Seed {
        match self {
            Self::Shared(account) => {
                let answer = account.peek();
                // A neighbour's quiet time is not this account's to keep.
                let own = |hold: &Hold| hold.why != HoldReason::NeighbourRateLimited;
                Seed::new(answer.snapshot().clone())
                    .hold(answer.hold().filter(own))
                    .lineage(answer.lineage().cloned())
            }
            Self::Own(own) => {
                let record = own.record();
                Seed::new(record.snapshot().clone())
                    .hold(record.hold().cloned())
                    .lineage(record.lineage().cloned())
            }
        }
    }

    /// How long to wait, at most, before what was seen on traffic is kept.
    pub(super) const KEEP_WITHIN: Duration = Duration::from_secs(3);
}
