//! Which topics clients may see, and that this listener has them all.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};

use crate::{Broker, CLOSED, connection::Connection};

/// Our number as the only broker.
pub(crate) const NODE: BrokerId = BrokerId(1);

pub(crate) fn answer(connection: &Connection<'_>, request: MetadataRequest, version: i16) -> MetadataResponse {
    let broker = connection.broker;
    let all = broker.log.topics();
    // an empty list was "all" in version 0
    let topics = match request.topics {
        Some(names) if version > 0 || !names.is_empty() => {
            let named = names.into_iter().filter_map(|topic| topic.name);
            named.map(|name| describe(broker, &all, name)).collect()
        }
        _ => {
            let open = all.iter().filter(|(name, _)| broker.is_readable(name));
            open.map(|(name, partitions)| known(StrBytes::from(name.to_string()).into(), *partitions)).collect()
        }
    };
    let (host, port) = connection.advertised();
    let node = MetadataResponseBroker::default().with_node_id(NODE).with_host(host.into()).with_port(port.into());
    MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(StrBytes::from_static_str("carillon-standalone")))
        .with_controller_id(NODE)
        .with_topics(topics)
}

fn describe(broker: &Broker, all: &[(Arc<str>, i32)], name: TopicName) -> MetadataResponseTopic {
    let error = match all.iter().find(|(known, _)| **known == **name) {
        Some((_, partitions)) if broker.is_readable(&name) => return known(name, *partitions),
        Some(_) => CLOSED.0,
        None => ResponseError::UnknownTopicOrPartition,
    };
    MetadataResponseTopic::default().with_name(Some(name)).with_error_code(error.code())
}

fn known(name: TopicName, partitions: i32) -> MetadataResponseTopic {
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE)
            .with_leader_epoch(-1)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    };
    MetadataResponseTopic::default().with_name(Some(name)).with_partitions((0..partitions).map(partition).collect())
}
