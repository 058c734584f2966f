//! librdkafka's errors in the words of the log.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::LogError;

/// The cluster did not do it; later it may.
pub(super) fn unavailable(error: &KafkaError) -> LogError {
    LogError::Unavailable(error.to_string())
}

/// Why a record was not taken.
pub(super) fn of_publish(topic: &str, error: &KafkaError) -> LogError {
    match error {
        KafkaError::Nul(_) => LogError::Topic { topic: topic.to_owned(), detail: "not a name for a topic".to_owned() },
        other => match other.rdkafka_error_code() {
            Some(code) => of_topic(topic, code),
            None => unavailable(other),
        },
    }
}

/// Why something with a topic failed.
pub(super) fn of_topic(topic: &str, code: Code) -> LogError {
    let detail = match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            return LogError::TooLarge(format!("{topic}: {code}"));
        }
        Code::QueueFull => return LogError::Full("the queue of the producer has no room".to_owned()),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "it does not exist; `carillon topics` creates what is missing".to_owned()
        }
        // what a compacted topic says to a record without a key
        Code::InvalidRecord => format!("it refuses the record: {code}"),
        Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::PolicyViolation
        | Code::InvalidConfig
        | Code::InvalidPartitions => code.to_string(),
        Code::InvalidReplicationFactor => format!("{code}; are there as many brokers as copies wanted?"),
        other => return LogError::Unavailable(format!("{topic}: {other}")),
    };
    LogError::Topic { topic: topic.to_owned(), detail }
}

/// A commit that came while the group was changing: whether the partition is still ours shows in a moment.
pub(super) fn is_rebalance(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownMemberId
                | Code::IllegalGeneration
                | Code::RebalanceInProgress
                | Code::AssignmentLost
                | Code::State
        )
    )
}
