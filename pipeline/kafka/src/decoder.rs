//! Decodes what was fetched on a thread of its own, while the next records are taken from the client: copying them costs half of what decoding
//! does, and both on one thread would be the most that a process can read.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use weir_engine::tap::Offered;
use weir_engine::{Chunk, Partition, Record};

use crate::error::KafkaError;

/// Records of one partition, and in which generation it is fetched.
pub(crate) type Gathered = (Partition, u64, Vec<Record>);

/// What is decoded comes back in the order in which it was given.
pub(crate) struct Decoder {
    gathered: SyncSender<Vec<Gathered>>,
    decoded: Receiver<Vec<Offered>>,
    /// Whether something was given and not taken back: never more than one thing.
    is_at_work: bool,
    keeps_text: bool,
}

/// How records are decoded.
fn decode((partition, generation, records): Gathered, keeps_text: bool) -> Offered {
    let chunk = if keeps_text { Chunk::decode_with_text(records) } else { Chunk::decode(records) };
    (partition, generation, Arc::new(chunk))
}

impl Decoder {
    /// Its thread ends with it.
    pub(crate) fn start(keeps_text: bool) -> Result<Self, KafkaError> {
        let (gathered, work) = sync_channel::<Vec<Gathered>>(1);
        let (done, decoded) = sync_channel(1);
        let decoding = move || {
            // Until the fetcher is gone.
            while let Ok(gathered) = work.recv() {
                if done.send(gathered.into_iter().map(|some| decode(some, keeps_text)).collect()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("decode".to_owned()).spawn(decoding);
        thread.map_err(|e| KafkaError::permanent("starting to decode", e))?;
        Ok(Self { gathered, decoded, is_at_work: false, keeps_text })
    }

    /// Whether something is to be taken back.
    pub(crate) fn is_at_work(&self) -> bool {
        self.is_at_work
    }

    /// What was given before, once it is decoded; `None` if the thread is gone.
    pub(crate) fn take(&mut self) -> Option<Vec<Offered>> {
        if !std::mem::take(&mut self.is_at_work) {
            return Some(Vec::new());
        }
        self.decoded.recv().ok()
    }

    /// Decodes at once, on this thread.
    pub(crate) fn decode(&self, gathered: Gathered) -> Offered {
        decode(gathered, self.keeps_text)
    }

    /// Gives it what was gathered, after what was given before was taken; `false` if the thread is gone.
    pub(crate) fn give(&mut self, gathered: Vec<Gathered>) -> bool {
        debug_assert!(!self.is_at_work);
        self.is_at_work = self.gathered.send(gathered).is_ok();
        self.is_at_work
    }
}
