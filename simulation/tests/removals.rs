//! The seeds that find the removal of a rule violate nothing while all rules are there. Some of these rules were missing once.

use simulation::{Plan, run};

/// The page that `scripts/remove-rules` writes.
const PAGE: &str = include_str!("../../docs/removed-rules.md");
const REMOVALS: &str = include_str!("../removals.toml");

/// The name and the seed of each row of the first table.
fn rows() -> impl Iterator<Item = (&'static str, Option<u64>)> {
    let (table, _) = PAGE.split_once("## Past faults").expect("the page has two parts");
    table.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let name = cells.next().expect("a row has cells").trim_matches('`');
        (name, cells.next_back().and_then(|seed| seed.parse().ok()))
    })
}

#[test]
fn no_seed_of_a_removed_rule_violates_a_rule() {
    let failed: Vec<_> = rows()
        .filter_map(|(name, seed)| Some((name, seed?)))
        .flat_map(|(name, seed)| {
            run(&Plan::from_seed(seed), false)
                .violations
                .into_iter()
                .map(move |violation| (name, seed, violation))
        })
        .collect();

    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_page_lists_each_removal() {
    let listed: Vec<_> = rows().map(|(name, _)| name).collect();
    let defined: Vec<_> = REMOVALS
        .lines()
        .filter_map(|line| line.strip_prefix("name = "))
        .map(|name| name.trim_matches('"'))
        .collect();

    assert_eq!(listed, defined, "run scripts/remove-rules");
}
