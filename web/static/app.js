"use strict";
// The console: one page over the REST API. Everything that comes from a server is put in as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const api = "/v2-beta";
  const every = 2000; // milliseconds between looks while the page is visible
  let key = sessionStorage.getItem("key") || "";
  let timer = 0, round = 0, containers = [], hosts = [];

  const el = (tag, attrs = {}, ...children) => {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs)) if (v != null) e.setAttribute(k, v);
    e.append(...children.filter((c) => c != null && c !== ""));
    return e;
  };

  class Refused extends Error {}

  async function call(path, options = {}) {
    const r = await fetch(api + path, {
      ...options, cache: "no-store", credentials: "omit",
      headers: { Authorization: "Bearer " + key, "X-API-No-Challenge": "true", "Content-Type": "application/json", ...options.headers },
    });
    const body = await r.json().catch(() => ({}));
    if (r.status === 401) throw new Refused(body.message || "the key was refused");
    if (!r.ok) throw new Error(body.message || `the server answered ${r.status}`);
    return body;
  }

  async function list(type) {
    const all = [];
    let next = `/${type}?limit=1000`;
    while (next && all.length < 20000) {
      const page = await call(next);
      all.push(...page.data);
      const link = page.pagination && page.pagination.next;
      next = link ? link.slice(link.indexOf(api) + api.length) : "";
    }
    return all;
  }

  const ago = (ms) => {
    if (!ms) return "";
    const s = Math.max(0, (Date.now() - ms) / 1000);
    if (s < 60) return `${Math.floor(s)} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };

  const connectionMood = { online: "good", reconnecting: "warn", disconnected: "bad" };
  const stateMood = (c) => c.transitioning === "error" || c.state === "error" ? "bad" : c.transitioning === "yes" ? "warn" : c.state === "running" ? "good" : "idle";

  function hostCard(h, busy) {
    const facts = el("dl");
    const fact = (name, value) => { if (value) facts.append(el("dt", {}, name), el("dd", {}, String(value))); };
    fact("State", h.connection === "online" ? "online" : `${h.connection}, seen ${ago(h.lastSeenTS) || "never"}`);
    fact("Engine", h.engine);
    fact("Agent", h.agentVersion);
    fact("Address", h.agentIpAddress);
    fact("Containers", busy ? `${busy.running} running of ${busy.all}` : "none");
    const tags = Object.entries(h.labels || {}).filter(([k]) => !k.startsWith("io.rancher.")).sort();
    return el("li", {},
      el("h3", {}, el("i", { class: "dot " + (connectionMood[h.connection] || "") }), h.name || h.hostname || h.id), facts,
      tags.length ? el("div", { class: "tags" }, ...tags.map(([k, v]) => el("span", {}, v ? `${k}=${v}` : k))) : null);
  }

  function containerRow(c, hostName) {
    const why = c.transitioning !== "no" && c.transitioningMessage;
    const progress = c.transitioningProgress ? ` ${c.transitioningProgress} %` : "";
    const created = c.externalCreatedTS || c.createdTS;
    return el("tr", {},
      el("td", { class: "mono long" }, c.name || (c.externalId || c.id).slice(0, 12)),
      el("td", {}, el("span", { class: "state " + stateMood(c) }, el("i", { class: "dot" }), c.state), why ? el("span", { class: "why" }, why + progress) : null),
      el("td", { class: "mono long" }, (c.imageUuid || "").replace(/^docker:/, "")),
      el("td", { class: "keep" }, hostName),
      el("td", { class: "mono keep" }, ...(c.ports || []).flatMap((p, i) => i ? [el("br"), p] : [p])),
      el("td", { class: "num", title: created ? new Date(created).toLocaleString() : null }, ago(created)));
  }

  function draw() {
    const names = new Map(hosts.map((h) => [h.id, h.name || h.hostname || h.id]));
    const busy = new Map();
    for (const c of containers) {
      const b = busy.get(c.hostId) || { all: 0, running: 0 };
      b.all++;
      if (c.state === "running") b.running++;
      busy.set(c.hostId, b);
    }
    const online = hosts.filter((h) => h.connection === "online").length;
    $("hosts").replaceChildren(...hosts.map((h) => hostCard(h, busy.get(h.id))));
    $("hosts-count").textContent = hosts.length ? `${online} of ${hosts.length} online` : "";
    $("no-hosts").hidden = hosts.length > 0;

    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = containers.filter((c) => {
      const text = [c.name, c.imageUuid, names.get(c.hostId), c.state, c.externalId, c.id].join(" ").toLowerCase();
      return words.every((w) => text.includes(w));
    });
    const most = 500;
    $("containers").replaceChildren(...shown.slice(0, most).map((c) => containerRow(c, names.get(c.hostId) || "")));
    $("containers-count").textContent = shown.length > most ? `the first ${most} of ${shown.length}` : shown.length === containers.length ? String(shown.length || "") : `${shown.length} of ${containers.length}`;
    $("no-containers").hidden = shown.length > 0;
  }

  function pulse(mood, text) {
    $("pulse").hidden = false;
    $("pulse").className = "pulse " + mood;
    if ($("pulse").lastElementChild.textContent !== text) $("pulse").lastElementChild.textContent = text;
  }

  async function look() {
    clearTimeout(timer);
    const mine = ++round;
    try {
      const got = await Promise.all([list("hosts"), list("containers")]);
      if (mine !== round) return;
      [hosts, containers] = got;
      draw();
      pulse("good", "live");
    } catch (e) {
      if (mine !== round) return;
      if (e instanceof Refused) return signOut(e.message);
      pulse("bad", "the server does not answer");
    }
    if (!document.hidden) timer = setTimeout(look, every);
  }

  function show() {
    const signedIn = key !== "";
    $("login").hidden = signedIn;
    for (const id of ["board", "add", "out"]) $(id).hidden = !signedIn;
    if (signedIn) look(); else $("key").focus();
  }

  function signOut(why) {
    clearTimeout(timer);
    round++;
    key = "";
    sessionStorage.removeItem("key");
    $("pulse").hidden = true;
    $("refused").hidden = !why;
    $("refused").textContent = why || "";
    show();
  }

  $("login").addEventListener("submit", (e) => {
    e.preventDefault();
    key = $("key").value.trim();
    $("key").value = "";
    $("refused").hidden = true;
    sessionStorage.setItem("key", key);
    show();
  });
  $("out").addEventListener("click", () => signOut());
  $("find").addEventListener("input", draw);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && key) look(); });

  $("add").addEventListener("click", async () => {
    $("line").textContent = "…";
    $("copy").textContent = "Copy";
    $("join").showModal();
    try {
      const token = await call("/registrationtokens", { method: "POST", body: JSON.stringify({ description: "console", expiresIn: 86400 }) });
      $("line").textContent = token.command;
    } catch (e) {
      $("line").textContent = e.message;
    }
  });
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($("line").textContent);
      $("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("line")); // the page is not on a secure address
    }
  });

  const setTheme = (t) => { if (t) document.documentElement.dataset.theme = t; else delete document.documentElement.dataset.theme; };
  setTheme(localStorage.getItem("theme") || "");
  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    const t = dark ? "light" : "dark";
    localStorage.setItem("theme", t);
    setTheme(t);
  });

  show();
})();
