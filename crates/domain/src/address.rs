//! Where a channel reaches somebody. An address is personal data: it never shows in `Debug`, logs or metrics.

use crate::Channel;

/// A checked address on one channel.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(std::sync::Arc<str>);

impl Address {
    /// Checks the address by its channel's rules; the error says what is expected.
    pub fn parse(channel: Channel, text: &str) -> Result<Self, String> {
        channel.parse_address(text).map(|text| Self(text.into()))
    }

    /// The address itself, for the code that sends to it or stores it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What people may see: enough to recognise it, not enough to use it.
    pub fn masked(&self, channel: Channel) -> String {
        channel.mask(&self.0)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_normalised() {
        let good = Address::parse(Channel::Webhook, "https://EXAMPLE.com/hook?x=1").expect("valid");
        assert_eq!(good.expose(), "https://example.com/hook?x=1");
        assert_eq!(good.masked(Channel::Webhook), "https://example.com/…");
        assert_eq!(format!("{good:?}"), "Address(…)");
        let long = format!("https://a/{}", "x".repeat(2048));
        let grows = format!("https://a/{}", "ü".repeat(800));
        assert!(Address::parse(Channel::Webhook, &grows).is_err(), "what is kept has to parse again");
        for bad in
            ["", "example.com", "ftp://a/b", "https://u:p@a/", "https://a/#f", "https://a/ b", "https://a/\r\n", &long]
        {
            assert!(Address::parse(Channel::Webhook, bad).is_err(), "{bad}");
        }
    }
}
