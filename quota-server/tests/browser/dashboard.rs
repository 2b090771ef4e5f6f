//! The dashboard as a reader sees it.

use serde_json::{Value, json};

use crate::demo::Demo;
use crate::driver::browse;

const HEADLINE: &str = "document.getElementById('headline').textContent";
const LIVE: &str = "document.getElementById('live').className === 'live'";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_drawn_and_follows_a_change_without_a_layout_shift() {
    browse(|browser| {
        Box::pin(async move {
            let demo = Demo::start().await;
            browser.client.goto(&demo.url()).await.unwrap();
            browser.until(&format!("{HEADLINE} === 'anthropic/work'")).await;
            browser.until(LIVE).await;
            browser
                .eval(
                    "window.shift = 0; new PerformanceObserver(list => { for (const e of list.getEntries()) shift += e.value }) \
                     .observe({ type: 'layout-shift' });",
                )
                .await;

            demo.use_up("anthropic/work", 47.0).await;

            browser.until("document.getElementById('account-1').textContent.includes('47 %')").await;
            assert_eq!(browser.eval("return window.shift").await, json!(0));
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_changes_when_the_account_is_exhausted() {
    browse(|browser| {
        Box::pin(async move {
            let demo = Demo::start().await;
            browser.client.goto(&demo.url()).await.unwrap();
            browser.until(LIVE).await;

            demo.use_up("anthropic/work", 100.0).await;

            browser.until(&format!("{HEADLINE} === 'openai/team'")).await;
            browser.until("document.title === 'openai/team · quota'").await;
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_stream_is_shown_and_comes_back() {
    browse(|browser| {
        Box::pin(async move {
            let mut demo = Demo::start().await;
            browser.client.goto(&demo.url()).await.unwrap();
            browser.until(LIVE).await;

            demo.stop().await;
            browser
                .until("/^not live since \\d\\d:\\d\\d$/.test(document.getElementById('live').textContent)")
                .await;
            demo.use_up("anthropic/work", 52.0).await;
            demo.serve().await;

            browser.until(LIVE).await;
            browser.until("document.getElementById('account-1').textContent.includes('52 %')").await;
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_error_and_no_request_to_another_host() {
    browse(|browser| {
        Box::pin(async move {
            let demo = Demo::start().await;
            browser.client.goto(&demo.url()).await.unwrap();
            browser.until(LIVE).await;

            let errors = browser.log("browser").await;
            assert!(errors.is_empty(), "{errors:?}");
            let mut requests = 0;
            for entry in browser.log("performance").await {
                let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
                let sent = &message["message"]["params"];
                // The browser begins with a page of its own.
                let is_ours = sent["documentURL"].as_str().is_some_and(|url| url.starts_with(&demo.url()));
                let Some(url) = sent["request"]["url"].as_str().filter(|_| is_ours) else { continue };
                requests += 1;
                assert!(url.starts_with(&demo.url()), "{url}");
            }
            assert!(requests >= 4, "{requests}");
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_needs_no_scrolling_at_any_width() {
    browse(|browser| {
        Box::pin(async move {
            let demo = Demo::start().await;
            for (width, height) in [(360, 640), (768, 1024), (1280, 720), (2560, 1440)] {
                browser.show(width, height, "light").await;
                browser.client.goto(&demo.url()).await.unwrap();
                let bottom = browser
                    .eval("return document.getElementById('answer').getBoundingClientRect().bottom")
                    .await;
                assert!(bottom.as_f64().unwrap() < f64::from(height), "{width}: {bottom}");
                let wide = browser
                    .eval(
                        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth",
                    )
                    .await;
                assert_eq!(wide, json!(true), "{width}");
            }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_the_skip_link_and_then_the_answer() {
    browse(|browser| {
        Box::pin(async move {
            let demo = Demo::start().await;
            browser.client.goto(&demo.url()).await.unwrap();
            browser.until(LIVE).await;
            let mut reached = Vec::new();
            for _ in 0..2 {
                for kind in ["keyDown", "keyUp"] {
                    browser
                        .devtools(
                            "Input.dispatchKeyEvent",
                            json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 }),
                        )
                        .await;
                }
                reached.push(browser.eval("return document.activeElement.getAttribute('href')").await);
            }
            assert_eq!(reached, [json!("#accounts"), json!("#account-1")]);

            demo.use_up("anthropic/work", 47.0).await;

            browser.until("document.getElementById('answer').textContent.includes('47 %')").await;
            let focused = browser.eval("return document.activeElement.getAttribute('href')").await;
            assert_eq!(focused, json!("#account-1"), "a change keeps the focus");
        })
    })
    .await;
}

/// The texts whose contrast with their background is below 4.5.
const LOW_CONTRAST: &str = "
    const number = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => { const f = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
        return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
    const ground = element => { for (; element; element = element.parentElement) {
        const color = number(getComputedStyle(element).backgroundColor); if (color[3] !== 0) return color; }
        return [255, 255, 255]; };
    return [...document.querySelectorAll('body *')].filter(element => !element.closest('svg, .skip') &&
        [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(element => {
        const [one, two] = [number(getComputedStyle(element).color), ground(element)].map(light).sort((a, b) => b - a);
        return [(one + .05) / (two + .05), element.className || element.tagName, element.textContent.trim().slice(0, 40)];
    }).filter(([contrast]) => contrast < 4.5);";

#[tokio::test(flavor = "multi_thread")]
async fn every_text_has_enough_contrast_in_light_and_dark() {
    browse(|browser| {
        Box::pin(async move {
            let demo = Demo::start().await;
            demo.limit("openai/team").await;
            for scheme in ["light", "dark"] {
                browser.show(1280, 800, scheme).await;
                browser.client.goto(&demo.url()).await.unwrap();
                assert_eq!(browser.eval(LOW_CONTRAST).await, json!([]), "{scheme}");
            }
        })
    })
    .await;
}

/// Writes the pictures of docs/screenshots; `scripts/screenshots` sets the folder.
#[tokio::test(flavor = "multi_thread")]
async fn screenshots_are_written_if_a_folder_is_given() {
    let Some(folder) = std::env::var_os("QUOTA_SCREENSHOTS").map(std::path::PathBuf::from) else { return };
    browse(move |browser| {
        Box::pin(async move {
            let demo = Demo::start().await;
            demo.limit("openai/team").await;
            for scheme in ["light", "dark"] {
                for (width, height) in [(360, 640), (1280, 800), (2560, 1200)] {
                    browser.show(width, height, scheme).await;
                    browser.client.goto(&demo.url()).await.unwrap();
                    browser.until(LIVE).await;
                    let picture = browser.client.screenshot().await.unwrap();
                    std::fs::write(folder.join(format!("dashboard-{scheme}-{width}.png")), picture).unwrap();
                }
            }
        })
    })
    .await;
}
