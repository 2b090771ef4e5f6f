//! What the commands show of a day's work, as files in `docs/captures`: text at several widths, and drawings with colours.
//! `scripts/captures` writes them; as a test this says whether they are still what is shown.
//!
//! The day is made up, the rest is not: records by the rules, in a store whose clock stands, journals by looking at them, and
//! the pictures by what draws them for everybody.

mod day;
mod svg;

use std::path::{Path, PathBuf};

use self::day::Day;
use crate::commands::{pace, watch};
use crate::term::Screen;
use crate::view::account_text;

/// Set by `scripts/captures`: write the files instead of comparing them.
const TO_WRITE: &str = "QUOTA_WRITE_CAPTURES";

/// Columns: a corner of a screen, half of one, a terminal as it opens, and a wide one.
const WIDTHS: [u16; 4] = [42, 60, 80, 120];
/// Of the drawings, in columns and lines.
const DRAWN: (u16, u16) = (84, 30);

#[tokio::test(start_paused = true)]
async fn the_captures_in_docs_are_what_is_shown() {
    let day = Day::spent().await;
    let mut files = Vec::new();
    for width in WIDTHS {
        files.push((format!("status-{width}.txt"), status(&day, plain(width))));
        files.push((format!("pace-{width}.txt"), pace(&day, plain(width))));
        files.push((format!("watch-{width}.txt"), watch::drawn(&day.seen(), width, DRAWN.1, false)));
    }
    let colours = Screen { colour: true, ..plain(DRAWN.0) };
    let pictures = [
        ("status", status(&day, colours)),
        ("pace", pace(&day, colours)),
        ("watch", watch::drawn(&day.seen(), DRAWN.0, DRAWN.1, true)),
    ];
    for (name, picture) in pictures {
        for (palette, colours) in [("light", svg::LIGHT), ("dark", svg::DARK)] {
            files.push((format!("{name}-{palette}.svg"), svg::draw(&picture, DRAWN.0, &colours)));
        }
    }

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/captures");
    if std::env::var_os(TO_WRITE).is_some() {
        write(&folder, &files);
    }

    for (name, shown) in &files {
        let kept = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            kept == *shown,
            "docs/captures/{name} is not what is shown; run scripts/captures and look at it"
        );
    }
    let names: Vec<_> = files.iter().map(|(name, _)| folder.join(name)).collect();
    let left: Vec<_> = files_in(&folder).into_iter().filter(|path| !names.contains(path)).collect();
    assert!(left.is_empty(), "nobody makes {left:?}");
}

fn write(folder: &Path, files: &[(String, String)]) {
    for (name, shown) in files {
        std::fs::write(folder.join(name), shown).unwrap();
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn plain(width: u16) -> Screen {
    Screen { width: width.into(), ..Screen::DEFAULT }
}

fn status(day: &Day, screen: Screen) -> String {
    account_text::render(&day.views, &day.local, screen)
}

fn pace(day: &Day, screen: Screen) -> String {
    pace::drawn(&day.looked, &day.local, screen)
}
