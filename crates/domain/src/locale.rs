//! Languages: the part of BCP 47 that phones, browsers and mail programs use.

use std::fmt;

/// A language tag: language, and optionally script and region, for instance `de`, `de-CH`, `zh-Hant-TW`. Kept as BCP 47
/// recommends to write it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Locale(std::sync::Arc<str>);

impl Locale {
    /// Checks a tag; `_` is taken for `-`, as some platforms write it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "a locale is a language with an optional script and region, like de, de-CH or zh-Hant-TW";
        if text.len() > 11 {
            return Err(WRONG.into());
        }
        let mut tags = text.split(['-', '_']).peekable();
        let alpha = |tag: &str| tag.bytes().all(|b| b.is_ascii_alphabetic());
        let language = tags.next().filter(|t| (2..=3).contains(&t.len()) && alpha(t)).ok_or(WRONG)?;
        let mut written = language.to_ascii_lowercase();
        if let Some(script) = tags.next_if(|t| t.len() == 4 && alpha(t)) {
            let (first, rest) = script.split_at(1);
            written += &format!("-{}{}", first.to_ascii_uppercase(), rest.to_ascii_lowercase());
        }
        let digits = |t: &str| t.len() == 3 && t.bytes().all(|b| b.is_ascii_digit());
        if let Some(region) = tags.next_if(|t| t.len() == 2 && alpha(t) || digits(t)) {
            written += &format!("-{}", region.to_ascii_uppercase());
        }
        tags.next().is_none().then(|| Self(written.into())).ok_or_else(|| WRONG.to_owned())
    }

    /// As BCP 47 writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag itself and what is left when its last part goes, one after the other: RFC 4647 "lookup".
    pub fn fallbacks(&self) -> impl Iterator<Item = Self> + use<> {
        std::iter::successors(Some(self.clone()), |l| l.0.rsplit_once('-').map(|(less, _)| Self(less.into())))
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Locale {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Locale> for String {
    fn from(locale: Locale) -> Self {
        locale.0.as_ref().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_written_one_way_and_fall_back() {
        let parse = |text| Locale::parse(text).map(String::from);
        assert_eq!(parse("DE_ch"), Ok("de-CH".into()));
        assert_eq!(parse("zh-hant-tw"), Ok("zh-Hant-TW".into()));
        assert_eq!(parse("es-419"), Ok("es-419".into()));
        for bad in ["", "d", "de-", "de-CHE", "1e", "de--CH", "german", "de-CH-x", "de\r\n", "zh-Hant-TW-x"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let chain: Vec<_> = Locale::parse("zh-Hant-TW").expect("valid").fallbacks().map(String::from).collect();
        assert_eq!(chain, ["zh-Hant-TW", "zh-Hant", "zh"]);
    }
}
