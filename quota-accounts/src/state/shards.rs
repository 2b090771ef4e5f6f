//! The stored sessions, divided among files by a hash of the session. So a request rewrites a few kilobytes instead of
//! all sessions.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use quota_core::clock::is_from_future;
use quota_core::file::{self, FileError, JsonContent, JsonFile};
use quota_core::{AccountId, Clock};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{SessionAffinity, merge_sessions};
use crate::routing::Session;

/// The number of shards. A set of them is one `u64`.
pub(crate) const SHARDS: u32 = u64::BITS;

/// The content of one shard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Shard {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    sessions: Vec<SessionAffinity>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl JsonContent for Shard {
    const VERSION: u32 = 1;

    fn version(&self) -> u32 {
        self.version
    }

    /// A damaged shard starts over, because the router can choose accounts for its sessions again. A shard in a newer
    /// version is kept, although this program cannot read its sessions.
    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            version: u32,
            #[serde(flatten)]
            _fields: IgnoredAny,
        }
        Ok(serde_json::from_slice(text).unwrap_or_else(|error| match serde_json::from_slice(text) {
            Ok(Envelope { version, .. }) if version > Self::VERSION => Self { version, ..Self::default() },
            _ => {
                tracing::warn!(%error, "stored sessions are damaged, starting without them");
                Self::default()
            }
        }))
    }
}

/// The folder with the shards, next to the state file.
#[derive(Debug, Clone)]
pub(crate) struct SessionShards {
    folder: PathBuf,
    clock: Clock,
    /// Whether a write waits for the disk.
    is_durable: bool,
}

/// The bounds on stored sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionBounds {
    pub(crate) ttl: Duration,
    pub(crate) max_sessions: usize,
}

impl SessionBounds {
    /// The bound of one shard. Shards differ in size, so it is slightly more than twice the average.
    fn per_shard(self) -> usize {
        let average = self.max_sessions.div_ceil(usize::try_from(SHARDS).expect("64 is in range"));
        self.max_sessions.min(average.saturating_mul(2).saturating_add(16))
    }
}

impl SessionShards {
    /// The shards of a state file. A state file and a link to it share their shards.
    pub(crate) fn of(state_file: &Path, clock: Clock) -> Self {
        let mut folder = file::resolve_symlinks(state_file).into_os_string();
        folder.push(".sessions");
        Self { folder: folder.into(), clock, is_durable: false }
    }

    /// Reads all shards. A shard that cannot be read is logged and counts as empty.
    ///
    /// Returns the sessions, and the shards that a later [`write`](Self::write) should clean up.
    pub(crate) async fn load(&self, now: Timestamp, ttl: Duration) -> (Vec<SessionAffinity>, u64) {
        let folder = self.folder.clone();
        let stored = match file::blocking(move || stored_shards(&folder)).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "could not read the stored sessions");
                return (Vec::new(), 0);
            }
        };
        let (mut sessions, mut outdated) = (Vec::new(), 0);
        for shard in stored {
            match self.file(shard).load::<Shard>().await {
                Ok(content) => {
                    if content.sessions.iter().any(|affinity| is_outdated(affinity, now, ttl)) {
                        outdated |= bit(shard);
                    }
                    sessions.extend(content.sessions);
                }
                Err(error) => tracing::warn!(%error, "could not read stored sessions, starting without them"),
            }
        }
        (sessions, outdated)
    }

    /// Makes further writes durable, because the sessions are removed elsewhere once they are stored here.
    pub(crate) fn durable(&self) -> Self {
        Self { is_durable: true, ..self.clone() }
    }

    /// Merges the sessions of one shard into its file.
    ///
    /// # Errors
    ///
    /// Any [`FileError`]; the file is then unchanged.
    pub(crate) async fn write(
        &self,
        shard: u32,
        sessions: Vec<SessionAffinity>,
        now: Timestamp,
        bounds: SessionBounds,
    ) -> Result<(), FileError> {
        self.file(shard)
            .update(move |content: &mut Shard| {
                content.version = Shard::VERSION;
                let merged =
                    merge_sessions(&content.sessions, &sessions, now, bounds.ttl, bounds.per_shard());
                content.sessions = merged;
            })
            .await
    }

    /// Removes the sessions of these accounts.
    ///
    /// # Errors
    ///
    /// Any [`FileError`]. Earlier shards are then changed, and later ones are not.
    pub(crate) async fn forget(&self, accounts: &[AccountId]) -> Result<(), FileError> {
        let folder = self.folder.clone();
        for shard in file::blocking(move || stored_shards(&folder)).await.unwrap_or_default() {
            let accounts = accounts.to_vec();
            let forget = move |content: &mut Shard| {
                content.sessions.retain(|affinity| !accounts.contains(&affinity.account));
            };
            self.file(shard).update(forget).await?;
        }
        Ok(())
    }

    /// Saves do not wait for the disk, because that would take 64 times as long as for one file. A power failure may
    /// lose the last sessions, and the router then chooses their accounts again.
    fn file(&self, shard: u32) -> JsonFile {
        let path = self.folder.join(format!("{shard:02}.json"));
        let file = JsonFile::at(path, self.clock.clone()).without_lock_file();
        if self.is_durable { file } else { file.without_sync() }
    }
}

/// The shard of a session.
pub(crate) fn shard_of(session: Session) -> u32 {
    // The shift leaves six bits, and the finalizer of the hash has mixed them well.
    u32::try_from(session.bits() >> (u64::BITS - SHARDS.ilog2())).expect("six bits are in range")
}

/// The set with this shard.
pub(crate) fn bit(shard: u32) -> u64 {
    1 << shard
}

/// The shards in a set.
pub(crate) fn members(set: u64) -> impl Iterator<Item = u32> {
    (0..SHARDS).filter(move |shard| set & bit(*shard) != 0)
}

fn is_outdated(affinity: &SessionAffinity, now: Timestamp, ttl: Duration) -> bool {
    let age = Duration::try_from(now.duration_since(affinity.used_at)).unwrap_or_default();
    age >= ttl || is_from_future(affinity.used_at, now)
}

/// The shards that have a file.
fn stored_shards(folder: &Path) -> io::Result<BTreeSet<u32>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if file::is_not_found(&error) => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut shards = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<u32>().ok());
        shards.extend(number.filter(|shard| *shard < SHARDS));
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SessionBounds = SessionBounds { ttl: Duration::from_secs(1000), max_sessions: 100 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn affinity(session: &str, second: i64) -> SessionAffinity {
        SessionAffinity::new(Session::of(session), "a/x".parse().unwrap(), at(second))
    }

    fn shards(folder: &tempfile::TempDir) -> SessionShards {
        SessionShards::of(&folder.path().join("state.json"), Clock::system())
    }

    async fn write(shards: &SessionShards, sessions: &[SessionAffinity]) {
        for affinity in sessions {
            let shard = shard_of(affinity.session);
            shards.write(shard, vec![affinity.clone()], at(50), BOUNDS).await.unwrap();
        }
    }

    async fn load(shards: &SessionShards) -> Vec<SessionAffinity> {
        let (mut sessions, _) = shards.load(at(50), BOUNDS.ttl).await;
        sessions.sort_unstable_by_key(|affinity| affinity.used_at);
        sessions
    }

    #[test]
    fn sessions_are_spread_over_all_shards() {
        let mut used = 0;
        for number in 0..1000 {
            used |= bit(shard_of(Session::of(&number.to_string())));
        }

        assert_eq!(members(used).count(), 64);
    }

    #[tokio::test]
    async fn written_sessions_are_read_and_leave_no_lock_file() {
        let folder = tempfile::tempdir().unwrap();
        let sessions: Vec<_> = (0..20).map(|at| affinity(&at.to_string(), at)).collect();

        write(&shards(&folder), &sessions).await;

        assert_eq!(load(&shards(&folder)).await, sessions);
        let names = std::fs::read_dir(folder.path().join("state.json.sessions")).unwrap();
        for name in names.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            assert!(name.ends_with(".json"), "{name}");
        }
    }

    #[tokio::test]
    async fn a_damaged_shard_loses_only_its_sessions_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(&folder);
        let sessions: Vec<_> = (0..20).map(|at| affinity(&at.to_string(), at)).collect();
        write(&shards, &sessions).await;
        let lost = shard_of(sessions[7].session);
        let path = folder.path().join(format!("state.json.sessions/{lost:02}.json"));
        std::fs::write(path, "{\"sess").unwrap();

        let kept: Vec<_> = sessions.iter().filter(|one| shard_of(one.session) != lost).cloned().collect();
        assert_eq!(load(&shards).await, kept);

        write(&shards, &sessions).await;
        assert_eq!(load(&shards).await, sessions);
    }

    #[tokio::test]
    async fn unknown_fields_of_a_newer_program_survive() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(&folder);
        write(&shards, &[affinity("s", 5)]).await;
        let shard = shard_of(Session::of("s"));
        let path = folder.path().join(format!("state.json.sessions/{shard:02}.json"));
        let newer = std::fs::read_to_string(&path).unwrap().replacen('{', "{\"new\":7,", 1);
        std::fs::write(&path, newer.replacen("\"account\"", "\"own\":8,\"account\"", 1)).unwrap();

        write(&shards, &[affinity("s", 9)]).await;

        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"new\": 7") && text.contains("\"own\": 8"), "{text}");
        assert_eq!(load(&shards).await[0].used_at, at(9));
    }

    #[tokio::test]
    async fn a_shard_of_a_newer_format_is_read_and_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(&folder);
        write(&shards, &[affinity("s", 5)]).await;
        let shard = shard_of(Session::of("s"));
        let path = folder.path().join(format!("state.json.sessions/{shard:02}.json"));
        let newer = std::fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 2");
        std::fs::write(&path, &newer).unwrap();

        let written = shards.write(shard, vec![affinity("s", 9)], at(50), BOUNDS).await;

        assert!(matches!(written, Err(FileError::UnsupportedVersion { .. })), "{written:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
        assert_eq!(load(&shards).await[0].used_at, at(5));
    }

    #[tokio::test]
    async fn a_shard_of_a_newer_form_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(&folder);
        write(&shards, &[affinity("s", 5)]).await;
        let shard = shard_of(Session::of("s"));
        let path = folder.path().join(format!("state.json.sessions/{shard:02}.json"));
        let newer = r#"{"version":2,"sessions":{"by":"account"}}"#;
        std::fs::write(&path, newer).unwrap();

        let written = shards.write(shard, vec![affinity("s", 9)], at(50), BOUNDS).await;

        assert!(matches!(written, Err(FileError::UnsupportedVersion { .. })), "{written:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
        assert!(load(&shards).await.is_empty());
    }

    #[tokio::test]
    async fn forgotten_accounts_leave_every_shard() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(&folder);
        let other = SessionAffinity::new(Session::of("other"), "a/y".parse().unwrap(), at(30));
        let mut sessions: Vec<_> = (0..20).map(|at| affinity(&at.to_string(), at)).collect();
        sessions.push(other.clone());
        write(&shards, &sessions).await;

        shards.forget(&["a/x".parse().unwrap()]).await.unwrap();

        assert_eq!(load(&shards).await, [other]);
    }

    #[tokio::test]
    async fn a_shard_with_expired_sessions_is_cleaned_up() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(&folder);
        write(&shards, &[affinity("old", 5), affinity("new", 45)]).await;

        let (_, outdated) = shards.load(at(1010), BOUNDS.ttl).await;

        assert_eq!(outdated, bit(shard_of(Session::of("old"))));
    }
}
