//! Where a template lies in the configuration.

use bus::config::Snapshot;
use domain::{
    TemplateKey, TemplateRef, TenantId,
    config::{EntryKey, Kind, Scope},
    template::{Template, Version},
};
use serde::Deserialize as _;

use crate::{
    auth::Caller,
    config,
    deliveries::Parameters,
    problem::{self, Problem},
};

/// A template's key and its owner.
pub(super) struct Place {
    pub(super) tenant: TenantId,
    pub(super) key: TemplateKey,
}

impl Place {
    /// Where the request points, as far as the caller may look.
    pub(super) fn new(caller: &Caller, key: &str, pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        caller.has(Scope::Operator)?;
        let mut parameters = Parameters::read(pairs, &["tenant"], &[]);
        let named = parameters.take("tenant", TenantId::parse);
        parameters.finish()?;
        let tenant = config::whose(caller, named)?;
        let key = TemplateKey::parse(key).map_err(|detail| Problem::field("", detail))?;
        Ok(Self { tenant, key })
    }

    /// The entry of the head.
    pub(super) fn head(&self) -> EntryKey {
        EntryKey { tenant: self.tenant.clone(), kind: Kind::Templates, name: self.key.to_string() }
    }

    /// The entry of a version.
    pub(super) fn entry(&self, version: &TemplateRef) -> EntryKey {
        EntryKey { name: version.to_string(), ..self.head() }
    }

    /// A version's name.
    pub(super) fn version(&self, version: u32) -> TemplateRef {
        TemplateRef { key: self.key.clone(), version }
    }

    /// Every version that there is, those without a head included.
    pub(super) fn versions<'a>(&self, config: &'a Snapshot) -> impl Iterator<Item = (TemplateRef, &'a EntryKey)> {
        let name = format!("{}@", self.key);
        let from = EntryKey { name: name.clone(), ..self.head() };
        let tenant = self.tenant.clone();
        let (kind, own) = (from.kind, move |at: &EntryKey| at.tenant == tenant && at.name.starts_with(&name));
        let entries = config.entries.range(from..).map(|(at, _)| at).take_while(move |at| at.kind == kind && own(at));
        entries.filter_map(|at| Some((TemplateRef::parse(&at.name).ok()?, at)))
    }

    /// What a version says.
    pub(super) fn says<'a>(&self, config: &'a Snapshot, version: u32) -> Option<&'a Template> {
        config.template_version(&self.tenant, &self.version(version)).map(|template| &**template)
    }

    /// The whole entry of a version.
    pub(super) fn read(&self, config: &Snapshot, version: u32) -> Option<Version> {
        // whatever is in a snapshot was parsed before
        Version::deserialize(&**config.entries.get(&self.entry(&self.version(version)))?).ok()
    }

    pub(super) fn not_found(&self) -> Problem {
        let detail = format!("there is no template `{0}`; PUT /v1/templates/{0} makes one", self.key);
        Problem::new(problem::Kind::NotFound, detail)
    }
}
