//! Domain types as the messages of `envelope.proto`.

use domain::{
    Address, CategoryKey, Delivery, DeliveryStatus, Environment, Locale, Message as Said, Notification,
    NotificationStatus, Plan, Planned, Reason, Recipient, Status, Step, Strategy, Timestamp, UserId,
};

use crate::{
    message::{Fields, Message},
    proto,
};

impl Fields for Notification {
    fn write(&self, to: &mut Message<'_>) {
        to.id(1, self.id.0);
        to.text(2, self.tenant.as_str());
        to.nested(3, |to| self.recipient.write(to));
        to.maybe(4, self.category.as_ref().map(CategoryKey::as_str));
        to.uint(5, u8::from(self.priority));
        self.channels.iter().for_each(|channel| to.text(6, channel.as_str()));
        let strategy = match self.strategy {
            Strategy::All => proto::Strategy::All,
            Strategy::BestOf => proto::Strategy::BestOf,
        };
        to.int(7, i32::from(strategy).into());
        if let Said::Content(content) = &self.message {
            to.json(8, content);
        }
        to.int(9, us(self.expires_at));
        to.maybe(10, self.collapse_key.as_deref());
        to.map(11, &self.metadata);
        to.int(12, self.accepted_at.as_microsecond());
        if let Said::Template { template, data } = &self.message {
            to.shown(13, template);
            to.json(14, data);
        }
        to.maybe(15, self.locale.as_ref().map(Locale::as_str));
    }
}

impl Fields for Recipient {
    fn write(&self, to: &mut Message<'_>) {
        match self {
            Self::User(user) => to.text(1, user.as_str()),
            Self::Address(channel, address) => to.nested(2, |to| {
                to.text(1, channel.as_str());
                to.text(2, address.expose());
            }),
        }
    }
}

impl Fields for Delivery {
    fn write(&self, to: &mut Message<'_>) {
        let target = self.target.as_ref();
        to.id(1, self.id.0);
        to.id(2, self.notification.0);
        to.text(3, self.tenant.as_str());
        to.nested(4, |to| self.recipient.write(to));
        to.text(5, self.channel.as_str());
        to.maybe(6, self.address().map(Address::expose));
        to.maybe(7, self.category.as_ref().map(CategoryKey::as_str));
        to.uint(8, u8::from(self.priority));
        to.json(9, &self.content);
        to.int(10, us(self.expires_at));
        to.maybe(11, self.collapse_key.as_deref());
        to.map(12, &self.metadata);
        to.int(13, self.accepted_at.as_microsecond());
        self.history.0.iter().for_each(|step| to.nested(14, |to| step.write(to)));
        to.int(15, us(target.and_then(|t| t.since)));
        to.maybe(16, target.and_then(|t| t.app.as_deref()));
        to.uint(17, target.is_some_and(|t| t.environment == Environment::Sandbox));
        if let Some(template) = &self.template {
            to.shown(18, template);
        }
        to.maybe(19, self.locale.as_ref().map(Locale::as_str));
        to.maybe(20, self.provider.as_deref());
        to.uint(21, self.leads);
    }
}

impl Fields for Step {
    fn write(&self, to: &mut Message<'_>) {
        to.int(1, self.at.as_microsecond());
        to.text(2, self.state.as_str());
        to.maybe(3, self.reason.map(Reason::as_str));
        if let Some(attempt) = &self.attempt {
            to.nested(4, |to| {
                to.uint(1, attempt.number);
                to.text(2, &attempt.outcome);
                to.text(3, &attempt.answer);
                to.uint(4, attempt.took_ms);
            });
        }
    }
}

impl Fields for Status {
    fn write(&self, to: &mut Message<'_>) {
        match self {
            Self::Notification(n) => to.nested(1, |to| n.write(to)),
            Self::Delivery(d) => to.nested(2, |to| d.write(to)),
        }
    }
}

impl Fields for NotificationStatus {
    fn write(&self, to: &mut Message<'_>) {
        to.id(1, self.id.0);
        to.text(2, self.tenant.as_str());
        to.uint(3, self.recipients);
        to.maybe(4, self.category.as_ref().map(CategoryKey::as_str));
        to.uint(5, u8::from(self.priority));
        self.channels.iter().for_each(|channel| to.text(6, channel.as_str()));
        to.int(7, self.accepted_at.as_microsecond());
        to.int(8, us(self.expires_at));
        to.map(9, &self.metadata);
        to.maybe(10, self.template.as_deref());
    }
}

impl Fields for DeliveryStatus {
    fn write(&self, to: &mut Message<'_>) {
        to.id(1, self.id.0);
        to.id(2, self.notification.0);
        to.text(3, self.tenant.as_str());
        to.maybe(4, self.user.as_ref().map(UserId::as_str));
        to.text(5, &self.recipient_key);
        to.text(6, self.channel.as_str());
        to.maybe(7, self.address.as_deref());
        to.maybe(8, self.category.as_ref().map(CategoryKey::as_str));
        to.uint(9, u8::from(self.priority));
        to.text(10, self.state.as_str());
        to.maybe(11, self.reason.map(Reason::as_str));
        to.int(12, self.accepted_at.as_microsecond());
        to.int(13, self.updated_at.as_microsecond());
        to.map(14, &self.metadata);
        self.history.0.iter().for_each(|step| to.nested(15, |to| step.write(to)));
        to.maybe(16, self.template.as_deref());
        to.maybe(17, self.provider.as_deref());
        to.uint(18, self.leads);
    }
}

impl Fields for Plan {
    fn write(&self, to: &mut Message<'_>) {
        to.int(1, self.at.as_microsecond());
        self.lines.iter().for_each(|line| to.nested(2, |to| line.write(to)));
        to.int(3, self.accepted_at.as_microsecond());
    }
}

impl Fields for Planned {
    fn write(&self, to: &mut Message<'_>) {
        match self {
            Self::Send { channel, target, locale } => {
                to.text(1, channel.as_str());
                to.text(2, target.address.expose());
                to.int(3, us(target.since));
                to.maybe(4, target.app.as_deref());
                to.uint(5, target.environment == Environment::Sandbox);
                to.maybe(6, locale.as_ref().map(Locale::as_str));
            }
            Self::End { channel, state, reason } => {
                to.text(1, channel.as_str());
                to.text(7, state.as_str());
                to.text(8, reason.as_str());
            }
        }
    }
}

/// Zero stands for none.
fn us(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::as_microsecond)
}
