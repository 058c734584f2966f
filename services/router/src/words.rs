//! What is said: the content of the request, or what its template makes of the data in the recipient's language.

use std::time::Duration;

use bus::config::Snapshot;
use domain::{Delivery, Locale, Message, Notification, Reason, State, TemplateRef, Timestamp};
use templates::{Cache, Limits};

/// The ingress has seen the version when it accepted the request; a router that is behind has it well within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The version is not in this router's configuration, and may still come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) TemplateRef);

#[derive(Default)]
pub(crate) struct Words(Cache);

impl Words {
    /// Gives the delivery its words, or fails it because they cannot be made. `wanted` are languages, the first that is known
    /// counts.
    pub(crate) fn put_into(
        &self,
        delivery: &mut Delivery,
        n: &Notification,
        snapshot: &Snapshot,
        wanted: [Option<&Locale>; 3],
    ) -> Result<(), Missing> {
        let Message::Template { template: version, data } = &n.message else { return Ok(()) };
        let wanted: Vec<_> = wanted.into_iter().flatten().collect();
        let rendered = match snapshot.template_version(&n.tenant, version) {
            Some(template) => self.0.get(template).map_err(|e| e.to_string()).and_then(|compiled| {
                let rendered = compiled.render(delivery.channel, &wanted, data, Limits::default());
                let rendered = rendered.map_err(|e| e.to_string())?;
                rendered.content.check("").map_err(|e| e.to_string())?;
                Ok(rendered)
            }),
            None if Timestamp::now().duration_since(n.accepted_at).unsigned_abs() < PATIENCE => {
                return Err(Missing(version.clone()));
            }
            None => Err("it was removed".to_owned()),
        };
        match rendered {
            Ok(rendered) => {
                delivery.content = rendered.content;
                delivery.locale = Some(rendered.locale);
            }
            Err(why) => {
                tracing::warn!(template = %version, delivery = %delivery.id, tenant = %n.tenant, why, "a template failed");
                if let Some(decision) = delivery.history.0.last_mut() {
                    (decision.state, decision.reason) = (State::Failed, Some(Reason::TemplateFailed));
                }
            }
        }
        Ok(())
    }
}
