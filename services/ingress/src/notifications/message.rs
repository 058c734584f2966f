//! What a notification says: content of its own, or what the published version of a template makes of its data.

use bus::config::Snapshot;
use domain::{
    Channel, Content, FieldErrors, Locale, Message, Selector, TemplateKey, TemplateRef, TenantId, template::Template,
};
use serde_json::{Map, Value};

/// The fields of a request that say it.
pub(super) struct Said {
    pub(super) template: Option<String>,
    pub(super) data: Option<Map<String, Value>>,
    pub(super) content: Option<Map<String, Value>>,
}

/// What it is checked against.
pub(super) struct Around<'a> {
    /// The request's own pointer.
    pub(super) at: &'a str,
    pub(super) tenant: &'a TenantId,
    pub(super) config: &'a Snapshot,
    /// Where it has to have something to say.
    pub(super) channels: &'a [Selector],
    pub(super) locale: Option<&'a Locale>,
}

/// The message, or what is wrong with it.
pub(super) fn parse(said: Said, around: &Around<'_>, errors: &mut FieldErrors) -> Option<Message> {
    let at = around.at;
    if said.template.is_some() && said.content.is_some() {
        errors.add(format!("{at}/content"), "give one of `template` and `content`, not both");
    }
    if said.template.is_none() && said.data.is_some() {
        errors.add(format!("{at}/data"), "`data` fills the variables of a `template`; there is none");
    }
    let given = said.content.is_some();
    let content = said.content.and_then(|raw| content(raw, around, errors)).map(Message::Content);
    match said.template {
        Some(key) => templated(&key, said.data.unwrap_or_default(), around, errors),
        None if given => content,
        None => {
            errors.add(format!("{at}/content"), "give `template`, or `content` with a `default` that has a `body`");
            None
        }
    }
}

fn content(raw: Map<String, Value>, around: &Around<'_>, errors: &mut FieldErrors) -> Option<Content> {
    let pointer = format!("{}/content", around.at);
    let content = Content::parse(raw, &pointer).map_err(|e| errors.0.extend(e.0)).ok()?;
    for channel in around.silent(|channel| content.covers(channel)) {
        errors.add(&pointer, format!("nothing to say on {channel}: give `default`, or `{channel}`"));
    }
    Some(content)
}

/// The version that is published at this moment is the one that is rendered, however late that is.
fn templated(key: &str, data: Map<String, Value>, around: &Around<'_>, errors: &mut FieldErrors) -> Option<Message> {
    let (at, tenant) = (around.at, around.tenant);
    let pointer = format!("{at}/template");
    let key = errors.take(&pointer, TemplateKey::parse(key))?;
    let Some(head) = around.config.template(tenant, &key) else {
        errors.add(pointer, format!("there is no template `{key}`; PUT /v1/templates/{key} makes one"));
        return None;
    };
    let published = head.published.map(|version| TemplateRef { key: key.clone(), version });
    let found = published.and_then(|p| Some((around.config.template_version(tenant, &p)?, p)));
    let Some((template, version)) = found else {
        let detail =
            format!("no version of `{key}` is published; POST /v1/templates/{key}/publish publishes its draft");
        errors.add(pointer, detail);
        return None;
    };
    for channel in around.silent(|channel| speaks(template, channel, around.locale)) {
        let locale = &template.default_locale;
        errors.add(&pointer, format!("the template says nothing on {channel} in its default locale, {locale}"));
    }
    templates::check_data(template, &data, &format!("{at}/data")).map_err(|e| errors.0.extend(e.0)).ok()?;
    Some(Message::Template { template: version, data })
}

/// Whether everybody gets something there, whatever they read.
fn speaks(template: &Template, channel: Channel, locale: Option<&Locale>) -> bool {
    let wanted = locale.into_iter().flat_map(Locale::fallbacks).chain([template.default_locale.clone()]);
    wanted.filter_map(|l| template.contents.get(&l)).any(|content| content.covers(channel))
}

impl Around<'_> {
    fn silent(&self, covers: impl Fn(Channel) -> bool) -> Vec<Channel> {
        let mut silent: Vec<_> = self.channels.iter().flat_map(|s| s.channels()).filter(|c| !covers(*c)).collect();
        silent.sort_unstable();
        silent.dedup();
        silent
    }
}
