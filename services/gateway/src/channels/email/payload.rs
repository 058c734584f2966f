//! A delivery as a MIME message, ready for the wire. `lettre` writes it, between fences: it panics on some names, lets some
//! control characters through, and what it lets through could be another header, recipient or command.

use std::panic::{AssertUnwindSafe, catch_unwind};

use domain::{
    Address, Channel, Delivery,
    channel::email::{self, Account},
};
use lettre::message::{
    Body, Mailbox, Message, MessageBuilder, MultiPart, SinglePart,
    header::{ContentTransferEncoding, HeaderName, HeaderValue},
};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

/// Every header that a message of ours can have, each at most once.
const HEADERS: [&str; 12] = [
    "Date",
    "From",
    "To",
    "Reply-To",
    "Subject",
    "Message-ID",
    "Auto-Submitted",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// Bytes of a line, without its end (RFC 5321).
const LINE: usize = 998;
/// Characters of a subject that is made from a body.
const SUBJECT: usize = 78;

/// A message and its envelope; all of it is ASCII, so that no server needs 8BITMIME or SMTPUTF8.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) from: String,
    pub(super) to: String,
    /// Bytes of the message, for SIZE.
    pub(super) size: usize,
    /// Dot-stuffed, with the final dot.
    pub(super) data: Vec<u8>,
}

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsendable {
    /// This content will never be one.
    Content(&'static str),
    /// The account has to be corrected.
    Account(&'static str),
}
use Unsendable::Content as Bad;

const UNWRITABLE: Unsendable = Bad("the message cannot be written");

/// The same bytes in every attempt.
pub(super) fn mail(d: &Delivery, to: &Address, account: &Account) -> Result<Mail, Unsendable> {
    let (_, from) = email::mailbox(&account.from).map_err(|_| Unsendable::Account("`from` is no mailbox"))?;
    let bytes = fenced(|| {
        let message = headers(d, to, account)?;
        let message = match texts(d) {
            (Some(text), Some(html)) => {
                // the same in every attempt, and no content can hold a hash of itself
                let boundary = Uuid::new_v5(&d.id.0, [text, html].concat().as_bytes()).simple().to_string();
                let (text, html) = (part(text, SinglePart::plain), part(html, SinglePart::html));
                message.multipart(MultiPart::alternative().boundary(boundary).singlepart(text).singlepart(html))
            }
            (Some(text), None) => message.singlepart(part(text, SinglePart::plain)),
            (None, Some(html)) => message.singlepart(part(html, SinglePart::html)),
            (None, None) => return Err(Bad("there is neither `text` nor `html`")),
        };
        Ok(message.map_err(|_| UNWRITABLE)?.formatted())
    })?;
    check(&bytes)?;
    Ok(Mail { from, to: to.expose().to_owned(), size: bytes.len(), data: stuffed(&bytes) })
}

fn headers(d: &Delivery, to: &Address, account: &Account) -> Result<MessageBuilder, Unsendable> {
    let (name, from) = email::mailbox(&account.from).map_err(|_| Unsendable::Account("`from` is no mailbox"))?;
    let from = mailbox(own(d, "from_name").unwrap_or(&name), &from)?;
    let id = format!("<{}@{}>", d.id, from.email.domain());
    let mut message = Message::builder()
        .date(d.accepted_at.into())
        .raw_header(header("Message-ID", id)?)
        .raw_header(header("Auto-Submitted", "auto-generated".to_owned())?)
        .from(from)
        .to(mailbox("", to.expose())?);
    let reply_to = match (own(d, "reply_to"), &account.reply_to) {
        (Some(text), _) => Some((text, Bad("`reply_to` is no mailbox"))),
        (None, Some(text)) => Some((text.as_str(), Unsendable::Account("`reply_to` is no mailbox"))),
        (None, None) => None,
    };
    if let Some((text, wrong)) = reply_to {
        let (name, address) = email::mailbox(text).map_err(|_| wrong)?;
        message = message.reply_to(mailbox(&name, &address)?);
    }
    let subject = subject(d);
    if !subject.is_empty() {
        message = message.raw_header(header("Subject", subject)?);
    }
    if let Some(template) = &account.list_unsubscribe {
        message = message
            .raw_header(header("List-Unsubscribe", format!("<{}>", unsubscribe(template, d)?))?)
            .raw_header(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned())?);
    }
    Ok(message)
}

/// A field of the channel's own content.
fn own<'a>(d: &'a Delivery, key: &str) -> Option<&'a str> {
    d.content.own(Channel::Email)?.get(key)?.as_str()
}

/// Text and HTML. What the channel says of its own stands instead of the default.
fn texts(d: &Delivery) -> (Option<&str>, Option<&str>) {
    match d.content.own(Channel::Email) {
        Some(_) => (own(d, "text"), own(d, "html")),
        None => (d.content.default.as_ref().map(|t| t.body.as_str()), None),
    }
}

/// Runs what may panic. The panic is in the log; what caused it is gone with this message.
fn fenced<T>(write: impl FnOnce() -> Result<T, Unsendable>) -> Result<T, Unsendable> {
    catch_unwind(AssertUnwindSafe(write)).unwrap_or(Err(UNWRITABLE))
}

/// The own subject, the title, or the beginning of the body.
fn subject(d: &Delivery) -> String {
    let title = || d.content.default.as_ref().map(|t| t.title.as_str());
    if let Some(subject) = own(d, "subject").or_else(title).filter(|s| !s.trim_matches(' ').is_empty()) {
        return subject.to_owned();
    }
    let body = texts(d).0.unwrap_or_default();
    let text: String = body.chars().map(|c| if is_break(c) { ' ' } else { c }).take(4 * SUBJECT).collect();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(SUBJECT).collect()
}

/// What could end a header, a name or a line.
fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A header's value; `lettre` encodes and folds it.
fn header(name: &'static str, value: String) -> Result<HeaderValue, Unsendable> {
    clean(&value)?;
    Ok(HeaderValue::new(HeaderName::new_from_ascii_str(name), value))
}

fn mailbox(name: &str, address: &str) -> Result<Mailbox, Unsendable> {
    let name = Some(clean(name)?.trim().to_owned()).filter(|name| !name.is_empty());
    // checked where it came from; it becomes a command's argument here
    let address = email::address(address).map_err(|_| Bad("an address is none"))?;
    let (user, domain) = address.rsplit_once('@').ok_or(Bad("an address is none"))?;
    let address = lettre::Address::new(user, domain).map_err(|_| Bad("an address is none"))?;
    Ok(Mailbox::new(name, address))
}

fn clean(text: &str) -> Result<&str, Unsendable> {
    if text.chars().any(is_break) {
        return Err(Bad("a name, subject or header holds a control character"));
    }
    Ok(text)
}

fn part(text: &str, kind: fn(Body) -> SinglePart) -> SinglePart {
    let text = with_crlf(text);
    // 7bit cannot carry them
    let odd = text.chars().any(|c| c.is_control() && !matches!(c, '\r' | '\n' | '\t'));
    if odd && let Ok(body) = Body::new_with_encoding(text.clone(), ContentTransferEncoding::QuotedPrintable) {
        return kind(body);
    }
    kind(Body::new(text))
}

/// Every kind of line end as CRLF.
fn with_crlf(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() + text.len() / 32);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                lines.push_str("\r\n");
            }
            '\n' => lines.push_str("\r\n"),
            c => lines.push(c),
        }
    }
    lines
}

/// The account's URL with its placeholders replaced; for a recipient that is no user, `{user}` is empty.
fn unsubscribe(template: &str, d: &Delivery) -> Result<String, Unsendable> {
    const WRONG: Unsendable = Unsendable::Account("`list_unsubscribe` is no https URL");
    let user = d.recipient.user().map_or("", domain::UserId::as_str);
    let text = template.replace("{delivery}", &d.id.to_string()).replace("{user}", &percent_encoded(user));
    let url = Url::parse(&text).map_err(|_| WRONG)?;
    if url.scheme() == "https" && !url.as_str().contains(['<', '>']) { Ok(url.into()) } else { Err(WRONG) }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The last fence: whatever wrote it, a message has our headers once, short lines that end with CRLF, and ASCII.
fn check(message: &[u8]) -> Result<(), Unsendable> {
    let text = std::str::from_utf8(message).ok().filter(|t| t.is_ascii()).ok_or(Bad("the message is not ASCII"))?;
    let mut seen = Vec::new();
    let mut in_headers = true;
    for line in text.strip_suffix("\r\n").ok_or(Bad("the message has no end"))?.split("\r\n") {
        if line.contains(['\r', '\n', '\0']) {
            return Err(Bad("the message holds a bare line end"));
        }
        if line.len() > LINE {
            return Err(Bad("a line of the message is too long"));
        }
        in_headers &= !line.is_empty();
        if in_headers && !line.starts_with([' ', '\t']) {
            let name = line.split_once(':').map_or("", |(name, _)| name);
            if !HEADERS.contains(&name) || seen.contains(&name) {
                return Err(Bad("the message holds an unexpected header"));
            }
            seen.push(name);
        }
    }
    Ok(())
}

/// RFC 5321 4.5.2: a line that begins with a dot gets another one; a dot alone ends the message.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(message.len() + message.len() / 64 + 3);
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            data.push(b'.');
        }
        data.extend_from_slice(line);
    }
    data.extend_from_slice(b".\r\n");
    data
}

/// Whether an answer repeats content: then it must not get into the trace.
pub(super) fn repeats(answer: &str, d: &Delivery) -> bool {
    let mut sent = Vec::new();
    if let Some(text) = &d.content.default {
        sent.extend([text.title.as_str(), text.body.as_str()]);
    }
    if let Some(own) = d.content.own(Channel::Email) {
        sent.extend(own.values().filter_map(Value::as_str));
    }
    sent.into_iter().any(|text| {
        // the beginning tells enough, and an answer may have been cut
        let beginning: String = text.trim().chars().take(24).collect();
        beginning.chars().count() >= 6 && answer.contains(&beginning)
    })
}

#[cfg(test)]
mod tests {
    use domain::{
        Notification, NotificationId, Priority, Recipient, Selector, State, Strategy as All, Target, TenantId,
        Timestamp, UserId,
    };
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn delivery(content: &Value) -> Delivery {
        let now: Timestamp = "2026-11-21T09:00:00Z".parse().expect("time");
        let notification = Notification {
            id: NotificationId(Uuid::from_u128(7)),
            tenant: TenantId::parse("acme").expect("valid"),
            recipient: Recipient::User(UserId::parse("ana:1+b").expect("valid")),
            category: None,
            priority: Priority::default(),
            channels: vec![Selector::Channel(Channel::Email)],
            strategy: All::All,
            message: domain::Message::Content(serde_json::from_value(content.clone()).expect("content")),
            locale: None,
            expires_at: None,
            collapse_key: None,
            metadata: [].into(),
            accepted_at: now,
        };
        Delivery::begin(&notification, Channel::Email, Some(Target::raw(to())), now, State::Queued, None)
    }

    fn to() -> Address {
        Address::parse(Channel::Email, "ana@example.net").expect("valid")
    }

    fn account(extra: Value) -> Account {
        let mut account = json!({"host": "mx.example.com", "from": "Shop <no-reply@example.com>"});
        account.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        serde_json::from_value(account).expect("an account")
    }

    /// The message without what the wire adds.
    fn written(d: &Delivery, account: &Account) -> Result<String, Unsendable> {
        let mail = mail(d, &to(), account)?;
        let data = String::from_utf8(mail.data).expect("ASCII");
        let message = data.strip_suffix(".\r\n").expect("a final dot").replace("\r\n..", "\r\n.");
        assert_eq!(message.len(), mail.size);
        Ok(message)
    }

    #[test]
    fn a_message_has_what_mail_needs_and_is_the_same_in_every_attempt() {
        let full = account(json!({
            "reply_to": "help@example.com", "list_unsubscribe": "https://u.example.com/{user}?d={delivery}",
        }));
        let d = delivery(&json!({"email": {
            "subject": "Grüße", "text": "Hi\n.\nThere", "html": "<p>Hi\r\rthere</p>", "from_name": "Ümlaut, Inc.",
        }}));
        let first = written(&d, &full).expect("a message");
        assert_eq!(written(&d, &full).as_ref(), Ok(&first));
        let id = d.id;
        let boundary = Uuid::new_v5(&id.0, "Hi\n.\nThere<p>Hi\r\rthere</p>".as_bytes()).simple();
        assert_eq!(
            first,
            format!(
                "Date: Sat, 21 Nov 2026 09:00:00 +0000\r\n\
            Message-ID: <{id}@example.com>\r\n\
            Auto-Submitted: auto-generated\r\n\
            From: =?utf-8?b?w5xtbGF1dCwgSW5jLg==?= <no-reply@example.com>\r\n\
            To: ana@example.net\r\n\
            Reply-To: help@example.com\r\n\
            Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\
            List-Unsubscribe: <https://u.example.com/ana%3A1%2Bb?d={id}>\r\n\
            List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\
            MIME-Version: 1.0\r\n\
            Content-Type: multipart/alternative;\r\n boundary=\"{boundary}\"\r\n\r\n\
            --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
            Hi\r\n.\r\nThere\r\n\
            --{boundary}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
            <p>Hi\r\n\r\nthere</p>\r\n\
            --{boundary}--\r\n"
            )
        );
    }

    #[test]
    fn a_default_text_is_a_mail_too() {
        let titled =
            written(&delivery(&json!({"default": {"title": "Shipped", "body": "On its way"}})), &account(json!({})));
        let titled = titled.expect("a message");
        assert!(titled.contains("Subject: Shipped\r\n") && titled.ends_with("\r\n\r\nOn its way\r\n"), "{titled}");
        let body = format!("One\r\ntwo\u{0}\u{2028}{}", "x".repeat(100));
        let untitled = written(&delivery(&json!({"default": {"body": body}})), &account(json!({}))).expect("a message");
        assert!(untitled.contains(&format!("Subject: One two\r\n {}\r\n", "x".repeat(SUBJECT - 8))), "{untitled}");
        assert!(untitled.contains("quoted-printable\r\n\r\nOne\r\ntwo=00=E2=80=A8xxx"), "{untitled}");
    }

    /// Row 40 of the catalogue (reliability.md, section 7): every name, subject, header and address, and the body.
    #[test]
    fn what_could_inject_is_refused() {
        let plain = account(json!({}));
        for (key, text) in [
            ("from_name", "Bob\r\nBcc: eve@example.org"),
            ("from_name", "Bob\0"),
            ("from_name", "Bob\u{2028}x"),
            ("subject", "a\r\nBcc: eve@example.org"),
            ("subject", "a\nb"),
            ("subject", "a\u{7f}b"),
            ("subject", "\u{85}"),
            ("reply_to", "a@example.com, eve@example.org"),
            ("reply_to", "a@example.com\r\nBcc: eve@example.org"),
            ("reply_to", "-oX@example.com"),
            ("reply_to", "a@[127.0.0.1]"),
            ("reply_to", ""),
            ("subject", &"x".repeat(2_000)),
        ] {
            let d = delivery(&json!({"email": {"text": "x", key: text}}));
            assert!(matches!(written(&d, &plain), Err(Bad(_))), "{key} {text:?}");
        }
        assert!(written(&delivery(&json!({"email": {"subject": "x"}})), &plain).is_err(), "nothing to say");
        let d = delivery(&json!({"default": {"body": "x"}}));
        for wrong in [
            json!({"from": "nobody"}),
            json!({"from": "a\r\n@example.com"}),
            json!({"reply_to": "x"}),
            json!({"list_unsubscribe": "http://u.example.com/"}),
            json!({"list_unsubscribe": "x>, <mailto:a@b.c"}),
        ] {
            assert!(matches!(written(&d, &account(wrong.clone())), Err(Unsendable::Account(_))), "{wrong}");
        }
        let smuggled = "x\r\n.\r\nMAIL FROM:<eve@example.org>\r.\r\n.\n.\r";
        let mail = mail(&delivery(&json!({"default": {"body": smuggled}})), &to(), &plain).expect("a message");
        let data = String::from_utf8(mail.data).expect("ASCII");
        assert!(
            data.ends_with("\r\n\r\nx\r\n..\r\nMAIL FROM:<eve@example.org>\r\n..\r\n..\r\n..\r\n\r\n.\r\n"),
            "{data:?}"
        );
    }

    /// Row 40: a panic of `lettre` stays here, and what slips through it is still no message.
    #[test]
    fn the_fences_hold_without_each_other() {
        let address = lettre::Address::new("a", "example.com").expect("valid");
        let panics = || {
            let mailbox = Mailbox::new(Some("Bob\r\nBcc: eve@example.org".to_owned()), address.clone());
            Ok(Message::builder()
                .from(mailbox)
                .to(address.clone().into())
                .body(String::new())
                .map_err(|_| UNWRITABLE)?
                .formatted())
        };
        assert_eq!(fenced(panics), Err(UNWRITABLE), "lettre panics on this name");
        let long = format!("To: a\r\n\r\n{}\r\n", "x".repeat(LINE + 1));
        for wrong in [
            "To: a\r\nTo: b\r\n\r\nx\r\n",
            "To: a\r\nBcc: b\r\n\r\nx\r\n",
            "x\r\n",
            "To: a\r\n\r\nx",
            "To: a\r\n\r\nx\ry\r\n",
            "To: a\r\n\r\nx\ny\r\n",
            "To: a\nBcc: b\r\n\r\nx\r\n",
            "To: a\r\n\r\nx\0\r\n",
            "To: \u{fc}\r\n\r\nx\r\n",
            &long,
        ] {
            assert!(check(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert_eq!(check(b"To: a\r\n b\r\nFrom: c\r\n\r\nBcc: fine here\r\n"), Ok(()));
    }

    #[test]
    fn an_answer_that_repeats_content_is_noticed() {
        let d = delivery(&json!({"email": {"subject": "Your code", "text": "It is 123456 and secret for now"}}));
        assert!(repeats("554 spam: Your code", &d) && repeats("> It is 123456 and secret …", &d));
        assert!(!repeats("554 your reputation", &d));
    }

    fn odd() -> impl Strategy<Value = String> {
        let nasty = prop::sample::select(vec![
            "\r",
            "\n",
            "\r\n",
            "\0",
            ".",
            "\r\n.\r\n",
            "Bcc: eve@example.org",
            "<",
            ">",
            "\"",
            "\\",
            ",",
            ";",
            ":",
            "@",
            "=?utf-8?q?=0D=0A?=",
            "=",
            "ä",
            "\u{2028}",
            "\u{85}",
            "\u{feff}",
            " ",
            "\t",
            "x",
            "( )",
            "漢字",
            "\u{1f514}",
        ]);
        prop_oneof![any::<String>(), prop::collection::vec(nasty, 0..20).prop_map(|parts| parts.concat())]
    }

    proptest! {
        #[test]
        fn whatever_is_said_one_recipient_gets_one_message(
            name in odd(), subject in odd(), text in odd(), html in prop::option::of(odd()), many in 1_usize..40,
            reply_to in prop::option::of(odd()), user in "[A-Za-z0-9._~@:+-]{1,20}",
        ) {
            let mut own = json!({"from_name": name, "subject": subject, "text": text.repeat(many)});
            if let Some(html) = &html {
                own["html"] = html.repeat(many).into();
            }
            if let Some(reply_to) = &reply_to {
                own["reply_to"] = format!("{reply_to} <help@example.com>").into();
            }
            let mut d = delivery(&json!({"email": own}));
            d.recipient = Recipient::User(UserId::parse(&user).expect("valid"));
            let account = account(json!({"list_unsubscribe": "https://u.example.com/{user}/{delivery}"}));
            let reply_to = reply_to.unwrap_or_default();
            let headers_are_clean = [name.as_str(), &subject, reply_to.trim()].into_iter().all(|t| clean(t).is_ok())
                && !reply_to.contains(char::is_control);
            let mail = match mail(&d, &to(), &account) {
                Ok(mail) => mail,
                Err(error) => {
                    prop_assert!(!headers_are_clean, "{error:?}");
                    return Ok(());
                }
            };
            prop_assert!(headers_are_clean);
            let data = std::str::from_utf8(&mail.data).expect("ASCII");
            let lines: Vec<_> = data.split("\r\n").collect();
            let (end, message) = lines.split_last_chunk::<2>().map(|(m, end)| (end, m)).expect("two lines");
            prop_assert_eq!(end, &[".", ""]);
            for line in message {
                prop_assert!(!line.contains(['\r', '\n', '\0']) && *line != "." && line.len() <= 999 && line.is_ascii());
            }
            let headers: Vec<_> = message.iter().take_while(|l| !l.is_empty()).filter(|l| !l.starts_with([' ', '\t'])).collect();
            let to: Vec<_> = headers.iter().filter(|h| h.starts_with("To:")).collect();
            prop_assert_eq!(to, [&&"To: ana@example.net"]);
            prop_assert!(headers.iter().all(|h| HEADERS.contains(&h.split_once(':').expect("a header").0)));
            prop_assert_eq!(headers.iter().filter(|h| h.starts_with("From:")).count(), 1);
        }
    }
}
