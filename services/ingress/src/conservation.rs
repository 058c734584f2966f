//! `/v1/conservation`: whether everything that was accepted is accounted for. For operators.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Extension, Json,
    extract::{Query, State},
};
use domain::{TenantId, Timestamp, config::Scope};
use store::Balance;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Ingress,
    auth::Caller,
    deliveries::Parameters,
    now,
    problem::{Document, Kind, Problem},
};

/// What is younger may still be on its way through the log and into the index: it counts only for whoever asks for it.
const GRACE: Duration = Duration::from_secs(60);

/// What was accepted, and what became of it.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Conservation {
    /// What was accepted before is counted.
    until: Timestamp,
    /// What is younger than this is not counted, unless `until` says so.
    grace_seconds: u64,
    /// By tenant; one that asked for nothing is left out.
    items: Vec<Balanced>,
    /// Over all of them. Anything but 0 is a fault: something was accepted, and nobody decided over it.
    missing: u64,
    /// Over all of them. Anything but 0 is a fault as well: something was decided that nobody is known to have accepted.
    surplus: u64,
}

/// What became of all that a tenant asked for.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct Balanced {
    tenant: String,
    /// Of all notifications together.
    recipients: u64,
    /// Recipients for whom it was decided.
    decided: u64,
    /// Recipients for whom it was not.
    missing: u64,
    /// Decisions without a request.
    surplus: u64,
    /// Deliveries that have not reached their end.
    in_flight: u64,
    /// The number of deliveries by channel and state; what is not named is 0.
    channels: BTreeMap<String, BTreeMap<String, u64>>,
}

impl From<Balance> for Balanced {
    fn from(balance: Balance) -> Self {
        let states = || balance.channels.values().flatten();
        let in_flight = states().filter(|(state, _)| !state.is_settled()).map(|(_, n)| n).sum();
        let by_state =
            |states: &BTreeMap<domain::State, u64>| states.iter().map(|(s, n)| (s.to_string(), *n)).collect();
        Self {
            missing: balance.recipients.saturating_sub(balance.decided),
            surplus: balance.decided.saturating_sub(balance.recipients),
            recipients: balance.recipients,
            decided: balance.decided,
            in_flight,
            channels: balance.channels.iter().map(|(c, states)| (c.to_string(), by_state(states))).collect(),
            tenant: balance.tenant.into(),
        }
    }
}

/// For the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters; they are parsed by name")]
pub(crate) struct Until {
    /// Accepted before; a minute ago if left out. Of what is younger some may still be on its way, and seems to be missing.
    until: Option<Timestamp>,
    /// For the installation's operator key: only of this one. A tenant's key has its own tenant.
    tenant: Option<String>,
}

/// Counts what was accepted and what became of it.
#[utoipa::path(
    get, path = "/v1/conservation", operation_id = "getConservation", tag = "deliveries", params(Until),
    responses(
        (status = 200, body = Conservation),
        (status = "4XX", description = "Refused", body = Document, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(ingress): State<Ingress>,
    Extension(caller): Extension<Caller>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Conservation>, Problem> {
    caller.has(Scope::Operator)?;
    let mut parameters = Parameters::read(pairs, &["until", "tenant"], &[]);
    let until = parameters.take("until", |t| {
        t.parse::<Timestamp>()
            .map_err(|_| "not a time; write it as RFC 3339 has it, like 2026-12-01T09:00:00Z".to_owned())
    });
    let named = parameters.take("tenant", TenantId::parse);
    parameters.finish()?;
    let tenant = match (caller.tenant, named) {
        (Some(own), Some(named)) if own != named => {
            return Err(Problem::new(Kind::NotFound, "there is no such tenant"));
        }
        (own, named) => own.or(named),
    };
    let until = until.map_or(now() - GRACE, |until| until.min(now()));
    let balances = ingress.deliveries.balance(tenant.as_ref(), until).await?;
    let items: Vec<_> = balances.into_iter().map(Balanced::from).collect();
    Ok(Json(Conservation {
        until,
        grace_seconds: GRACE.as_secs(),
        missing: items.iter().map(|b| b.missing).sum(),
        surplus: items.iter().map(|b| b.surplus).sum(),
        items,
    }))
}
