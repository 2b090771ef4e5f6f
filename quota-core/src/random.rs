//! Numbers that nobody else draws, on whatever host.
//! What is only to be spread, such as pauses, is drawn elsewhere.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 bits that are drawn once, in all processes of all hosts: a matter of one in 2⁶⁴ for each pair.
///
/// Their keys are the system's own randomness. A generator that is seeded by uptime draws the same on two hosts that were started
/// from one image, and anybody may seed the one that a thread shares.
pub(crate) fn bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn whoever_seeds_the_generator_of_this_thread_repeats_nothing() {
        let drawn = |_| {
            fastrand::seed(7);
            bits()
        };

        let all: HashSet<_> = (0..1000).map(drawn).collect();

        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn threads_draw_different_ones() {
        let all: HashSet<_> = (0..32).map(|_| std::thread::spawn(bits).join().expect("it draws")).collect();

        assert_eq!(all.len(), 32);
    }

    #[test]
    fn every_bit_is_drawn() {
        let (ones, zeros) =
            (0..200).map(|_| bits()).fold((0, 0), |(ones, zeros), bits| (ones | bits, zeros | !bits));

        assert_eq!((ones, zeros), (u64::MAX, u64::MAX));
    }
}
