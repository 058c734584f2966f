//! The three ways in, as a client has them.

use std::sync::Arc;

use anyhow::Context as _;
use bus::{
    Headers, Log as _, Outgoing,
    kafka::{Kafka, KafkaSettings},
};
use domain::{NotificationId, TenantId, Timestamp};
use serde_json::Value;

use super::{SOURCE, TENANT};
use crate::{
    cli::{DemoOptions, Server},
    client::Client,
};

/// How a notification is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Http,
    Grpc,
    Event,
}

impl Way {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Grpc => "gRPC",
            Self::Event => "event",
        }
    }
}

/// A client of each.
pub(super) struct Ways<'a> {
    http: &'a Client,
    grpc: grpc::Client,
    kafka: Kafka,
    topic: Arc<str>,
    /// Makes this run's events others than those of the run before.
    run: String,
}

impl<'a> Ways<'a> {
    pub(super) async fn open(http: &'a Client, options: &DemoOptions, server: &Server) -> anyhow::Result<Self> {
        let kafka = Kafka::new(KafkaSettings::new(options.kafka.clone(), "carillon-demo"))?;
        let grpc = grpc::connect(&options.grpc, &server.key).await?;
        let run = Timestamp::now().as_millisecond().to_string();
        Ok(Self { http, grpc, kafka, topic: "carillon.events".into(), run })
    }

    /// Hands a request over; gives the id that it can be asked for by.
    pub(super) async fn hand_over(&self, way: Way, request: &Value, number: usize) -> anyhow::Result<String> {
        match way {
            Way::Http => {
                let accepted = self.http.post("/v1/notifications", request).await?;
                Ok(accepted["id"].as_str().context("no id")?.to_owned())
            }
            Way::Grpc => {
                let request = grpc::v1::SendRequest::from_json(request.to_string().as_bytes())?;
                Ok(self.grpc.clone().send(request).await?.into_inner().id)
            }
            Way::Event => self.publish(request, &format!("{}-{number}", self.run)).await,
        }
    }

    async fn publish(&self, request: &Value, id: &str) -> anyhow::Result<String> {
        let headers = [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_type", "carillon.notification.requested"),
            ("ce_source", SOURCE),
            ("ce_id", id),
        ];
        let headers = headers.into_iter().fold(Headers::default(), |h, (name, value)| h.with(name, value.to_owned()));
        let value = Some(request.to_string().into());
        let record = Outgoing { topic: self.topic.clone(), key: Some(id.to_owned().into()), headers, value };
        for result in self.kafka.publish(vec![record]).await {
            result.context("cannot publish the event (is `--kafka-listen` on?)")?;
        }
        let tenant = TenantId::parse(TENANT).map_err(anyhow::Error::msg)?;
        Ok(NotificationId::of_event(&tenant, SOURCE, id).to_string())
    }
}
