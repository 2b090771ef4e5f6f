//! The server that held an account is replaced by another in mid refresh.

use std::time::Duration;

use quota_tests::history::{Written, check};
use redis_harness::{Cluster, Monitor, Sentinels, Server};

use crate::world::*;

/// What a master that was lost and its heir have accepted, one after the other, is a good history.
fn assert_good_histories((old, lost): (Monitor, &Server), (new, heir): (Monitor, &Server)) {
    let calls = [old.heard_to_the_end(lost), new.heard(heir)].concat();
    let history: Vec<_> = calls.iter().filter_map(|call| Written::by_call(call)).collect();
    assert!(history.len() > 1, "there is something to check");
    assert_eq!(check(&history), Ok(()));
}

/// Two hosts behind sentinels; in mid refresh the master is lost by `fault`, and the replica is made the master.
async fn sentinels_decide_in_mid_refresh(fault: fn(&mut Server)) {
    let mut sentinels = Sentinels::start();
    let (old, new) = (Monitor::of(sentinels.first()), Monitor::of(sentinels.replica()));
    let provider = provider().taking(Duration::from_millis(500));
    let url = sentinels.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    moves_to(&provider, &hosts, 40.0).await;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has begun", || provider.calls() == 2).await;
        fault(sentinels.first());
    });
    assert_eq!(refreshed, Some(40.0));
    tokio::task::block_in_place(|| sentinels.wait_for_failover());

    // The other one only waits to be told.
    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    sentinels.first().kill();
    assert_good_histories((old, &sentinels.servers()[0]), (new, sentinels.replica()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_outlives_the_failover_that_sentinels_decide() {
    sentinels_decide_in_mid_refresh(Server::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_outlives_the_failover_from_a_master_that_stands_still() {
    sentinels_decide_in_mid_refresh(|master| master.freeze()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_outlives_that_another_node_of_a_cluster_takes_its_slot_with_nothing_in_it() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let provider = provider().taking(Duration::from_millis(500));
    let url = cluster.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    moves_to(&provider, &hosts, 40.0).await;
    let slot = cluster.slot_of(KEY);
    let owner = cluster.owner_of(slot);
    let heir = (owner + 1) % 3;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has begun", || provider.calls() == 2).await;
        cluster.take_over(slot, heir);
    });
    assert_eq!(refreshed, Some(40.0));

    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    assert_eq!(cluster.nodes()[heir].ask::<i64>(&["EXISTS", KEY]), 1);
}

/// Two hosts on a cluster; in mid refresh the master of their account is lost by `fault`, and its replica takes over. What
/// both masters have accepted, in that order, is a good history.
async fn a_replica_takes_over_in_mid_refresh(fault: fn(&mut Server)) {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let slot = cluster.slot_of(KEY);
    let owner = cluster.owner_of(slot);
    let heir = tokio::task::block_in_place(|| cluster.add_replica_of(owner));
    let (old, new) = (Monitor::of(&cluster.nodes()[owner]), Monitor::of(&cluster.nodes()[heir]));
    let provider = provider().taking(Duration::from_millis(500));
    let url = cluster.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    moves_to(&provider, &hosts, 40.0).await;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has begun", || provider.calls() == 2).await;
        fault(&mut cluster.nodes_mut()[owner]);
    });
    assert_eq!(refreshed, Some(40.0));
    tokio::task::block_in_place(|| cluster.wait_for_failover(slot, heir));

    // The other one only waits to be told.
    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    cluster.nodes_mut()[owner].kill();
    assert_good_histories((old, &cluster.nodes()[owner]), (new, &cluster.nodes()[heir]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_outlives_that_the_master_of_its_account_is_killed_and_its_replica_takes_over() {
    a_replica_takes_over_in_mid_refresh(Server::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_outlives_that_the_master_of_its_account_stands_still_and_its_replica_takes_over() {
    a_replica_takes_over_in_mid_refresh(|master| master.freeze()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_outlives_that_the_node_of_its_account_is_killed_and_starts_again_with_nothing() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let owner = cluster.owner_of(cluster.slot_of(KEY));
    let provider = provider().taking(Duration::from_millis(500));
    let url = cluster.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    moves_to(&provider, &hosts, 40.0).await;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has begun", || provider.calls() == 2).await;
        tokio::task::block_in_place(|| cluster.nodes_mut()[owner].restart());
    });
    assert_eq!(refreshed, Some(40.0));

    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    assert_eq!(cluster.nodes()[owner].ask::<i64>(&["EXISTS", KEY]), 1);
}
