"use strict";
// Reads the page again when an account changes, and replaces the parts that differ. The server formats everything, so this file
// contains no rule and no word about usage.
(() => {
  const EVENTS = "/v1/events";
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const page = zone ? `/?zone=${encodeURIComponent(zone)}` : "/";
  const live = document.getElementById("live");
  let stream, retry, pending, isReading = false, isStale = false, failures = 0;

  const clock = () => new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const show = (text, state) => {
    if (live.textContent !== text) live.textContent = text;
    live.className = state;
  };
  const alive = () => {
    show("live", "live");
    failures = 0;
  };
  const dead = () => {
    if (!live.classList.contains("dead")) show(`not live since ${clock()}`, "dead");
  };

  // Keeps the focus if its element is in a part that is replaced.
  const replace = (before, after) => {
    const active = document.activeElement;
    const link = before.contains(active) ? active.getAttribute("href") : null;
    const isPart = before === active;
    before.replaceWith(after);
    if (isPart) after.focus({ preventScroll: true });
    if (link) after.querySelector(`[href="${CSS.escape(link)}"]`)?.focus({ preventScroll: true });
  };

  const apply = (next) => {
    const parts = [...document.querySelectorAll("[data-part]")];
    const ids = (from) => [...from.querySelectorAll("[data-part]")].map((part) => part.id).join();
    // Another program version has other files; other accounts have other parts.
    const scripts = (from) => from.querySelector("script")?.getAttribute("src");
    if (scripts(next) !== scripts(document)) return location.reload();
    if (ids(next) !== ids(document)) return replace(document.querySelector("main"), next.querySelector("main"));
    document.title = next.title;
    for (const part of parts) {
      const fresh = next.getElementById(part.id);
      if (!part.isEqualNode(fresh)) replace(part, document.adoptNode(fresh));
    }
  };

  const read = async () => {
    pending = undefined;
    if (isReading) {
      isStale = true;
      return;
    }
    isReading = true;
    try {
      const response = await fetch(page, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!response.ok) throw new Error(response.status);
      apply(new DOMParser().parseFromString(await response.text(), "text/html"));
      // An earlier read may have failed although the stream is open.
      if (stream.readyState === EventSource.OPEN) alive();
    } catch {
      dead();
    }
    isReading = false;
    if (isStale) {
      isStale = false;
      soon();
    }
  };
  // Several accounts often change at once.
  const soon = () => {
    pending ??= setTimeout(read, 150);
  };

  const listen = () => {
    clearTimeout(retry);
    stream?.close();
    stream = new EventSource(EVENTS);
    stream.onopen = () => {
      alive();
      soon();
    };
    stream.onerror = () => {
      dead();
      // The browser connects again by itself, with the id of the last event, unless the server has refused the stream.
      if (stream.readyState === EventSource.CLOSED) {
        failures += 1;
        const delay = Math.min(30000, 500 * 2 ** failures);
        retry = setTimeout(listen, delay * (0.5 + Math.random() / 2));
      }
    };
    for (const name of ["changed", "journal", "missed"]) stream.addEventListener(name, soon);
  };

  // Ages and remaining times change without an event.
  setInterval(() => document.hidden || soon(), 20000);
  document.addEventListener("visibilitychange", () => document.hidden || soon());
  addEventListener("pagehide", () => stream?.close());
  addEventListener("pageshow", (event) => event.persisted && listen());
  listen();
})();
