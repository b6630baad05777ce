"use strict";
// The search page of `sentemb serve`. It talks to its own server alone, and puts texts into the page as text.

const at = (id) => document.getElementById(id);
const state = { indexes: [], liked: [], unliked: [], questions: 0, points: [], hits: new Set(), place: null };
const view = { x: 0, y: 0, scale: 1 }; // centre of the map in the documents' coordinates, and pixels a unit
const COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#9970ab", "#888888"];

function element(kind, content, attributes = {}) {
  const made = document.createElement(kind);
  made.append(...[content].flat().filter((part) => part !== null && part !== undefined));
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function call(path, body) {
  const headers = { "content-type": "application/json" };
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.status === 401) {
    await newKey();
    return call(path, body);
  }
  const value = await answer.json().catch(() => ({ error: { message: `the server answered ${answer.status}` } }));
  if (!answer.ok) throw new Error(value.error.message);
  return value;
}

let asking = null;
function newKey() { // one dialog, however many calls wait for it
  asking ??= new Promise((resolve) => {
    at("key").showModal();
    at("key").addEventListener("close", () => {
      sessionStorage.setItem("key", at("key-value").value);
      asking = null;
      resolve();
    }, { once: true });
  });
  return asking;
}

// ------------------------------------------------------------------------------------------------ filters
const current = () => state.indexes.find((index) => index.name === at("index").value);

function showFilters() {
  const fields = current()?.fields ?? [];
  at("filters").replaceChildren(...fields.map((field) => {
    const legend = element("legend", field.name);
    if (field.kind === "number") {
      const ends = ["least", "most"].map((end) => element("input", [], {
        type: "number", step: "any", placeholder: field[end], "aria-label": `${field.name}, ${end}`, "data-field": field.name, "data-end": end,
      }));
      return element("fieldset", [legend, element("div", ends, { class: "range" })]);
    }
    const options = [element("option", "any", { value: "" }), ...field.values.map((value) => element("option", String(value), { value: JSON.stringify(value) }))];
    return element("fieldset", [legend, element("select", options, { "aria-label": field.name, "data-field": field.name })]);
  }));
  at("colour").replaceChildren(element("option", "none", { value: "" }), ...fields.map((field) => element("option", field.name, { value: field.name })));
}

function filter() {
  const parts = [];
  for (const control of at("filters").querySelectorAll("[data-field]")) {
    if (control.value === "") continue;
    const end = control.dataset.end, name = control.dataset.field;
    const field = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : `"${name}"`;
    parts.push(`${field} ${end === "least" ? ">=" : end === "most" ? "<=" : "="} ${control.value}`);
  }
  return parts.join(" and ") || null;
}

// ------------------------------------------------------------------------------------------------- search
async function search() {
  const query = at("query").value.trim(), number = ++state.questions;
  const hasExamples = state.liked.length > 0;
  if (!query && !hasExamples) {
    show([], "Write what you look for.");
    return;
  }
  const request = { index: at("index").value, k: Number(at("count").value) || 10, where: filter(), map: at("by").value !== "words" };
  if (hasExamples) {
    request.like = [...(query ? [query] : []), ...state.liked.map((hit) => hit.text)];
    request.unlike = state.unliked.map((hit) => hit.text);
  } else {
    request.query = query;
    request.by = at("by").value;
    request.rerank = at("rerank").value || null;
  }
  try {
    const answer = await call("search", request);
    if (number !== state.questions) return; // a newer question was asked meanwhile
    state.place = answer.place ?? null;
    show(answer.hits, answer.hits.length ? `${answer.hits.length} results in ${answer.ms} ms` : answer.reason ?? "Nothing found.");
  } catch (error) {
    if (number === state.questions) show([], error.message, true);
  }
}

function show(hits, message, isFault = false) {
  state.hits = new Set(hits.map((hit) => String(hit.id)));
  at("status").textContent = message;
  at("status").classList.toggle("fault", isFault);
  at("hits").replaceChildren(...hits.map(card));
  draw();
}

function card(hit) {
  const about = [`${hit.score.toFixed(3)} · ${hit.id}`, ...Object.entries(hit.metadata).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)].join(" · ");
  const act = (label, description, work) => {
    const button = element("button", label, { type: "button", "aria-label": `${description}: ${(hit.text ?? hit.id).slice(0, 60)}` });
    button.addEventListener("click", work);
    return button;
  };
  const acts = [act("Open", "Open", () => open(hit.id))];
  if (hit.text) {
    acts.push(" ", act("More like this", "More like", () => example(state.liked, hit)));
    if (state.liked.length) acts.push(" ", act("Less like this", "Less like", () => example(state.unliked, hit)));
  }
  return element("li", [
    element("p", marked((hit.text ?? "(no text is kept)").slice(0, 600)), { class: "text" }),
    element("p", about, { class: "about" }), element("div", acts, { class: "acts" }),
  ]);
}

function marked(text) { // words of the query, also with another ending
  const stems = at("query").value.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter((word) => word.length > 2).map((word) => word.slice(0, Math.max(3, word.length - 2)));
  return text.split(/([\p{L}\p{N}]+)/u).map((part) => (stems.some((stem) => part.toLowerCase().startsWith(stem)) ? element("mark", part) : part));
}

function example(list, hit) {
  if (!list.some((one) => one.id === hit.id)) list.push(hit);
  showExamples();
  search();
}

function showExamples() {
  const lines = [...state.liked.map((hit) => `like: ${hit.text.slice(0, 80)}`), ...state.unliked.map((hit) => `unlike: ${hit.text.slice(0, 80)}`)];
  at("liked").replaceChildren(...lines.map((line) => element("li", line)));
  at("examples").hidden = lines.length === 0;
}

async function open(id) {
  try {
    const entry = await call(`documents?index=${encodeURIComponent(at("index").value)}&id=${encodeURIComponent(id)}`);
    at("document-id").textContent = entry.id;
    at("document-text").textContent = entry.text ?? "(no text is kept)";
    at("document-metadata").replaceChildren(...Object.entries(entry.metadata).flatMap(([name, value]) => [
      element("dt", name), element("dd", typeof value === "string" ? value : JSON.stringify(value)),
    ]));
    at("document").showModal();
  } catch (error) {
    at("status").textContent = error.message;
  }
}

// ---------------------------------------------------------------------------------------------------- map
async function loadMap() {
  try {
    state.points = (await call(`map?index=${encodeURIComponent(at("index").value)}`)).points;
  } catch (error) {
    at("point").textContent = error.message;
  }
  whole();
}

function whole() {
  const xs = state.points.map((point) => point.x), ys = state.points.map((point) => point.y);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (state.points.length) {
    view.x = (left + right) / 2;
    view.y = (low + high) / 2;
    view.scale = (0.9 * at("map").clientWidth) / Math.max(right - left, high - low, 1e-6);
  }
  draw();
}

function colouring() {
  const name = at("colour").value;
  const field = current()?.fields.find((one) => one.name === name);
  if (!field) return { of: () => COLOURS[0], entries: [] };
  if (field.kind === "number") {
    const [least, most] = [field.least, field.most];
    const of = (value) => `hsl(${Math.round(240 * (1 - (value - least) / (most - least || 1)))} 70% 50%)`;
    return { of: (point) => (typeof point.metadata[name] === "number" ? of(point.metadata[name]) : "#888888"), entries: [[least, of(least)], [most, of(most)]] };
  }
  const colours = new Map(field.values.map((value, number) => [value, COLOURS[Math.min(number, COLOURS.length - 1)]]));
  return { of: (point) => colours.get(point.metadata[name]) ?? "#888888", entries: [...colours] };
}

function draw() {
  const canvas = at("map"), ratio = window.devicePixelRatio || 1, size = canvas.clientWidth;
  canvas.width = canvas.height = size * ratio;
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  const [toX, toY] = [(x) => size / 2 + (x - view.x) * view.scale, (y) => size / 2 - (y - view.y) * view.scale];
  const colour = colouring();
  for (const isHit of [false, true]) { // results lie above the others
    for (const point of state.points) {
      if (state.hits.has(String(point.id)) !== isHit) continue;
      pen.beginPath();
      pen.arc(toX(point.x), toY(point.y), isHit ? 5 : 2.5, 0, 7);
      pen.globalAlpha = isHit || !state.hits.size ? 1 : 0.45;
      pen.fillStyle = colour.of(point);
      pen.fill();
      if (isHit) {
        pen.strokeStyle = style.getPropertyValue("--ink");
        pen.stroke();
      }
    }
  }
  pen.globalAlpha = 1;
  if (state.place) { // the query: a cross
    const [x, y] = [toX(state.place[0]), toY(state.place[1])];
    pen.strokeStyle = style.getPropertyValue("--query");
    pen.lineWidth = 3;
    pen.beginPath();
    pen.moveTo(x - 7, y - 7); pen.lineTo(x + 7, y + 7); pen.moveTo(x - 7, y + 7); pen.lineTo(x + 7, y - 7);
    pen.stroke();
  }
  at("legend").replaceChildren(...colour.entries.map(([value, paint]) => {
    const patch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [name, amount] of Object.entries({ cx: 5, cy: 5, r: 5, fill: paint })) circle.setAttribute(name, amount);
    patch.setAttribute("viewBox", "0 0 10 10");
    patch.append(circle);
    return element("li", [patch, String(value)]);
  }));
}

function nearest(event) {
  const box = at("map").getBoundingClientRect();
  const x = view.x + (event.clientX - box.left - box.width / 2) / view.scale, y = view.y - (event.clientY - box.top - box.height / 2) / view.scale;
  let best = null, least = 12 / view.scale;
  for (const point of state.points) {
    const distance = Math.hypot(point.x - x, point.y - y);
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

function zoom(factor) {
  view.scale *= factor;
  draw();
}

function listenToMap() {
  const canvas = at("map");
  let from = null, moved = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    from = event;
    moved = 0;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (from) {
      view.x -= (event.clientX - from.clientX) / view.scale;
      view.y += (event.clientY - from.clientY) / view.scale;
      moved += Math.abs(event.clientX - from.clientX) + Math.abs(event.clientY - from.clientY);
      from = event;
      draw();
    } else {
      at("point").textContent = nearest(event)?.text ?? "";
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    from = null;
    const point = moved < 4 ? nearest(event) : null;
    if (point) open(point.id);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = 40 / view.scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in moves) {
      view.x += moves[event.key][0];
      view.y += moves[event.key][1];
    } else if (event.key === "+" || event.key === "=") view.scale *= 1.25;
    else if (event.key === "-") view.scale /= 1.25;
    else return;
    event.preventDefault();
    draw();
  });
  at("nearer").addEventListener("click", () => zoom(1.4));
  at("farther").addEventListener("click", () => zoom(1 / 1.4));
  at("whole").addEventListener("click", whole);
  at("colour").addEventListener("change", draw);
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

// -------------------------------------------------------------------------------------------------- start
function delayed(work, ms) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, ms);
  };
}

function choose() {
  const index = current();
  at("facts").textContent = index ? `${index.documents.toLocaleString()} documents · ${index.kind} · ${index.model ?? "own vectors"}` : "";
  [state.liked, state.unliked, state.place] = [[], [], null];
  showExamples();
  showFilters();
  loadMap();
  search();
}

async function start() {
  const soon = delayed(search, 150);
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("query").addEventListener("input", soon);
  for (const id of ["by", "rerank", "count", "filters"]) at(id).addEventListener("change", search);
  at("index").addEventListener("change", choose);
  at("forget").addEventListener("click", () => {
    [state.liked, state.unliked] = [[], []];
    showExamples();
    search();
  });
  listenToMap();
  try {
    const described = await call("indexes");
    state.indexes = described.indexes;
    at("index").append(...described.indexes.map((index) => element("option", index.name, { value: index.name })));
    at("rerank").append(...described.rerankers.map((name) => element("option", name, { value: name })));
    at("rerank-label").hidden = described.rerankers.length === 0;
    const parameters = new URLSearchParams(location.search);
    at("query").value = parameters.get("q") ?? "";
    if (parameters.has("index")) at("index").value = parameters.get("index");
    if (parameters.has("colour")) setTimeout(() => { at("colour").value = parameters.get("colour"); draw(); });
    if (described.indexes.length) choose();
    else show([], "This server has no index; it answers at /v1/embeddings.");
  } catch (error) {
    show([], error.message, true);
  }
}

start();
