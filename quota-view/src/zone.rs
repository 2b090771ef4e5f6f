//! The user's time zone: from `TZ`, or otherwise from this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use quota::file;

/// The folder with a file for each time zone.
const ZONES: &str = "/usr/share/zoneinfo";
/// A link to the time zone of this machine.
const LOCALTIME: &str = "/etc/localtime";

/// The maximum size, larger than any time zone file.
const LIMIT: u64 = 1024 * 1024;

/// The user's time zone.
///
/// jiff's `TimeZone::system()` is only the fallback, for two reasons. It lists every time zone before it reads one, which takes
/// 0.75 ms; reading one file takes 0.03 ms, and a whole statusline about 2 ms. It also reads any file that `TZ` names, such as
/// /dev/zero, until memory is exhausted.
pub fn local_time_zone() -> TimeZone {
    let tzdir = std::env::var_os("TZDIR").map(PathBuf::from);
    match std::env::var_os("TZ") {
        Some(named) => of_variable(&named, tzdir.as_deref()),
        None => {
            let link = Path::new(LOCALTIME).read_link().ok();
            let name = link.as_deref().and_then(name_of_link);
            let found = name.and_then(|name| read(tzdir.as_deref(), name));
            match tzdir {
                Some(_) => found
                    .or_else(|| read_file(Path::new(LOCALTIME), "Local"))
                    .unwrap_or_else(TimeZone::unknown),
                None => found.unwrap_or_else(TimeZone::system),
            }
        }
    }
}

/// The time zone of this name, such as `Europe/Berlin`; `None` if there is no such zone. The name may come from another program.
#[must_use]
pub fn named(name: &str) -> Option<TimeZone> {
    Some(name).filter(|name| is_plain(name)).and_then(|name| read(None, name))
}

/// The time zone of a `TZ` value: a name, a rule or a path, with or without a colon before it. UTC if it is none of them.
fn of_variable(named: &OsStr, tzdir: Option<&Path>) -> TimeZone {
    let Some(text) = named.to_str() else { return TimeZone::unknown() };
    let plain_name = || name_of_variable(named).and_then(|name| read(tzdir, name));
    let rule = || TimeZone::posix(text).ok();
    let text_of_name = text.strip_prefix(':').unwrap_or(text);
    let name = || {
        let name = text_of_name.rsplit_once("zoneinfo/").map_or(text_of_name, |(_, name)| name);
        match tzdir {
            Some(_) => Some(name).filter(|name| is_plain(name)).and_then(|name| read(tzdir, name)),
            None => TimeZone::get(name).ok(),
        }
    };
    let path = || read_file(Path::new(text_of_name), "Local");
    if text_of_name.is_empty() {
        return TimeZone::UTC;
    }
    plain_name().or_else(rule).or_else(name).or_else(path).unwrap_or_else(TimeZone::unknown)
}

/// The name in a `TZ` value. `None` if the value may be a rule or a path.
fn name_of_variable(named: &OsStr) -> Option<&str> {
    // A rule with a slash also has a comma. A rule without a slash may also be a file name, such as EST5EDT.
    named.to_str().filter(|name| *name == "UTC" || (name.contains('/') && is_plain(name)))
}

/// The name of the time zone that a link points to.
fn name_of_link(link: &Path) -> Option<&str> {
    let (_, name) = link.to_str()?.rsplit_once("zoneinfo/")?;
    Some(name).filter(|name| is_plain(name))
}

/// Whether a name stays within the folder.
fn is_plain(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+');
    name.split('/').all(|part| !part.is_empty() && part.chars().all(is_fit))
}

/// The time zone of this name, in the folder of `TZDIR` or the default one.
fn read(tzdir: Option<&Path>, name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    read_file(&tzdir.unwrap_or(Path::new(ZONES)).join(name), name)
}

/// Reads a time zone from a regular file of a plausible size. Reading a device or a pipe could block forever.
fn read_file(path: &Path, name: &str) -> Option<TimeZone> {
    let contents = file::read(file::open(path).ok()?, LIMIT).ok()?;
    TimeZone::tzif(name, &contents).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_finds_the_same_zone_as_jiff() {
        for name in
            ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Asia/Kolkata", "Mars/Base"]
        {
            assert_eq!(read(None, name), TimeZone::get(name).ok(), "{name}");
        }
    }

    #[test]
    fn a_name_never_leaves_the_folder_of_time_zones() {
        for name in ["../../../etc/passwd", "/etc/localtime", "Europe/../UTC", "", "tzdata.zi", "Europe"] {
            assert_eq!(named(name), None, "{name}");
        }
        assert_eq!(named("Europe/Berlin"), TimeZone::get("Europe/Berlin").ok());
    }

    #[test]
    fn the_machines_zone_is_the_target_of_its_link() {
        let name = |link: &'static str| name_of_link(Path::new(link));

        assert_eq!(name("/usr/share/zoneinfo/Europe/Berlin"), Some("Europe/Berlin"));
        assert_eq!(name("../usr/share/zoneinfo/CET"), Some("CET"));
        assert_eq!(name("/var/lib/localtime"), None);
        assert_eq!(name("/usr/share/zoneinfo/../../x"), None);
    }

    #[test]
    fn rules_and_paths_are_not_names() {
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
    fn every_form_of_tz_is_supported() {
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
    fn a_zone_is_read_from_tzdir() {
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
    fn a_pipe_and_a_device_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();

        assert_eq!(read_file(&pipe, "Local"), None);
        assert_eq!(read_file(Path::new("/dev/zero"), "Local"), None);
    }

    #[test]
    fn a_path_in_tz_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("zone");
        std::fs::copy(Path::new(ZONES).join("Asia/Tokyo"), &copy).unwrap();

        let found = of_variable(copy.as_os_str(), None);

        let at = "2026-07-01T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
        assert_eq!(found.to_offset(at).seconds(), 9 * 3600);
    }
}
