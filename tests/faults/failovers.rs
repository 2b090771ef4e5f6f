//! Failovers: another server replaces the one that holds an account, during a refresh.

use std::time::Duration;

use quota_tests::history::{Written, check};
use redis_harness::{Cluster, Monitor, Sentinels, Server};

use crate::fixture::*;

/// Checks that the writes of a lost master, followed by those of its replacement, are a valid history.
fn assert_valid_histories((old, lost): (Monitor, &Server), (new, heir): (Monitor, &Server)) {
    let calls = [old.into_recorded(lost), new.recorded(heir)].concat();
    let history: Vec<_> = calls.iter().filter_map(|call| Written::by_call(call)).collect();
    assert!(history.len() > 1, "the history is not empty");
    assert_eq!(check(&history), Ok(()));
}

/// Two hosts behind sentinels. During a refresh, `fault` takes the master down, and the replica becomes the master.
async fn refresh_during_sentinel_failover(fault: fn(&mut Server)) {
    let mut sentinels = Sentinels::start();
    let (old, new) = (Monitor::start(sentinels.initial_master()), Monitor::start(sentinels.replica()));
    let provider = provider().with_delay(Duration::from_millis(500));
    let url = sentinels.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    set_usage(&provider, &hosts, 40.0).await;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has started", || provider.calls() == 2).await;
        fault(sentinels.initial_master());
    });
    assert_eq!(refreshed, Some(40.0));
    tokio::task::block_in_place(|| sentinels.wait_for_failover());

    // The other host only waits for a notice.
    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    sentinels.initial_master().kill();
    assert_valid_histories((old, &sentinels.servers()[0]), (new, sentinels.replica()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_survives_a_sentinel_failover_of_a_killed_master() {
    refresh_during_sentinel_failover(Server::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_survives_a_sentinel_failover_of_a_suspended_master() {
    refresh_during_sentinel_failover(|master| master.suspend()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_survives_a_takeover_of_its_slot_by_an_empty_node() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let provider = provider().with_delay(Duration::from_millis(500));
    let url = cluster.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    set_usage(&provider, &hosts, 40.0).await;
    let slot = cluster.slot_of(KEY);
    let owner = cluster.owner_of(slot);
    let heir = (owner + 1) % 3;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has started", || provider.calls() == 2).await;
        cluster.take_over(slot, heir);
    });
    assert_eq!(refreshed, Some(40.0));

    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    assert_eq!(cluster.nodes()[heir].command::<i64>(&["EXISTS", KEY]), 1);
}

/// Two hosts on a cluster. During a refresh, `fault` takes the master of their account down, and its replica takes over. The writes
/// of both masters, in this order, are a valid history.
async fn refresh_during_cluster_failover(fault: fn(&mut Server)) {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let slot = cluster.slot_of(KEY);
    let owner = cluster.owner_of(slot);
    let heir = tokio::task::block_in_place(|| cluster.add_replica_of(owner));
    let (old, new) = (Monitor::start(&cluster.nodes()[owner]), Monitor::start(&cluster.nodes()[heir]));
    let provider = provider().with_delay(Duration::from_millis(500));
    let url = cluster.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    set_usage(&provider, &hosts, 40.0).await;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has started", || provider.calls() == 2).await;
        fault(&mut cluster.nodes_mut()[owner]);
    });
    assert_eq!(refreshed, Some(40.0));
    tokio::task::block_in_place(|| cluster.wait_for_failover(slot, heir));

    // The other host only waits for a notice.
    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    cluster.nodes_mut()[owner].kill();
    assert_valid_histories((old, &cluster.nodes()[owner]), (new, &cluster.nodes()[heir]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_survives_a_cluster_failover_of_a_killed_master() {
    refresh_during_cluster_failover(Server::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_survives_a_cluster_failover_of_a_suspended_master() {
    refresh_during_cluster_failover(|master| master.suspend()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_survives_a_restart_of_its_node_without_data() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let owner = cluster.owner_of(cluster.slot_of(KEY));
    let provider = provider().with_delay(Duration::from_millis(500));
    let url = cluster.url();
    let mut hosts = vec![Host::on(&url, &provider), Host::on(&url, &provider)];
    for host in &mut hosts {
        assert_eq!(host.get().await, Some(30.0));
    }
    set_usage(&provider, &hosts, 40.0).await;

    let (refreshed, ()) = tokio::join!(hosts[0].refresh(), async {
        until("the call has started", || provider.calls() == 2).await;
        tokio::task::block_in_place(|| cluster.nodes_mut()[owner].restart());
    });
    assert_eq!(refreshed, Some(40.0));

    hosts[1].until_shows(40.0).await;
    assert_eq!(provider.calls(), 2);
    all_agree(&provider, &mut hosts).await;
    assert_eq!(cluster.nodes()[owner].command::<i64>(&["EXISTS", KEY]), 1);
}
