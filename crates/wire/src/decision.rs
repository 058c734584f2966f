//! A decision to and from its message, as the ledger keeps it.

use domain::{Address, Channel, Environment, Locale, Plan, Planned, Reason, State, Target};

use crate::{
    DecodeError,
    convert::{environment, field, optional, optional_time, some, text, time, us},
    proto,
};

impl From<&Plan> for proto::Decision {
    fn from(plan: &Plan) -> Self {
        let line = |line: &Planned| match line {
            Planned::Send { channel, target, locale } => proto::Line {
                channel: channel.as_str().to_owned(),
                address: target.address.expose().to_owned(),
                address_since_us: us(target.since),
                app: text(target.app.as_deref()),
                development: target.environment == Environment::Sandbox,
                locale: text(locale.as_ref().map(Locale::as_str)),
                ..proto::Line::default()
            },
            Planned::End { channel, state, reason } => proto::Line {
                channel: channel.as_str().to_owned(),
                state: state.as_str().to_owned(),
                reason: reason.as_str().to_owned(),
                ..proto::Line::default()
            },
        };
        Self {
            at_us: plan.at.as_microsecond(),
            accepted_at_us: plan.accepted_at.as_microsecond(),
            lines: plan.lines.iter().map(line).collect(),
        }
    }
}

impl TryFrom<proto::Decision> for Plan {
    type Error = DecodeError;
    fn try_from(decision: proto::Decision) -> Result<Self, DecodeError> {
        if decision.lines.is_empty() {
            return field("lines", Err("empty".into()));
        }
        let lines = decision.lines.into_iter().map(planned).collect::<Result<_, _>>()?;
        Ok(Self {
            at: time("at_us", decision.at_us)?,
            accepted_at: time("accepted_at_us", decision.accepted_at_us)?,
            lines,
        })
    }
}

fn planned(line: proto::Line) -> Result<Planned, DecodeError> {
    let channel = field("channel", Channel::parse(&line.channel))?;
    if let Some(state) = optional("state", &line.state, State::parse)? {
        return Ok(Planned::End { channel, state, reason: field("reason", Reason::parse(&line.reason))? });
    }
    let target = Target {
        address: field("address", Address::parse(channel, &line.address))?,
        since: optional_time("address_since_us", line.address_since_us)?,
        app: some(line.app),
        environment: environment(line.development),
    };
    Ok(Planned::Send { channel, target, locale: optional("locale", &line.locale, Locale::parse)? })
}
