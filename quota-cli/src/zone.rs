//! Which time zone a person is in: that of `TZ`, or else of this machine.
//! What is told by it is in `words`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use quota::file;

/// Where the zones of a machine are, each in a file of its name.
const ZONES: &str = "/usr/share/zoneinfo";
/// A link to the one that the machine is in.
const OF_THIS_MACHINE: &str = "/etc/localtime";

/// More than any file of a zone.
const LIMIT: u64 = 1024 * 1024;

/// The zone of whoever reads.
///
/// A zone that is named as its file is read from there. To find one however it is spelled, all of them would have to be listed,
/// which takes longer than all that a command does besides; so that is done only for what is not found at once.
///
/// Not left to jiff, which reads whatever file `TZ` names and all that are in the folder that `TZDIR` names, whether they end or
/// not.
pub(crate) fn local() -> TimeZone {
    let elsewhere = std::env::var_os("TZDIR").map(PathBuf::from);
    match std::env::var_os("TZ") {
        Some(named) => of_variable(&named, elsewhere.as_deref()),
        None => {
            let link = Path::new(OF_THIS_MACHINE).read_link().ok();
            let name = link.as_deref().and_then(name_of_link);
            let found = name.and_then(|name| read(elsewhere.as_deref(), name));
            match elsewhere {
                Some(_) => found
                    .or_else(|| read_file(Path::new(OF_THIS_MACHINE), "Local"))
                    .unwrap_or_else(TimeZone::unknown),
                None => found.unwrap_or_else(TimeZone::system),
            }
        }
    }
}

/// The zone that `TZ` names: a name, a rule or a path, with or without a colon before it. UTC if it is none of them.
fn of_variable(named: &OsStr, elsewhere: Option<&Path>) -> TimeZone {
    let Some(text) = named.to_str() else { return TimeZone::unknown() };
    let at_once = || name_of_variable(named).and_then(|name| read(elsewhere, name));
    let rule = || TimeZone::posix(text).ok();
    let text_of_name = text.strip_prefix(':').unwrap_or(text);
    let name = || {
        let name = text_of_name.rsplit_once("zoneinfo/").map_or(text_of_name, |(_, name)| name);
        match elsewhere {
            Some(_) => Some(name).filter(|name| is_plain(name)).and_then(|name| read(elsewhere, name)),
            None => TimeZone::get(name).ok(),
        }
    };
    let path = || read_file(Path::new(text_of_name), "Local");
    if text_of_name.is_empty() {
        return TimeZone::UTC;
    }
    at_once().or_else(rule).or_else(name).or_else(path).unwrap_or_else(TimeZone::unknown)
}

/// The zone that `TZ` names, unless it is a rule, a path, or may be either.
fn name_of_variable(named: &OsStr) -> Option<&str> {
    // A rule with a slash has a comma as well; one without, such as EST5EDT, is also the name of a file.
    named.to_str().filter(|name| *name == "UTC" || (name.contains('/') && is_plain(name)))
}

/// The zone that a link leads to.
fn name_of_link(link: &Path) -> Option<&str> {
    let (_, name) = link.to_str()?.rsplit_once("zoneinfo/")?;
    Some(name).filter(|name| is_plain(name))
}

/// Whether it is a name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+');
    name.split('/').all(|part| !part.is_empty() && part.chars().all(is_fit))
}

/// The zone of this name, in the usual folder or in another one.
fn read(elsewhere: Option<&Path>, name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    read_file(&elsewhere.unwrap_or(Path::new(ZONES)).join(name), name)
}

/// Reads a zone from a regular file of a plausible size: a device may never end, and a pipe may never begin.
fn read_file(path: &Path, name: &str) -> Option<TimeZone> {
    let contents = file::read(file::open(path).ok()?, LIMIT).ok()?;
    TimeZone::tzif(name, &contents).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_is_read_at_once_is_the_one_that_is_found_among_all() {
        for name in
            ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Asia/Kolkata", "Mars/Base"]
        {
            assert_eq!(read(None, name), TimeZone::get(name).ok(), "{name}");
        }
    }

    #[test]
    fn the_zone_of_a_machine_is_what_its_link_leads_to() {
        let name = |link: &'static str| name_of_link(Path::new(link));

        assert_eq!(name("/usr/share/zoneinfo/Europe/Berlin"), Some("Europe/Berlin"));
        assert_eq!(name("../usr/share/zoneinfo/CET"), Some("CET"));
        assert_eq!(name("/var/lib/localtime"), None);
        assert_eq!(name("/usr/share/zoneinfo/../../x"), None);
    }

    #[test]
    fn rules_and_paths_are_left_to_whoever_understands_them() {
        let name = |text: &'static str| name_of_variable(OsStr::new(text));

        assert_eq!(name("Europe/Berlin"), Some("Europe/Berlin"));
        assert_eq!(name("UTC"), Some("UTC"));
        for other in [
            "",
            "CET",
            "EST5EDT",
            "CET-1CEST,M3.5.0/2,M10.5.0/3",
            "<+03>-3/4,J1/2",
            ":Europe/Berlin",
            "/etc/localtime",
            "Europe/",
            "../Europe/Berlin",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn every_form_of_the_variable_is_understood() {
        let offset = |text: &str| {
            let at = "2026-07-01T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
            of_variable(OsStr::new(text), None).to_offset(at).seconds() / 3600
        };

        for (text, hours) in [
            ("", 0),
            ("UTC", 0),
            ("Asia/Tokyo", 9),
            (":Asia/Tokyo", 9),
            ("asia/tokyo", 9),
            ("Japan", 9),
            ("JST-9", 9),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 2),
            ("/usr/share/zoneinfo/Asia/Tokyo", 9),
            ("/no/such/file", 0),
            ("Mars/Base", 0),
        ] {
            assert_eq!(offset(text), hours, "{text}");
        }
    }

    #[test]
    fn a_zone_is_read_from_the_folder_that_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(Path::new(ZONES).join("Asia/Tokyo"), dir.path().join("Here")).unwrap();
        let offset = |name: &str| {
            let at = "2026-07-01T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
            of_variable(OsStr::new(name), Some(dir.path())).to_offset(at).seconds() / 3600
        };

        assert_eq!(["Here", ":Here", "Asia/Tokyo", "../Here"].map(offset), [9, 9, 0, 0]);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_and_a_device_are_no_zones() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();

        assert_eq!(read_file(&pipe, "Local"), None);
        assert_eq!(read_file(Path::new("/dev/zero"), "Local"), None);
    }

    #[test]
    fn a_zone_without_a_name_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("zone");
        std::fs::copy(Path::new(ZONES).join("Asia/Tokyo"), &copy).unwrap();

        let found = of_variable(copy.as_os_str(), None);

        let at = "2026-07-01T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
        assert_eq!(found.to_offset(at).seconds(), 9 * 3600);
    }
}
