//! Redis, Cassandra or ScyllaDB, Elasticsearch.
