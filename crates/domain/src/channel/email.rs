//! Mail: what a mailbox, an SMTP account and a mail's content are.

use serde_json::{Map, Value};

use crate::{FieldErrors, Secret};

/// A relay or submission server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// A name or an address.
    pub host: String,
    /// 587 unless it is said.
    #[serde(default = "submission")]
    pub port: u16,
    /// How the connection is encrypted.
    #[serde(default)]
    pub tls: Tls,
    /// For AUTH; with `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For AUTH; with `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// `a@example.com` or `Name <a@example.com>`.
    pub from: String,
    /// A mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// An `https` URL for one-click unsubscribing (RFC 8058); `{delivery}` and `{user}` in it are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_unsubscribe: Option<String>,
    /// Trusted certificates in PEM, instead of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The name in EHLO; the domain of `from` unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
}

const fn submission() -> u16 {
    587
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// From the first byte (port 465).
    Implicit,
    /// STARTTLS if the server offers it.
    Starttls,
    /// STARTTLS, or no mail.
    #[default]
    StarttlsRequired,
    /// Never.
    None,
}

impl Account {
    /// Checks what becomes a header or a command.
    pub fn check(&self) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::default();
        let name = |h: &str| (1..=253).contains(&h.len()) && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        if !name(&self.host) {
            errors.add("/host", "a host name or an address");
        }
        if self.helo.as_ref().is_some_and(|h| !name(h)) {
            errors.add("/helo", "a host name");
        }
        if self.username.is_some() != self.password.is_some() {
            errors.add("/username", "give `username` and `password`, or neither");
        }
        errors.take("/from", mailbox(&self.from));
        if let Some(reply_to) = &self.reply_to {
            errors.take("/reply_to", mailbox(reply_to));
        }
        let https = |u: &String| u.starts_with("https://") && u.len() <= 500 && u.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b));
        if self.list_unsubscribe.as_ref().is_some_and(|u| !https(u)) {
            errors.add("/list_unsubscribe", "an https:// URL; `{delivery}` and `{user}` in it are replaced");
        }
        errors.into_result()
    }
}

/// `a@b` or `Name <a@b>`: the name (empty if there is none) and the checked address.
pub fn mailbox(text: &str) -> Result<(String, String), String> {
    if text.chars().any(char::is_control) {
        return Err("a mailbox has no control characters".into());
    }
    match text.trim().strip_suffix('>').and_then(|t| t.rsplit_once('<')) {
        Some((name, of)) => Ok((name.trim().trim_matches('"').to_owned(), address(of.trim())?)),
        None => Ok((String::new(), address(text.trim())?)),
    }
}

/// Whether addresses come from devices.
pub const DEVICES: bool = false;

/// What the channel's own content may have.
pub const CONTENT: &[&str] = &["subject", "text", "html", "from_name", "reply_to"];

/// Checks that there is a body and that nothing breaks a header.
pub fn check_content(content: &Map<String, Value>, at: &str, errors: &mut FieldErrors) {
    for (key, value) in content {
        let pointer = format!("{at}/{key}");
        match value.as_str() {
            None => errors.add(pointer, "is a text"),
            Some(text) if key == "reply_to" => drop(errors.take(&pointer, mailbox(text))),
            Some(text) if !matches!(key.as_str(), "text" | "html") && (text.chars().any(char::is_control) || text.len() > 998) => {
                errors.add(pointer, "has at most 998 bytes, none of them a control character");
            }
            Some(_) => {}
        }
    }
    if !content.contains_key("text") && !content.contains_key("html") {
        errors.add(at, "a mail has `text` or `html`, or both");
    }
}

/// An address as RFC 5321 has it, without the forms that nobody uses and that are dangerous: quoted local parts, address
/// literals, a leading hyphen. The domain is kept in its ASCII form.
pub fn address(text: &str) -> Result<String, String> {
    const WRONG: &str = "not a mail address; it is like ana@example.com";
    let (local, domain) = text.rsplit_once('@').ok_or(WRONG)?;
    let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    let dots = |t: &str| t.starts_with('.') || t.ends_with('.') || t.contains("..");
    if local.is_empty() || local.len() > 64 || !local.bytes().all(atext) || dots(local) || local.starts_with('-') {
        return Err(WRONG.into());
    }
    // the parser of URLs knows how an international domain is written in ASCII
    let Ok(url::Host::Domain(domain)) = url::Host::parse(domain) else { return Err(WRONG.into()) };
    let label = |l: &str| (1..=63).contains(&l.len()) && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if domain.len() > 253 || !domain.contains('.') || !domain.split('.').all(label) {
        return Err(WRONG.into());
    }
    Ok(format!("{local}@{domain}"))
}

/// The first letter and the domain.
pub fn masked(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}…@{domain}", local.chars().next().unwrap_or('…')),
        None => "…".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(address("Ana.B+x@Example.COM").as_deref(), Ok("Ana.B+x@example.com"));
        assert_eq!(address("ana@bücher.example").as_deref(), Ok("ana@xn--bcher-kva.example"));
        for bad in ["", "ana", "@b.c", "a@", "-oX@d.com", "a@[127.0.0.1]", "a@localhost", "a@127.0.0.1", "a b@c.de", "a@b.c\r\nX:y", "\"a\"@b.c", "a..b@c.de", "ü@b.de", "a@b.c>"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(mailbox("Shop <no-reply@example.com>"), Ok(("Shop".into(), "no-reply@example.com".into())));
        assert!(mailbox("Bob\r\nBcc: x <a@b.de>").is_err());
        assert_eq!(masked("ana@example.com"), "a…@example.com");
    }
}
