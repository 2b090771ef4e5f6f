//! The seeds that docs/simulation.md names violate nothing.

use simulation::{Plan, run};

const PAGE: &str = include_str!("../../docs/simulation.md");

/// The first cells of the table's rows that are numbers.
fn seeds() -> Vec<u64> {
    let cells = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    cells.filter_map(|cell| cell.parse().ok()).collect()
}

#[test]
fn the_page_names_seeds() {
    assert!(seeds().len() >= 3, "{:?}", seeds());
}

#[test]
fn no_named_seed_violates_a_rule() {
    let failed: Vec<_> = seeds()
        .into_iter()
        .flat_map(|seed| run(&Plan::from_seed(seed), false).violations.into_iter().map(move |it| (seed, it)))
        .collect();

    assert!(failed.is_empty(), "{failed:#?}");
}
