//! What the source says while a commit is under way: the lane reads on, and decodes, and applies it afterwards.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use crate::batch::{BatchLimits, Decoding};
use crate::source::{Partition, Source, SourceError, SourceEvent};

/// How long the source may take to say that there is nothing.
const WAIT: Duration = Duration::from_millis(500);

/// What was heard, oldest first, bounded by half a batch's bytes.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Of partitions that come and go: it is heard before all else, and ends the reading ahead.
    urgent: Option<Result<SourceEvent, SourceError>>,
    heard: VecDeque<Heard>,
    bytes: usize,
}

pub(crate) enum Heard {
    Records(Vec<Decoding>),
    Passed(Vec<(Partition, i64)>),
}

impl Ahead {
    /// Listens until it is dropped, which loses nothing.
    pub(crate) async fn listen(
        &mut self,
        source: &mut dyn Source,
        records_max: usize,
        limits: &BatchLimits,
    ) -> Infallible {
        while self.urgent.is_none() && self.bytes < limits.bytes_max / 2 {
            match source.next(records_max, WAIT).await {
                Ok(SourceEvent::Records(records)) => {
                    self.bytes += records.iter().map(|record| record.payload.len()).sum::<usize>();
                    self.heard.push_back(Heard::Records(records.into_iter().map(Decoding::of).collect()));
                }
                Ok(SourceEvent::Passed(offsets)) => self.heard.push_back(Heard::Passed(offsets)),
                Ok(SourceEvent::Idle) => {}
                other => {
                    if let Ok(SourceEvent::Revoked(partitions)) = &other {
                        self.forget(partitions);
                    }
                    self.urgent = Some(other);
                }
            }
        }
        std::future::pending().await
    }

    /// Whether partitions came or went, or the source has trouble.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    pub(crate) fn urgent(&mut self) -> Option<Result<SourceEvent, SourceError>> {
        self.urgent.take()
    }

    pub(crate) fn next(&mut self) -> Option<Heard> {
        let heard = self.heard.pop_front()?;
        if let Heard::Records(records) = &heard {
            self.bytes -= bytes_of(records);
        }
        Some(heard)
    }

    /// Of these the source starts anew, or they are gone: what was heard of them is no longer what comes next.
    pub(crate) fn forget(&mut self, partitions: &[Partition]) {
        for heard in &mut self.heard {
            match heard {
                Heard::Records(records) => records.retain(|decoding| !partitions.contains(&decoding.record.partition)),
                Heard::Passed(offsets) => offsets.retain(|(partition, _)| !partitions.contains(partition)),
            }
        }
        let records = self
            .heard
            .iter()
            .filter_map(|heard| if let Heard::Records(records) = heard { Some(records) } else { None });
        self.bytes = records.map(|records| bytes_of(records)).sum();
    }
}

fn bytes_of(records: &[Decoding]) -> usize {
    records.iter().map(|decoding| decoding.record.payload.len()).sum()
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::headers::Headers;
    use crate::source::{Record, Started};

    struct Script(VecDeque<SourceEvent>);

    #[async_trait]
    impl Source for Script {
        async fn next(&mut self, _: usize, _: Duration) -> Result<SourceEvent, SourceError> {
            match self.0.pop_front() {
                Some(event) => Ok(event),
                None => std::future::pending().await,
            }
        }

        async fn start(&mut self, _: &[(Partition, Option<i64>)]) -> Result<Vec<Started>, SourceError> {
            Ok(Vec::new())
        }

        async fn end(&mut self, _: &Partition) -> Result<i64, SourceError> {
            Ok(0)
        }
    }

    fn partition(number: i32) -> Partition {
        Partition { source: "s".into(), topic: "t".into(), number }
    }

    fn record(number: i32, offset: i64) -> Record {
        let (partition, payload) = (partition(number), Bytes::from_static(b"0123456789"));
        Record { partition, offset, key: None, payload, headers: Headers::default(), recorded_at: None }
    }

    async fn listen(ahead: &mut Ahead, source: &mut Script, bytes_max: usize) {
        let limits = BatchLimits { records_max: 1, bytes_max, flush_interval: Duration::ZERO };
        let listening = tokio::time::timeout(Duration::from_millis(20), ahead.listen(source, 1, &limits));
        assert!(listening.await.is_err(), "it ends when it is dropped");
    }

    fn offsets(ahead: &mut Ahead) -> Vec<(i32, i64)> {
        let mut all = Vec::new();
        while let Some(heard) = ahead.next() {
            if let Heard::Records(records) = heard {
                all.extend(records.iter().map(|decoding| (decoding.record.partition.number, decoding.record.offset)));
            }
        }
        all
    }

    #[tokio::test]
    async fn what_was_heard_of_a_partition_goes_with_it() {
        let mut source = Script(VecDeque::from([
            SourceEvent::Records(vec![record(0, 5), record(1, 7)]),
            SourceEvent::Passed(vec![(partition(0), 9)]),
            SourceEvent::Idle,
            SourceEvent::Revoked(vec![partition(0)]),
            SourceEvent::Records(vec![record(1, 8)]),
        ]));
        let mut ahead = Ahead::default();
        listen(&mut ahead, &mut source, 1000).await;
        assert!(ahead.is_urgent(), "it is heard before all else, and nothing after it");
        assert!(matches!(ahead.urgent(), Some(Ok(SourceEvent::Revoked(_)))));
        assert_eq!(offsets(&mut ahead), [(1, 7)]);
        listen(&mut ahead, &mut source, 1000).await;
        // Started anew: what comes next of it comes again.
        ahead.forget(&[partition(1)]);
        assert_eq!((offsets(&mut ahead), ahead.bytes), (vec![], 0));
    }

    #[tokio::test]
    async fn half_a_batch_is_enough() {
        let mut source = Script((0..9).map(|offset| SourceEvent::Records(vec![record(0, offset)])).collect());
        let mut ahead = Ahead::default();
        listen(&mut ahead, &mut source, 60).await;
        assert_eq!(offsets(&mut ahead), [(0, 0), (0, 1), (0, 2)]);
        listen(&mut ahead, &mut source, 60).await;
        assert_eq!(offsets(&mut ahead), [(0, 3), (0, 4), (0, 5)]);
    }
}
