//! Which time zone a person is in: that of `TZ`, or else of this machine.
//! What is told by it is in `words`.

use std::ffi::OsStr;
use std::path::Path;

use jiff::tz::TimeZone;

/// Where the zones of a machine are, each in a file of its name.
const ZONES: &str = "/usr/share/zoneinfo";
/// A link to the one that the machine is in.
const OF_THIS_MACHINE: &str = "/etc/localtime";

/// The zone of whoever reads.
///
/// A zone that is named as its file is read from there. To find one however it is spelled, all of them would have to be listed,
/// which takes longer than all that a command does besides; so that is done only for what is not found at once.
pub(crate) fn here() -> TimeZone {
    let is_elsewhere = std::env::var_os("TZDIR").is_some();
    let named = || match std::env::var_os("TZ") {
        Some(named) => name_of_variable(&named).map(str::to_owned),
        None => name_of_link(&Path::new(OF_THIS_MACHINE).read_link().ok()?).map(str::to_owned),
    };
    let found = if is_elsewhere { None } else { named().and_then(|name| read(&name)) };
    found.unwrap_or_else(TimeZone::system)
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

fn read(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let bytes = std::fs::read(Path::new(ZONES).join(name)).ok()?;
    TimeZone::tzif(name, &bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_is_read_at_once_is_the_one_that_is_found_among_all() {
        for name in
            ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Asia/Kolkata", "Mars/Base"]
        {
            assert_eq!(read(name), TimeZone::get(name).ok(), "{name}");
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
}
