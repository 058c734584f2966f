//! Claims and dead addresses as Redis keeps them.

use super::*;

#[tokio::test]
async fn a_dead_address_is_known_by_a_hash_and_for_a_week() {
    let settings = ready().await;
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let (tenant, address) = (tenant(), Address::parse(Channel::Webhook, "https://a.example/x").expect("an address"));
    stores.ledger.mark_gone(&tenant, Channel::Webhook, &address, at(1)).await.expect("mark_gone");
    let digest = ring::digest::digest(&ring::digest::SHA256, address.expose().as_bytes());
    let key = format!("carillon:gone:{tenant}:webhook:{}", data_encoding::HEXLOWER.encode(digest.as_ref()));
    let kept: i64 = redis::cmd("TTL").arg(&key).query_async(&mut redis).await.expect("TTL");
    assert!((604_000..=604_800).contains(&kept), "{kept}");
    // what is no time, or of another type, is as good as nothing, and replaced
    for spoil in ["SET", "SADD"] {
        let _: () = redis::cmd("DEL").arg(&key).query_async(&mut redis).await.expect("DEL");
        let _: () = redis::cmd(spoil).arg(&key).arg("x").query_async(&mut redis).await.expect(spoil);
        let asked = [(tenant.clone(), Channel::Webhook, address.clone())];
        assert_eq!(stores.ledger.gone(&asked).await.expect("gone"), [None]);
        stores.ledger.mark_gone(&tenant, Channel::Webhook, &address, at(2)).await.expect("mark_gone");
        assert_eq!(stores.ledger.gone(&asked).await.expect("gone"), [Some(at(2))]);
    }
}

#[tokio::test]
async fn a_claim_expires_with_its_window() {
    let settings = ready().await;
    let settings = ClusterSettings { claim_window: Duration::from_millis(300), ..settings };
    let stores = cluster::connect(&settings).await.expect("connect");
    let (open, ended) = (DeliveryId(Uuid::new_v4()), DeliveryId(Uuid::new_v4()));
    stores.ledger.settle(1, &[(ended, Settled(Bytes::from_static(b"sent")))]).await.expect("settle");
    for delivery in [open, ended] {
        let request = ClaimRequest { delivery, owner: 1, at: at(0) };
        let claim = || async {
            let answers = stores.ledger.claim(std::slice::from_ref(&request)).await.expect("claim");
            (answers == [Claim::Granted]).then_some(())
        };
        eventually("the claim is granted", claim).await;
    }
}

/// A restart or a failover takes the scripts along; those that lack one say so.
#[tokio::test]
async fn ends_are_recorded_by_a_redis_that_has_forgotten_how() {
    let settings = ready().await;
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let deliveries = [DeliveryId(Uuid::new_v4()), DeliveryId(Uuid::new_v4())];
    let ends = deliveries.map(|delivery| (delivery, Settled(Bytes::from_static(b"\xff\0 sent"))));
    for standing in [[None, None], ends.clone().map(|(_, end)| Some(Claim::Settled(end)))] {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut redis).await.expect("SCRIPT FLUSH");
        assert_eq!(stores.ledger.settle(1, &ends).await.expect("settle"), standing);
    }
}

/// Row 34: what lies at our keys and is not ours is never a yes.
#[tokio::test]
async fn what_is_of_another_type_in_redis_is_no_yes() {
    let settings = ready().await;
    let stores = cluster::connect(&settings).await.expect("connect");
    let mut redis = redis(&settings).await;
    let spoils = [("RPUSH", vec!["x"]), ("HSET", vec!["f", "x"]), ("SET", vec!["x"]), ("SET", vec![""])];
    for (spoil, values) in &spoils {
        let mut put = async |name: &str| {
            let _: () = redis::cmd("DEL").arg(name).query_async(&mut redis).await.expect("DEL");
            let _: () = redis::cmd(spoil).arg(name).arg(values).query_async(&mut redis).await.expect(spoil);
        };
        let (bad, good) = (DeliveryId(Uuid::new_v4()), DeliveryId(Uuid::new_v4()));
        put(&format!("carillon:claim:{bad}")).await;
        let request = |delivery| ClaimRequest { delivery, owner: 1, at: at(0) };
        for _ in 0..2 {
            let claims = stores.ledger.claim(&[request(bad)]).await;
            assert!(matches!(claims, Err(StoreError::Corrupt { store: "redis", .. })), "{spoil}: {claims:?}");
            assert!(stores.ledger.claim(&[request(good), request(bad)]).await.is_err(), "{spoil}");
        }
        assert!(!stores.ledger.take_over(&request(bad), 7).await.unwrap_or(false), "{spoil}");
        let end = Settled(Bytes::from_static(b"sent"));
        assert!(!stores.ledger.reopen(&request(bad), &end).await.unwrap_or(false), "{spoil}");

        let (key, user) = ana("de");
        let wish = Preferences { all: Some(false), ..Preferences::default() };
        stores.users.put(&user, &change(1)).await.expect("put");
        put(&copy_of(&key)).await;
        assert_eq!(wants(&stores, &key).await, Some(true), "{spoil}: the record knows");
        put(&copy_of(&key)).await;
        let written = change(2);
        let wished = || async { stores.users.put_preferences(&key, &wish, &written).await.ok() };
        // the first time it may be said that it did not work
        assert!(eventually("the wish is taken", wished).await, "{spoil}");
        assert_eq!(wants(&stores, &key).await, Some(false), "{spoil}");
        put(&copy_of(&key)).await;
        assert_eq!(wants(&stores, &key).await, Some(false), "{spoil}");
    }
}
