// Asks /admin/state once a second and shows it. Names come from clients: they are set as text, never as markup.

import { drawLines, drawSpark, shape, short } from "/ui/chart.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const SPAN_S = 300;
const LEAST_SPAN_S = 60;
const ROWS = 50;
const SPARKS = 120;

const $ = (id) => document.getElementById(id);
const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`);
const history = [];
const depths = new Map();
let before = null;

function node(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function meter(share, mark) {
  const bar = document.createElement("i");
  bar.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  const box = node("div", "meter", bar);
  if (mark !== undefined) {
    const tick = document.createElement("u");
    tick.style.left = `calc(${100 * mark}% - 1px)`;
    box.append(tick);
  }
  return box;
}

function tile(value, label, bad) {
  return node("div", bad ? "tile bad" : "tile", node("b", "", value), node("span", "", label));
}

function rate(state, count) {
  if (before === null || state.time <= before.time) return null;
  return Math.max(count(state) - count(before), 0) / (state.time - before.time);
}

const total = (list, field) => list.reduce((sum, one) => sum + (one[field] ?? 0), 0);

function showTiles(state) {
  const alive = state.workers.filter((worker) => worker.alive).length;
  const ratio = state.bound_ratio;
  $("tiles").replaceChildren(
    tile(short(rate(state, (s) => total(s.workers, "requests"))), "requests a second"),
    tile(short(rate(state, (s) => total(s.clients, "output_tokens"))), "tokens a second"),
    tile(short(state.waiting), "waiting"),
    tile(percent(state.hit_rate), "prefix hit rate"),
    tile(ratio === null ? "–" : percent(ratio), "gap, of its bound", ratio > 1),
    tile(state.jain === null ? "–" : state.jain.toFixed(3), "Jain's index"),
    tile(`${alive} of ${state.workers.length}`, "workers alive", alive < state.workers.length),
  );
}

function cell(text, className) {
  return node("td", className, text);
}

function clientRow(client, entitled) {
  const share = node("td", "", meter(client.share, entitled), node("span", "", percent(client.share)));
  const name = cell(client.name, "name");
  name.title = client.name;
  return node(
    "tr", "",
    name, cell(client.weight, "n"), share,
    cell(short(client.deficit), client.deficit < 0 ? "n minus" : "n"),
    cell(client.queued, "n"), cell(client.running, "n"), cell(percent(client.hit_rate), "n"),
    cell(short(client.output_tokens), "n"), cell(short(client.requests), "n"),
    cell(client.failed + client.refused, client.failed + client.refused ? "n minus" : "n"),
  );
}

function showClients(state) {
  const busy = (client) => client.queued + client.running;
  const sorted = [...state.clients].sort((a, b) => busy(b) - busy(a) || b.service - a.service);
  const shown = sorted.slice(0, ROWS);
  const weights = total(shown, "weight");
  $("clients").replaceChildren(...shown.map((client) => clientRow(client, client.weight / weights)));
  if (!shown.length) $("clients").append(node("tr", "empty", cell("nobody yet")));
  const rest = sorted.length - shown.length;
  $("clients-note").textContent = rest > 0 ? `and ${rest} more` : "";
}

function workerCard(worker, events) {
  const full = worker.window ? worker.in_flight / worker.window : 0;
  const state = worker.alive ? "alive" : "out of rotation";
  const title = node("h3", "", node("em", "", state), worker.name);
  title.title = worker.name;
  const inside = worker.window === null ? `${worker.in_flight} inside` : `${worker.in_flight} of ${worker.window} inside`;
  const spark = shape("svg", { role: "img", "aria-label": "queue depth" });
  drawSpark(spark, depths.get(worker.name) ?? [0]);
  const card = node(
    "div", worker.alive ? "card" : "card down", title,
    meter(full), node("p", "", `${inside} · hit rate ${percent(worker.hit_rate)}`),
    spark, node("p", "", `${worker.queued} waiting · ${short(worker.requests)} requests · ${short(worker.failures)} failed`),
  );
  if (!worker.alive) card.append(node("p", "", worker.why));
  if (worker.policy_failed) card.append(node("p", "", "its policy has failed: first come, first served"));
  if (events) {
    const link = events.connected ? "cache events" : "no cache events";
    card.append(node("p", "", `${link}: ${short(events.blocks)} blocks · ${events.gaps} gaps · ${events.resets} resets`));
  }
  return card;
}

function showWorkers(state) {
  for (const worker of state.workers) {
    const depth = depths.get(worker.name) ?? [];
    depth.push(worker.queued);
    depths.set(worker.name, depth.slice(-SPARKS));
  }
  $("workers").replaceChildren(...state.workers.map((worker) => workerCard(worker, (state.events ?? {})[worker.name])));
}

function showGap(state) {
  history.push([state.time, state.gap, state.bound]);
  while (history[0][0] < state.time - SPAN_S) history.shift();
  const span = Math.min(Math.max(state.time - history[0][0], LEAST_SPAN_S), SPAN_S);
  const points = (index) => history.map((row) => [row[0], row[index]]);
  drawLines($("gap"), [{ name: "bound", points: points(2) }, { name: "gap", points: points(1) }], span);
}

function showSharing(sharing) {
  $("sharing").hidden = !sharing;
  if (!sharing) return;
  const rows = [
    ["Redis", sharing.connected ? "connected" : "away: this gateway is fair on its own"],
    ["gateways", sharing.gateways],
    ["staleness, at most", `${(1000 * sharing.staleness_s).toFixed(0)} ms`],
    ["credit overestimated by, at most", `${short(sharing.delta)} service units`],
    ["refills", short(sharing.rounds)],
  ];
  $("sharing-list").replaceChildren(...rows.flatMap(([name, value]) => [node("dt", "", name), node("dd", "", value)]));
}

function live(className, text) {
  $("live").className = className;
  $("live").lastElementChild.textContent = text;
}

function show(state) {
  $("how").textContent = `${state.router} over queues under ${state.policy}`;
  showTiles(state);
  showClients(state);
  showGap(state);
  showWorkers(state);
  showSharing(state.sharing);
  live("on", `live · ${new Date(1000 * state.time).toLocaleTimeString()}`);
  before = state;
}

async function tick() {
  try {
    const answer = await fetch("/admin/state", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (problem) {
    live("off", `the gateway does not answer: ${problem.message}`);
  }
  setTimeout(tick, EVERY_MS);
}

tick();
