"use strict";
// Drawn from one JSON object: series (a pass of one cell each), with fields as 8-bit codes, unit after unit.

const BLANK = 255;  // a step that does not count, or no number
const LEFT = 56, RIGHT = 8;  // pixels beside every panel, so that all share one axis of time
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const view = { series: 0, beside: -1, field: 0, sort: "as they are", step: 0, unit: 0, from: 0, to: 1, mark: null,
  held: false };

for (const series of data.series) {
  for (const field of series.fields) {
    const text = atob(field.codes);
    field.codes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  }
}

// ---------------------------------------------------------------------------------------------------- numbers

const count = (series) => series.steps.length;
const units = (field) => field.units.length;

function valueAt(series, field, unit, i) {
  const code = field.codes[unit * count(series) + i];
  return code === BLANK ? NaN : field.low[unit] + (field.high[unit] - field.low[unit]) * code / 254;
}

function shown(x) {
  if (!Number.isFinite(x)) return "–";
  const digits = Math.abs(x) >= 1e4 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : x.toPrecision(3);
  return digits.replace("-", "−");
}

function token(series, i) {
  return series.tokens ? series.tokens[i] : "";
}

function spelled(text) {
  return text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ $/, "␣");
}

// ---------------------------------------------------------------------------------------------------- orders

const SORTS = {
  "as they are": null,
  "variance": (series, field, unit) => moments(series, field, unit).variance,
  "saturation": (series, field, unit) => {
    let inside = 0, all = 0;
    const [low, high] = field.limits;
    for (let i = 0; i < count(series); i++) {
      const x = (valueAt(series, field, unit, i) - low) / (high - low);
      if (!Number.isNaN(x)) { all++; inside += x < 0.1 || x > 0.9; }
    }
    return all ? inside / all : 0;
  },
};

function moments(series, field, unit) {
  let n = 0, total = 0, squares = 0;
  for (let i = 0; i < count(series); i++) {
    const x = valueAt(series, field, unit, i);
    if (!Number.isNaN(x)) { n++; total += x; squares += x * x; }
  }
  const mean = n ? total / n : 0;
  return { mean, variance: n ? Math.max(0, squares / n - mean * mean) : 0 };
}

function correlation(series, field, unit, signal) {
  let n = 0, x1 = 0, y1 = 0, xx = 0, yy = 0, xy = 0;
  for (let i = 0; i < count(series); i++) {
    const x = valueAt(series, field, unit, i), y = signal[i];
    if (Number.isNaN(x) || y === null) continue;
    n++; x1 += x; y1 += y; xx += x * x; yy += y * y; xy += x * y;
  }
  const size = Math.sqrt(Math.max(0, n * xx - x1 * x1) * Math.max(0, n * yy - y1 * y1));
  return size > 0 ? (n * xy - x1 * y1) / size : 0;
}

function scoreOf(series, field) {
  // What units are sorted by, the greatest first; null for the order that they are in.
  if (view.sort === "time scale") {
    const scales = series.timescale;
    return scales && ((unit) => scales[field.units[unit]] ?? null);
  }
  if (view.sort.startsWith("correlation: ")) {
    const signal = series.signals[view.sort.slice(13)];
    return signal ? (unit) => Math.abs(correlation(series, field, unit, signal)) : null;
  }
  return SORTS[view.sort] && ((unit) => SORTS[view.sort](series, field, unit));
}

const orders = new Map();

function orderOf(series, field) {
  const key = [data.series.indexOf(series), field.name, view.sort].join("|");
  if (!orders.has(key)) {
    const order = Array.from({ length: units(field) }, (_, unit) => unit), score = scoreOf(series, field);
    if (score) {
      const scores = order.map((unit) => { const s = score(unit); return s === null || Number.isNaN(s) ? -Infinity : s; });
      order.sort((a, b) => scores[b] - scores[a] || a - b);
    }
    orders.set(key, order);
  }
  return orders.get(key);
}

// ---------------------------------------------------------------------------------------------------- search

function search(series, field, mark, above) {
  // The units on throughout the mark, and the other stretches where all of them are on, those with most first.
  const on = [];
  for (let unit = 0; unit < units(field); unit++) {
    let all = true;
    for (let i = mark[0]; i < mark[1] && all; i++) all = valueAt(series, field, unit, i) >= above;
    if (all) on.push(unit);
  }
  const matches = [];
  for (let i = 0, start = -1; on.length && i <= count(series); i++) {
    const hit = i < count(series) && on.every((unit) => valueAt(series, field, unit, i) >= above);
    if (hit && start < 0) start = i;
    if (!hit && start >= 0) {
      if (i <= mark[0] || start >= mark[1]) matches.push([start, i]);
      start = -1;
    }
  }
  matches.sort((a, b) => (b[1] - b[0]) - (a[1] - a[0]) || a[0] - b[0]);
  return { units: on, matches: matches.slice(0, 50) };
}

// ---------------------------------------------------------------------------------------------------- colours

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const RAMPS = {
  sequential: () => ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"],
  diverging: () => dark.matches ? ["#92c5de", "#2f6f9f", "#222222", "#b2542f", "#f4a582"]
    : ["#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b"],
};
const ramps = {};

function ramp(kind) {
  const key = kind + dark.matches;
  if (!ramps[key]) {
    const stops = RAMPS[kind]().map((c) => [1, 3, 5].map((k) => parseInt(c.slice(k, k + 2), 16)));
    ramps[key] = Array.from({ length: 256 }, (_, k) => {
      const at = k / 255 * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), rest = at - low;
      return stops[low].map((c, j) => Math.round(c + (stops[low + 1][j] - c) * rest));
    });
  }
  return ramps[key];
}

function colourOf(field, x) {
  const [low, high] = field.limits;
  const k = Math.round(255 * (x - low) / (high - low || 1));
  return ramp(field.kind)[Math.max(0, Math.min(255, k))];
}

const inkOn = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff";
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---------------------------------------------------------------------------------------------------- panels

const images = new Map();

function imageOf(series, field) {
  // A picture of one pixel for each step and unit, in the order that units are sorted by.
  const key = [data.series.indexOf(series), field.name, view.sort, dark.matches].join("|");
  if (!images.has(key)) {
    const canvas = document.createElement("canvas"), order = orderOf(series, field);
    canvas.width = count(series);
    canvas.height = units(field);
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    for (let row = 0; row < order.length; row++) {
      for (let i = 0; i < count(series); i++) {
        const x = valueAt(series, field, order[row], i), at = 4 * (row * canvas.width + i);
        if (Number.isNaN(x)) continue;
        const [r, g, b] = colourOf(field, x);
        image.data.set([r, g, b, 255], at);
      }
    }
    context.putImageData(image, 0, 0);
    if (images.size > 12) images.clear();
    images.set(key, canvas);
  }
  return images.get(key);
}

function panel(id, height) {
  // A cleared canvas at the screen's own resolution; null where it is hidden.
  const canvas = byId(id), scale = window.devicePixelRatio || 1, width = canvas.clientWidth || 800;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = context.strokeStyle = css("--ink");
  return { context, width, height, inner: width - LEFT - RIGHT };
}

const xOf = (p, i) => LEFT + (i - view.from) / (view.to - view.from) * p.inner;

function clipped(p, draw) {
  p.context.save();
  p.context.beginPath();
  p.context.rect(LEFT, 0, p.inner, p.height);
  p.context.clip();
  draw();
  p.context.restore();
}

function overlay(p) {
  // The marked stretch and the step in hand, over any panel.
  clipped(p, () => {
    if (view.mark) {
      p.context.fillStyle = css("--mark");
      p.context.globalAlpha = 0.25;
      p.context.fillRect(xOf(p, view.mark[0]), 0, xOf(p, view.mark[1]) - xOf(p, view.mark[0]), p.height);
      p.context.globalAlpha = 1;
    }
    p.context.strokeStyle = css("--mark");
    p.context.lineWidth = view.held ? 2 : 1;
    const x = xOf(p, view.step + 0.5);
    p.context.beginPath();
    p.context.moveTo(x, 0);
    p.context.lineTo(x, p.height);
    p.context.stroke();
  });
}

function label(p, text, y, align = "right") {
  p.context.fillStyle = css("--soft");
  p.context.textAlign = align;
  p.context.textBaseline = "middle";
  p.context.fillText(text, align === "right" ? LEFT - 4 : LEFT + 4, y);
}

function drawStrip(series, field) {
  const p = panel("strip", 26), wide = p.inner / (view.to - view.from);
  clipped(p, () => {
    for (let i = view.from; i < view.to; i++) {
      const x = valueAt(series, field, view.unit, i);
      if (Number.isNaN(x)) continue;
      const colour = colourOf(field, x);
      p.context.fillStyle = `rgb(${colour})`;
      p.context.fillRect(xOf(p, i), 0, Math.max(1, wide), p.height);
      if (wide >= 8 && series.tokens) {
        p.context.fillStyle = inkOn(colour);
        p.context.textAlign = "center";
        p.context.textBaseline = "middle";
        p.context.fillText(spelled(token(series, i)).slice(0, Math.floor(wide / 6)), xOf(p, i + 0.5), p.height / 2);
      }
    }
  });
  label(p, `unit ${field.units[view.unit]}`, p.height / 2);
  overlay(p);
}

function drawMap(id, series, field) {
  const many = units(field), p = panel(id, Math.max(90, Math.min(360, 6 * many)));
  const image = imageOf(series, field), high = p.height;
  p.context.imageSmoothingEnabled = image.width > p.inner * 1.5 || image.height > high * 1.5;
  clipped(p, () => p.context.drawImage(image, view.from, 0, view.to - view.from, many, LEFT, 0, p.inner, high));
  const row = orderOf(series, field).indexOf(view.unit);
  if (row >= 0) {
    p.context.strokeStyle = css("--mark");
    p.context.strokeRect(LEFT, row / many * high, p.inner, Math.max(2, high / many));
  }
  label(p, "units", high / 2);
  overlay(p);
  byId(id).setAttribute("aria-label", `heat map of the ${field.name}: ${many} units of ${series.name}, steps ` +
    `${series.steps[view.from]} to ${series.steps[view.to - 1]}, units sorted by: ${view.sort}`);
}

function drawLines(id, height, lines, name, unitOf) {
  const p = panel(id, height);
  let low = Infinity, high = -Infinity;
  for (const line of lines) {
    for (let i = view.from; i < view.to; i++) {
      const y = line.at(i);
      if (Number.isFinite(y)) { low = Math.min(low, y); high = Math.max(high, y); }
    }
  }
  if (!(low <= high)) { low = 0; high = 1; }
  if (high - low < 1e-12) { low -= 0.5; high += 0.5; }
  const yOf = (y) => 8 + (high - y) / (high - low) * (height - 24);
  label(p, shown(high), 8);
  label(p, shown(low), height - 16);
  clipped(p, () => {
    lines.forEach((line, k) => {
      p.context.strokeStyle = css(["--one", "--two", "--three", "--four"][k % 4]);
      p.context.setLineDash(line.dashed ? [5, 3] : []);
      p.context.lineWidth = 1.3;
      p.context.beginPath();
      let drawing = false;
      for (let i = view.from; i < view.to; i++) {
        const y = line.at(i);
        if (!Number.isFinite(y)) { drawing = false; continue; }
        const x = xOf(p, i + 0.5);
        if (drawing) p.context.lineTo(x, yOf(y));
        else { p.context.moveTo(x - 1, yOf(y)); p.context.lineTo(x + 1, yOf(y)); }
        drawing = true;
      }
      p.context.stroke();
      p.context.setLineDash([]);
    });
  });
  let x = LEFT + 4;
  label(p, `${name}:`, height - 6, "left");
  x += p.context.measureText(`${name}:`).width + 10;
  lines.forEach((line, k) => {
    p.context.fillStyle = css(["--one", "--two", "--three", "--four"][k % 4]);
    p.context.fillText(line.name, x, height - 6);
    x += p.context.measureText(line.name).width + 14;
  });
  overlay(p);
  byId(id).setAttribute("aria-label", `${name} over steps: ${lines.map((line) => line.name).join(", ")}, from ` +
    `${shown(low)} to ${shown(high)}`);
}

function drawAxis(series) {
  const p = panel("axis", 18), wide = view.to - view.from;
  const rough = wide / Math.max(2, p.inner / 90), power = 10 ** Math.floor(Math.log10(rough));
  const every = Math.max(1, Math.round([1, 2, 5, 10].find((k) => k * power >= rough) * power));
  p.context.textBaseline = "middle";
  for (let i = Math.ceil(view.from / every) * every; i < view.to; i += every) {
    const x = xOf(p, i + 0.5);
    p.context.fillStyle = css("--soft");
    p.context.fillRect(x, 0, 1, 4);
    p.context.textAlign = "center";
    if (x > LEFT + 14 && x < p.width - 24) p.context.fillText(String(series.steps[i]), x, 11);
  }
  label(p, "step", 11);
  byId("axis").setAttribute("aria-label", `steps ${series.steps[view.from]} to ${series.steps[view.to - 1]}`);
}

function drawScale(field) {
  byId("low").textContent = `${field.name} ${shown(field.limits[0])}`;
  byId("high").textContent = shown(field.limits[1]);
  const stops = [0, 51, 102, 153, 204, 255].map((k) => `rgb(${ramp(field.kind)[k]})`);
  byId("ramp").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
}

function draw() {
  const series = data.series[view.series], field = series.fields[view.field];
  const other = data.series[view.beside], theirs = other && other.fields.find((one) => one.name === field.name);
  drawStrip(series, field);
  byId("strip").setAttribute("aria-label", `${field.name} of unit ${field.units[view.unit]} at each step, as a strip of colours`);
  drawMap("map", series, field);
  byId("map2").hidden = !theirs;
  if (theirs) drawMap("map2", other, theirs);
  const lines = [{ name: series.name, at: (i) => valueAt(series, field, view.unit, i) }];
  const same = theirs ? theirs.units.indexOf(field.units[view.unit]) : -1;
  if (same >= 0) lines.push({ name: other.name, dashed: true, at: (i) => valueAt(other, theirs, same, i) });
  drawLines("line", 110, lines, `${field.name} of unit ${field.units[view.unit]}`);
  const norms = [series, ...(other ? [other] : [])].flatMap((one, k) => one.norms.map((line) => ({
    name: other ? `${one.name}: ${line.name}` : line.name, dashed: k > 0,
    at: (i) => i < line.values.length && line.values[i] !== null ? line.values[i] : NaN })));
  byId("norms").hidden = !norms.length;
  if (norms.length) drawLines("norms", 130, norms, "log₁₀ of the gradient's norm");
  drawAxis(series);
  drawScale(field);
  tell();
}

let asked = false;

function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

// ---------------------------------------------------------------------------------------------------- words

function tell() {
  const series = data.series[view.series], field = series.fields[view.field], i = view.step;
  const read = series.tokens ? ` ‘${spelled(token(series, i))}’` : "";
  byId("status").textContent = `step ${series.steps[i]}${read}, unit ${field.units[view.unit]}: ${field.name} ` +
    `${shown(valueAt(series, field, view.unit, i))}` + (series.norms.length ? `; log₁₀ of the gradient's norm: ` : "") + series.norms.map((line) =>
    `${line.name} ${line.values[i] === null ? "–" : shown(line.values[i])}`).join(", ") +
    (view.mark ? `; marked: steps ${series.steps[view.mark[0]]} to ${series.steps[view.mark[1] - 1]}` : "") +
    (view.held ? " (held)" : "");
  const table = byId("numbers");
  const unit = field.units[view.unit];
  table.caption.textContent = `${series.name}, step ${series.steps[i]}${read}, unit ${unit}`;
  table.tBodies[0].replaceChildren(...series.fields.filter((one) => one.units.includes(unit)).map((one) => {
    const row = document.createElement("tr"), name = document.createElement("th"), value = document.createElement("td");
    name.scope = "row";
    name.textContent = one.name;
    value.textContent = shown(valueAt(series, one, one.units.indexOf(unit), i));
    row.append(name, value);
    return row;
  }));
  byId("unit").value = unit;
  const spans = byId("text").children;
  for (const span of byId("text").querySelectorAll(".here")) span.classList.remove("here");
  if (!spans[i]) return;
  spans[i].classList.add("here");
  const box = byId("text"), top = spans[i].offsetTop - box.offsetTop;
  if (view.held && (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 30)) {
    box.scrollTop = top - box.clientHeight / 2;
  }
}

function colourText() {
  const series = data.series[view.series], field = series.fields[view.field], spans = byId("text").children;
  for (let i = 0; i < spans.length; i++) {
    const x = valueAt(series, field, view.unit, i), colour = Number.isNaN(x) ? null : colourOf(field, x);
    spans[i].style.background = colour ? `rgb(${colour})` : "none";
    spans[i].style.color = colour ? inkOn(colour) : "inherit";
    spans[i].classList.toggle("marked", !!view.mark && i >= view.mark[0] && i < view.mark[1]);
  }
}

function layText() {
  const series = data.series[view.series];
  byId("reading").hidden = !series.tokens;
  byId("text").replaceChildren(...(series.tokens || []).map((one, i) => {
    const span = document.createElement("span");
    span.textContent = one;
    span.dataset.step = i;
    return span;
  }));
  colourText();
}

// ---------------------------------------------------------------------------------------------------- changes

function change(next) {
  // Set parts of the view, brought within what there is, and draw.
  const before = { ...view };
  Object.assign(view, next);
  const series = data.series[view.series], n = count(series);
  if (view.field >= series.fields.length) view.field = 0;
  view.unit = Math.max(0, Math.min(units(series.fields[view.field]) - 1, view.unit));
  view.step = Math.max(0, Math.min(n - 1, view.step));
  const wide = Math.max(1, Math.min(n, view.to - view.from));
  view.from = Math.max(0, Math.min(n - wide, view.from));
  view.to = view.from + wide;
  if (view.mark) view.mark = [Math.max(0, view.mark[0]), Math.min(n, view.mark[1])];
  if (before.series !== view.series) layText();
  else if (["unit", "field", "mark"].some((key) => before[key] !== view[key])) colourText();
  redraw();
}

function zoom(factor, centre) {
  const n = count(data.series[view.series]), wide = view.to - view.from;
  const next = Math.round(Math.max(Math.min(8, n), Math.min(n, wide * factor)));
  const share = (centre - view.from) / wide;
  const from = Math.round(centre - share * next);
  change({ from, to: from + next });
}

function showStep(step) {
  // Move to a step, and what is shown with it where it lies outside.
  const wide = view.to - view.from;
  let from = view.from;
  if (step < from) from = step;
  if (step >= view.to) from = step - wide + 1;
  change({ step, from, to: from + wide });
}

function moveUnit(by) {
  const series = data.series[view.series], order = orderOf(series, series.fields[view.field]);
  const row = Math.max(0, Math.min(order.length - 1, order.indexOf(view.unit) + by));
  change({ unit: order[row] });
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name, k) => new Option(name, k, false, k === chosen)));
}

function fill() {
  const series = data.series[view.series];
  options(byId("series"), data.series.map((one) => one.name), view.series);
  options(byId("beside"), ["nothing", ...data.series.map((one) => one.name)], view.beside + 1);
  byId("beside").parentElement.hidden = data.series.length < 2;
  byId("series").parentElement.hidden = data.series.length < 2;
  options(byId("field"), series.fields.map((one) => one.name), view.field);
  const sorts = [...Object.keys(SORTS), ...(series.timescale ? ["time scale"] : []),
    ...Object.keys(series.signals).map((name) => `correlation: ${name}`)];
  if (!sorts.includes(view.sort)) view.sort = "as they are";
  byId("sort").replaceChildren(...sorts.map((name) => new Option(name, name, false, name === view.sort)));
  byId("unit").max = Math.max(...series.fields[view.field].units);
  const [low, high] = series.fields[view.field].limits;
  byId("above").value = shown((low + 3 * high) / 4).replace("−", "-");
}

function find() {
  const series = data.series[view.series], field = series.fields[view.field], above = parseFloat(byId("above").value);
  byId("matches").replaceChildren();
  if (!view.mark || Number.isNaN(above)) {
    byId("found").textContent = view.mark ? "Give a number." : "Mark a stretch first: drag over the figure, or hold shift and press the arrow keys.";
    return;
  }
  const { units: on, matches } = search(series, field, view.mark, above);
  byId("found").textContent = on.length
    ? `${on.length} units are on (${on.slice(0, 12).map((unit) => field.units[unit]).join(", ")}` +
      `${on.length > 12 ? ", …" : ""}); ` +
      (matches.length ? `all of them again in ${matches.length} stretches:` : "nowhere else all of them.")
    : "No unit is on throughout the marked stretch: lower the number, or mark a shorter stretch.";
  byId("matches").append(...matches.map(([start, stop]) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const words = series.tokens ? series.tokens.slice(start, Math.min(stop, start + 40)).map(spelled).join("") : "";
    button.type = "button";
    button.textContent = `steps ${series.steps[start]} to ${series.steps[stop - 1]}${words && `: ${words}`}`;
    button.addEventListener("click", () => { showStep(stop - 1); showStep(start); change({ held: true }); });
    item.append(button);
    return item;
  }));
}

// ---------------------------------------------------------------------------------------------------- hands

function stepAt(event) {
  const box = byId("map").getBoundingClientRect(), inner = box.width - LEFT - RIGHT;
  const share = (event.clientX - box.left - LEFT) / inner;
  return Math.max(view.from, Math.min(view.to - 1, view.from + Math.floor(share * (view.to - view.from))));
}

function unitAt(event) {
  const canvas = event.target, shows = { map: view.series, map2: view.beside }[canvas.id];
  if (shows === undefined || shows < 0) return view.unit;
  const series = data.series[shows], name = data.series[view.series].fields[view.field].name;
  const order = orderOf(series, series.fields.find((one) => one.name === name));
  const box = canvas.getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top) / box.height * order.length);
  return order[Math.max(0, Math.min(order.length - 1, row))];
}

let dragged = null;

function listen() {
  const stage = byId("stage");
  stage.addEventListener("pointerdown", (event) => {
    stage.focus({ preventScroll: true });
    dragged = { from: stepAt(event), moved: false, unit: unitAt(event) };
    if (event.pointerId !== undefined) try { event.target.setPointerCapture(event.pointerId); } catch { /* synthetic */ }
  });
  stage.addEventListener("pointermove", (event) => {
    const step = stepAt(event);
    if (dragged) {
      dragged.moved = dragged.moved || step !== dragged.from;
      if (dragged.moved) change({ step, mark: [Math.min(step, dragged.from), Math.max(step, dragged.from) + 1] });
    } else if (!view.held) change({ step, unit: unitAt(event) });
  });
  stage.addEventListener("pointerup", (event) => {
    if (dragged && !dragged.moved) {
      const step = stepAt(event), same = view.held && step === view.step && dragged.unit === view.unit;
      change({ step, unit: dragged.unit, held: !same });
    }
    dragged = null;
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const by = event.deltaY || event.deltaX, wide = view.to - view.from;
    if (event.shiftKey) change({ from: view.from + Math.sign(by) * Math.ceil(wide / 10), to: view.to + Math.sign(by) * Math.ceil(wide / 10) });
    else zoom(by > 0 ? 1.25 : 0.8, stepAt(event));
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const tenth = Math.max(1, Math.round((view.to - view.from) / 10)), n = count(data.series[view.series]);
    const go = { ArrowLeft: -1, ArrowRight: 1, PageUp: -tenth, PageDown: tenth, Home: -n, End: n }[event.key];
    if (go !== undefined) {
      const step = Math.max(0, Math.min(n - 1, view.step + go));
      if (event.shiftKey) {
        const anchor = view.mark && (view.mark[0] === view.step ? view.mark[1] - 1 : view.mark[0]);
        const from = anchor === null || anchor === undefined ? view.step : anchor;
        change({ mark: [Math.min(from, step), Math.max(from, step) + 1] });
      }
      showStep(step);
    } else if (event.key === "ArrowUp") moveUnit(-1);
    else if (event.key === "ArrowDown") moveUnit(1);
    else if (event.key === "+" || event.key === "=") zoom(0.8, view.step);
    else if (event.key === "-") zoom(1.25, view.step);
    else if (event.key === "0") change({ from: 0, to: n });
    else if (event.key === "Enter" || event.key === " ") change({ held: !view.held });
    else if (event.key === "s") find();
    else if (event.key === "Escape") change({ mark: null, held: false });
    else return;
    event.preventDefault();
  });
  byId("text").addEventListener("click", (event) => {
    if (event.target.dataset.step !== undefined) { showStep(Number(event.target.dataset.step)); change({ held: true }); }
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("series").addEventListener("change", (event) => {
    const series = Number(event.target.value), name = data.series[view.series].fields[view.field].name;
    const field = Math.max(0, data.series[series].fields.findIndex((one) => one.name === name));
    change({ series, field, mark: null, from: 0, to: count(data.series[series]) });
    fill();
  });
  byId("beside").addEventListener("change", (event) => change({ beside: Number(event.target.value) - 1 }));
  byId("field").addEventListener("change", (event) => {
    const fields = data.series[view.series].fields, field = Number(event.target.value);
    change({ field, unit: Math.max(0, fields[field].units.indexOf(fields[view.field].units[view.unit])) });
    fill();
  });
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  byId("unit").addEventListener("change", (event) => {
    const shownUnits = data.series[view.series].fields[view.field].units;
    const found = shownUnits.indexOf(Math.round(Number(event.target.value)));
    change({ unit: found < 0 ? view.unit : found });
  });
  byId("closer").addEventListener("click", () => zoom(0.5, view.step));
  byId("wider").addEventListener("click", () => zoom(2, view.step));
  byId("all").addEventListener("click", () => change({ from: 0, to: count(data.series[view.series]) }));
  byId("find").addEventListener("click", find);
  byId("clear").addEventListener("click", () => change({ mark: null }));
  dark.addEventListener("change", () => { images.clear(); colourText(); redraw(); });
  window.addEventListener("resize", redraw);
}

byId("about").textContent = data.about;
view.to = count(data.series[0]);
view.step = view.to - 1;
fill();
layText();
listen();
draw();
