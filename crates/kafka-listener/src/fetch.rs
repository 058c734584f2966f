//! Reading: waits for records without polling, and answers with no more than a slow client may hold in memory.

use std::time::Duration;

use bus::Partition;
use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchRequest, FetchResponse, TopicName,
        fetch_response::{FetchableTopicResponse, PartitionData},
    },
};
use tokio::time::{Instant, sleep_until};

use crate::{Broker, Refused, batch, connection::Connection};

/// Bytes of one answer; a larger record comes alone.
const BYTES: usize = 1024 * 1024;
/// The longest wait for records; clients ask again.
const WAIT: Duration = Duration::from_secs(30);

/// A partition to read.
struct Wanted {
    partition: Partition,
    offset: i64,
    max_bytes: usize,
}

pub(crate) async fn answer(connection: &Connection<'_>, request: FetchRequest) -> FetchResponse {
    // none is ever opened: every request names all that it wants
    if request.session_id != 0 {
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let topics: Vec<(TopicName, Vec<Wanted>)> = request
        .topics
        .into_iter()
        .map(|topic| {
            let name = topic.topic;
            let wanted = |p: kafka_protocol::messages::fetch_request::FetchPartition| Wanted {
                partition: Partition { topic: (**name).into(), index: p.partition },
                offset: p.fetch_offset,
                max_bytes: usize::try_from(p.partition_max_bytes).unwrap_or(0),
            };
            let wanted = topic.partitions.into_iter().map(wanted).collect();
            (name, wanted)
        })
        .collect();
    if request.min_bytes > 0 {
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT);
        until_due(connection, &topics, wait).await;
    }
    let mut room = Room { bytes: usize::try_from(request.max_bytes).unwrap_or(0).min(BYTES), empty: true };
    let mut responses = Vec::with_capacity(topics.len());
    for (name, wanted) in topics {
        let mut partitions = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let data = PartitionData::default().with_partition_index(wanted.partition.index);
            partitions.push(match read(connection.broker, &wanted, &mut room).await {
                Ok(Read { records, earliest, latest }) => data
                    .with_high_watermark(latest)
                    .with_last_stable_offset(latest)
                    .with_log_start_offset(earliest)
                    .with_records(Some(records)),
                Err(refused) => data.with_error_code(refused.0.code()).with_high_watermark(-1),
            });
        }
        responses.push(FetchableTopicResponse::default().with_topic(name).with_partitions(partitions));
    }
    FetchResponse::default().with_responses(responses)
}

/// Waits until there is something to say of one of the partitions, a fault too.
async fn until_due(connection: &Connection<'_>, topics: &[(TopicName, Vec<Wanted>)], wait: Duration) {
    let broker = connection.broker;
    let changed = broker.log.changed(topics.iter().map(|(name, _)| &***name));
    let deadline = Instant::now() + wait;
    let due = || {
        let mut wanted = topics.iter().flat_map(|(_, wanted)| wanted);
        wanted.any(|w| broker.latest(&w.partition) != Ok(w.offset))
    };
    while !due() {
        tokio::select! {
            () = changed.notified() => {}
            () = sleep_until(deadline) => return,
            () = connection.shutdown.cancelled() => return,
        }
    }
}

/// What an answer may still hold.
struct Room {
    bytes: usize,
    /// The first records come even if they are too large, or the client would never get on.
    empty: bool,
}

struct Read {
    records: Bytes,
    earliest: i64,
    latest: i64,
}

async fn read(broker: &Broker, wanted: &Wanted, room: &mut Room) -> Result<Read, Refused> {
    let Wanted { partition, offset, max_bytes } = wanted;
    let latest = broker.latest(partition)?;
    let earliest = broker.log.earliest(partition).await?;
    if !(earliest..=latest).contains(offset) {
        return Err(Refused(ResponseError::OffsetOutOfRange, "there is no such offset any more, or yet"));
    }
    let limit = room.bytes.min(*max_bytes);
    if *offset == latest || (limit == 0 && !room.empty) {
        return Ok(Read { records: Bytes::new(), earliest, latest });
    }
    let records = broker.log.fetch(partition, *offset, limit).await?;
    let records = batch::encode(&records, limit, room.empty);
    // the answer is full with the first record that does not fit: further ones are not read in vain
    room.bytes = if records.is_empty() { 0 } else { room.bytes.saturating_sub(records.len()) };
    room.empty &= records.is_empty();
    Ok(Read { records, earliest, latest })
}
