//! Writing: one batch per partition, durable before the answer, appended once however often it is sent.

use anyhow::bail;
use bus::{
    LogError, Partition,
    embedded::{AppendError, Appended, Sequence},
};
use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};

use crate::{Broker, Refused, batch, groups::NO_TRANSACTIONS};

const READ_ONLY: Refused = Refused(
    ResponseError::TopicAuthorizationFailed,
    "only events are written; the other topics are this installation's own",
);

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        match error {
            // clients take it for "perhaps": the outcome is open
            AppendError::Log(LogError::Unavailable(_)) => {
                Self(ResponseError::RequestTimedOut, "the log does not answer; the batch may have been appended")
            }
            AppendError::Log(error) => error.into(),
            AppendError::OutOfOrder => {
                Self(ResponseError::OutOfOrderSequenceNumber, "the records before this batch are missing")
            }
            AppendError::Fenced => Self(ResponseError::InvalidProducerEpoch, "the producer has a newer epoch"),
        }
    }
}

/// `None` where the client wants no answer.
///
/// # Errors
/// The client wants no answer and something was refused: it learns of that by the end of the connection.
pub(crate) async fn answer(broker: &Broker, request: ProduceRequest) -> anyhow::Result<Option<ProduceResponse>> {
    let _permit = broker.producing.acquire().await?;
    let refused = if request.transactional_id.is_some() {
        Some(NO_TRANSACTIONS)
    } else if !(-1..=1).contains(&request.acks) {
        Some(Refused(ResponseError::InvalidRequiredAcks, "acks is -1, 0 or 1"))
    } else {
        None
    };
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let partition = Partition { topic: (**topic.name).into(), index: data.index };
            let appended = match refused {
                Some(refused) => Err(refused),
                None => append(broker, &partition, data.records.unwrap_or_default()).await,
            };
            match appended {
                Err(refused) if request.acks == 0 => {
                    bail!("refused a batch of a client that wants no answer: {}", refused.1)
                }
                appended => partitions.push(respond(data.index, appended)),
            }
        }
        responses.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    Ok((request.acks != 0).then(|| ProduceResponse::default().with_responses(responses)))
}

fn respond(index: i32, appended: Result<Appended, Refused>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match appended {
        Ok(Appended { offset, timestamp_ms }) => {
            response.with_base_offset(offset).with_log_append_time_ms(timestamp_ms).with_log_start_offset(0)
        }
        Err(refused) => {
            response.with_error_code(refused.0.code()).with_base_offset(-1).with_error_message(refused.words())
        }
    }
}

async fn append(broker: &Broker, partition: &Partition, data: Bytes) -> Result<Appended, Refused> {
    broker.log.latest(partition)?;
    if !broker.options.writable.contains(&partition.topic) {
        return Err(READ_ONLY);
    }
    let (topic, limit) = (partition.topic.clone(), broker.options.max_frame);
    // it may be long work; a panic over hostile bytes ends in this answer
    let batch = tokio::task::spawn_blocking(move || batch::decode(&data, &topic, limit)).await;
    let batch = batch.unwrap_or(Err(Refused(ResponseError::CorruptMessage, "the batch cannot be decoded")))?;
    let sequence = batch.producer.map(|(producer, epoch, first)| Sequence { producer, epoch, first });
    Ok(broker.log.append(partition, batch.records, sequence).await?)
}

/// A number for a producer that numbers its batches. By chance, so that none is given twice, whatever is restarted.
pub(crate) fn producer(request: &InitProducerIdRequest) -> InitProducerIdResponse {
    if request.transactional_id.is_some() {
        let code = NO_TRANSACTIONS.0.code();
        return InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
    }
    InitProducerIdResponse::default().with_producer_id(fastrand::i64(0..i64::MAX).into()).with_producer_epoch(0)
}
