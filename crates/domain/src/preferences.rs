//! What a user wants: the narrowest rule wins; what is not said is allowed, unless the category is opt-in.

use std::collections::BTreeMap;

use crate::{CategoryKey, Channel, FieldErrors, Reason, channel, content::escape};

/// A user's rules, as api.md writes them.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    /// For everything that no other rule speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// By channel or type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, bool>,
    /// By category.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub categories: BTreeMap<CategoryKey, CategoryRule>,
}

/// The rules of one category.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryRule {
    /// For the whole category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// By channel or type, in this category.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, bool>,
}

impl Preferences {
    /// Checks that every channel that is named exists in the contract.
    pub fn check(&self, at: &str) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::default();
        let mut names = |at: String, rules: &BTreeMap<String, bool>| {
            for name in rules.keys().filter(|n| !channel::is_name(n)) {
                errors.add(format!("{at}/{}", escape(name)), "no such channel or type");
            }
        };
        names(format!("{at}/channels"), &self.channels);
        for (category, rule) in &self.categories {
            names(format!("{at}/categories/{category}/channels"), &rule.channels);
        }
        if self.categories.len() > 200 {
            errors.add(format!("{at}/categories"), "at most 200 categories");
        }
        errors.into_result()
    }

    /// Whether a notification of this category may use this channel; if not, why.
    ///
    /// Category and channel together decide first. Then the category's own rule and the channel's own rule: either may
    /// forbid. Then `all`. An opt-in category needs a yes of its own.
    pub fn allows(&self, category: Option<&CategoryKey>, channel: Channel, opt_in: bool) -> Result<(), Reason> {
        let rule = category.and_then(|c| self.categories.get(c));
        if let Some(said) = rule.and_then(|r| by_channel(&r.channels, channel)) {
            return if said { Ok(()) } else { Err(Reason::OptedOutCategory) };
        }
        let of_category = rule.and_then(|r| r.all);
        let of_channel = by_channel(&self.channels, channel);
        match (of_category, of_channel) {
            (Some(false), _) => Err(Reason::OptedOutCategory),
            (_, Some(false)) => Err(Reason::OptedOutChannel),
            (Some(true), _) => Ok(()),
            (None, _) if opt_in => Err(Reason::NotOptedIn),
            (None, Some(true)) => Ok(()),
            (None, None) if self.all == Some(false) => Err(Reason::OptedOutAll),
            (None, None) => Ok(()),
        }
    }
}

/// The channel's own rule, else that of its type.
fn by_channel(rules: &BTreeMap<String, bool>, channel: Channel) -> Option<bool> {
    rules.get(channel.as_str()).or_else(|| rules.get(channel.channel_type().as_str())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_rule_wins() {
        let orders = CategoryKey::parse("orders").expect("valid");
        let allows = |json: &str, opt_in| {
            let p: Preferences = serde_json::from_str(json).expect("preferences");
            p.allows(Some(&orders), Channel::Webhook, opt_in).map_err(Reason::as_str)
        };
        assert_eq!(allows("{}", false), Ok(()));
        assert_eq!(allows(r#"{"all": false}"#, false), Err("opted_out_all"));
        assert_eq!(allows(r#"{"all": false, "channels": {"webhook": true}}"#, false), Ok(()));
        assert_eq!(allows(r#"{"all": false, "categories": {"orders": {"all": true}}}"#, false), Ok(()));
        assert_eq!(allows(r#"{"channels": {"webhook": false}}"#, false), Err("opted_out_channel"));
        assert_eq!(
            allows(r#"{"channels": {"chat": false}}"#, false),
            Err("opted_out_channel"),
            "the type speaks for it"
        );
        assert_eq!(
            allows(r#"{"channels": {"chat": false, "webhook": true}}"#, false),
            Ok(()),
            "narrower than its type"
        );
        assert_eq!(allows(r#"{"categories": {"orders": {"all": false}}}"#, false), Err("opted_out_category"));
        let both = r#"{"categories": {"orders": {"all": false, "channels": {"webhook": true}}}}"#;
        assert_eq!(allows(both, false), Ok(()));
        let deny = r#"{"channels": {"webhook": false}, "categories": {"orders": {"all": true}}}"#;
        assert_eq!(allows(deny, false), Err("opted_out_channel"), "of two rules as narrow, the no counts");
        assert_eq!(allows("{}", true), Err("not_opted_in"));
        assert_eq!(allows(r#"{"channels": {"webhook": true}}"#, true), Err("not_opted_in"));
        assert_eq!(allows(r#"{"categories": {"orders": {"channels": {"webhook": true}}}}"#, true), Ok(()));
    }

    #[test]
    fn names_are_checked() {
        let p: Preferences = serde_json::from_str(r#"{"channels": {"sms": false, "pigeon": true}}"#).expect("shape");
        let errors = p.check("").expect_err("pigeon");
        assert_eq!(errors.0[0].pointer, "/channels/pigeon");
        assert_eq!(errors.0.len(), 1, "sms is planned, and may be refused already");
    }
}
