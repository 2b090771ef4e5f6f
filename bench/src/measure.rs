//! Measures several routines alternately in one run, so that other load on the machine affects them equally.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Barrier;
use std::time::Instant;

/// How often each routine is measured. The figure is the median.
const SAMPLES: usize = 25;

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A routine that many threads can run at once. It runs one iteration for each number of the range.
///
/// The routine contains the loop, so that no other code runs between two iterations.
pub(crate) type Routine<'a> = &'a (dyn Fn(Range<usize>) + Sync);

/// The nanoseconds per iteration of each routine, on this many threads at once.
pub(crate) fn interleaved<const N: usize>(
    threads: usize,
    iterations: usize,
    routines: [Routine<'_>; N],
) -> [f64; N] {
    let mut figures = [(); N].map(|()| Vec::with_capacity(SAMPLES));
    for round in 0..=SAMPLES {
        for (routine, figures) in routines.iter().zip(&mut figures) {
            let figure = on_threads(threads, iterations, *routine);
            // The first round is a warm-up.
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    figures.map(median)
}

fn on_threads(threads: usize, iterations: usize, routine: Routine<'_>) -> f64 {
    let barrier = Barrier::new(threads);
    let one = |thread: usize| {
        let start_at = thread * 7919;
        barrier.wait();
        let start = Instant::now();
        routine(black_box(start_at..start_at + iterations));
        start.elapsed()
    };
    let longest = std::thread::scope(|scope| {
        let handles: Vec<_> = (1..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        let own = one(0);
        handles.into_iter().map(|handle| handle.join().expect("a routine does not panic")).chain([own]).max()
    });
    longest.expect("there is at least one thread").as_secs_f64() * 1e9 / iterations as f64
}
