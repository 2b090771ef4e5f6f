//! Random numbers that are unique across processes and hosts.
//! Jitter needs no uniqueness and uses `fastrand`.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 random bits. Two draws are equal with a probability of 2⁻⁶⁴, even across processes and hosts.
///
/// The hasher's keys come from the system's random source. Do not use `fastrand` instead: two hosts that start from the
/// same image may draw the same numbers, and any code on this thread may seed it.
pub(crate) fn random_u64() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(bits) = seeded::next() {
        return bits;
    }
    RandomState::new().build_hasher().finish()
}

/// Random numbers from a seed, for simulations that must repeat exactly.
#[cfg(feature = "testing")]
pub(crate) mod seeded {
    use std::cell::RefCell;

    thread_local! {
        static RNG: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
    }

    /// Seeds the random numbers of this thread; `None` ends the seeding.
    pub(crate) fn set(seed: Option<u64>) {
        RNG.with_borrow_mut(|rng| *rng = seed.map(fastrand::Rng::with_seed));
        if let Some(seed) = seed {
            fastrand::seed(seed);
        }
    }

    pub(super) fn next() -> Option<u64> {
        RNG.with_borrow_mut(|rng| rng.as_mut().map(|rng| rng.u64(..)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn seeding_fastrand_does_not_repeat_numbers() {
        let drawn = |_| {
            fastrand::seed(7);
            random_u64()
        };

        let all: HashSet<_> = (0..1000).map(drawn).collect();

        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn threads_draw_different_numbers() {
        let all: HashSet<_> = (0..32)
            .map(|_| std::thread::spawn(random_u64).join().expect("the thread does not panic"))
            .collect();

        assert_eq!(all.len(), 32);
    }

    #[test]
    fn every_bit_varies() {
        let (ones, zeros) =
            (0..200).map(|_| random_u64()).fold((0, 0), |(ones, zeros), bits| (ones | bits, zeros | !bits));

        assert_eq!((ones, zeros), (u64::MAX, u64::MAX));
    }
}
