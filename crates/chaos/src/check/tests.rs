use std::time::Duration;

use domain::{Channel, Reason, State};
use serde_json::json;

use super::*;
use crate::{
    evidence::{Dead, Queued, Step},
    flow::{Accepted, OptOut, Way},
    people::Ends,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
}

fn contact(behaviour: &'static str, ends: Ends) -> Contact {
    let path = format!("/hook/{behaviour}/ana");
    Contact { channel: Channel::Webhook, behaviour, ends, address: path.clone(), path }
}

/// Ana, who is reached by webhook.
fn people(behaviour: &'static str, ends: Ends) -> Vec<Person> {
    vec![Person { id: "ana".into(), contacts: vec![contact(behaviour, ends)], share: 1 }]
}

fn step(seconds: i64, state: State, outcome: Option<&str>) -> Step {
    Step { at: at(seconds), state, reason: None, outcome: outcome.map(str::to_owned) }
}

fn delivery(id: &str, notification: &str, seconds: i64, state: State, reason: Option<Reason>) -> Delivery {
    let queued = step(seconds, State::Queued, None);
    let last = Step { reason, ..step(seconds + 1, state, (state == State::Sent).then_some("sent")) };
    Delivery {
        id: id.into(),
        notification: notification.into(),
        user: "ana".into(),
        channel: Channel::Webhook,
        category: Some("orders".into()),
        expires_at: None,
        state,
        reason,
        accepted_at: at(seconds),
        trace: vec![queued, last],
    }
}

fn reception(delivery: &str, seconds: i64, answered: Option<u16>) -> Reception {
    let path = "/hook/ok/ana".into();
    let (delivery, channel, at) = (delivery.into(), Channel::Webhook, at(seconds));
    Reception { delivery, channel, path, at, verified: true, answered }
}

fn queued(notification: &str, delivery: Option<&str>) -> Queued {
    Queued {
        partition: "chaos.queue/0".into(),
        key: "chaos/user:ana".into(),
        notification: notification.into(),
        delivery: delivery.map(str::to_owned),
    }
}

/// Two notifications for Ana, one after the other, both sent and received once.
fn good() -> Evidence {
    let mut e = Evidence::default();
    for (n, d, seconds) in [("n1", "d1", 0), ("n2", "d2", 10)] {
        let accepted = Accepted { id: n.into(), way: Way::Http, event: None, to: vec!["ana".into()], at: at(seconds) };
        e.told.accepted.push(accepted);
        e.announced.insert(n.into(), 1);
        e.notifications.push(queued(n, None));
        e.deliveries.push(queued(n, Some(d)));
        let sent = delivery(d, n, seconds, State::Sent, None);
        e.events.push(Delivery { state: State::Queued, trace: sent.trace[..1].to_vec(), ..sent.clone() });
        e.events.push(sent.clone());
        e.index.push(sent);
        e.receptions.push(reception(d, seconds + 1, Some(200)));
    }
    e
}

/// Replaces the first delivery, in the index and as its end on `status`.
fn with(mut e: Evidence, d: Delivery) -> Evidence {
    e.events[1] = d.clone();
    e.index[0] = d;
    e
}

fn found(e: &Evidence) -> Vec<Violation> {
    check(e, &people("ok", Ends::Sent))
}

/// Exactly one thing is wrong, of that claim, and says that.
#[track_caller]
fn only(found: &[Violation], claim: u8, says: &str) {
    let one = found.len() == 1 && found[0].claim == claim && found[0].what.contains(says);
    assert!(one, "claim {claim} `{says}`: {found:#?}");
}

#[test]
fn what_is_right_passes() {
    assert_eq!(found(&good()), []);
    // sent again after an unknown outcome, and the end said twice after a crash
    let mut again = delivery("d1", "n1", 0, State::Sent, None);
    again.trace.insert(1, step(1, State::Sending, Some("unknown")));
    let mut e = with(good(), again.clone());
    e.events.push(again);
    e.receptions.insert(1, reception("d1", 2, Some(200)));
    assert_eq!(found(&e), []);
}

#[test]
fn claim_1_what_is_missing_open_twice_or_contradicted() {
    let mut e = good();
    let event = Some("e-3".into());
    e.told.accepted.push(Accepted { id: "n3".into(), way: Way::Event, event, to: vec!["ana".into()], at: at(5) });
    only(&found(&e), 1, "n3 (Event");
    e.dead.push(letter("ingress", "unknown_source", "e-3"));
    only(&found(&e), 1, "dead letter ingress-0-1 (unknown_source)");

    let mut e = good();
    (e.index[0].state, e.index[0].trace) = (State::Queued, e.events[0].trace.clone());
    only(&found(&e), 1, "queued in the index, and sent (no reason) on `status`");
    e.events.remove(1);
    assert!(found(&e).iter().any(|v| v.claim == 1 && v.what.contains("has not ended")), "{:#?}", found(&e));

    let mut e = good();
    e.index.insert(0, delivery("d1", "n1", 5, State::Sent, None));
    only(&found(&e), 1, "in the index twice");

    let mut e = good();
    e.events.push(delivery("d1", "n1", 5, State::Failed, None));
    e.events.push(e.index[0].clone());
    assert!(
        found(&e).iter().any(|v| v.claim == 1 && v.what.contains("ended as sent and as failed")),
        "{:#?}",
        found(&e)
    );

    let e = with(good(), delivery("d1", "n1", 0, State::Suppressed, Some(Reason::OptedOutAll)));
    let all = found(&e);
    assert!(all.iter().any(|v| v.what.contains("nothing leads to that end")), "{all:#?}");
    assert!(all.iter().any(|v| v.what.contains("and the sandbox took it")), "{all:#?}");

    let mut e = good();
    let mut other = delivery("d9", "n1", 0, State::Suppressed, Some(Reason::OptedOutAll));
    other.trace[1].at = at(40);
    e.told.opt_outs.push(OptOut { user: "ana".into(), category: None, asked: at(30), confirmed: at(31) });
    e.events.push(other.clone());
    e.index.push(other);
    only(&found(&e), 1, "decided twice");
}

#[test]
fn whoever_is_struck_each_time_may_be_given_up() {
    let tried = |seconds, state| step(seconds, state, Some("unknown"));
    let reason = Some(Reason::RetriesExhausted);
    let last = Step { reason, ..tried(6, State::Unknown) };
    let given_up = Delivery {
        channel: Channel::Apns,
        trace: vec![step(0, State::Queued, None), tried(2, State::Sending), tried(4, State::Deferred), last],
        ..delivery("d1", "n1", 0, State::Unknown, reason)
    };
    let torn = |seconds, answered| Reception {
        channel: Channel::Apns,
        path: "/3/device/06100001".into(),
        ..reception("d7", seconds, answered)
    };
    let pauses = vec![(at(3), at(4))];
    let mut e = Evidence { deaths: vec![at(1)], pauses, receptions: vec![torn(5, None)], ..Evidence::default() };
    let was_struck = |e: &Evidence, d: &Delivery| Case::new(e, &[]).was_struck(d);
    assert!(was_struck(&e, &given_up), "by a death, a stop, and a neighbour");
    assert!(!was_struck(&e, &Delivery { channel: Channel::Webhook, ..given_up.clone() }), "it has no neighbours");
    e.receptions = vec![torn(5, Some(200)), torn(8, None)];
    assert!(!was_struck(&e, &given_up), "nothing explains the last attempt");
    e.receptions = vec![torn(5, None)];
    let mut answered = given_up;
    answered.trace[2].outcome = Some("retryable".into());
    assert!(!was_struck(&e, &answered), "an attempt that was answered is none of that");
}

#[test]
fn claim_2_what_was_not_received_or_twice() {
    let mut e = good();
    e.receptions.remove(0);
    only(&found(&e), 2, "has not taken it");

    let mut e = good();
    e.receptions.push(reception("d1", 3, Some(200)));
    only(&found(&e), 2, "arrived 2 times");
    // it may have been taken as well
    let mut e = good();
    e.receptions.insert(0, reception("d1", 0, None));
    only(&found(&e), 2, "arrived 2 times");
    // a refusal is none
    let mut e = good();
    e.receptions.insert(0, reception("d1", 0, Some(503)));
    assert_eq!(found(&e), []);

    let mut e = good();
    e.receptions.push(reception("d7", 3, Some(200)));
    only(&found(&e), 2, "which nobody knows");

    let mut e = good();
    e.receptions[0].path = "/hook/ok/eve".into();
    only(&found(&e), 2, "went elsewhere");

    let mut e = good();
    e.receptions.insert(0, Reception { verified: false, ..reception("d1", 0, Some(401)) });
    only(&found(&e), 2, "not right");
}

#[test]
fn claim_3_what_came_too_late() {
    let said = |category| OptOut { user: "ana".into(), category, asked: at(6), confirmed: at(7) };
    let mut e = good();
    e.told.opt_outs.push(said(None));
    only(&found(&e), 3, "sent 4s after the opt-out");
    // of something else
    let mut e = good();
    e.told.opt_outs.push(said(Some("news")));
    assert_eq!(found(&e), []);
    // it stood still in between
    let mut e = good();
    e.told.opt_outs.push(said(Some("orders")));
    e.pauses.push((at(8), at(10)));
    assert_eq!(found(&e), []);
    assert_eq!(paused(&e.pauses, at(9), at(20)), Duration::from_secs(1));

    let mut e = good();
    for d in e.index.iter_mut().chain(&mut e.events).filter(|d| d.id == "d2") {
        d.expires_at = Some(at(8));
    }
    only(&found(&e), 3, "sent 3s after it had expired");
}

#[test]
fn claim_4_what_was_passed_or_overtaken() {
    let mut e = good();
    e.notifications.push(queued("n8", None));
    only(&found(&e), 4, "n8");

    let mut e = good();
    e.deliveries.push(queued("n8", Some("d8")));
    only(&found(&e), 4, "d8");

    let mut e = good();
    e.notifications.swap(0, 1);
    only(&found(&e), 4, "only at");
    // published twice: the first place counts
    e.notifications.insert(0, queued("n1", None));
    assert_eq!(found(&e), []);
}

fn letter(stage: &'static str, reason: &str, subject: &str) -> Dead {
    Dead { id: format!("{stage}-0-1"), stage, reason: reason.into(), at: at(2), subject: subject.into() }
}

/// Ana's first delivery was given up after a refusal.
fn given_up() -> Evidence {
    let mut e = with(good(), delivery("d1", "n1", 0, State::Failed, Some(Reason::RetriesExhausted)));
    e.receptions[0] = reception("d1", 1, Some(503));
    for r in &mut e.receptions {
        r.path = "/hook/flaky/7/ana".into();
    }
    e.dead.push(letter("gateway", "retries_exhausted", "d1"));
    e
}

#[test]
fn claim_5_letters_and_balance() {
    let flaky = people("flaky/7", Ends::LaterSent);
    let mut e = given_up();
    assert_eq!(check(&e, &flaky), []);
    e.dead.clear();
    only(&check(&e, &flaky), 5, "is no dead letter");

    let mut e = good();
    e.dead.push(letter("gateway", "retries_exhausted", "d1"));
    only(&found(&e), 5, "was not given up");
    let mut e = good();
    e.dead.push(letter("router", "undecodable", ""));
    only(&found(&e), 5, "nothing there had to be given up");

    let mut e = good();
    e.told.strange.push("e-5".into());
    only(&found(&e), 5, "event e-5");
    e.dead.push(letter("ingress", "unknown_source", "e-5"));
    assert_eq!(found(&e), []);

    let mut e = good();
    e.announced.insert("n2".into(), 2);
    only(&found(&e), 5, "n2 has 2 recipients, of which 1");
    e.announced.remove("n2");
    only(&found(&e), 5, "never announced");
    // nobody was promised anything
    e.told.accepted.pop();
    assert_eq!(found(&e), []);

    let balance = |e: &Evidence, recipients: u32, decided: u32| {
        balanced(e, &people("ok", Ends::Sent), &json!({"items": [{"recipients": recipients, "decided": decided}]}))
    };
    assert_eq!(balance(&good(), 2, 2), []);
    only(&balance(&good(), 3, 2), 5, "2 recipients");
    only(&balance(&good(), 2, 1), 5, "2 decided");
    assert_eq!(balance(&e, 1, 2), []);
}

#[test]
fn claim_5_what_is_driven_on_ends() {
    let (flaky, before) = (people("flaky/7", Ends::LaterSent), given_up());
    let state_after = |state, reason, heard: bool| {
        let mut d = delivery("d1", "n1", 0, state, reason);
        if heard {
            d.trace.insert(1, Step { reason: Some(Reason::Redriven), ..step(1, State::Queued, None) });
        }
        redriven(&before, &with(given_up(), d), &flaky)
    };
    let exhausted = Some(Reason::RetriesExhausted);
    assert_eq!(state_after(State::Sent, None, true), []);
    only(&state_after(State::Failed, exhausted, false), 5, "did not hear of it");
    only(&state_after(State::Deferred, None, true), 5, "has not ended");
    only(&state_after(State::Failed, exhausted, true), 5, "failed again where it cannot");
}
