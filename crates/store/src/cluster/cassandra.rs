//! The session with Cassandra or ScyllaDB, and the schema of our keyspace in numbered steps.

use std::{sync::Arc, time::Duration};

use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    statement::{Consistency, Statement, prepared::PreparedStatement},
};

use super::causes;
use crate::StoreError;

const STORE: &str = "cassandra";

/// What makes the schema, in order; the n-th brings it to version n. Only ever add to the end. Each can be repeated, because
/// a run may die after a step and before it is recorded. `%` stands for the keyspace.
const STEPS: [(&str, &str); 4] = [
    (
        "users",
        "CREATE TABLE IF NOT EXISTS %.users (tenant text, user_id text, profile text, profile_at bigint, preferences text, \
         preferences_at bigint, initial text, offered text, deleted_at bigint, PRIMARY KEY ((tenant, user_id)))",
    ),
    (
        "preference_history",
        "CREATE TABLE IF NOT EXISTS %.preference_history (tenant text, user_id text, at bigint, changed_by text, \
         changed_from text, preferences text, PRIMARY KEY ((tenant, user_id), at, changed_by, changed_from)) \
         WITH CLUSTERING ORDER BY (at DESC, changed_by ASC, changed_from ASC)",
    ),
    (
        "devices",
        "CREATE TABLE IF NOT EXISTS %.devices (tenant text, user_id text, roster text, revision bigint, \
         PRIMARY KEY ((tenant, user_id)))",
    ),
    (
        "device_owners",
        "CREATE TABLE IF NOT EXISTS %.device_owners (tenant text, device uuid, user_id text, at bigint, \
         PRIMARY KEY ((tenant, device), user_id))",
    ),
];

/// For one change of the schema: every node has to take it over.
const DDL_LIMIT: Duration = Duration::from_secs(60);

/// A session and the keyspace of our tables.
pub(super) struct Cassandra {
    pub(super) session: Session,
    keyspace: String,
    address: String,
}

impl Cassandra {
    /// Connects; every statement reads and writes at `LOCAL_QUORUM`.
    pub(super) async fn connect(nodes: &[String], keyspace: &str, limit: Duration) -> Result<Self, StoreError> {
        let address = nodes.join(",");
        let named = keyspace.starts_with(|c: char| c.is_ascii_lowercase())
            && keyspace.len() <= 48
            && keyspace.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
        if !named {
            let detail = "a keyspace has 1 to 48 characters out of a-z 0-9 _ and begins with a letter";
            return Err(StoreError::unavailable(STORE, detail));
        }
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .request_timeout(Some(limit))
            .build()
            .into_handle();
        let builder = SessionBuilder::new()
            .known_nodes(nodes)
            .default_execution_profile_handle(profile)
            .connection_timeout(limit)
            .keepalive_interval(limit)
            .keepalive_timeout(limit)
            .hostname_resolution_timeout(Some(limit))
            .keyspaces_to_fetch([keyspace]);
        let at = |detail: String| StoreError::unavailable(STORE, format!("{address}: {detail}"));
        let session = tokio::time::timeout(limit, builder.build())
            .await
            .map_err(|_| at(format!("no session within {limit:?}")))?
            .map_err(|e| at(causes(&e)))?;
        Ok(Self { session, keyspace: keyspace.to_owned(), address })
    }

    /// Prepares a statement that can be repeated; `%` stands for the keyspace.
    pub(super) async fn prepare(&self, cql: &str) -> Result<PreparedStatement, StoreError> {
        let mut prepared = self.session.prepare(cql.replace('%', &self.keyspace)).await.map_err(|e| self.failed(&e))?;
        prepared.set_is_idempotent(true);
        Ok(prepared)
    }

    /// Answers when a node does.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let asked = self.session.query_unpaged("SELECT key FROM system.local", ()).await;
        asked.map(drop).map_err(|e| self.failed(&e))
    }

    /// An error of the driver, with the contact points.
    pub(super) fn failed(&self, error: &dyn std::error::Error) -> StoreError {
        StoreError::unavailable(STORE, format!("{}: {}", self.address, causes(error)))
    }

    /// Whether the schema is the one of this version, or a later one, as during an upgrade.
    pub(super) async fn check_schema(&self) -> Result<(), StoreError> {
        let found = if self.has_versions().await? { self.version().await? } else { 0 };
        if found >= STEPS.len() {
            return Ok(());
        }
        let need = STEPS.len();
        let detail = format!(
            "{}: keyspace {} has schema version {found} and {need} is needed; run `carillon schema`",
            self.address, self.keyspace
        );
        Err(StoreError::unavailable(STORE, detail))
    }

    /// Runs the steps that are missing.
    ///
    /// Everything goes to one and the same node: two that create a table at once, on two nodes of Cassandra, may give it
    /// two ids, whereas one node does one after the other, and all steps say `IF NOT EXISTS`.
    pub(super) async fn migrate(&self, replication: u32) -> Result<Vec<String>, StoreError> {
        let keyspace = format!(
            "CREATE KEYSPACE IF NOT EXISTS % WITH replication = \
             {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replication}}}"
        );
        self.alter(&keyspace).await?;
        self.alter("CREATE TABLE IF NOT EXISTS %.schema_version (version int PRIMARY KEY, name text, at timestamp)")
            .await?;
        let mut done = Vec::new();
        let found = self.version().await?;
        for (version, (name, cql)) in (1..).zip(STEPS).skip(found) {
            self.alter(cql).await?;
            let record = "INSERT INTO %.schema_version (version, name, at) VALUES (?, ?, toTimestamp(now()))";
            let record = self.prepare(record).await?;
            self.session.execute_unpaged(&record, (version, name)).await.map_err(|e| self.failed(&e))?;
            done.push(format!("cassandra: schema version {version} of keyspace {} ({name})", self.keyspace));
        }
        Ok(done)
    }

    async fn alter(&self, cql: &str) -> Result<(), StoreError> {
        let cluster = self.session.get_cluster_state();
        let node = cluster.get_nodes_info().iter().filter(|n| n.is_connected()).min_by_key(|n| n.host_id);
        let mut statement = Statement::new(cql.replace('%', &self.keyspace));
        let target = node.map(|n| SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(n)), None));
        statement.set_load_balancing_policy(target);
        statement.set_is_idempotent(true);
        statement.set_request_timeout(Some(DDL_LIMIT));
        // the driver goes on when all nodes have agreed on the new schema
        self.session.query_unpaged(statement, ()).await.map(drop).map_err(|e| self.failed(&e))
    }

    async fn has_versions(&self) -> Result<bool, StoreError> {
        let cql =
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_version'";
        let select = self.prepare(cql).await?;
        let rows = self.session.execute_unpaged(&select, (&self.keyspace,)).await.map_err(|e| self.failed(&e))?;
        Ok(rows.into_rows_result().map_err(|e| self.failed(&e))?.rows_num() > 0)
    }

    async fn version(&self) -> Result<usize, StoreError> {
        let select = self.prepare("SELECT version FROM %.schema_version").await?;
        let rows = self.session.execute_unpaged(&select, ()).await.map_err(|e| self.failed(&e))?;
        let rows = rows.into_rows_result().map_err(|e| self.failed(&e))?;
        let versions = rows.rows::<(i32,)>().map_err(|e| self.failed(&e))?;
        let versions: Result<Vec<_>, _> = versions.collect();
        let highest = versions.map_err(|e| self.failed(&e))?.into_iter().max().map_or(0, |(v,)| v);
        Ok(usize::try_from(highest).unwrap_or(0))
    }
}
