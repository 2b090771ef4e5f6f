//! Starting and stopping.

use std::error::Error as _;

use quota_sim::{Account, Answer, Script, Simulator, StartError, Window};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::client::{login, receive, send_one, send_usage};
use super::{SECOND, answering, with};

#[test]
fn a_simulator_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}

    shared::<Simulator>();
}

#[tokio::test(start_paused = true)]
async fn the_simulator_listens_on_the_loopback_interface() {
    let url = answering(Answer::Ok).await.url();

    assert_eq!((url.scheme(), url.host_str()), ("http", Some("127.0.0.1")));
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_is_an_error_that_names_it() {
    let first = answering(Answer::Ok).await;
    let port = first.url().port().unwrap();

    let error = Simulator::builder(Script::default()).port(port).start().await.unwrap_err();

    assert_eq!(error.to_string(), format!("could not listen on port {port}"));
    assert!(error.source().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_contradictory_script_does_not_start() {
    let script = Script::new([Account::new("main").windows([Window::five_hour().used(-1.0)])]);

    let error = Simulator::builder(script).start().await.unwrap_err();

    assert!(matches!(error, StartError::Script(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_a_response_in_flight() {
    let simulator = with(Account::new("main").latency(SECOND / 4)).await;
    let stream = send_usage(&simulator, "main").await;
    simulator.until(|ledger| ledger.calls() == 1).await;

    let (response, ledger) = tokio::join!(receive(stream), simulator.stop());

    assert_eq!(response.status, 200);
    assert_eq!(ledger.account("main").unwrap().answered(200), 1);
}

#[tokio::test(start_paused = true)]
async fn a_response_during_stop_ends_its_connection() {
    let simulator = with(Account::new("main").latency(SECOND / 4)).await;
    let stream = send_one(&simulator, "GET", "/api/oauth/usage", &login("sim-token-main"), "").await;
    simulator.until(|ledger| ledger.calls() == 1).await;

    let (response, _) = tokio::join!(receive(stream), simulator.stop());

    assert_eq!(response.header("connection"), Some("close"));
}

#[tokio::test(start_paused = true)]
async fn stop_does_not_wait_for_a_hung_call() {
    let simulator = answering(Answer::Hang).await;
    let mut stream = send_usage(&simulator, "main").await;
    simulator.until(|ledger| ledger.calls() == 1).await;

    let ledger = simulator.stop().await;

    let main = ledger.account("main").unwrap();
    assert_eq!((main.in_flight, main.abandoned), (0, 1));
    assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)), "no byte may arrive");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_simulator_does_not_listen() {
    let simulator = answering(Answer::Ok).await;
    let port = simulator.url().port().unwrap();

    simulator.stop().await;

    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn drop_closes_its_connections() {
    let simulator = answering(Answer::Hang).await;
    let mut stream = send_usage(&simulator, "main").await;
    simulator.until(|ledger| ledger.calls() == 1).await;

    drop(simulator);

    assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)), "no byte may arrive");
}
