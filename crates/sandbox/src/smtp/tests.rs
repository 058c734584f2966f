//! Sessions without a socket: bytes in, replies and the next step out.

use std::time::Duration;

use domain::Secret;

use super::{
    command::MAX_LINE,
    message::MAX_SIZE,
    session::{Session, Step},
};
use crate::{Reception, Running, Sandbox, SandboxSettings};

/// `\0carillon\0a password of the tests`, and its parts.
const PLAIN: &str = "AGNhcmlsbG9uAGEgcGFzc3dvcmQgb2YgdGhlIHRlc3Rz";
const USER: &str = "Y2FyaWxsb24=";
const PASSWORD: &str = "YSBwYXNzd29yZCBvZiB0aGUgdGVzdHM=";

struct Talk {
    running: Running,
    session: Session,
}

impl Talk {
    /// In the clear, before EHLO.
    async fn new() -> Self {
        let secret = Secret::new(format!("whsec_{}", "QUJD".repeat(10)));
        let running = Sandbox::start(SandboxSettings::local(secret)).await.expect("started");
        let session = Session::new(running.shared.clone(), std::sync::Arc::default(), 7);
        Self { running, session }
    }

    /// Encrypted and logged in.
    async fn ready() -> Self {
        let mut talk = Self::new().await;
        talk.session.secured();
        talk.say("EHLO gw.example.com\r\n");
        assert_eq!(talk.codes(&format!("AUTH PLAIN {PLAIN}\r\n")), "235");
        talk
    }

    fn feed(&mut self, bytes: &[u8]) -> (String, Step) {
        self.session.input.extend_from_slice(bytes);
        let step = self.session.step();
        (String::from_utf8_lossy(&std::mem::take(&mut self.session.out)).into_owned(), step)
    }

    fn say(&mut self, text: &str) -> (String, Step) {
        self.feed(text.as_bytes())
    }

    /// The codes of all replies, and the next step unless it is to read on.
    fn codes(&mut self, text: &str) -> String {
        let (replies, step) = self.say(text);
        let mut codes: Vec<_> =
            replies.lines().filter(|l| l.get(3..4) == Some(" ")).map(|l| l[..3].to_owned()).collect();
        if step != Step::Read {
            codes.push(format!("{step:?}"));
        }
        codes.join(" ")
    }

    /// One mail to one recipient: all that comes back from MAIL to the final dot.
    fn mail(&mut self, to: &str, id: &str) -> String {
        let begun = self.codes(&format!("MAIL FROM:<b@example.com>\r\nRCPT TO:<{to}>\r\nDATA\r\n"));
        if !begun.ends_with("354") {
            self.say("RSET\r\n");
            return begun;
        }
        format!("{begun} {}", self.codes(&format!("{}.\r\n", message(id))))
    }

    fn received(&self) -> Vec<Reception> {
        self.running.received("").expect("receptions")
    }
}

fn message(id: &str) -> String {
    format!(
        "From: b@example.com\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{id}@example.com>\r\n\r\nhello\r\n"
    )
}

#[tokio::test]
async fn nothing_goes_before_tls_and_authentication_and_nothing_is_kept_from_before() {
    let mut talk = Talk::new().await;
    assert_eq!(talk.codes("MAIL FROM:<b@example.com>\r\n"), "503");
    assert_eq!(talk.codes("STARTTLS\r\n"), "503");
    let (ehlo, _) = talk.say("EHLO gw.example.com\r\n");
    assert!(ehlo.contains("250-STARTTLS\r\n") && !ehlo.contains("AUTH"), "{ehlo}");
    assert!(ehlo.ends_with("\r\n250 CHUNKING\r\n"), "{ehlo}");
    let (refused, _) = talk.say(&format!("AUTH PLAIN {PLAIN}\r\n"));
    assert!(refused.starts_with("538 5.7.11 "), "{refused}");
    let (refused, _) = talk.say("MAIL FROM:<b@example.com>\r\n");
    assert!(refused.starts_with("530 5.7.0 must issue a STARTTLS"), "{refused}");
    assert_eq!(talk.say("STARTTLS\r\n"), ("220 2.0.0 go ahead\r\n".to_owned(), Step::Secure));

    talk.session.secured();
    assert_eq!(talk.codes("MAIL FROM:<b@example.com>\r\n"), "503");
    let (ehlo, _) = talk.say("EHLO gw.example.com\r\n");
    assert!(!ehlo.contains("STARTTLS") && ehlo.contains("250-AUTH PLAIN LOGIN\r\n"), "{ehlo}");
    for (line, expected) in [
        ("STARTTLS", "503"),
        ("MAIL FROM:<b@example.com>", "530"),
        ("AUTH CRAM-MD5", "504"),
        ("AUTH PLAIN AGFuYQB3cm9uZw==", "535"),
        ("AUTH PLAIN %%%", "501"),
        ("AUTH PLAIN AGFuYQ==", "501"),
        ("AUTH LOGIN", "334"),
        ("*", "501"),
        ("AUTH LOGIN", "334"),
        (USER, "334"),
        (PASSWORD, "235"),
        ("AUTH LOGIN", "503"),
        ("MAIL FROM:<b@example.com>", "250"),
        ("MAIL FROM:<b@example.com>", "503"),
    ] {
        assert_eq!(talk.codes(&format!("{line}\r\n")), expected, "{line}");
    }

    let mut talk = Talk::new().await;
    talk.session.secured();
    talk.say("EHLO gw.example.com\r\n");
    assert_eq!(talk.say("AUTH PLAIN\r\n").0, "334 \r\n");
    assert_eq!(talk.codes(&format!("{PLAIN}\r\n")), "235");
    let mut talk = Talk::new().await;
    talk.session.secured();
    talk.say("EHLO gw.example.com\r\n");
    for expected in ["535", "535", "535", "421 Close"] {
        assert_eq!(talk.codes("AUTH PLAIN AGFuYQB3cm9uZw==\r\n"), expected);
    }
}

#[tokio::test]
async fn a_session_in_the_smallest_pieces_is_the_same_session() {
    let groups = [
        "MAIL FROM:<b@example.com>\r\nRCPT TO:<ana@example.com>\r\nRCPT TO:<u550@example.com>\r\nDATA\r\n".to_owned(),
        format!(
            "{}..\r\n.dot\r\n.\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nBDAT {}\r\n{}",
            message("1"),
            message("2").len(),
            message("2")
        ),
        "BDAT 5 LAST\r\n.\r\n..MAIL FROM:<b@example.com>\r\nRCPT TO:<u551@example.com>\r\nDATA\r\n".to_owned(),
    ];
    let mut all = Vec::new();
    for size in [usize::MAX, 1, 2, 7] {
        let mut talk = Talk::ready().await;
        let mut replies = String::new();
        for piece in groups.iter().flat_map(|g| g.as_bytes().chunks(size.min(g.len()))) {
            let (reply, step) = talk.feed(piece);
            assert_eq!(step, Step::Read);
            replies += &reply;
        }
        let received: Vec<_> =
            talk.received().into_iter().map(|r| (r.path, r.id, r.answered, r.verified, r.body)).collect();
        all.push((replies, received));
    }
    assert!(all.iter().all(|one| *one == all[0]), "{all:#?}");
    let (replies, received) = &all[0];
    let codes: Vec<_> = replies.lines().map(|l| &l[..3]).collect();
    assert_eq!(codes.join(" "), "250 250 550 354 250 250 250 250 250 250 250 551 554");
    let told: Vec<_> =
        received.iter().map(|(path, id, answered, ..)| (path.as_str(), id.as_deref(), *answered)).collect();
    assert_eq!(
        told,
        [
            ("u550@example.com", None, Some(550)),
            ("ana@example.com", Some("<1@example.com>"), Some(250)),
            ("bob@example.com", Some("<2@example.com>"), Some(250)),
            ("u551@example.com", None, Some(551)),
        ]
    );
    assert_eq!(received[1].4, format!("{}.\r\ndot\r\n", message("1")), "the stuffing is taken off");
    assert_eq!(received[2].4, format!("{}.\r\n..", message("2")), "BDAT has none");
}

#[tokio::test]
async fn local_parts_do_what_the_readme_says() {
    let mut talk = Talk::ready().await;
    for (local, expected) in [
        ("ana", "250 250 354 250"),
        ("u550", "250 550 554"),
        ("u551", "250 551 554"),
        ("u553+x", "250 553 554"),
        ("full", "250 552 554"),
        ("size", "250 552 554"),
        ("noenh550", "250 550 554"),
        ("multi550", "250 550 554"),
        ("garbage550", "250 550 554"),
        ("rcpt452-4.5.3", "250 452 554"),
        ("rcpt251", "250 251 354 250"),
        ("data552-5.2.3", "250 250 354 552"),
        ("spam", "250 250 354 554"),
        ("big", "250 250 354 552"),
        ("noenh", "250 250 354 250"),
        ("multi", "250 250 354 250"),
        ("garbage", "250 250 354 250"),
        ("nonsense", "250 250 354 "),
        ("flood", "250 250 354 250"),
        ("twohundred", "250 250 354 200"),
    ] {
        assert_eq!(talk.mail(&format!("{local}@example.com"), local), expected, "{local}");
    }
    // everything but the words of the addresses was right
    assert!(talk.received().iter().all(|r| r.verified && r.problem.is_none()));

    for (local, code, step) in [
        ("hang", None, Step::Hang),
        ("drop", None, Step::Cut),
        ("dropbefore", None, Step::Cut),
        ("data421", Some(421), Step::Close),
        ("slow250", Some(250), Step::Wait(Duration::from_millis(250))),
        ("drip5", Some(250), Step::Drip(b"250 2.0.0 Ok: queued\r\n".to_vec(), Duration::from_millis(5))),
    ] {
        let mut talk = Talk::ready().await;
        talk.say(&format!("MAIL FROM:<b@example.com>\r\nRCPT TO:<{local}@example.com>\r\nDATA\r\n"));
        let (reply, did) = talk.say(&format!("{}.\r\n", message("1")));
        assert_eq!((reply.is_empty(), did), (code != Some(421), step), "{local}");
        let received = talk.received();
        assert_eq!((received.len(), received[0].answered), (1, code), "{local}");
        assert_eq!(received[0].body.is_empty(), local == "dropbefore");
    }
    let mut talk = Talk::ready().await;
    let mail = "MAIL FROM:<b@example.com>\r\nRCPT TO:<defer421@example.com>\r\nDATA\r\n";
    assert_eq!(talk.codes(mail), "250 421 Close", "what follows is not looked at");
}

#[tokio::test]
async fn the_first_times_are_counted_for_each_mail() {
    let mut talk = Talk::ready().await;
    for expected in ["250 450 554", "250 250 354 250", "250 450 554", "250 250 354 250"] {
        assert_eq!(talk.mail("grey@example.com", "1"), expected);
    }
    let refused = format!("{}x\r\n", "MAIL FROM:<b@example.com> ENVID=");
    for (id, expected) in [("1", "450"), ("2", "450"), ("1", "250"), ("2", "250")] {
        let begun = refused.replace('x', id) + "RCPT TO:<grey+e@example.com>\r\nRSET\r\n";
        assert_eq!(talk.codes(&begun), format!("250 {expected} 250"), "{id}");
    }
    for (id, expected) in [("1", 451), ("1", 451), ("2", 451), ("1", 250), ("2", 451), ("2", 250), ("1", 250)] {
        assert_eq!(talk.mail("flaky2@example.com", id), format!("250 250 354 {expected}"), "{id}");
    }
}

#[tokio::test]
async fn lines_end_with_crlf_or_the_session_ends() {
    for line in ["NOOP\n", "NOOP\rNOOP\r\n", "NOOP\r\r\n", "NOOP a\nMAIL FROM:<b@example.com>\r\n", "\n"] {
        let mut talk = Talk::ready().await;
        assert_eq!(talk.codes(line), "500 Close", "{line:?}");
    }
    let mut talk = Talk::ready().await;
    assert_eq!(talk.codes("NOOP\r"), "");
    assert_eq!(talk.codes("\n"), "250");
    assert_eq!(talk.codes(&"x".repeat(MAX_LINE + 1)), "500 Close");
    for last in ["DATA", "NOOP", "EHLO a", "VRFY a", "AUTH PLAIN"] {
        let mut talk = Talk::ready().await;
        assert_eq!(talk.codes(&format!("{last}\r\nRSET\r\n")), "503 Close", "{last}");
    }
    let mut talk = Talk::ready().await;
    let pipelined =
        "MAIL FROM:<b@example.com>\r\nRCPT TO:<u550@example.com>\r\nBDAT 1 LAST\r\n.RSET\r\nRCPT TO:<a@b>\r\n";
    for _ in 0..25 {
        assert_eq!(talk.codes(pipelined), "250 550 554 250 503", "no mistakes of a client that pipelines");
    }
    assert_eq!(talk.codes(&"HI\r\n".repeat(25)), format!("{}421 Close", "500 ".repeat(20)));
}

#[tokio::test]
async fn nothing_is_smuggled_in_a_message() {
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n"] {
        let mut talk = Talk::ready().await;
        talk.say("MAIL FROM:<b@example.com>\r\nRCPT TO:<ana@example.com>\r\nDATA\r\n");
        let second = "MAIL FROM:<evil@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n";
        let smuggled = format!("{}x{end}{second}{}", message("1"), message("2"));
        assert_eq!(talk.codes(&smuggled), "", "{end:?} is no end");
        let (reply, step) = talk.say(".\r\n");
        assert!(reply.starts_with("554 5.5.2 a bare ") && step == Step::Read, "{end:?} {reply}");
        let received = talk.received();
        assert_eq!((received.len(), received[0].verified, received[0].answered), (1, false, Some(554)), "{end:?}");
        assert_eq!(talk.mail("ana@example.com", "3"), "250 250 354 250", "the session goes on");
    }
}

#[tokio::test]
async fn sizes_are_kept_and_chunks_stay_in_step() {
    let mut talk = Talk::ready().await;
    let begin = "MAIL FROM:<b@example.com> SIZE=100\r\nRCPT TO:<ana@example.com>\r\n";
    assert_eq!(talk.codes(&format!("MAIL FROM:<b@example.com> SIZE={}\r\n", MAX_SIZE + 1)), "552");
    talk.say(&format!("{begin}DATA\r\n"));
    let line = format!("{}\r\n", "x".repeat(998));
    for _ in 0..=MAX_SIZE / line.len() {
        assert_eq!(talk.codes(&line), "");
    }
    assert_eq!(talk.codes(".\r\n"), "552");

    let whole = message("1");
    assert_eq!(talk.codes(&format!("BDAT {}\r\n{whole}", whole.len())), "503", "the chunk is taken off the wire");
    assert_eq!(talk.codes(&format!("{begin}BDAT 3\r\nFroDATA\r\n")), "250 250 250 503");
    assert_eq!(talk.codes("RCPT TO:<bob@example.com>\r\n"), "503");
    assert_eq!(talk.codes(&format!("BDAT {}\r\n{}BDAT 0 LAST\r\n", whole.len() - 3, &whole[3..])), "250 250");
    assert_eq!(talk.codes(&format!("{begin}BDAT 9 LAST\r\nFrom: b\n\n")), "250 250 554");
    assert_eq!(
        talk.codes("MAIL FROM:<b@example.com>\r\nRCPT TO:<u550@example.com>\r\nBDAT 4 LAST\r\nabcd"),
        "250 550 554"
    );
    assert_eq!(talk.codes("RSET\r\n"), "250");
    let (large, left) = (format!("{begin}BDAT {}\r\n", MAX_SIZE + 1000), MAX_SIZE + 1000);
    talk.say(&large);
    assert_eq!(talk.codes(&"x".repeat(left)), "552");
    assert_eq!(talk.codes("NOOP\r\n"), "250");
    let answered: Vec<_> = talk.received().iter().filter_map(|r| r.answered).collect();
    assert_eq!(answered, [552, 250, 554, 550, 552]);

    let to = |n: usize| format!("RCPT TO:<a{n}@example.com>\r\n");
    let many: String = (0..101).map(to).collect();
    let codes = talk.codes(&format!("MAIL FROM:<b@example.com>\r\n{many}"));
    assert!(codes.ends_with("250 250 452"), "{codes}");
}
