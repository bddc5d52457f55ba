//! The transactional producer.

use std::time::Duration;

use rdkafka::error::{KafkaError as RdError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};

use crate::client::Quiet;

impl ProducerContext<NoCustomPartitioner> for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

pub(crate) type TransactionalProducer = ThreadedProducer<Quiet>;

/// Waits while the producer's queue, which bounds its memory, is full.
pub(crate) fn enqueue<K: ToBytes + ?Sized>(
    producer: &TransactionalProducer,
    mut message: BaseRecord<'_, K, [u8]>,
) -> Result<(), RdError> {
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((RdError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                message = returned;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Whether another publisher took our id over. After that every call of the producer fails as fatal.
pub(crate) fn is_fenced(producer: &TransactionalProducer, error: &RdError) -> bool {
    let fatal = || producer.client().fatal_error().map(|(code, _)| code);
    let code = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Fatal) => fatal(),
        code => code,
    };
    matches!(
        code,
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
    )
}
