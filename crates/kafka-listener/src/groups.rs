//! What is not here: groups and transactions. A client is told so where it asks for one, in a way that it does not take for
//! a passing fault. Most client libraries name a group also when they read without one: those must not notice.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        FindCoordinatorRequest, FindCoordinatorResponse, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest,
        OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic},
    },
};

use crate::{Refused, connection::Connection, metadata::NODE};

const NO_GROUPS: Refused = Refused(
    ResponseError::InvalidRequest,
    "consumer groups and committed offsets need a Kafka cluster: `carillon standalone` is read by partition and offset",
);
/// Also for whoever produces within a transaction.
pub(crate) const NO_TRANSACTIONS: Refused = Refused(
    ResponseError::TransactionalIdAuthorizationFailed,
    "transactions need a Kafka cluster: produce to `carillon standalone` without a transactional.id",
);

/// A group has a coordinator, who refuses to let anybody join.
pub(crate) fn coordinator(
    connection: &mut Connection<'_>,
    request: &FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    if request.key_type == 0 {
        let (host, port) = connection.advertised();
        return FindCoordinatorResponse::default().with_node_id(NODE).with_host(host.into()).with_port(port.into());
    }
    tell(connection, NO_TRANSACTIONS);
    let code = NO_TRANSACTIONS.0.code();
    let response = FindCoordinatorResponse::default().with_error_code(code).with_node_id((-1).into());
    if version == 0 { response } else { response.with_error_message(NO_TRANSACTIONS.words()) }
}

pub(crate) fn join(connection: &mut Connection<'_>, request: &JoinGroupRequest) -> JoinGroupResponse {
    tell(connection, NO_GROUPS);
    JoinGroupResponse::default()
        .with_error_code(NO_GROUPS.0.code())
        .with_generation_id(-1)
        .with_protocol_name(Some("".into()))
        .with_member_id(request.member_id.clone())
}

/// Nobody has ever committed an offset: the client begins where it is set to begin.
pub(crate) fn committed(request: OffsetFetchRequest) -> OffsetFetchResponse {
    let none = |index| OffsetFetchResponsePartition::default().with_partition_index(index).with_committed_offset(-1);
    let topics = request.topics.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partition_indexes.into_iter().map(none).collect();
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

pub(crate) fn commit(connection: &mut Connection<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    tell(connection, NO_GROUPS);
    let code = NO_GROUPS.0.code();
    let refused = |index| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| refused(partition.partition_index)).collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Clients ask again and again, and few show more than the code of the answer.
fn tell(connection: &mut Connection<'_>, refused: Refused) {
    if !std::mem::replace(&mut connection.told, true) {
        tracing::warn!("a Kafka client is refused: {}", refused.1);
    }
}
