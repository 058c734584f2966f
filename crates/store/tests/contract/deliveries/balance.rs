//! What conservation is counted by.

use super::*;

/// A balance as it should be.
fn balanced(tenant: &TenantId, recipients: u64, decided: u64, states: &[(State, u64)]) -> Balance {
    let states: BTreeMap<_, _> = states.iter().copied().collect();
    let channels = if states.is_empty() { BTreeMap::new() } else { [(Channel::Webhook, states)].into() };
    Balance { tenant: tenant.clone(), recipients, decided, channels }
}

async fn balance(store: &dyn Deliveries, tenant: &TenantId, until: i64) -> Option<Balance> {
    let mut found = store.balance(Some(tenant), at(until)).await.expect("balance");
    assert!(found.len() <= 1);
    found.pop()
}

pub async fn a_balance_counts_everything_once(store: &dyn Deliveries) {
    let tenant = tenant();
    assert_eq!(balance(store, &tenant, 100).await, None, "nothing was asked for");
    let (one, two) = (notification(&tenant), NotificationStatus { accepted_at: at(50), ..notification(&tenant) });
    let (one, two) = (NotificationStatus { recipients: 700, ..one }, NotificationStatus { recipients: 3, ..two });
    let later = |d: &DeliveryStatus, state| {
        let mut history = d.history.clone();
        history.reached(at(60), state, None);
        DeliveryStatus { state, updated_at: at(60), history, ..d.clone() }
    };
    let first = delivery(&tenant, one.id, 0, &[State::Queued]);
    let second = DeliveryStatus { leads: false, ..delivery(&tenant, one.id, 0, &[State::Suppressed]) };
    let third = delivery(&tenant, two.id, 50, &[State::Queued]);
    let apns = DeliveryStatus { channel: Channel::Apns, ..delivery(&tenant, two.id, 49, &[State::Unknown]) };
    let documents = [Status::Notification(one.clone()), Status::Notification(two), Status::Notification(one)];
    index(store, &documents).await;
    index(store, &[first.clone(), second, third.clone(), apns, first.clone()].map(Status::Delivery)).await;
    index(store, &[Status::Delivery(later(&first, State::Sent)), Status::Delivery(later(&third, State::Failed))]).await;
    let mut all = balanced(&tenant, 703, 3, &[(State::Sent, 1), (State::Suppressed, 1), (State::Failed, 1)]);
    all.channels.insert(Channel::Apns, [(State::Unknown, 1)].into());
    let counted = || async { (balance(store, &tenant, 51).await.as_ref() == Some(&all)).then_some(()) };
    eventually("everything is counted", counted).await;
    let mut early = balanced(&tenant, 700, 2, &[(State::Sent, 1), (State::Suppressed, 1)]);
    early.channels.insert(Channel::Apns, [(State::Unknown, 1)].into());
    assert_eq!(balance(store, &tenant, 50).await, Some(early), "accepted before that time");
    assert_eq!(balance(store, &tenant, 0).await, None);
}

/// More than one page of whatever counts.
pub async fn a_balance_counts_every_tenant(store: &dyn Deliveries) {
    let tenants: Vec<_> = (0..1_100).map(|_| tenant()).collect();
    let mut documents = Vec::new();
    for tenant in &tenants {
        let request = NotificationStatus { recipients: 2, ..notification(tenant) };
        documents.push(Status::Delivery(delivery(tenant, request.id, 0, &[State::Queued])));
        documents.push(Status::Delivery(delivery(tenant, request.id, 0, &[State::Sent])));
        documents.push(Status::Notification(request));
    }
    index(store, &documents).await;
    let expected: BTreeMap<_, _> = tenants
        .iter()
        .map(|tenant| (tenant.clone(), balanced(tenant, 2, 2, &[(State::Queued, 1), (State::Sent, 1)])))
        .collect();
    let counted = || async {
        let all = store.balance(None, at(1)).await.expect("balance");
        assert!(all.is_sorted_by(|a, b| a.tenant < b.tenant), "by tenant, each once");
        let ours: BTreeMap<_, _> = all.into_iter().map(|b| (b.tenant.clone(), b)).collect();
        tenants.iter().all(|tenant| ours.get(tenant) == expected.get(tenant)).then_some(())
    };
    eventually("every tenant is counted", counted).await;
}
