//! Reading the dead-letter topics: all of one, letter by letter, keeping no more than a page of it.

use std::collections::BTreeMap;

use bus::{
    Follow, FollowEvent, LogError,
    dead::{Letter, LetterId},
    topic::{self, Stage},
};
use bytes::Bytes;
use domain::{
    Channel, Delivery, DeliveryId, Notification, NotificationId, Recipient, Status, TenantId, Timestamp, UserId,
};

use crate::{
    Ingress,
    problem::{Kind, Problem},
};

/// One pass over the letters that a stage has now.
pub(super) struct Scan {
    stage: Stage,
    follow: Box<dyn Follow>,
}

impl Scan {
    pub(super) async fn of(ingress: &Ingress, stage: Stage) -> Result<Self, Problem> {
        let follow = ingress.log.follow(&ingress.topics.dead(stage)).await.map_err(unreadable)?;
        Ok(Self { stage, follow })
    }

    /// The next letters, in the order of their partitions; `None` at the end of what there was at the beginning.
    pub(super) async fn next(&mut self) -> Result<Option<impl Iterator<Item = Letter> + use<>>, Problem> {
        let stage = self.stage;
        match self.follow.next().await.map_err(unreadable)? {
            FollowEvent::Records(records) => Ok(Some(records.into_iter().map(move |r| Letter::read(stage, r)))),
            FollowEvent::CaughtUp => Ok(None),
        }
    }
}

/// Nothing was changed by a read, so the words for a write would be wrong.
fn unreadable(error: LogError) -> Problem {
    let detail = match &error {
        LogError::Topic { topic, detail } => format!("an operator has to act on topic {topic}: {detail}"),
        _ => "the log does not answer; ask again".to_owned(),
    };
    Problem { cause: Some(error.to_string()), ..Problem::new(Kind::Unavailable, detail) }
}

/// Whom and what a dead record is about, if it can be read.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) tenant: TenantId,
    pub(super) notification: NotificationId,
    /// The one delivery, unless nothing was decided yet.
    pub(super) delivery: Option<DeliveryId>,
    /// The one recipient, unless it is about the whole request.
    pub(super) recipient: Option<String>,
    pub(super) user: Option<UserId>,
    pub(super) channel: Option<Channel>,
}

/// Events of upstream services are no records of ours, so whose they are is not known here.
pub(super) fn subject(letter: &Letter) -> Option<Subject> {
    fn read<T: wire::Record>(letter: &Letter) -> Option<T> {
        wire::decode(letter.value.as_ref()).ok()
    }
    let user = |recipient: &Recipient| recipient.user().cloned();
    match letter.id.stage {
        Stage::Ingress => None,
        Stage::Router => read::<Notification>(letter).map(|n| Subject {
            recipient: Some(n.recipient.key()),
            user: user(&n.recipient),
            tenant: n.tenant,
            notification: n.id,
            delivery: None,
            channel: None,
        }),
        Stage::Gateway => read::<Delivery>(letter).map(|d| Subject {
            recipient: Some(d.recipient.key()),
            user: user(&d.recipient),
            tenant: d.tenant,
            notification: d.notification,
            delivery: Some(d.id),
            channel: Some(d.channel),
        }),
        Stage::Indexer => match read(letter)? {
            Status::Notification(n) => Some(Subject {
                tenant: n.tenant,
                notification: n.id,
                delivery: None,
                recipient: None,
                user: None,
                channel: None,
            }),
            Status::Delivery(d) => Some(Subject {
                recipient: Some(d.recipient_key),
                tenant: d.tenant,
                notification: d.notification,
                delivery: Some(d.id),
                user: d.user,
                channel: Some(d.channel),
            }),
        },
    }
}

/// Which letters are asked for; all that is given must hold.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Only what is this tenant's.
    pub(super) tenant: Option<TenantId>,
    pub(super) stage: Option<Stage>,
    pub(super) reason: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Filter {
    fn admits(&self, letter: &Letter) -> bool {
        self.reason.as_ref().is_none_or(|r| *r == letter.reason)
            && self.since.is_none_or(|since| letter.at >= since)
            && self.until.is_none_or(|until| letter.at < until)
    }

    pub(super) fn owns(&self, subject: Option<&Subject>) -> bool {
        self.tenant.as_ref().is_none_or(|own| subject.is_some_and(|s| s.tenant == *own))
    }
}

/// The order of letters over all topics, the same at every reading: by time, and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(i64, &'static str, i32, i64);

impl Place {
    fn of(letter: &Letter) -> Self {
        Self::at(letter.at.as_microsecond(), letter.id)
    }

    const fn at(at: i64, id: LetterId) -> Self {
        Self(at, id.stage.as_str(), id.partition, id.offset)
    }

    /// Parses a cursor.
    pub(super) fn parse(cursor: &str) -> Result<Self, String> {
        let read = || {
            let (at, id) = cursor.split_once('.')?;
            Some(Self::at(at.parse().ok()?, LetterId::parse(id).ok()?))
        };
        read().ok_or_else(|| "not a cursor of this list; begin without one".to_owned())
    }

    /// As a cursor.
    pub(super) fn cursor(self) -> String {
        let Self(at, stage, partition, offset) = self;
        format!("{at}.{stage}-{partition}-{offset}")
    }
}

/// A letter without its bytes.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) letter: Letter,
    pub(super) subject: Option<Subject>,
    pub(super) bytes: usize,
}

impl Found {
    pub(super) fn new(mut letter: Letter, subject: Option<Subject>) -> Self {
        let bytes = letter.value.take().map_or(0, |v| v.len());
        letter.key = None;
        letter.headers.0.retain(|(name, _)| name == topic::REDRIVEN_AT);
        // a slice would keep the whole record
        letter.headers.0.iter_mut().for_each(|(_, value)| *value = Bytes::copy_from_slice(value));
        Self { letter, subject, bytes }
    }
}

/// Which end a page begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Newest,
    Oldest,
}

/// A page of letters, in its order, and where the next one begins.
pub(super) async fn page(
    ingress: &Ingress,
    filter: &Filter,
    from: From,
    after: Option<Place>,
    limit: usize,
) -> Result<(Vec<Found>, Option<Place>), Problem> {
    let mut best = Best { from, after, limit, kept: BTreeMap::new() };
    for stage in Stage::ALL.into_iter().filter(|s| filter.stage.is_none_or(|asked| asked == *s)) {
        let mut scan = Scan::of(ingress, stage).await?;
        while let Some(letters) = scan.next().await? {
            for letter in letters.filter(|l| filter.admits(l)) {
                let place = Place::of(&letter);
                if !best.wants(place) {
                    continue;
                }
                let subject = subject(&letter);
                if filter.owns(subject.as_ref()) {
                    best.keep(place, Found::new(letter, subject));
                }
            }
        }
    }
    Ok(best.page())
}

/// The best of what went by, one more than a page has.
struct Best {
    from: From,
    after: Option<Place>,
    limit: usize,
    kept: BTreeMap<Place, Found>,
}

impl Best {
    fn worst(&self) -> Option<Place> {
        let worst = match self.from {
            From::Newest => self.kept.first_key_value(),
            From::Oldest => self.kept.last_key_value(),
        };
        worst.map(|(place, _)| *place)
    }

    fn wants(&self, place: Place) -> bool {
        let before = |a: Place, b: Place| match self.from {
            From::Newest => a > b,
            From::Oldest => a < b,
        };
        let is_full = self.kept.len() > self.limit;
        self.after.is_none_or(|after| before(after, place))
            && !(is_full && self.worst().is_some_and(|worst| !before(place, worst)))
    }

    fn keep(&mut self, place: Place, found: Found) {
        self.kept.insert(place, found);
        if self.kept.len() > self.limit + 1 {
            match self.from {
                From::Newest => self.kept.pop_first(),
                From::Oldest => self.kept.pop_last(),
            };
        }
    }

    fn page(self) -> (Vec<Found>, Option<Place>) {
        let more = self.kept.len() > self.limit;
        let mut kept: Vec<_> = self.kept.into_iter().collect();
        if self.from == From::Newest {
            kept.reverse();
        }
        kept.truncate(self.limit);
        let next = kept.last().filter(|_| more).map(|(place, _)| *place);
        (kept.into_iter().map(|(_, found)| found).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use bus::{Headers, Partition, Position, Record};

    use super::*;

    fn found(offset: i64) -> (Place, Found) {
        let partition = Partition { topic: "t.dead.gateway".into(), index: 0 };
        let at = Position { partition, offset };
        let record = Record { at, timestamp_ms: offset / 2, key: None, headers: Headers::default(), value: None };
        let letter = Letter::read(Stage::Gateway, record);
        (Place::of(&letter), Found::new(letter, None))
    }

    #[test]
    fn pages_from_either_end_are_the_whole_once_whatever_order_it_is_read_in() {
        for from in [From::Newest, From::Oldest] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let mut best = Best { from, after, limit: 3, kept: BTreeMap::new() };
                // 10 letters, two of each time, as several partitions bring them
                for n in 0..10 {
                    let (place, found) = found(n * 7 % 10);
                    if best.wants(place) {
                        best.keep(place, found);
                    }
                    assert!(best.kept.len() <= 4, "no more than a page and one is kept");
                }
                let (page, next) = best.page();
                seen.extend(page.iter().map(|f| f.letter.id.offset));
                let Some(next) = next else { break };
                after = Some(Place::parse(&next.cursor()).expect("its own cursor"));
            }
            let mut expected: Vec<i64> = (0..10).collect();
            if from == From::Newest {
                expected.reverse();
            }
            assert_eq!(seen, expected);
        }
        for bad in ["", "1", "x.gateway-0-1", "1.gate-0-1", "1.gateway-0"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
