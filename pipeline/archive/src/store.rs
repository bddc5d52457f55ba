//! Where an archive is, and its parts.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::logstore::object_store::path::Path as StorePath;
use deltalake_core::logstore::object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, parse_url,
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{ArchiveError, during};
use crate::rows::Column;

/// The number of what stands in an archive and how.
const FORMAT: u32 = 1;

/// A part: events from a position on and below another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The first position.
    pub from: i64,
    /// The first position after it.
    pub below: i64,
    /// Events.
    pub rows: u64,
    /// Of the set of its rows.
    pub hash: String,
    /// Of the file.
    pub bytes: u64,
    /// The id of the last event below `below`: an event store that has another one there has another past.
    pub(crate) last_event: Option<String>,
    pub(crate) columns: Vec<Column>,
}

impl Part {
    pub(crate) fn file(&self) -> String {
        file_name(self.from, self.below)
    }
}

pub(crate) fn file_name(from: i64, below: i64) -> String {
    format!("events-{from:020}-{below:020}.parquet")
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    event_store: String,
}

/// An archive at an address.
pub struct Archive {
    pub(crate) store: Arc<dyn ObjectStore>,
    root: StorePath,
    /// Where its files are, when they are on this machine.
    local: Option<PathBuf>,
    url: Url,
}

impl Archive {
    /// Nothing is read yet. A directory that is not there is made when something is written.
    pub fn open(url: &str) -> Result<Self, ArchiveError> {
        const ACTION: &str = "reading the archive's address";
        let url = Url::parse(url).map_err(|error| {
            ArchiveError::Refused(format!("{url} is no address: {error}; write file:///backup/weir"))
        })?;
        let local = (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten();
        let (store, root) = parse_url(&url).map_err(during(ACTION))?;
        Ok(Self { store: Arc::from(store), root, local, url })
    }

    /// For people.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.as_str()
    }

    pub(crate) fn path(&self, name: &str) -> StorePath {
        self.root.clone().join(name)
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>, ArchiveError> {
        match self.store.get(&self.path(name)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(during("reading the archive"))?)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(during("reading the archive")(error)),
        }
    }

    /// Writes a small file that must not be there yet, and syncs it.
    async fn create(&self, name: &str, text: String) -> Result<(), ArchiveError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&self.path(name), text.into_bytes().into(), options).await;
        put.map_err(during("writing the archive"))?;
        self.sync(name).await
    }

    /// Makes a file and its directory durable, where they are on this machine: the object store does not.
    pub(crate) async fn sync(&self, name: &str) -> Result<(), ArchiveError> {
        let Some(local) = self.local.clone() else { return Ok(()) };
        let path = local.join(name);
        let sync = move || {
            std::fs::File::open(path)?.sync_all()?;
            std::fs::File::open(local)?.sync_all()
        };
        let synced = tokio::task::spawn_blocking(sync).await.map_err(during("syncing the archive"))?;
        synced.map_err(during("syncing the archive"))
    }

    /// The event store that it is of; `None` for one that is not begun.
    pub async fn event_store(&self) -> Result<Option<String>, ArchiveError> {
        let Some(bytes) = self.read("archive.json").await? else { return Ok(None) };
        let head: Head = serde_json::from_slice(&bytes).map_err(during("reading archive.json"))?;
        if head.format > FORMAT {
            return Err(ArchiveError::Refused(format!(
                "{} is of format {}, and this build knows up to {FORMAT}: a newer weir made it, use that one",
                self.address(),
                head.format
            )));
        }
        Ok(Some(head.event_store))
    }

    /// Begins an archive, or refuses one that is of another event store.
    pub(crate) async fn begin(&self, event_store: &str) -> Result<(), ArchiveError> {
        match self.event_store().await? {
            None => {
                if let Some(local) = &self.local {
                    std::fs::create_dir_all(local).map_err(during("making the archive's directory"))?;
                }
                let head = Head { format: FORMAT, event_store: event_store.to_owned() };
                self.create("archive.json", serde_json::to_string(&head).map_err(during("writing archive.json"))?).await
            }
            Some(of) if of == event_store => Ok(()),
            Some(of) => Err(ArchiveError::Refused(format!(
                "{} is of the event store {of}, and this one is {event_store}: take another address",
                self.address()
            ))),
        }
    }

    /// The parts, in order; each begins where the one before ended.
    pub async fn parts(&self) -> Result<Vec<Part>, ArchiveError> {
        const ACTION: &str = "listing the archive";
        let listed: Vec<_> = self.store.list(Some(&self.root)).try_collect().await.map_err(during(ACTION))?;
        let mut names: Vec<String> = listed
            .iter()
            .filter_map(|found| found.location.filename())
            .filter(|name| name.starts_with("events-") && name.ends_with(".json"))
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        let mut parts: Vec<Part> = Vec::with_capacity(names.len());
        for name in names {
            let bytes = self.read(&name).await?.unwrap_or_default();
            let part: Part = serde_json::from_slice(&bytes).map_err(during(ACTION))?;
            let expected = parts.last().map_or(part.from, |last| last.below);
            if part.from != expected {
                let words = format!("{} has no events from {expected} to {}", self.address(), part.from);
                return Err(ArchiveError::Broken(words));
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// From here on the part counts.
    pub(crate) async fn add(&self, part: &Part) -> Result<(), ArchiveError> {
        // By its beginning alone: of two parts that begin at one place the second is refused.
        let name = format!("events-{:020}.json", part.from);
        self.create(&name, serde_json::to_string(part).map_err(during("writing a part"))?).await
    }
}
