//! The man pages in `docs/man`, generated from the definitions of the arguments. `scripts/captures` writes the files,
//! and the test compares them with the current definitions.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::cli::Arguments;

/// Set by `scripts/captures`: write the files instead of comparing them.
const WRITE_VARIABLE: &str = "QUOTA_WRITE_CAPTURES";

/// The date on the pages. It is fixed, because the current date would change every page.
const DATE: &str = "2026-12-01";

/// The pages of a command and its subcommands, by the names of their files.
fn pages(command: &Command, pages: &mut BTreeMap<String, String>) {
    let visible = command.get_subcommands().filter(|one| !one.is_hide_set());
    visible.for_each(|subcommand| self::pages(subcommand, pages));
    let version = concat!("quota ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).date(DATE).manual("quota").source(version);
    let mut page = Vec::new();
    man.render(&mut page).unwrap();
    pages.insert(man.get_filename(), tidy(&String::from_utf8(page).unwrap()));
}

/// Disables filling for indented lines, which are tables and examples, and escapes characters so that groff reads them
/// in every locale.
fn tidy(page: &str) -> String {
    let page = page.replace(".br\n\n.br\n", ".br\n").replace("\n.SH EXTRA\n", "\n.SH NOTES\n");
    let mut tidy = String::new();
    let mut is_indented = false;
    for line in page.lines() {
        if line.starts_with("  ") != is_indented && !line.is_empty() {
            is_indented = !is_indented;
            tidy += if is_indented { ".nf\n" } else { ".fi\n" };
        }
        for c in line.trim_end().chars() {
            match c.is_ascii() {
                true => tidy.push(c),
                false => tidy += &format!("\\[u{:04X}]", u32::from(c)),
            }
        }
        tidy.push('\n');
    }
    tidy + if is_indented { ".fi\n" } else { "" }
}

fn all_pages() -> BTreeMap<String, String> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let mut all = BTreeMap::new();
    pages(&program, &mut all);
    all
}

#[test]
fn the_man_pages_in_docs_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man");
    let pages = all_pages();
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, page) in &pages {
            std::fs::write(folder.join(name), page).unwrap();
        }
    }

    for (name, page) in &pages {
        let stored = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(stored == *page, "docs/man/{name} is outdated; run scripts/captures and review it");
    }
    let stored = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = stored.filter(|name| !pages.contains_key(name)).collect();
    assert!(left.is_empty(), "no command has the pages {left:?}");
}
