//! What every `Ledger` does.

use bytes::Bytes;
use domain::{Address, Channel, DeliveryId, NotificationId};
use futures::future::join_all;
use store::{Claim, ClaimRequest, Decided, Decision, Ledger, Settled};
use uuid::Uuid;

use crate::{at, tenant};

fn delivery() -> DeliveryId {
    DeliveryId(Uuid::new_v4())
}

fn owner() -> u128 {
    Uuid::new_v4().as_u128()
}

fn request(delivery: DeliveryId, owner: u128, step: i64) -> ClaimRequest {
    ClaimRequest { delivery, owner, at: at(step) }
}

fn end(text: impl AsRef<[u8]>) -> Settled {
    Settled(Bytes::copy_from_slice(text.as_ref()))
}

async fn claim(ledger: &dyn Ledger, delivery: DeliveryId, owner: u128, step: i64) -> Claim {
    let mut answers = ledger.claim(&[request(delivery, owner, step)]).await.expect("claim");
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

fn decision(notification: NotificationId, recipient: &str, plan: impl AsRef<[u8]>) -> Decision {
    Decision { notification, recipient: recipient.to_owned(), plan: Decided(Bytes::copy_from_slice(plan.as_ref())) }
}

fn notification() -> NotificationId {
    NotificationId(Uuid::new_v4())
}

pub async fn the_first_decision_stands(ledger: &dyn Ledger) {
    let (one, two) = (notification(), notification());
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let first = [
        decision(one, "user:ana", "a"),
        decision(one, "user:ben", &bytes),
        decision(two, "user:ana", "c"),
        decision(one, "user:ana", "d"),
    ];
    let stood = |plan: &[u8]| Some(Decided(Bytes::copy_from_slice(plan)));
    assert_eq!(ledger.decide(&first).await.expect("decide"), [None, None, None, stood(b"a")], "also within a call");
    let again = [decision(one, "user:ben", "x"), decision(two, "user:ben", "y"), decision(one, "user:ana", "z")];
    assert_eq!(ledger.decide(&again).await.expect("decide"), [stood(&bytes), None, stood(b"a")], "in order");
    assert_eq!(ledger.decide(&[]).await.expect("decide"), []);
}

pub async fn one_of_many_concurrent_decisions_stands(ledger: &dyn Ledger) {
    let wanted = notification();
    let answers = join_all((0..50).map(|i| async move {
        let plan = format!("plan {i}");
        let stood = ledger.decide(&[decision(wanted, "user:ana", &plan)]).await.expect("decide").remove(0);
        (Decided(plan.into()), stood)
    }))
    .await;
    let first: Vec<_> = answers.iter().filter(|(_, stood)| stood.is_none()).map(|(plan, _)| plan).collect();
    let [first] = first[..] else { panic!("{} were the first", first.len()) };
    assert!(answers.iter().all(|(_, stood)| stood.as_ref().is_none_or(|stood| stood == first)), "{answers:?}");
}

pub async fn one_of_many_concurrent_claims_is_granted(ledger: &dyn Ledger) {
    for _ in 0..5 {
        let wanted = delivery();
        let claims = (0..100).map(|step| async move {
            let owner = owner();
            (owner, step, claim(ledger, wanted, owner, step).await)
        });
        let answers = join_all(claims).await;
        let granted: Vec<_> = answers.iter().filter(|(.., claim)| *claim == Claim::Granted).collect();
        let [(winner, step, _)] = granted[..] else { panic!("{} were granted", granted.len()) };
        let open = Claim::Open { owner: *winner, at: at(*step) };
        assert!(answers.iter().all(|(.., claim)| *claim == Claim::Granted || *claim == open), "{answers:?}");
        assert_eq!(claim(ledger, wanted, *winner, 500).await, open, "also to the owner itself");
    }
}

pub async fn a_batch_is_answered_in_order_also_with_repeats(ledger: &dyn Ledger) {
    let (ours, theirs) = (owner(), owner());
    let many: Vec<_> = (0..1_500).map(|_| delivery()).collect();
    // of every three one is new, one is open, one has ended
    let open: Vec<_> = many.iter().skip(1).step_by(3).map(|d| request(*d, theirs, 1)).collect();
    assert_eq!(ledger.claim(&open).await.expect("claim"), vec![Claim::Granted; open.len()]);
    let ends: Vec<_> = many.iter().skip(2).step_by(3).map(|d| (*d, end(d.to_string()))).collect();
    ledger.settle(ours, &ends).await.expect("settle");
    let requests: Vec<_> = many.iter().map(|d| request(*d, ours, 2)).collect();
    let expected = |i: usize, d: &DeliveryId| match i % 3 {
        0 => Claim::Granted,
        1 => Claim::Open { owner: theirs, at: at(1) },
        _ => Claim::Settled(end(d.to_string())),
    };
    let answers = ledger.claim(&requests).await.expect("claim");
    assert_eq!(answers, many.iter().enumerate().map(|(i, d)| expected(i, d)).collect::<Vec<_>>());

    let (one, two) = (delivery(), delivery());
    let repeated = [request(one, ours, 1), request(two, ours, 2), request(one, ours, 3), request(one, theirs, 4)];
    let first = Claim::Open { owner: ours, at: at(1) };
    let answers = ledger.claim(&repeated).await.expect("claim");
    assert_eq!(answers, [Claim::Granted, Claim::Granted, first.clone(), first]);
    assert_eq!(ledger.claim(&[]).await.expect("claim"), []);
}

pub async fn an_open_claim_is_taken_over_from_its_owner_only(ledger: &dyn Ledger) {
    let (wanted, first, second, third) = (delivery(), owner(), owner(), owner());
    let take_over =
        |to, step, from| async move { ledger.take_over(&request(wanted, to, step), from).await.expect("take_over") };
    assert!(!take_over(second, 1, first).await, "nobody has claimed it");
    assert_eq!(claim(ledger, wanted, first, 2).await, Claim::Granted, "and the attempt claimed nothing");
    assert!(!take_over(second, 3, third).await, "it is not the third's");
    assert!(take_over(second, 4, first).await);
    assert_eq!(claim(ledger, wanted, first, 5).await, Claim::Open { owner: second, at: at(4) });
    assert!(!take_over(third, 6, first).await, "it is not the first's any more");
    ledger.release(wanted, first).await.expect("release");
    assert_eq!(claim(ledger, wanted, first, 7).await, Claim::Open { owner: second, at: at(4) });
    for late in [first, third] {
        let standing = ledger.settle(late, &[(wanted, end("failed"))]).await.expect("settle");
        assert_eq!(standing, [Some(Claim::Open { owner: second, at: at(4) })], "the end of who has it counts");
    }
    assert_eq!(ledger.settle(second, &[(wanted, end("sent"))]).await.expect("settle"), [None]);
    assert!(!take_over(third, 8, second).await, "it has ended");
    assert_eq!(claim(ledger, wanted, third, 9).await, Claim::Settled(end("sent")));
    let standing = ledger.settle(first, &[(wanted, end("failed"))]).await.expect("settle");
    assert_eq!(standing, [Some(Claim::Settled(end("sent")))]);
}

pub async fn one_of_many_concurrent_take_overs_wins(ledger: &dyn Ledger) {
    for _ in 0..5 {
        let (wanted, gone) = (delivery(), owner());
        assert_eq!(claim(ledger, wanted, gone, 0).await, Claim::Granted);
        let attempts = (0..20).map(|step| async move {
            let request = request(wanted, owner(), step);
            let won = ledger.take_over(&request, gone).await.expect("take_over");
            (request, won)
        });
        let winners: Vec<_> = join_all(attempts).await.into_iter().filter(|(_, won)| *won).collect();
        let [(winner, _)] = &winners[..] else { panic!("{} won", winners.len()) };
        assert_eq!(claim(ledger, wanted, gone, 99).await, Claim::Open { owner: winner.owner, at: winner.at });
    }
}

pub async fn a_released_claim_can_be_claimed_anew(ledger: &dyn Ledger) {
    let (wanted, first, second) = (delivery(), owner(), owner());
    ledger.release(wanted, first).await.expect("releasing nothing is fine");
    for (step, by) in [(1, first), (2, first), (3, second)] {
        assert_eq!(claim(ledger, wanted, by, step).await, Claim::Granted);
        ledger.release(wanted, by).await.expect("release");
        ledger.release(wanted, by).await.expect("release, repeated");
    }
    // also one that was taken over, by whom it is now
    assert_eq!(claim(ledger, wanted, first, 4).await, Claim::Granted);
    assert!(ledger.take_over(&request(wanted, second, 5), first).await.expect("take_over"));
    ledger.release(wanted, second).await.expect("release");
    assert_eq!(claim(ledger, wanted, first, 6).await, Claim::Granted);
}

pub async fn only_the_owner_releases_and_never_what_ended(ledger: &dyn Ledger) {
    let (wanted, ours, theirs) = (delivery(), owner(), owner());
    assert_eq!(claim(ledger, wanted, ours, 1).await, Claim::Granted);
    ledger.release(wanted, theirs).await.expect("release");
    assert_eq!(claim(ledger, wanted, theirs, 2).await, Claim::Open { owner: ours, at: at(1) });
    ledger.settle(ours, &[(wanted, end("sent"))]).await.expect("settle");
    for by in [ours, theirs, 0] {
        ledger.release(wanted, by).await.expect("release");
        assert_eq!(claim(ledger, wanted, theirs, 3).await, Claim::Settled(end("sent")));
    }
}

pub async fn the_first_end_stays(ledger: &dyn Ledger) {
    let (claimed, unclaimed, twice, big, ours) = (delivery(), delivery(), delivery(), delivery(), owner());
    assert_eq!(claim(ledger, claimed, ours, 1).await, Claim::Granted);
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let ends = [
        (claimed, end("first")),
        (unclaimed, end("é\0\r\n")),
        (twice, end("1")),
        (twice, end("2")),
        (big, end(&bytes)),
    ];
    let standing = ledger.settle(ours, &ends).await.expect("settle");
    assert_eq!(standing, [None, None, None, Some(Claim::Settled(end("1"))), None]);
    let later = [(unclaimed, end("later")), (claimed, end("later")), (big, end(&bytes))];
    let standing = ledger.settle(ours, &later).await.expect("settle");
    let first = [end("é\0\r\n"), end("first"), end(&bytes)].map(|end| Some(Claim::Settled(end)));
    assert_eq!(standing, first, "also when it is the same once more");
    for (delivery, expected) in
        [(claimed, end("first")), (unclaimed, end("é\0\r\n")), (twice, end("1")), (big, end(&bytes))]
    {
        assert_eq!(claim(ledger, delivery, ours, 2).await, Claim::Settled(expected));
    }
    assert_eq!(ledger.settle(ours, &[]).await.expect("settle"), []);
}

pub async fn one_of_many_concurrent_ends_stays(ledger: &dyn Ledger) {
    let (wanted, ours) = (delivery(), owner());
    assert_eq!(claim(ledger, wanted, ours, 1).await, Claim::Granted);
    let seen = join_all((0..20).map(|i| async move {
        ledger.settle(ours, &[(wanted, end(i.to_string()))]).await.expect("settle");
        claim(ledger, wanted, ours, 2).await
    }))
    .await;
    assert!(matches!(seen[0], Claim::Settled(_)), "{:?}", seen[0]);
    assert!(seen.iter().all(|claim| *claim == seen[0]), "{seen:?}");
}

pub async fn an_end_is_opened_again_by_one_who_knows_it(ledger: &dyn Ledger) {
    let (wanted, first) = (delivery(), owner());
    let reopen = |delivery, by, text: &'static str| async move {
        ledger.reopen(&request(delivery, by, 5), &end(text)).await.expect("reopen")
    };
    assert!(!reopen(wanted, first, "failed").await, "nobody has claimed it");
    assert_eq!(claim(ledger, wanted, first, 1).await, Claim::Granted);
    assert!(!reopen(wanted, first, "failed").await, "it is open");
    ledger.settle(first, &[(wanted, end("failed"))]).await.expect("settle");
    for other in ["fail", "failed again", ""] {
        assert!(!reopen(wanted, first, other).await, "it ended otherwise");
        assert_eq!(claim(ledger, wanted, first, 2).await, Claim::Settled(end("failed")));
    }
    let operators: Vec<_> = (0..20).map(|_| owner()).collect();
    let answers = join_all(operators.iter().map(|by| reopen(wanted, *by, "failed"))).await;
    let winners: Vec<_> = operators.iter().zip(&answers).filter(|(_, won)| **won).map(|(by, _)| *by).collect();
    let [winner] = winners[..] else { panic!("{} won", winners.len()) };
    assert_eq!(claim(ledger, wanted, first, 6).await, Claim::Open { owner: winner, at: at(5) });
    assert!(!reopen(wanted, winner, "failed").await, "it is open by then, also to the winner");
    ledger.settle(winner, &[(wanted, end("sent"))]).await.expect("settle");
    assert!(!reopen(wanted, winner, "failed").await, "a repetition that comes late opens nothing");
    assert_eq!(claim(ledger, wanted, first, 7).await, Claim::Settled(end("sent")), "it ends anew");

    // byte by byte, whatever they are
    let bytes: Vec<u8> = (0..=255).rev().cycle().take(100_000).collect();
    let (mut other, big) = (bytes.clone(), delivery());
    other[99_999] ^= 1;
    ledger.settle(first, &[(big, end(&bytes))]).await.expect("settle");
    let request = request(big, first, 1);
    assert!(!ledger.reopen(&request, &end(&other)).await.expect("reopen"));
    assert!(!ledger.reopen(&request, &end(&bytes[..99_999])).await.expect("reopen"));
    assert!(ledger.reopen(&request, &end(&bytes)).await.expect("reopen"));
    ledger.release(big, first).await.expect("release");
    assert_eq!(claim(ledger, big, winner, 2).await, Claim::Granted, "it is a claim like any other");
}

fn address(n: u32) -> Address {
    Address::parse(Channel::Webhook, &format!("https://example.com/{n}")).expect("an address")
}

/// What a claim is, as the rules have it; `None` before the first.
type Held = Option<Claim>;

/// One thing that somebody does, by chance; gives what the rules answer, and what the ledger did.
async fn anything(
    ledger: &dyn Ledger,
    (id, held): (DeliveryId, &mut Held),
    owner: u128,
    (what, step): (u8, i64),
) -> [String; 2] {
    let asked = request(id, owner, step);
    let opened = Claim::Open { owner, at: asked.at };
    let is_own = matches!(held, Some(Claim::Open { owner: by, .. }) if *by == owner);
    match what {
        0..3 => {
            let rule = held.clone().unwrap_or(Claim::Granted);
            held.get_or_insert(opened);
            [format!("{rule:?}"), format!("{:?}", claim(ledger, id, owner, step).await)]
        }
        3..5 => {
            // from whoever has it, or from somebody who may have had it
            let from = match held {
                Some(Claim::Open { owner: by, .. }) if step % 3 > 0 => *by,
                _ => owner,
            };
            let rule = matches!(held, Some(Claim::Open { owner: by, .. }) if *by == from);
            if rule {
                *held = Some(opened);
            }
            [rule.to_string(), ledger.take_over(&asked, from).await.expect("take_over").to_string()]
        }
        5 => {
            if is_own {
                *held = None;
            }
            ledger.release(id, owner).await.expect("release");
            Default::default()
        }
        6 => {
            let end = end(format!("end {step}"));
            let rule = held.clone().filter(|_| !is_own);
            if rule.is_none() {
                *held = Some(Claim::Settled(end.clone()));
            }
            [format!("{:?}", [rule]), format!("{:?}", ledger.settle(owner, &[(id, end)]).await.expect("settle"))]
        }
        _ => {
            let known = match held {
                Some(Claim::Settled(end)) if step % 3 > 0 => end.clone(),
                _ => end("another"),
            };
            let rule = *held == Some(Claim::Settled(known.clone()));
            if rule {
                *held = Some(opened);
            }
            [rule.to_string(), ledger.reopen(&asked, &known).await.expect("reopen").to_string()]
        }
    }
}

pub async fn every_history_of_claims_is_the_one_of_the_rules(ledger: &dyn Ledger) {
    let seed = fastrand::u64(..);
    let mut chance = fastrand::Rng::with_seed(seed);
    for _ in 0..20 {
        let (id, mut held, mut story) = (delivery(), None, Vec::new());
        let owners = [owner(), owner(), owner()];
        for step in 0..25 {
            let (who, what) = (chance.usize(0..owners.len()), chance.u8(0..8));
            let [rule, found] = anything(ledger, (id, &mut held), owners[who], (what, step)).await;
            story.push((who, what, step));
            assert_eq!(found, rule, "seed {seed}: {story:?}");
        }
        let rule = held.unwrap_or(Claim::Granted);
        assert_eq!(claim(ledger, id, owners[0], 99).await, rule, "seed {seed}: {story:?}");
    }
}

pub async fn the_latest_time_at_which_an_address_was_gone_is_known(ledger: &dyn Ledger) {
    let ours = tenant();
    let gone = |n| {
        let asked = [(ours.clone(), Channel::Webhook, address(n))];
        async move { ledger.gone(&asked).await.expect("gone").remove(0) }
    };
    assert_eq!(gone(1).await, None);
    for (step, known) in [(10, 10), (5, 10), (20, 20), (20, 20), (-86_400_000, 20)] {
        ledger.mark_gone(&ours, Channel::Webhook, &address(1), at(step)).await.expect("mark_gone");
        assert_eq!(gone(1).await, Some(at(known)));
    }
    join_all((0..20).map(|step| {
        let ours = &ours;
        async move { ledger.mark_gone(ours, Channel::Webhook, &address(2), at(step)).await.expect("mark_gone") }
    }))
    .await;
    assert_eq!(gone(2).await, Some(at(19)));
}

/// Row 48 of the catalogue (reliability.md, section 7).
pub async fn what_is_gone_for_one_is_not_for_another(ledger: &dyn Ledger) {
    let (ours, theirs) = (tenant(), tenant());
    ledger.mark_gone(&ours, Channel::Webhook, &address(1), at(1)).await.expect("mark_gone");
    ledger.mark_gone(&theirs, Channel::Webhook, &address(2), at(2)).await.expect("mark_gone");
    let hex = Address::parse(Channel::Apns, "abcd").expect("a token");
    ledger.mark_gone(&ours, Channel::Apns, &hex, at(3)).await.expect("mark_gone");
    let mut asked: Vec<_> = (0..700).map(|n| (ours.clone(), Channel::Webhook, address(n))).collect();
    asked.extend([(theirs.clone(), Channel::Webhook, address(1)), (theirs.clone(), Channel::Webhook, address(2))]);
    asked.extend([(theirs, Channel::Apns, hex.clone()), (ours, Channel::Apns, hex)]);
    let mut expected = vec![None; 704];
    expected[1] = Some(at(1));
    expected[701] = Some(at(2));
    expected[703] = Some(at(3));
    assert_eq!(ledger.gone(&asked).await.expect("gone"), expected, "in order");
    assert_eq!(ledger.gone(&[]).await.expect("gone"), []);
}

pub async fn ping(ledger: &dyn Ledger) {
    ledger.ping().await.expect("it answers");
}
