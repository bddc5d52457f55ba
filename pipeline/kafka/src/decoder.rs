//! Decodes what was fetched on a thread of its own, while the next records are taken from the client: copying them costs half of what decoding
//! does, and both on one thread would be the most that a process can read.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use weir_engine::{Chunk, Partition, Record};

use crate::error::KafkaError;

/// Records of one partition, and in which generation it is fetched.
pub(crate) type Gathered = (Partition, u64, Vec<Record>);

/// The same, decoded.
pub(crate) type Decoded = (Partition, u64, Arc<Chunk>);

/// What is decoded comes back in the order in which it was given.
pub(crate) struct Decoder {
    gathered: SyncSender<Vec<Gathered>>,
    decoded: Receiver<Vec<Decoded>>,
    /// Whether something was given and not taken back: never more than one thing.
    is_at_work: bool,
}

pub(crate) fn decode((partition, generation, records): Gathered) -> Decoded {
    (partition, generation, Arc::new(Chunk::decode(records)))
}

impl Decoder {
    /// Its thread ends with it.
    pub(crate) fn start() -> Result<Self, KafkaError> {
        let (gathered, work) = sync_channel::<Vec<Gathered>>(1);
        let (done, decoded) = sync_channel(1);
        let decoding = move || {
            // Until the fetcher is gone.
            while let Ok(gathered) = work.recv() {
                if done.send(gathered.into_iter().map(decode).collect()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("decode".to_owned()).spawn(decoding);
        thread.map_err(|e| KafkaError::permanent("starting to decode", e))?;
        Ok(Self { gathered, decoded, is_at_work: false })
    }

    /// Whether something is to be taken back.
    pub(crate) fn is_at_work(&self) -> bool {
        self.is_at_work
    }

    /// What was given before, once it is decoded; `None` if the thread is gone.
    pub(crate) fn take(&mut self) -> Option<Vec<Decoded>> {
        if !std::mem::take(&mut self.is_at_work) {
            return Some(Vec::new());
        }
        self.decoded.recv().ok()
    }

    /// Gives it what was gathered, after what was given before was taken.
    pub(crate) fn give(&mut self, gathered: Vec<Gathered>) {
        debug_assert!(!self.is_at_work);
        self.is_at_work = self.gathered.send(gathered).is_ok();
    }
}
