"use strict";
// Drawn from one JSON object: series (a pass of one cell each), with fields as 8-bit codes, unit after unit.
// A step i of the script is step i · every of the passes; a unit is a position among those shown.

const BLANK = 255;  // a step that does not count, or no number
const LEFT = 56, RIGHT = 8;  // pixels beside every panel, so that all share one axis of time
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const N = data.steps, stepOf = (i) => i * data.every;
const view = { series: 0, beside: -1, field: 0, second: false, sort: "as they are", span: "0 to 1", ink: "", step: 0, unit: 0,
  from: 0, to: N, mark: null, held: false };

for (const series of data.series) {
  const text = data.texts[series.text];
  series.tokens = text && text.tokens;
  series.single = text && text.single;
  series.signals = { ...(series.contribution && { contribution: series.contribution }), ...(text && text.signals),
    ...data.signals };
  series.counted = new Uint8Array(N).fill(1);
  for (const [from, to] of series.skipped) series.counted.fill(0, from, to);
  for (const field of series.fields) field.codes = Uint8Array.from(atob(field.codes), (c) => c.charCodeAt(0));
}

function shownPasses() {
  // The pass chosen, and the one beside it where that has the field; each with its field.
  const series = data.series[view.series], field = series.fields[view.field], other = data.series[view.beside];
  const theirs = other && other.fields.find((one) => one.name === field.name);
  return [{ series, field }, ...(theirs ? [{ series: other, field: theirs }] : [])];
}

const inHand = () => shownPasses()[Number(view.second)];  // the pass pointed at

// ---------------------------------------------------------------------------------------------------- numbers

const units = (field) => field.units.length;
const number = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

function valueAt(field, unit, i) {
  const code = field.codes[unit * N + i];
  return code === BLANK ? NaN : field.low[unit] + (field.high[unit] - field.low[unit]) * code / 254;
}

function shown(x) {
  if (!Number.isFinite(x)) return "–";
  const digits = Math.abs(x) >= 1e4 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : x.toPrecision(3);
  return digits.replace("-", "−");
}

function spelled(text) {
  return text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ $/, "␣");
}

// ---------------------------------------------------------------------------------------------------- orders

const SORTS = {
  "as they are": null,
  "variance": (field, unit) => moments(field, unit).variance,
  "saturation": (field, unit) => {
    let inside = 0, all = 0;
    const [low, high] = field.limits;
    for (let i = 0; i < N; i++) {
      const x = (valueAt(field, unit, i) - low) / (high - low);
      if (!Number.isNaN(x)) { all++; inside += x < 0.1 || x > 0.9; }
    }
    return all ? inside / all : 0;
  },
};

function moments(field, unit) {
  let n = 0, total = 0, squares = 0;
  for (let i = 0; i < N; i++) {
    const x = valueAt(field, unit, i);
    if (!Number.isNaN(x)) { n++; total += x; squares += x * x; }
  }
  const mean = n ? total / n : 0;
  return { mean, variance: n ? Math.max(0, squares / n - mean * mean) : 0 };
}

function correlation(field, unit, signal) {
  let n = 0, x1 = 0, y1 = 0, xx = 0, yy = 0, xy = 0;
  for (let i = 0; i < N; i++) {
    const x = valueAt(field, unit, i), y = signal[i];
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
    return signal ? (unit) => Math.abs(correlation(field, unit, signal)) : null;
  }
  return SORTS[view.sort] && ((unit) => SORTS[view.sort](field, unit));
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
  // The units on at all steps of the mark that count, and the other stretches where all of them are on, those with most first.
  const on = [], marked = [];
  for (let i = mark[0]; i < mark[1]; i++) if (series.counted[i]) marked.push(i);
  for (let unit = 0; marked.length && unit < units(field); unit++) {
    if (marked.every((i) => valueAt(field, unit, i) >= above)) on.push(unit);
  }
  const matches = [];
  for (let i = 0, start = -1; on.length && i <= N; i++) {
    const hit = i < N && on.every((unit) => valueAt(field, unit, i) >= above);
    if (hit && start < 0) start = i;
    if (!hit && start >= 0) {
      if (i <= mark[0] || start >= mark[1]) matches.push([start, i]);
      start = -1;
    }
  }
  matches.sort((a, b) => (b[1] - b[0]) - (a[1] - a[0]) || a[0] - b[0]);
  return { units: on, matches, marked: marked.length };
}

// ---------------------------------------------------------------------------------------------------- colours

const dark = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const isDark = () => dark.matches && !printing;
const RAMPS = {
  sequential: () => ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"],
  diverging: () => isDark() ? ["#92c5de", "#2f6f9f", "#222222", "#b2542f", "#f4a582"]
    : ["#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b"],
};
const ramps = {};

function ramp(kind) {
  const key = kind + isDark();
  if (!ramps[key]) {
    const stops = RAMPS[kind]().map((c) => [1, 3, 5].map((k) => parseInt(c.slice(k, k + 2), 16)));
    ramps[key] = Array.from({ length: 256 }, (_, k) => {
      const at = k / 255 * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), rest = at - low;
      return stops[low].map((c, j) => Math.round(c + (stops[low + 1][j] - c) * rest));
    });
  }
  return ramps[key];
}

function limits() {
  // What the colours span, the same for both passes.
  const fields = shownPasses().map((one) => one.field), own = view.span !== "0 to 1" && isShare(fields[0]);
  return [Math.min(...fields.flatMap((field) => own ? field.low : field.limits[0])),
    Math.max(...fields.flatMap((field) => own ? field.high : field.limits[1]))];
}

const isShare = (field) => field.kind === "sequential" && field.limits[0] === 0 && field.limits[1] === 1;

function colourOf(field, [low, high], x) {
  const k = Math.round(255 * (x - low) / (high - low || 1));
  return ramp(field.kind)[Math.max(0, Math.min(255, k))];
}

const inkOn = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff";
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---------------------------------------------------------------------------------------------------- panels

const images = new Map();

function imageOf(series, field, span) {
  // A picture of one pixel for each step and unit, in the order that units are sorted by.
  const key = [data.series.indexOf(series), field.name, view.sort, isDark(), ...span].join("|");
  if (!images.has(key)) {
    const canvas = document.createElement("canvas"), order = orderOf(series, field);
    canvas.width = N;
    canvas.height = units(field);
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    for (let row = 0; row < order.length; row++) {
      for (let i = 0; i < N; i++) {
        const x = valueAt(field, order[row], i), at = 4 * (row * canvas.width + i);
        if (Number.isNaN(x)) continue;
        const [r, g, b] = colourOf(field, span, x);
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

function overlay(p, series) {
  // The steps that do not count, the marked stretch and the step in hand, over any panel.
  clipped(p, () => {
    p.context.fillStyle = css("--line");
    p.context.globalAlpha = 0.5;
    for (const [from, to] of series.skipped) p.context.fillRect(xOf(p, from), 0, xOf(p, to) - xOf(p, from), p.height);
    p.context.globalAlpha = 1;
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

function tint(series, field, span) {
  // The colour of each step, null for none: by the unit, or by the signal that was chosen, 0 in the middle.
  const signal = series.signals[view.ink];
  if (!signal) {
    return (i) => {
      const x = valueAt(field, view.unit, i);
      return Number.isNaN(x) ? null : colourOf(field, span, x);
    };
  }
  const low = signal.reduce((a, b) => Math.min(a, b), 0), high = signal.reduce((a, b) => Math.max(a, b), 0);
  const most = Math.max(-low, high), kind = low < 0 ? "diverging" : "sequential";
  return (i) => signal[i] === null ? null : colourOf({ kind }, [low < 0 ? -most : 0, most], signal[i]);
}

function drawStrip({ series, field }, span) {
  const p = panel("strip", 26), wide = p.inner / (view.to - view.from), colours = tint(series, field, span);
  clipped(p, () => {
    for (let i = view.from; i < view.to; i++) {
      const colour = colours(i);
      if (!colour) continue;
      p.context.fillStyle = `rgb(${colour})`;
      p.context.fillRect(xOf(p, i), 0, Math.max(1, wide), p.height);
      if (wide >= 8 && series.tokens) {
        p.context.fillStyle = inkOn(colour);
        p.context.textAlign = "center";
        p.context.textBaseline = "middle";
        p.context.fillText(spelled(series.tokens[i]).slice(0, Math.floor(wide / 6)), xOf(p, i + 0.5), p.height / 2);
      }
    }
  });
  const signal = series.signals[view.ink] && view.ink;
  label(p, signal ? "signal" : `unit ${field.units[view.unit]}`, p.height / 2);
  overlay(p, series);
  byId("strip").setAttribute("aria-label", `${signal || `${field.name} of unit ${field.units[view.unit]}`} of ` +
    `${series.name} at each step, as a strip of colours`);
}

function drawMap(id, { series, field }, span, unit) {
  const many = units(field), wide = view.to - view.from, p = panel(id, Math.max(90, Math.min(360, 6 * many)));
  const high = p.height, pixels = window.devicePixelRatio || 1, fitted = document.createElement("canvas");
  fitted.width = Math.min(wide, Math.round(p.inner * pixels));  // averaged where there are more steps than pixels,
  fitted.height = Math.min(many, Math.round(high * pixels));  // and crisp where there are fewer
  fitted.getContext("2d").drawImage(imageOf(series, field, span), view.from, 0, wide, many,
    0, 0, fitted.width, fitted.height);
  p.context.imageSmoothingEnabled = false;
  p.context.drawImage(fitted, LEFT, 0, p.inner, high);
  const row = orderOf(series, field).indexOf(unit);
  if (row >= 0) {
    p.context.strokeStyle = css("--mark");
    p.context.strokeRect(LEFT, row / many * high, p.inner, Math.max(2, high / many));
  }
  label(p, "units", high / 2);
  overlay(p, series);
  byId(id).setAttribute("aria-label", `heat map of the ${field.name}: ${number(many, "unit")} of ${series.name}, ` +
    `steps ${stepOf(view.from)} to ${stepOf(view.to - 1)}, units sorted by: ${view.sort}`);
}

function drawLines(id, height, lines, name, series) {
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
  const yOf = (y) => 8 + (high - y) / (high - low) * (height - 16);
  label(p, shown(high), 8);
  label(p, shown(low), height - 8);
  clipped(p, () => {
    for (const line of lines) {
      p.context.strokeStyle = p.context.fillStyle = css(line.colour);
      p.context.setLineDash(line.dashed ? [5, 3] : []);
      p.context.lineWidth = 1.3;
      p.context.beginPath();
      for (let i = view.from, drawing = false; i < view.to; i++) {
        const x = xOf(p, i + 0.5), y = line.at(i), here = Number.isFinite(y);
        if (here && drawing) p.context.lineTo(x, yOf(y));
        else if (here && i + 1 < view.to && Number.isFinite(line.at(i + 1))) p.context.moveTo(x, yOf(y));
        else if (here) p.context.fillRect(x - 2, yOf(y) - 2, 4, 4);  // alone
        drawing = here;
      }
      p.context.stroke();
      p.context.setLineDash([]);
    }
  });
  overlay(p, series);
  byId(`${id}-legend`).replaceChildren(`${name}:`, ...lines.map((line) => {
    const words = document.createElement("span");
    words.style.color = css(line.colour);
    words.textContent = `${line.dashed ? "– – –" : "———"} ${line.name}`;
    return words;
  }));
  byId(id).setAttribute("aria-label", `${name} over steps: ${lines.map((line) => line.name).join(", ")}, from ` +
    `${shown(low)} to ${shown(high)}`);
}

function drawAxis() {
  const p = panel("axis", 18), wide = view.to - view.from;
  const rough = wide / Math.max(2, p.inner / 90), power = 10 ** Math.floor(Math.log10(rough));
  const every = Math.max(1, Math.round([1, 2, 5, 10].find((k) => k * power >= rough) * power));
  p.context.textBaseline = "middle";
  for (let i = Math.ceil(view.from / every) * every; i < view.to; i += every) {
    const x = xOf(p, i + 0.5);
    p.context.fillStyle = css("--soft");
    p.context.fillRect(x, 0, 1, 4);
    p.context.textAlign = "center";
    if (x > LEFT + 14 && x < p.width - 24) p.context.fillText(String(stepOf(i)), x, 11);
  }
  label(p, "step", 11);
  byId("axis").setAttribute("aria-label", `steps ${stepOf(view.from)} to ${stepOf(view.to - 1)}`);
}

function drawScale(field, span) {
  byId("low").textContent = `${field.name} ${shown(span[0])}`;
  byId("high").textContent = shown(span[1]);
  const stops = [0, 51, 102, 153, 204, 255].map((k) => `rgb(${ramp(field.kind)[k]})`);
  byId("ramp").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  byId("span").parentElement.hidden = !isShare(field);
}

const NORM_COLOURS = { "joint state": "--one", "h": "--two", "c": "--three", "retention gates alone": "--four" };

function draw() {
  const passes = shownPasses(), hand = inHand(), unit = hand.field.units[view.unit], span = limits();
  const named = (one, words) => data.series.length > 1 ? `${one.name}${words && `: ${words}`}` : words || one.name;
  const same = passes.map((one) => one === passes[Number(view.second)] ? view.unit : one.field.units.indexOf(unit));
  drawStrip(hand, span);
  drawMap("map", passes[0], span, same[0]);
  byId("map2").hidden = !passes[1];
  if (passes[1]) drawMap("map2", passes[1], span, same[1]);
  const other = data.series[view.beside], without = passes.find((_, k) => same[k] < 0);
  byId("other").textContent = !other ? "" : !passes[1] ? `${other.name} has no ${hand.field.name}.`
    : `above: ${passes[0].series.name}, below: ${other.name}` +
      (without ? `; no unit ${unit} of ${without.series.name} is shown` : "");
  const lines = passes.map(({ series, field }, k) => ({ name: named(series, ""), colour: k ? "--two" : "--one",
    dashed: k > 0, at: (i) => same[k] < 0 ? NaN : valueAt(field, same[k], i) })).filter((_, k) => same[k] >= 0);
  drawLines("line", 102, lines, `${hand.field.name} of unit ${unit}`, hand.series);
  const norms = [data.series[view.series], ...(other ? [other] : [])].flatMap((one, k) => one.norms.map((line) => ({
    name: other ? named(one, line.name) : line.name, colour: NORM_COLOURS[line.name], dashed: k > 0,
    at: (i) => line.values[i] ?? NaN })));
  byId("norms").hidden = byId("norms-legend").hidden = !norms.length;
  if (norms.length) drawLines("norms", 122, norms, "log₁₀ of the gradient's norm", hand.series);
  drawAxis();
  drawScale(hand.field, span);
  tell();
}

let asked = false;

function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

// ---------------------------------------------------------------------------------------------------- words

let listed = null;

function tell() {
  const { series, field } = inHand(), i = view.step, unit = field.units[view.unit];
  const read = series.tokens ? ` ‘${spelled(series.tokens[i])}’` : "";
  const place = `${data.series.length > 1 ? `${series.name}, ` : ""}step ${stepOf(i)}${read}` +
    (series.counted[i] ? "" : ", which does not count");
  byId("status").textContent = `${place}, unit ${unit}: ${field.name} ${shown(valueAt(field, view.unit, i))}` +
    (series.norms.length ? "; log₁₀ of the gradient's norm: " : "") +
    series.norms.map((line) => `${line.name} ${shown(line.values[i] ?? NaN)}`).join(", ") +
    (series.signals[view.ink] ? `; ${view.ink} ${shown(series.signals[view.ink][i] ?? NaN)}` : "") +
    (view.mark ? `; marked: steps ${stepOf(view.mark[0])} to ${stepOf(view.mark[1] - 1)}` : "") +
    (view.held ? " (held)" : "");
  const table = byId("numbers");
  table.caption.textContent = `${place}, unit ${unit}`;
  table.tBodies[0].replaceChildren(...series.fields.filter((one) => one.units.includes(unit)).map((one) =>
    rowOf(one.name, shown(valueAt(one, one.units.indexOf(unit), i)))));
  if (listed !== field) options(byId("unit"), field.units, view.unit);
  listed = field;
  byId("unit").value = view.unit;
  const spans = byId("text").children;
  for (const span of byId("text").querySelectorAll(".here")) span.classList.remove("here");
  if (!spans[i]) return;
  spans[i].classList.add("here");
  const box = byId("text"), top = spans[i].offsetTop - box.offsetTop;
  if (view.held && (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 30)) {
    box.scrollTop = top - box.clientHeight / 2;
  }
}

function rowOf(name, ...values) {
  const row = document.createElement("tr"), head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  row.append(head, ...values.map((value) => {
    const cell = document.createElement("td");
    cell.textContent = value;
    return cell;
  }));
  return row;
}

function colourText() {
  const { series, field } = inHand(), spans = byId("text").children, colours = tint(series, field, limits());
  for (let i = 0; i < spans.length; i++) {
    const colour = colours(i);
    spans[i].style.background = colour ? `rgb(${colour})` : "none";
    spans[i].style.color = colour ? inkOn(colour) : "inherit";
    spans[i].classList.toggle("marked", !!view.mark && i >= view.mark[0] && i < view.mark[1]);
  }
  tellLetters(series, field);
}

function tellLetters(series, field) {
  // The mean of the unit over the steps at which each character is read: the ten highest and the ten lowest.
  byId("letters").hidden = !series.single;
  if (!series.single) return;
  const sums = new Map();
  for (let i = 0; i < N; i++) {
    const x = valueAt(field, view.unit, i), sum = sums.get(series.tokens[i]) || [0, 0];
    if (!Number.isNaN(x)) sums.set(series.tokens[i], [sum[0] + x, sum[1] + 1]);
  }
  const means = [...sums].map(([token, [total, n]]) => [token, total / n, n]).sort((a, b) => b[1] - a[1]);
  const rows = means.map(([token, mean, n]) => rowOf(spelled(token), shown(mean), n));
  if (rows.length > 20) rows.splice(10, rows.length - 20, rowOf("…", "", ""));
  const table = byId("letters").querySelector("table");
  table.caption.textContent = `mean ${field.name} of unit ${field.units[view.unit]} of ${series.name} where it is read`;
  table.tBodies[0].replaceChildren(...rows);
}

function layText() {
  const { series } = inHand();
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
  const before = { ...view }, last = inHand();
  Object.assign(view, next);
  if (!shownPasses()[1]) view.second = false;
  const { series, field } = inHand();
  if (next.unit === undefined && field !== last.field) view.unit = field.units.indexOf(last.field.units[view.unit]);
  view.unit = Math.max(0, Math.min(units(field) - 1, view.unit));
  view.step = Math.max(0, Math.min(N - 1, view.step));
  const wide = Math.max(1, Math.min(N, view.to - view.from));
  view.from = Math.max(0, Math.min(N - wide, view.from));
  view.to = view.from + wide;
  if (view.mark) view.mark = [Math.max(0, view.mark[0]), Math.min(N, view.mark[1])];
  if (last.series.tokens !== series.tokens) layText();
  else if (["series", "beside", "second", "unit", "field", "mark", "span", "ink"].some((key) => before[key] !== view[key])) {
    colourText();
  }
  redraw();
}

function lastStep(series) {
  // The last step that counts.
  return Math.max(0, series.counted.lastIndexOf(1));
}

function zoom(factor, centre) {
  const wide = view.to - view.from, next = Math.round(Math.max(Math.min(8, N), Math.min(N, wide * factor)));
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
  const { series, field } = inHand(), order = orderOf(series, field);
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
  const inks = Object.keys(series.signals);
  if (!inks.includes(view.ink)) view.ink = "";
  byId("ink").replaceChildren(new Option("the unit", "", false, !view.ink),
    ...inks.map((name) => new Option(name, name, false, name === view.ink)));
  byId("ink").parentElement.hidden = !inks.length;
  const [low, high] = series.fields[view.field].limits;
  byId("above").value = shown((low + 3 * high) / 4).replace("−", "-");
}

function find() {
  const { series, field } = inHand(), above = parseFloat(byId("above").value), most = 50;
  byId("matches").replaceChildren();
  if (!view.mark || Number.isNaN(above)) {
    byId("found").textContent = view.mark ? "Give a number." : "Mark a stretch first: drag over the figure, or hold shift and press the arrow keys.";
    return;
  }
  const { units: on, matches, marked } = search(series, field, view.mark, above);
  const again = matches.length > most ? `the ${most} longest of ${matches.length} stretches`
    : `${matches.length} stretch${matches.length > 1 ? "es" : ""}`;
  byId("found").textContent = (data.series.length > 1 ? `Searched in ${series.name} alone. ` : "") + (on.length
    ? `${number(on.length, "unit")} ${on.length > 1 ? "are" : "is"} on (${on.slice(0, 12).map((unit) => field.units[unit]).join(", ")}` +
      `${on.length > 12 ? ", …" : ""}); ` +
      (matches.length ? `all of them again in ${again}:` : "nowhere else all of them.")
    : marked ? "No unit is on throughout the marked stretch: lower the number, or mark a shorter stretch."
      : "No step of the marked stretch counts.");
  byId("matches").append(...matches.slice(0, most).map(([start, stop]) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const words = series.tokens ? series.tokens.slice(start, Math.min(stop, start + 40)).map(spelled).join("") : "";
    button.type = "button";
    button.textContent = `steps ${stepOf(start)} to ${stepOf(stop - 1)}${words && `: ${words}`}`;
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
  // The pass and the unit pointed at; elsewhere those in hand.
  const canvas = event.target, { second, unit } = view;
  if (canvas.id !== "map" && canvas.id !== "map2") return { second, unit };
  const { series, field } = shownPasses()[Number(canvas.id === "map2")], order = orderOf(series, field);
  const box = canvas.getBoundingClientRect(), row = Math.floor((event.clientY - box.top) / box.height * order.length);
  return { second: canvas.id === "map2", unit: order[Math.max(0, Math.min(order.length - 1, row))] };
}

let dragged = null;

function listen() {
  const stage = byId("stage");
  stage.addEventListener("pointerdown", (event) => {
    stage.focus({ preventScroll: true });
    dragged = { from: stepAt(event), moved: false, at: unitAt(event) };
    if (event.pointerId !== undefined) try { event.target.setPointerCapture(event.pointerId); } catch { /* synthetic */ }
  });
  stage.addEventListener("pointermove", (event) => {
    const step = stepAt(event);
    if (dragged) {
      dragged.moved = dragged.moved || step !== dragged.from;
      if (dragged.moved) change({ step, mark: [Math.min(step, dragged.from), Math.max(step, dragged.from) + 1] });
    } else if (!view.held) change({ step, ...unitAt(event) });
  });
  stage.addEventListener("pointerup", (event) => {
    if (dragged && !dragged.moved) {
      const step = stepAt(event), { second, unit } = dragged.at;
      const same = view.held && step === view.step && second === view.second && unit === view.unit;
      change({ step, second, unit, held: !same });
    }
    dragged = null;
  });
  stage.addEventListener("pointercancel", () => { dragged = null; });
  stage.addEventListener("wheel", (event) => {
    const by = event.deltaY || event.deltaX, wide = view.to - view.from;
    if (wide === N && by > 0) return;  // all is shown: the page scrolls
    event.preventDefault();
    if (event.shiftKey) change({ from: view.from + Math.sign(by) * Math.ceil(wide / 10), to: view.to + Math.sign(by) * Math.ceil(wide / 10) });
    else zoom(by > 0 ? 1.25 : 0.8, stepAt(event));
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const tenth = Math.max(1, Math.round((view.to - view.from) / 10));
    const go = { ArrowLeft: -1, ArrowRight: 1, PageUp: -tenth, PageDown: tenth, Home: -N, End: N }[event.key];
    if (go !== undefined) {
      const step = Math.max(0, Math.min(N - 1, view.step + go));
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
    else if (event.key === "0") change({ from: 0, to: N });
    else if (event.key === "Enter" || event.key === " ") change({ held: !view.held });
    else if (event.key === "s") find();
    else if (event.key === "o") change({ second: !view.second });
    else if (event.key === "Escape") change({ mark: null, held: false });
    else return;
    event.preventDefault();
  });
  byId("text").addEventListener("click", (event) => {
    if (event.target.dataset.step !== undefined) { showStep(Number(event.target.dataset.step)); change({ held: true }); }
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("series").addEventListener("change", (event) => {
    const series = Number(event.target.value), next = data.series[series];
    const { name } = data.series[view.series].fields[view.field];
    change({ series, field: Math.max(0, next.fields.findIndex((one) => one.name === name)), second: false, mark: null,
      from: 0, to: N, step: next.counted[view.step] ? view.step : lastStep(next) });
    fill();
  });
  byId("beside").addEventListener("change", (event) =>
    change({ beside: Number(event.target.value) - 1, second: false }));
  byId("field").addEventListener("change", (event) => { change({ field: Number(event.target.value) }); fill(); });
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  byId("span").addEventListener("change", (event) => change({ span: event.target.value }));
  byId("ink").addEventListener("change", (event) => change({ ink: event.target.value }));
  byId("unit").addEventListener("change", (event) => change({ unit: Number(event.target.value) }));
  byId("closer").addEventListener("click", () => zoom(0.5, view.step));
  byId("wider").addEventListener("click", () => zoom(2, view.step));
  byId("all").addEventListener("click", () => change({ from: 0, to: N }));
  byId("find").addEventListener("click", find);
  byId("clear").addEventListener("click", () => change({ mark: null }));
  dark.addEventListener("change", () => { images.clear(); colourText(); redraw(); });
  window.addEventListener("resize", redraw);
  for (const [name, on] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(name, () => {
      printing = on;
      document.documentElement.classList.toggle("printing", on);  // light, and as wide as paper
      colourText();
      draw();
    });
  }
}

byId("about").textContent = data.about;
view.step = lastStep(data.series[0]);
fill();
layText();
listen();
draw();
