"use strict";
// Pages work without this file; it draws curves, keeps pages up to date and adds keys.

const EVERY_MS = 2500;
const COUNTING_MS = 300;
const REST = 5;
const drawn = new Map();

function draw() {
  const specs = document.getElementById("specs");
  if (!specs || !window.vegaEmbed) return;
  for (const [id, spec] of Object.entries(JSON.parse(specs.textContent))) {
    const element = document.getElementById(id);
    const state = JSON.stringify(spec) + dark.matches;
    if (element && (drawn.get(id) !== state || !element.firstChild)) {
      drawn.set(id, state);
      embed(element, spec);
    }
  }
}

const texts = new Map();

async function update(address, use) {
  const response = await fetch(address, { cache: "no-cache", headers: { Accept: "text/html" } });
  if (!response.ok) return;
  const text = await response.text();
  if (texts.get(address) === text) return;
  texts.set(address, text);
  use(new DOMParser().parseFromString(text, "text/html"));
}

// What a part says apart from what this script writes into it: pictures and clocks.
function content(part) {
  const copy = part.cloneNode(true);
  for (const own of copy.querySelectorAll(".chart, [data-since]")) own.replaceChildren();
  return copy.innerHTML;
}

function replaceParts(page) {
  for (const part of page.querySelectorAll("[data-live]")) {
    const old = document.getElementById(part.id);
    if (!old || content(old) === content(part)) continue;
    const charts = new Map([...old.querySelectorAll(".chart")].map((chart) => [chart.id, chart]));
    old.replaceWith(part);
    for (const chart of part.querySelectorAll(".chart")) {
      if (charts.has(chart.id)) chart.replaceWith(charts.get(chart.id));
    }
  }
  draw();
}

function replaceCharts(page) {
  const place = document.querySelector("[data-charts]");
  const old = new Map([...place.querySelectorAll(".chart")].map((chart) => [chart.id, chart]));
  place.replaceChildren(...page.body.childNodes);
  for (const chart of place.querySelectorAll(".chart")) {
    const known = old.get(chart.id);
    if (!known) continue;
    known.setAttribute("aria-label", chart.getAttribute("aria-label"));
    chart.replaceWith(known);
  }
  draw();
}

// Charts of a large run take their time; progress does not wait for them, and they rest for longer
// than they took, so that looking at a run does not slow it.
async function follow(address, use, pause) {
  const offline = document.getElementById("offline");
  const begun = Date.now();
  if (!document.hidden) {
    try {
      await update(address, use);
      offline.hidden = true;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      offline.hidden = false;
    }
  }
  setTimeout(follow, Math.max(pause(), REST * (Date.now() - begun)), address, use, pause);
}

function followAll() {
  const isCounting = () => document.querySelector("[data-counting]");
  const charts = document.querySelector("[data-charts]");
  if (document.querySelector("[data-live]")) follow(location.href, replaceParts, () => (isCounting() ? COUNTING_MS : EVERY_MS));
  if (charts) follow(charts.dataset.charts, replaceCharts, () => EVERY_MS);
}

function ago(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

function tick() {
  const now = Date.now() / 1000;
  for (const element of document.querySelectorAll("[data-since]")) {
    element.textContent = ago(now - Number(element.dataset.since));
  }
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const found = [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === event.key);
  if (!found) return;
  event.preventDefault();
  if (found.href) found.click();
  else found.focus();
}

// An empty field would only make the address longer.
function shorten(event) {
  for (const field of event.target.querySelectorAll("input, select")) field.disabled = !field.value;
}

document.addEventListener("keydown", key);
for (const form of document.querySelectorAll("[data-filter]")) {
  form.addEventListener("submit", shorten);
  for (const select of form.querySelectorAll("select")) select.addEventListener("change", () => form.requestSubmit());
}
window.addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("[data-filter] :disabled")) field.disabled = false;
});
document.querySelector(".line[aria-current]")?.scrollIntoView({ block: "nearest" });
dark.addEventListener("change", draw);
draw();
tick();
setInterval(tick, 1000);
followAll();
