//! How long things take: several ways by turns in one run, so that whatever else the machine does hits them alike.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Barrier;
use std::time::Instant;

/// How often each way is measured. The median of these is the figure.
const SAMPLES: usize = 25;

/// The median of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A way to do something that many threads can go at once: once for each number of the range.
///
/// The loop is the way's own, so that nothing but what is measured is between two iterations.
pub(crate) type Way<'a> = &'a (dyn Fn(Range<usize>) + Sync);

/// Nanoseconds per doing of each way, on that many threads at once.
pub(crate) fn interleaved<const N: usize>(threads: usize, iterations: usize, ways: [Way<'_>; N]) -> [f64; N] {
    let mut figures = [(); N].map(|()| Vec::with_capacity(SAMPLES));
    for round in 0..=SAMPLES {
        for (way, figures) in ways.iter().zip(&mut figures) {
            let figure = on_threads(threads, iterations, *way);
            // The first round only warms up.
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    figures.map(median)
}

fn on_threads(threads: usize, iterations: usize, way: Way<'_>) -> f64 {
    let barrier = Barrier::new(threads);
    let one = |thread: usize| {
        let start_at = thread * 7919;
        barrier.wait();
        let start = Instant::now();
        way(black_box(start_at..start_at + iterations));
        start.elapsed()
    };
    let longest = std::thread::scope(|scope| {
        let handles: Vec<_> = (1..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        let own = one(0);
        handles.into_iter().map(|handle| handle.join().expect("a way does not panic")).chain([own]).max()
    });
    longest.expect("there is one thread at least").as_secs_f64() * 1e9 / iterations as f64
}
