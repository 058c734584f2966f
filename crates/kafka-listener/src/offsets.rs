//! The first and the last offset of a partition, and the one of a time.

use bus::Partition;
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};

use crate::{Broker, Refused};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

pub(crate) async fn answer(broker: &Broker, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let partition = Partition { topic: (**topic.name).into(), index: asked.partition_index };
            let found = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            partitions.push(match find(broker, &partition, asked.timestamp).await {
                Ok((offset, time)) => found.with_offset(offset).with_timestamp(time),
                Err(refused) => found.with_error_code(refused.0.code()),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Offset and time; both are -1 where no record is as late as that.
async fn find(broker: &Broker, partition: &Partition, time: i64) -> Result<(i64, i64), Refused> {
    let latest = broker.latest(partition)?;
    Ok(match time {
        LATEST => (latest, -1),
        EARLIEST => (broker.log.earliest(partition).await?, -1),
        time => broker.log.since(partition, time).await?.unwrap_or((-1, -1)),
    })
}
