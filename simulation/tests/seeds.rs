//! A fixed set of seeds, in parts that run at the same time.

use simulation::{Plan, run};

/// The number of parts.
const PARTS: u64 = 12;
/// The seeds of all parts.
const SEEDS: u64 = 300;

#[track_caller]
fn part(number: u64) {
    let failed: Vec<String> = (0..SEEDS)
        .filter(|seed| seed % PARTS == number)
        .flat_map(|seed| {
            let violations = run(&Plan::from_seed(seed), false).violations;
            violations.into_iter().map(move |violation| format!("scripts/simulate {seed} shows {violation}"))
        })
        .collect();

    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

macro_rules! parts {
    ($($number:literal $name:ident)*) => {
        $(
            #[test]
            fn $name() {
                part($number);
            }
        )*
    };
}

parts! {
    0 no_seed_of_part_0_violates_a_rule
    1 no_seed_of_part_1_violates_a_rule
    2 no_seed_of_part_2_violates_a_rule
    3 no_seed_of_part_3_violates_a_rule
    4 no_seed_of_part_4_violates_a_rule
    5 no_seed_of_part_5_violates_a_rule
    6 no_seed_of_part_6_violates_a_rule
    7 no_seed_of_part_7_violates_a_rule
    8 no_seed_of_part_8_violates_a_rule
    9 no_seed_of_part_9_violates_a_rule
    10 no_seed_of_part_10_violates_a_rule
    11 no_seed_of_part_11_violates_a_rule
}
