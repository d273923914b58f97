"use strict";
// What is chosen: an example, one of its sites, a layer and a head of that; a cell of its picture, and whether it stays.
const data = JSON.parse(document.getElementById("data").textContent);
const chosen = { example: 0, site: 0, layer: 0, head: 0, query: null, key: null, kept: false };
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(parent, name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

function html(parent, name, properties = {}) {
  const element = Object.assign(document.createElement(name), properties);
  parent.append(element);
  return element;
}

// --- What is looked at ---

const site = () => data.examples[chosen.example].sites[chosen.site];

function levelsOf(aSite) {
  aSite.bytes ??= Uint8Array.from(atob(aSite.levels), (character) => character.charCodeAt(0));
  return aSite.bytes;
}

function weight(aSite, layer, head, query, key) {
  const [heads, queries, keys] = [aSite.heads.length, aSite.queries.length, aSite.keys.length];
  const place = ((layer * heads + head) * queries + query) * keys + key;
  return aSite.low + (levelsOf(aSite)[place] * (aSite.high - aSite.low)) / 255;
}

const here = (query, key) => weight(site(), chosen.layer, chosen.head, query, key);
const strength = (value) => Math.min(1, Math.abs(value) / Math.max(site().high, -site().low));
const sign = (value) => (value < 0 ? "negative" : "positive");

function shown(token) {
  const text = token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");
  return text.length > 16 ? text.slice(0, 15) + "…" : text;
}

// --- All heads ---

function colour(name) {
  const probe = html(document.body, "span", { className: "probe" });
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return found;
}

function paint(canvas, layer, head, inks) {
  const aSite = site();
  const [rows, columns] = [aSite.queries.length, aSite.keys.length];
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let query = 0; query < rows; query++) {
    for (let key = 0; key < columns; key++) {
      const value = weight(aSite, layer, head, query, key);
      const ink = inks[sign(value)];
      image.data.set([ink[0], ink[1], ink[2], Math.round(255 * strength(value))], 4 * (query * columns + key));
    }
  }
  context.putImageData(image, 0, 0);
}

function drawGrid() {
  const aSite = site();
  const grid = byId("grid");
  const inks = { positive: colour("--series-1"), negative: colour("--series-2") };
  grid.replaceChildren();
  grid.style.gridTemplateColumns = `auto repeat(${aSite.heads.length}, minmax(44px, 80px))`;
  html(grid, "span");
  for (const head of aSite.heads) html(grid, "span", { className: "name", textContent: `head ${head}` });
  aSite.layers.forEach((layerName, layer) => {
    html(grid, "span", { className: "name", textContent: `layer ${layerName}` });
    aSite.heads.forEach((headName, head) => {
      const button = html(grid, "button", { type: "button", title: `layer ${layerName}, head ${headName}` });
      button.setAttribute("aria-label", button.title);
      button.dataset.place = `${layer} ${head}`;
      button.addEventListener("click", () => chooseHead(layer, head));
      button.addEventListener("keydown", (event) => moveHead(event));
      paint(html(button, "canvas"), layer, head, inks);
    });
  });
  markHead();
}

function markHead() {
  for (const button of byId("grid").querySelectorAll("button")) {
    const is = button.dataset.place === `${chosen.layer} ${chosen.head}`;
    button.setAttribute("aria-pressed", is);
    button.tabIndex = is ? 0 : -1;
  }
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const within = (number, count) => Math.max(0, Math.min(count - 1, number));

function moveHead(event) {
  if (!(event.key in STEPS)) return;
  event.preventDefault();
  const [down, right] = STEPS[event.key];
  chooseHead(within(chosen.layer + down, site().layers.length), within(chosen.head + right, site().heads.length));
  byId("grid").querySelector('[aria-pressed="true"]').focus();
}

// --- One head ---

const CELLS = { least: 14, most: 30, wanted: 620 };
let cell = 0;
let corner = [0, 0];

function drawMap() {
  const { queries, keys } = site();
  const map = byId("map");
  const longest = (tokens) => Math.max(...tokens.map((token) => shown(token).length)) * 7.9 + 10;
  cell = Math.max(CELLS.least, Math.min(CELLS.most, CELLS.wanted / Math.max(queries.length, keys.length)));
  corner = [longest(queries), longest(keys)];
  const [width, height] = [corner[0] + cell * keys.length + 2, corner[1] + cell * queries.length + 2];
  map.replaceChildren();
  map.setAttribute("width", width);
  map.setAttribute("height", height);
  keys.forEach((token, key) => {
    const [x, y] = [corner[0] + cell * (key + 0.5) + 4, corner[1] - 6];
    make(map, "text", { transform: `translate(${x} ${y}) rotate(-90)`, "data-key": key }, shown(token));
  });
  queries.forEach((token, query) => {
    const y = corner[1] + cell * (query + 0.5) + 4;
    make(map, "text", { x: corner[0] - 6, y, "text-anchor": "end", "data-query": query }, shown(token));
  });
  queries.forEach((_, query) =>
    keys.forEach((_, key) => {
      const value = here(query, key);
      if (strength(value) < 0.003) return;
      const [x, y] = [corner[0] + cell * key, corner[1] + cell * query];
      const look = { class: sign(value), "fill-opacity": strength(value).toFixed(3) };
      make(map, "rect", { x, y, width: cell, height: cell, ...look });
    }),
  );
  make(map, "rect", { class: "frame", x: corner[0], y: corner[1], width: cell * keys.length, height: cell * queries.length });
  make(map, "rect", { class: "cursor", width: cell, height: cell, visibility: "hidden" });
}

const LINE = { height: 21, gap: 170 };

function drawLines() {
  const { queries, keys } = site();
  const lines = byId("lines");
  const longest = (tokens) => Math.max(...tokens.map((token) => shown(token).length)) * 7.9 + 10;
  const [left, right] = [longest(queries), longest(keys)];
  lines.replaceChildren();
  lines.setAttribute("width", left + LINE.gap + right);
  lines.setAttribute("height", LINE.height * (1 + Math.max(queries.length, keys.length)));
  const y = (place) => LINE.height * (place + 1);
  queries.forEach((_, query) =>
    keys.forEach((_, key) => {
      const value = here(query, key);
      if (strength(value) < 0.02) return;
      const ends = { x1: left + 4, y1: y(query) - 4, x2: left + LINE.gap - 4, y2: y(key) - 4 };
      make(lines, "line", { ...ends, class: sign(value), "stroke-opacity": strength(value).toFixed(3), "data-line": `${query} ${key}` });
    }),
  );
  const word = (token, x, place, anchor, side) => {
    const text = make(lines, "text", { x, y: y(place), "text-anchor": anchor, [`data-${side}`]: place }, shown(token));
    text.addEventListener("pointerenter", () => chosen.kept || mark(side === "query" ? place : null, side === "key" ? place : null));
    text.addEventListener("pointerleave", () => chosen.kept || mark(null, null));
    text.addEventListener("click", () => {
      const same = chosen.kept && chosen[side] === place && chosen[side === "query" ? "key" : "query"] === null;
      mark(side === "query" && !same ? place : null, side === "key" && !same ? place : null);
      chosen.kept = !same;
    });
  };
  queries.forEach((token, query) => word(token, left, query, "end", "query"));
  keys.forEach((token, key) => word(token, left + LINE.gap, key, "start", "key"));
}

// --- A cell, a row or a column of it ---

function mark(query, key) {
  [chosen.query, chosen.key] = [query, key];
  const aSite = site();
  const cursor = byId("map").querySelector(".cursor");
  const isCell = query !== null && key !== null;
  cursor.setAttribute("visibility", isCell ? "visible" : "hidden");
  if (isCell) {
    cursor.setAttribute("x", corner[0] + cell * key);
    cursor.setAttribute("y", corner[1] + cell * query);
  }
  for (const text of document.querySelectorAll(".enlarged text")) {
    const { query: asQuery, key: asKey } = text.dataset;
    const on = (asQuery !== undefined && Number(asQuery) === query) || (asKey !== undefined && Number(asKey) === key);
    text.classList.toggle("on", on);
  }
  for (const line of byId("lines").querySelectorAll("line")) {
    const [from, to] = line.dataset.line.split(" ").map(Number);
    const seen = query !== null ? from === query : key === null || to === key;
    line.style.display = seen ? "" : "none";
  }
  byId("reading").textContent = isCell ? reading(aSite, query, key) : "";
}

function reading(aSite, query, key) {
  const predicts = aSite.predicts.length ? `, which is to predict “${shown(aSite.predicts[query])}”,` : "";
  return `“${shown(aSite.queries[query])}”${predicts} looks at “${shown(aSite.keys[key])}”: ${here(query, key).toFixed(2)}`;
}

byId("map").addEventListener("pointermove", (event) => {
  const box = byId("map").getBoundingClientRect();
  const key = Math.floor((event.clientX - box.left - corner[0]) / cell);
  const query = Math.floor((event.clientY - box.top - corner[1]) / cell);
  const inside = key >= 0 && query >= 0 && key < site().keys.length && query < site().queries.length;
  chosen.kept = false;
  mark(inside ? query : null, inside ? key : null);
});
byId("map").addEventListener("pointerleave", () => mark(null, null));
byId("map").addEventListener("keydown", (event) => {
  if (event.key === "Escape") mark(null, null);
  if (!(event.key in STEPS)) return;
  event.preventDefault();
  const [down, right] = chosen.query === null || chosen.key === null ? [0, 0] : STEPS[event.key];
  mark(within((chosen.query ?? 0) + down, site().queries.length), within((chosen.key ?? 0) + right, site().keys.length));
});

// --- From one to the next ---

function chooseHead(layer, head) {
  Object.assign(chosen, { layer, head, kept: false });
  const aSite = site();
  byId("head-title").textContent = `${aSite.title}: layer ${aSite.layers[layer]}, head ${aSite.heads[head]}`;
  byId("map").setAttribute("aria-label", byId("head-title").textContent);
  markHead();
  drawMap();
  drawLines();
  mark(null, null);
}

function chooseSite(number) {
  chosen.site = number;
  byId("site-title").textContent = site().title;
  const layer = within(chosen.layer, site().layers.length);
  const head = within(chosen.head, site().heads.length);
  Object.assign(chosen, { layer, head });
  drawGrid();
  chooseHead(layer, head);
}

function chooseExample(number) {
  chosen.example = number;
  chooseSite(chosen.site);
}

const sites = data.examples[0].sites;
sites.forEach((aSite, number) => {
  const label = html(byId("sites"), "label");
  const input = html(label, "input", { type: "radio", name: "site", value: number });
  html(label, "span", { textContent: aSite.site });
  input.addEventListener("change", () => chooseSite(number));
});
data.examples.forEach((example, number) => html(byId("example"), "option", { value: number, textContent: example.name }));
byId("example").addEventListener("change", (event) => chooseExample(Number(event.target.value)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawGrid);

// Source and target first, where there are both: it is what one looks for.
chosen.site = Math.max(0, sites.findIndex((aSite) => aSite.site === "cross"));
chosen.layer = sites[chosen.site].layers.length - 1;
byId("sites").querySelectorAll("input")[chosen.site].checked = true;
chooseExample(0);
