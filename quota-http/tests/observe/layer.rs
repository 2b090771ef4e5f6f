//! The layer around a service in this process.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use quota_core::{MemoryStore, Percent, QuotaManager, Used, WindowId};
use quota_http::observe::{MAX_BODY, ObserveLayer, ObservedBody, ObservedResponse, RequestHead};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::*;

/// Sends one request through a layer that records, to a service with this response.
async fn send(
    recorder: &Recorder,
    answer: Response<Frames>,
) -> Response<ObservedBody<Frames, Arc<impl Fn(&ObservedResponse<'_>) + Send + Sync + 'static>>> {
    let recorder = recorder.clone();
    let layer = ObserveLayer::for_each(move |response| recorder.record(response));
    through(layer, answer).await
}

async fn through<F, O>(layer: ObserveLayer<F>, answer: Response<Frames>) -> Response<ObservedBody<Frames, O>>
where
    F: Fn(&RequestHead<'_>) -> Option<O> + Clone,
    O: quota_http::observe::ResponseObserver,
{
    let answer = Mutex::new(Some(answer));
    let inner = service_fn(move |_: Request<()>| {
        let answer = answer.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(answer) }
    });
    layer.layer(inner).oneshot(Request::new(())).await.unwrap()
}

async fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Bytes>
where
    B::Error: std::fmt::Debug,
{
    body.frame().await.map(|frame| frame.unwrap().into_data().unwrap())
}

#[tokio::test]
async fn a_success_is_observed_before_its_body_is_polled() {
    let (recorder, frames) = (Recorder::default(), Frames::of([b"a", b"b"]));
    let polls = Arc::clone(&frames.polls);

    let mut response = send(&recorder, response(200, frames)).await;

    let seen = Seen { status: 200, body: Vec::new(), used: vec!["five_hour 50%".into()] };
    assert_eq!((recorder.seen(), *polls.lock().unwrap()), (vec![seen], 0));
    assert_eq!(next(response.body_mut()).await, Some(Bytes::from("a")));
    assert_eq!(*polls.lock().unwrap(), 1, "the body is not read ahead");
}

#[tokio::test]
async fn a_rejection_is_observed_with_its_body_when_the_body_has_passed() {
    let recorder = Recorder::default();

    let mut response = send(&recorder, response(429, Frames::of([b"one ", b"two"]))).await;

    assert_eq!(next(response.body_mut()).await, Some(Bytes::from("one ")));
    assert_eq!(next(response.body_mut()).await, Some(Bytes::from("two")));
    assert_eq!(recorder.seen(), []);
    assert_eq!(next(response.body_mut()).await, None);
    assert_eq!(recorder.only_body(), b"one two");
}

#[tokio::test]
async fn a_body_with_a_known_end_is_observed_after_its_last_frame() {
    let recorder = Recorder::default();

    let mut response = send(&recorder, response(500, Frames::of([b"all"]).with_known_end())).await;
    next(response.body_mut()).await;

    assert_eq!(recorder.only_body(), b"all");
}

#[tokio::test]
async fn a_rejection_without_a_body_is_observed_at_once() {
    let recorder = Recorder::default();

    drop(send(&recorder, response(429, Frames::default().with_known_end())).await);

    assert_eq!(recorder.only_body(), b"");
}

#[tokio::test]
async fn a_cancelled_body_is_observed_with_what_has_passed() {
    let recorder = Recorder::default();

    let mut response = send(&recorder, response(429, Frames::of([b"one", b"two"]))).await;
    next(response.body_mut()).await;
    drop(response);

    assert_eq!(recorder.only_body(), b"one");
}

#[tokio::test]
async fn a_broken_body_is_observed_and_its_error_is_passed_on() {
    let recorder = Recorder::default();

    let mut response = send(&recorder, response(503, Frames::of([b"one"]).then_fail())).await;
    next(response.body_mut()).await;
    let error = response.body_mut().frame().await.unwrap().unwrap_err();

    assert_eq!((error, recorder.only_body()), ("broken", b"one".to_vec()));
}

#[tokio::test]
async fn only_the_beginning_of_a_long_body_is_kept() {
    const HALF: &[u8] = &[b'x'; MAX_BODY / 2 + 1];
    let recorder = Recorder::default();

    let mut response = send(&recorder, response(400, Frames::of([HALF, HALF, HALF]))).await;
    next(response.body_mut()).await;
    next(response.body_mut()).await;

    assert_eq!(recorder.only_body().len(), MAX_BODY);
    assert_eq!(next(response.body_mut()).await, Some(Bytes::from_static(HALF)));
    assert_eq!(recorder.seen().len(), 1);
}

#[tokio::test]
async fn headers_trailers_and_size_are_passed_on() {
    for status in [200, 429] {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", "1".parse().unwrap());
        let frames = Frames::of([b"one"]).then_trailers(trailers.clone());

        let passed = send(&Recorder::default(), response(status, frames)).await;

        assert_eq!(
            (passed.status().as_u16(), &passed.headers()["x-kept"]),
            (status, &"yes".parse().unwrap())
        );
        assert_eq!(passed.body().size_hint().exact(), Some(77));
        assert_eq!(passed.into_body().collect().await.unwrap().trailers(), Some(&trailers));
    }
}

#[tokio::test]
async fn a_panic_of_the_observer_does_not_reach_the_caller() {
    for status in [200, 429] {
        let layer = ObserveLayer::for_each(|_| panic!("observer"));

        let passed = through(layer, response(status, Frames::of([b"one"]))).await;

        assert_eq!(passed.into_body().collect().await.unwrap().to_bytes(), "one");
    }
}

#[tokio::test]
async fn a_panic_of_the_choice_does_not_reach_the_caller() {
    fn choose(_: &RequestHead<'_>) -> Option<fn(&ObservedResponse<'_>)> {
        panic!("choice")
    }

    let passed = through(ObserveLayer::new(choose), response(200, Frames::of([b"one"]))).await;

    assert_eq!(passed.into_body().collect().await.unwrap().to_bytes(), "one");
}

#[tokio::test]
async fn a_panic_of_the_caller_while_a_rejection_passes_is_not_doubled() {
    let layer = ObserveLayer::for_each(|_| panic!("observer"));
    let response = through(layer, response(429, Frames::of([b"one"]))).await;

    let caller = std::thread::spawn(move || {
        let _response = response;
        panic!("caller");
    });

    assert_eq!(caller.join().unwrap_err().downcast_ref(), Some(&"caller"));
}

#[tokio::test]
async fn an_error_of_the_service_is_passed_on_and_not_observed() {
    let recorder = Recorder::default();
    let observer = recorder.clone();
    let layer = ObserveLayer::for_each(move |response| observer.record(response));
    let inner = service_fn(|_: Request<()>| async { Err::<Response<Frames>, _>("unreachable") });

    let error = layer.layer(inner).oneshot(Request::new(())).await.unwrap_err();

    assert_eq!((error, recorder.seen()), ("unreachable", Vec::new()));
}

#[tokio::test]
async fn the_request_chooses_the_observer() {
    let recorder = Recorder::default();
    let observer = recorder.clone();
    let layer = ObserveLayer::new(move |request| {
        let observer = observer.clone();
        let is_observed = request.host == Some("api.example.com") && request.extensions.get() == Some(&7_u8);
        is_observed.then_some(move |response: &ObservedResponse<'_>| observer.record(response))
    });
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(response(200, Frames::default())) });
    let mut service = layer.layer(inner);

    for (url, extension) in
        [("https://api.example.com/a", 7), ("https://api.example.com/a", 8), ("https://example.org/", 7_u8)]
    {
        let request = Request::get(url).extension(extension).body(()).unwrap();
        let _response = service.ready().await.unwrap().call(request).await.unwrap();
    }

    assert_eq!(recorder.seen().len(), 1);
}

#[tokio::test]
async fn clones_of_the_service_share_the_observer() {
    let recorder = Recorder::default();
    let observer = recorder.clone();
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(response(200, Frames::default())) });
    let service = ObserveLayer::for_each(move |response| observer.record(response)).layer(inner);

    for service in [service.clone(), service.clone(), service] {
        let _response = service.oneshot(Request::new(())).await.unwrap();
    }

    assert_eq!(recorder.seen().len(), 3);
}

#[tokio::test]
async fn an_account_merges_the_usage_when_the_headers_of_a_rejection_arrive() {
    let quota = QuotaManager::builder(MemoryStore::new()).build().unwrap();
    let main = quota.account(&"anthropic/main".parse().unwrap());

    let passed = through(ObserveLayer::for_account(main.clone()), response(429, Frames::of([b"one"]))).await;

    let half = Percent::from_percent(50.0).unwrap();
    assert_eq!(main.peek().used(&WindowId::five_hour()), Used::Exact(half));
    drop(passed);
}
