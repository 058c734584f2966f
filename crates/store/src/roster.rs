//! A user's devices, and what is remembered of those that went: one value with the same rules in every store.
//!
//! Every rule compares times of changes, so that a change can be repeated, and can arrive late, without harm: whatever was
//! registered up to the time of a removal stays removed.

use std::{borrow::Cow, collections::BTreeMap};

use domain::{Address, Channel, Contact, Contacts, Device, DeviceId, Environment, Locale, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::codec::{address_key, micros, place};

/// Most removals of a kind that are remembered of a user, the latest: enough for every write that may still be repeated, and
/// more than a user has contacts on a channel, of which those that are gone stay in the profile.
const MARKS: usize = 64;

/// What is kept of a user's devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Roster {
    /// As they were first registered.
    pub(crate) devices: Vec<Device>,
    /// What was removed and up to when, in microseconds: devices by id, addresses by their key.
    marks: BTreeMap<String, i64>,
    /// Up to when everything was, with the user.
    erased: Option<i64>,
}

impl Roster {
    /// A device.
    pub(crate) fn get(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// Registers a device at `at`, or refreshes it; what had to make room for it.
    pub(crate) fn put(
        &mut self,
        device: &Device,
        replaces: Option<DeviceId>,
        max: usize,
        at: Timestamp,
    ) -> Vec<Device> {
        if let Some(old) = replaces.filter(|old| *old != device.id) {
            self.remove(old, at);
        }
        if !self.bars(device, at) {
            match self.devices.iter_mut().find(|d| d.id == device.id) {
                // a later registration came first
                Some(known) if known.last_active_at > at => {}
                Some(known) => {
                    *known = Device { registered_at: known.registered_at, last_active_at: at, ..device.clone() };
                }
                None => self.devices.push(Device { registered_at: at, last_active_at: at, ..device.clone() }),
            }
        }
        self.make_room(max)
    }

    /// Removes a device as of `at`; `false`: it is not there, or was registered anew since.
    pub(crate) fn remove(&mut self, id: DeviceId, at: Timestamp) -> bool {
        self.mark(id.to_string(), at);
        self.drop_until(at, |device| device.id == id)
    }

    /// Removes an address as of `at`, also from the contacts that the user has; `false`: it is not there, or was registered
    /// since.
    pub(crate) fn gone(&mut self, contacts: &Contacts, channel: Channel, address: &Address, at: Timestamp) -> bool {
        let dead = |contact: &Contact| contact.address == *address && contact.since <= at;
        let contact = contacts.on(channel).iter().any(|c| dead(c) && !self.hides(channel, c));
        let device = self.drop_until(at, |device| device.channel == channel && device.token == *address);
        if contact || device {
            self.mark(address_key(channel, address), at);
        }
        contact || device
    }

    /// Removes everything as of `at`.
    pub(crate) fn erase(&mut self, at: Timestamp) {
        self.drop_until(at, |_| true);
        self.erased = self.erased.max(Some(at.as_microsecond()));
        self.marks.retain(|_, mark| Some(*mark) > self.erased);
    }

    /// The contacts without those that are gone.
    pub(crate) fn visible(&self, contacts: Contacts) -> Contacts {
        if self.marks.is_empty() {
            return contacts;
        }
        let mut visible = Contacts::default();
        for (channel, contact) in contacts.iter().filter(|(channel, contact)| !self.hides(*channel, contact)) {
            visible.add(channel, contact.clone());
        }
        visible
    }

    fn hides(&self, channel: Channel, contact: &Contact) -> bool {
        let mark = self.marks.get(&address_key(channel, &contact.address));
        mark.is_some_and(|mark| contact.since.as_microsecond() <= *mark)
    }

    /// Whether the device was removed at `at` or later.
    fn bars(&self, device: &Device, at: Timestamp) -> bool {
        let keys = [device.id.to_string(), address_key(device.channel, &device.token)];
        let marks = keys.iter().filter_map(|key| self.marks.get(key)).chain(&self.erased);
        marks.max().is_some_and(|mark| at.as_microsecond() <= *mark)
    }

    /// Drops the devices that were not registered anew after `at`. Those that were are new since then.
    fn drop_until(&mut self, at: Timestamp, concerned: impl Fn(&Device) -> bool) -> bool {
        let before = self.devices.len();
        self.devices.retain_mut(|device| {
            if !concerned(device) || device.registered_at > at {
                return true;
            }
            device.registered_at = device.last_active_at;
            device.last_active_at > at
        });
        self.devices.len() < before
    }

    fn make_room(&mut self, max: usize) -> Vec<Device> {
        let mut evicted = Vec::new();
        while self.devices.len() > max {
            let least = self.devices.iter().enumerate().min_by_key(|(_, d)| (d.last_active_at, d.id.0));
            let Some((least, _)) = least else { break };
            let device = self.devices.remove(least);
            self.mark(device.id.to_string(), device.last_active_at);
            evicted.push(device);
        }
        evicted
    }

    fn mark(&mut self, key: String, at: Timestamp) {
        let (at, of) = (at.as_microsecond(), kind(&key).to_owned());
        let mark = self.marks.entry(key).or_insert(at);
        *mark = at.max(*mark);
        let alike = || self.marks.iter().filter(|(key, _)| kind(key) == of);
        if alike().count() > MARKS {
            let oldest = alike().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            oldest.map(|key| self.marks.remove(&key));
        }
    }
}

/// The channel of an address; nothing for a device. Devices that come and go push out no contact.
fn kind(key: &str) -> &str {
    key.split_once(':').map_or("", |(channel, _)| channel)
}

#[derive(Serialize, Deserialize)]
struct RosterRow<'a> {
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    devices: Vec<DeviceRow<'a>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    marks: BTreeMap<String, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    erased: Option<i64>,
}

/// A device as it is written down. The token is exposed: this goes into a store, never into a log.
#[derive(Serialize, Deserialize)]
struct DeviceRow<'a> {
    id: DeviceId,
    // read with every lookup of a user: where they lie
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    app: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
    environment: Environment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<Locale>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    #[serde(with = "micros")]
    registered_at: Timestamp,
    #[serde(with = "micros")]
    last_active_at: Timestamp,
}

impl<'a> From<&'a Device> for DeviceRow<'a> {
    fn from(d: &'a Device) -> Self {
        Self {
            id: d.id,
            channel: d.channel.as_str().into(),
            app: d.app.as_str().into(),
            token: d.token.expose().into(),
            environment: d.environment,
            locale: d.locale.clone(),
            time_zone: d.time_zone.clone(),
            registered_at: d.registered_at,
            last_active_at: d.last_active_at,
        }
    }
}

impl TryFrom<DeviceRow<'_>> for Device {
    type Error = String;
    fn try_from(row: DeviceRow<'_>) -> Result<Self, String> {
        let channel = Channel::parse(&row.channel)?;
        Ok(Self {
            id: row.id,
            channel,
            app: row.app.into_owned(),
            token: Address::parse(channel, &row.token).map_err(|_| "a device's token".to_owned())?,
            environment: row.environment,
            locale: row.locale,
            time_zone: row.time_zone,
            registered_at: row.registered_at,
            last_active_at: row.last_active_at,
        })
    }
}

/// Devices as they are written down.
fn device_rows(devices: &[Device]) -> Vec<DeviceRow<'_>> {
    devices.iter().map(DeviceRow::from).collect()
}

/// The reverse of [`device_rows`].
fn devices(rows: Vec<DeviceRow<'_>>) -> Result<Vec<Device>, String> {
    rows.into_iter().map(Device::try_from).collect()
}

/// A roster as JSON.
pub(crate) fn encode(roster: &Roster) -> String {
    let Roster { devices, marks, erased } = roster;
    json!(RosterRow { devices: device_rows(devices), marks: marks.clone(), erased: *erased }).to_string()
}

/// The reverse of [`encode`]; `None` is a user who never had a device.
pub(crate) fn decode(json: Option<&str>) -> Result<Roster, String> {
    let Some(json) = json else { return Ok(Roster::default()) };
    let row: RosterRow<'_> = serde_json::from_str(json).map_err(|e| place(&e))?;
    Ok(Roster { devices: devices(row.devices)?, marks: row.marks, erased: row.erased })
}

#[cfg(test)]
mod tests {
    use domain::TenantId;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn device(n: u8) -> Device {
        let token = Address::parse(Channel::Apns, &format!("{n:02x}").repeat(32)).expect("a token");
        let tenant = TenantId::parse("t").expect("a name");
        Device {
            id: DeviceId::derive(&tenant, Channel::Apns, "com.example", &token),
            channel: Channel::Apns,
            app: "com.example".into(),
            token,
            environment: Environment::Production,
            locale: None,
            time_zone: None,
            registered_at: at(0),
            last_active_at: at(0),
        }
    }

    fn times(roster: &Roster) -> Vec<(DeviceId, i64, i64)> {
        let of = |d: &Device| (d.id, d.registered_at.as_second(), d.last_active_at.as_second());
        roster.devices.iter().map(of).collect()
    }

    #[test]
    fn what_was_registered_up_to_a_removal_stays_removed() {
        let (one, none) = (device(1), Contacts::default());
        let removals: [fn(&mut Roster, &Device, &Contacts); 3] = [
            |r, d, _| assert!(r.remove(d.id, at(20)) || !r.devices.is_empty()),
            |r, d, none| assert!(r.gone(none, Channel::Apns, &d.token, at(20)) || !r.devices.is_empty()),
            |r, _, _| r.erase(at(20)),
        ];
        for removal in removals {
            let mut roster = Roster::default();
            roster.put(&one, None, 5, at(10));
            removal(&mut roster, &one, &none);
            for late in [10, 15, 20] {
                roster.put(&one, None, 5, at(late));
                assert_eq!(times(&roster), []);
            }
            roster.put(&one, None, 5, at(21));
            assert_eq!(times(&roster), [(one.id, 21, 21)], "it is a new one");

            // the same removal, but the device was registered anew before it arrived
            let mut roster = Roster::default();
            roster.put(&one, None, 5, at(10));
            roster.put(&one, None, 5, at(30));
            assert_eq!(times(&roster), [(one.id, 10, 30)]);
            removal(&mut roster, &one, &none);
            assert_eq!(times(&roster), [(one.id, 30, 30)], "new since the removal");
        }
    }

    #[test]
    fn any_order_of_registrations_leaves_the_most_active() {
        let order = |order: &[u8]| {
            let mut roster = Roster::default();
            for n in order {
                roster.put(&device(*n), None, 2, at(i64::from(*n)));
            }
            let mut left = times(&roster);
            left.sort_unstable_by_key(|(_, _, active)| *active);
            left
        };
        let expected = [(device(3).id, 3, 3), (device(4).id, 4, 4)];
        for orders in [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 4, 2], [4, 1, 3, 2]] {
            assert_eq!(order(&orders), expected, "{orders:?}");
        }
    }

    #[test]
    fn a_roster_is_read_back_and_remembers_no_more_than_it_needs() {
        let mut roster = Roster::default();
        for n in 0..=u8::MAX {
            roster.put(&device(n), None, 5, at(i64::from(n)));
        }
        roster.erase(at(10));
        assert_eq!(roster.marks.len(), MARKS);
        let json = encode(&roster);
        assert_eq!(decode(Some(&json)), Ok(roster));
        let error = decode(Some(&json.replace(&"ff".repeat(32), "secret"))).expect_err("no token");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_contact_stays_gone_however_many_devices_come_and_go() {
        let address = Address::parse(Channel::Webhook, "https://a.example/").expect("an address");
        let mut contacts = Contacts::default();
        contacts.add(Channel::Webhook, Contact { address: address.clone(), since: at(0) });
        let (mut roster, none) = (Roster::default(), Contacts::default());
        assert!(roster.gone(&contacts, Channel::Webhook, &address, at(0)));
        for n in 0..=u8::MAX {
            let (device, now) = (device(n), at(1 + i64::from(n)));
            roster.put(&device, None, 5, now);
            assert!(roster.gone(&none, Channel::Apns, &device.token, now));
            roster.remove(device.id, now);
        }
        assert_eq!(roster.visible(contacts), none);
        assert_eq!(roster.marks.len(), 2 * MARKS + 1);
    }
}
