//! The page about the effects of faults is current.

use std::path::Path;

use simulation::reliability;

#[test]
fn the_page_is_current() {
    let page = include_str!("../../docs/reliability.md");

    assert!(page == reliability::page(), "run scripts/simulate --reliability");
}

#[test]
fn the_page_names_files_that_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let missing: Vec<_> = reliability::scenarios()
        .into_iter()
        .map(|row| row.tests)
        .filter(|file| !top.join(file).exists())
        .collect();

    assert!(missing.is_empty(), "{missing:?}");
}
