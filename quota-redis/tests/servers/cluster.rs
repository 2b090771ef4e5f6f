//! A cluster: how keys are found, even while their slots move.

use std::pin::pin;

use quota_core::QuotaStore;
use quota_core::store::{StoreError, StoreKey};
use redis_harness::Cluster;

use crate::env::{applied, body, key, open, start, still_waits, swap, until, within_deadline};

/// The permissions that the front page of the crate lists for a cluster.
pub(crate) const REQUIRED_PERMISSIONS: [&str; 12] = [
    "~quota:1:*",
    "&quota:1:*",
    "+evalsha",
    "+eval",
    "+get",
    "+set",
    "+getrange",
    "+time",
    "+spublish",
    "+ssubscribe",
    "+asking",
    "+cluster|slots",
];

/// The slot of an account, its owner, and another node.
fn slot_and_nodes(cluster: &Cluster, key: &StoreKey) -> (u16, usize, usize) {
    let slot = cluster.slot_of(&format!("quota:1:{{{key}}}"));
    let from = cluster.owner_of(slot);
    (slot, from, (from + 1) % 3)
}

#[tokio::test]
async fn a_document_stays_readable_and_swappable_while_its_slot_moves() {
    let cluster = Cluster::start();
    let store = open(&cluster.url());
    let moving = key("main");
    let (slot, from, to) = slot_and_nodes(&cluster, &moving);
    let mut version = applied(swap(&store, &moving, None, "at home").await);

    cluster.begin_move(slot, from, to);
    assert_eq!(store.read(&moving).await.unwrap().version(), Some(version));
    version = applied(swap(&store, &moving, Some(version), "still at home").await);

    cluster.move_keys(slot, from, to);
    assert_eq!(store.read(&moving).await.unwrap().version(), Some(version), "by ASK");
    let () = cluster.nodes()[to].command(&["SCRIPT", "FLUSH"]);
    version = applied(swap(&store, &moving, Some(version), "away").await);
    let lost = swap(&store, &moving, None, "a loser").await.unwrap();
    assert!(
        matches!(lost, quota_core::store::CasOutcome::Conflict(reading) if reading.version() == Some(version))
    );

    cluster.end_move(slot, from, to);
    assert_eq!(store.read(&moving).await.unwrap().version(), Some(version), "by MOVED");
    applied(swap(&store, &moving, Some(version), "on its new node").await);
    assert_eq!(body(store.read(&moving).await).as_deref(), Some(&b"on its new node"[..]));
}

#[tokio::test]
async fn a_cluster_node_as_a_single_server_is_rejected_with_the_right_url() {
    let cluster = Cluster::start();
    let (_, home, elsewhere) = slot_and_nodes(&cluster, &key("main"));
    let url = cluster.nodes()[elsewhere].url();
    let expected = url.replace("redis://", "redis+cluster://");
    let store = open(&url);
    let here = (0..)
        .map(|number| key(&format!("a{number}")))
        .find(|key| slot_and_nodes(&cluster, key).1 == elsewhere);

    let rejected = store.read(&key("main")).await.unwrap_err();
    // The same holds for a key that this node owns.
    let also_rejected = store.read(&here.unwrap()).await.unwrap_err();

    for error in [rejected, also_rejected, open(&format!("{url}/3")).read(&key("main")).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    assert_ne!(home, elsewhere);
    open(&expected).read(&key("main")).await.unwrap();
}

#[tokio::test]
async fn a_moving_slot_does_not_make_waiters_spin() {
    let cluster = Cluster::start();
    let store = open(&cluster.url());
    let key = key("main");
    let (slot, from, to) = slot_and_nodes(&cluster, &key);
    let mut seen = applied(swap(&store, &key, None, "one").await);
    {
        let mut wait = pin!(store.wait_for_change(&key, Some(seen)));
        assert!(still_waits(&store, &mut wait).await);
        let looked_up = || cluster.nodes()[from].calls().iter().any(|(name, _)| name == "getrange");
        until(async || looked_up().then_some(())).await;
        store.read(&key).await.unwrap();
        assert!(still_waits(&store, &mut wait).await);
    }
    cluster.begin_move(slot, from, to);
    cluster.move_keys(slot, from, to);

    // The write goes to the other node, after ASK, so no notice arrives here.
    seen = applied(swap(&store, &key, Some(seen), "two").await);
    let mut wait = pin!(store.wait_for_change(&key, Some(seen)));

    assert!(still_waits(&store, &mut wait).await);
    cluster.end_move(slot, from, to);
    within_deadline("the end of the subscription", wait).await.unwrap();
}

#[tokio::test]
async fn notices_come_from_the_node_of_the_key() {
    let cluster = Cluster::start();
    let (here, there) = (open(&cluster.url()), open(&cluster.url()));
    let keys: Vec<_> = (0..6).map(|index| key(&format!("a{index}"))).collect();
    let mut waits = Vec::new();
    for key in &keys {
        let seen = applied(swap(&here, key, None, "one").await);
        let (store, key) = (here.clone(), key.clone());
        waits.push((seen, start(async move { store.wait_for_change(&key, Some(seen)).await })));
    }
    let subscribed = || -> usize {
        cluster
            .nodes()
            .iter()
            .map(|node| node.command::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS"]).len())
            .sum()
    };
    until(async || (subscribed() == keys.len()).then_some(())).await;

    for (key, (seen, _)) in keys.iter().zip(&waits) {
        applied(swap(&there, key, Some(*seen), "two").await);
    }

    for (_, wait) in waits {
        within_deadline("the notice", wait).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_node_is_enough_to_find_the_others() {
    let mut cluster = Cluster::start();
    let url = cluster.url();
    let victim = key("main");
    let (_, owner, _) = slot_and_nodes(&cluster, &victim);
    let survivor = (0..)
        .map(|index| key(&format!("b{index}")))
        .find(|key| slot_and_nodes(&cluster, key).1 != owner)
        .unwrap();
    for node in cluster.nodes() {
        let () = node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    cluster.nodes_mut()[owner].kill();
    let store = open(&url);

    applied(swap(&store, &survivor, None, "one").await);
    let error = swap(&store, &victim, None, "one").await.unwrap_err();

    assert!(
        matches!(error, StoreError::Unavailable { applied: quota_core::store::WriteState::NotApplied, .. }),
        "{error:?}"
    );
    assert_eq!(body(store.read(&survivor).await).as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn a_slot_is_found_after_another_node_took_it_over() {
    let mut cluster = Cluster::start();
    let store = open(&cluster.url());
    let key = key("main");
    let (slot, from, to) = slot_and_nodes(&cluster, &key);
    for node in cluster.nodes() {
        let () = node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let seen = applied(swap(&store, &key, None, "before").await);
    cluster.nodes_mut()[from].kill();
    assert!(store.read(&key).await.unwrap_err().is_transient());

    cluster.take_over(slot, to);

    let found = until(async || store.read(&key).await.ok()).await;
    assert_eq!(found.document, None, "nothing was copied");
    let again = applied(swap(&store, &key, None, "after").await);
    assert_ne!(again, seen);
}

#[tokio::test]
async fn the_listed_permissions_are_sufficient_on_a_cluster() {
    let cluster = Cluster::start();
    for node in cluster.nodes() {
        let () = node.command(
            &[&["ACL", "SETUSER", "quota", "reset", "on", ">pw"][..], &REQUIRED_PERMISSIONS].concat(),
        );
    }
    let url = cluster.url().replace("redis+cluster://", "redis+cluster://quota:pw@");
    let (here, there) = (open(&url), open(&url));
    let key = key("main");
    let (slot, from, to) = slot_and_nodes(&cluster, &key);
    let seen = applied(swap(&here, &key, None, "one").await);
    let mut wait = pin!(here.wait_for_change(&key, Some(seen)));
    assert!(still_waits(&here, &mut wait).await);

    let seen = applied(swap(&there, &key, Some(seen), "two").await);

    within_deadline("the notice", wait).await.unwrap();
    cluster.begin_move(slot, from, to);
    cluster.move_keys(slot, from, to);
    assert_eq!(here.read(&key).await.unwrap().version(), Some(seen));
}
