/// The page that explain_allreduce --html writes: one file, with nothing to load. The program puts its data in the
/// place of "THE DATA"; the script plays the arrows, as `verify` does, and draws what every block holds.
#pragma once

inline constexpr const char* explain_page = R"page(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Allreduce</title>
<style>
:root {
  color-scheme: light dark;
  --page: #f7f6f3; --panel: #ffffff; --ink: #1e2128; --soft: #676c79; --line: #e2e0da; --lane: #d5d2ca;
  --none: #eceae4; --part: #3b74d6; --whole: #16875f; --add: #2c66cc; --replace: #c8620f; --now: #fff3d6;
  --other: #8b5cc4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121419; --panel: #1a1d24; --ink: #e8eaf0; --soft: #9ba1b0; --line: #2c303a; --lane: #383d49;
    --none: #2a2e38; --part: #5b93f0; --whole: #3fc08f; --add: #78abff; --replace: #ffae63; --now: #2e2a1d;
    --other: #c09af0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1500px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 24px; font-weight: 650; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; font-weight: 650; margin: 0; }
h3 { font-size: 14px; font-weight: 600; margin: 22px 0 8px; }
p { margin: 0; color: var(--soft); max-width: 120ch; }
.bar { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: 10px;
  align-items: center; margin: 18px 0; padding: 10px 14px; background: var(--panel);
  border: 1px solid var(--line); border-radius: 12px; }
.bar input { flex: 1 1 120px; min-width: 0; accent-color: var(--part); }
.bar output { min-width: 15em; font-variant-numeric: tabular-nums; }
button { font: inherit; color: inherit; background: none; border: 1px solid var(--line); border-radius: 8px;
  padding: 3px 12px; cursor: pointer; }
button:hover { border-color: var(--part); }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 18px; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 14px; padding: 18px 20px;
  min-width: 0; }
.facts { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 12px 0 14px; padding: 0; }
.facts dt { color: var(--soft); font-size: 12px; }
.facts dd { margin: 0; font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts small { font-weight: 400; font-size: 12px; color: var(--soft); }
.good { color: var(--whole); font-size: 13px; } .bad { color: #d43d3d; font-size: 13px; font-weight: 600; }
.scroll { overflow: auto; max-height: 74vh; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
svg { display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg .name { font-weight: 600; }
.lane { stroke: var(--lane); stroke-width: 1; }
.message { fill: none; stroke-width: 1.4; opacity: .38; }
.message.done { opacity: .62; } .message.now { opacity: 1; stroke-width: 2.4; }
.message:has(+ .hit:hover) { opacity: 1; stroke-width: 4; }
.hit { fill: none; stroke: transparent; stroke-width: 10; }
.add { stroke: var(--add); } .replace { stroke: var(--replace); }
.band { fill: var(--now); opacity: 0; } .band.now { opacity: 1; } .row { cursor: pointer; }
.later { opacity: .3; }
.key { display: flex; flex-wrap: wrap; gap: 4px 22px; margin-top: 10px; font-size: 13px; color: var(--soft); }
.key i { display: inline-block; width: 22px; height: 10px; border-radius: 2px; margin-right: 7px;
  vertical-align: -1px; }
.key i.rule { height: 3px; vertical-align: 3px; }
#tip { position: fixed; z-index: 3; pointer-events: none; background: var(--ink); color: var(--page);
  padding: 7px 11px; border-radius: 8px; font-size: 13px; line-height: 1.4; max-width: 30em;
  opacity: 0; transition: opacity .08s; }
.wide { margin-top: 18px; }
</style>
<main>
<h1 id="title"></h1>
<p>Every rank begins with a vector of its own; in the end all hold the sum. Time runs downwards, with one lane for each
rank. The boxes on a lane are the blocks of its vector: the fuller, the more ranks' contributions are in that block. A
line is a message, from the blocks that are sent to where they arrive. Point at anything to see what it holds.</p>
<div class="bar">
  <button id="back" title="one round back (left arrow)">&#9664;</button>
  <button id="play" title="play (space)">Play</button>
  <button id="on" title="one round on (right arrow)">&#9654;</button>
  <input id="slider" type="range" min="0" value="0" aria-label="round">
  <output id="where"></output>
</div>
<div class="panels" id="panels"></div>
<section class="wide">
  <h2>Predicted time</h2>
  <p id="model"></p>
  <div id="chart"></div>
</section>
</main>
<div id="tip" role="tooltip"></div>
<script>
"use strict";
const data = "THE DATA";
const SVG = "http://www.w3.org/2000/svg";
const $ = id => document.getElementById(id);
function make(parent, tag, attributes = {}, text) {
  const html = ["h2", "h3", "div", "dl", "dt", "dd", "p", "section", "small", "span", "i"].includes(tag);
  const e = html ? document.createElement(tag) : document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}
const list = (n, f) => Array.from({length: n}, (_, i) => f(i));
const number = x => Number(x).toLocaleString("en-US", {maximumFractionDigits: 0});
function time(s) {
  const [scale, unit] = s < 1e-3 ? [1e6, "\u00b5s"] : s < 1 ? [1e3, "ms"] : [1, "s"];
  return Number((s * scale).toPrecision(3)) + " " + unit;
}
function blockNames(a, blocks) {
  if (blocks === 1) return "the whole vector";
  if (a.count === blocks) return "all blocks";
  if (a.count === 1) return "block " + a.first;
  const last = a.first + a.count - 1;
  if (last < blocks) return "blocks " + a.first + "\u2013" + last;
  const rest = last - blocks;
  return "blocks " + a.first + "\u2013" + (blocks - 1) + " and 0" + (rest ? "\u2013" + rest : "");
}

// states[t][rank][block]: how often each rank's contribution is in there after t rounds.
function playAll(s) {
  const states = [list(s.ranks, r => list(s.blocks, () => list(s.ranks, c => +(c === r))))];
  for (let t = 0, i = 0; t < s.rounds; ++t) {
    const before = states[t], after = before.map(rank => rank.slice());
    for (; i < s.arrows.length && s.arrows[i].round === t; ++i) {
      const a = s.arrows[i];
      for (let k = 0; k < a.count; ++k) {
        const b = (a.first + k) % s.blocks, sent = before[a.from][b];
        after[a.to][b] = a.then === "add" ? after[a.to][b].map((n, c) => n + sent[c]) : sent;
      }
    }
    states.push(after);
  }
  return states;
}
const held = counts => counts.flatMap((n, c) => n ? [c] : []);
function contents(s, rank, block, t) {
  const counts = s.states[t][rank][block], who = held(counts);
  const when = t === 0 ? "at the start" : t === s.rounds ? "in the end" : "after round " + (t - 1);
  const what = who.length === s.ranks ? "the whole sum" : "the contribution" + (who.length > 1 ? "s" : "") +
    " of " + who.join(", ") + " (" + who.length + " of " + s.ranks + ")";
  const wrong = counts.some(n => n > 1) ? "; counted twice: " + held(counts.map(n => n > 1)).join(", ") : "";
  return "Rank " + rank + ", block " + block + ", " + when + ": " + what + wrong;
}

const tip = $("tip");
document.addEventListener("mousemove", event => {
  const says = event.target.closest?.("[data-says]");
  tip.style.opacity = says ? 1 : 0;
  if (!says) return;
  tip.textContent = says.dataset.says;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + "px";
  tip.style.top = (event.clientY + box.height + 24 > innerHeight ? event.clientY - box.height - 10
                                                                  : event.clientY + 16) + "px";
});

// A box that is filled as far as its block is whole.
function box(parent, s, rank, block, t, x, y, width, height) {
  const counts = s.states[t][rank][block], share = held(counts).length / s.ranks;
  make(parent, "rect", {x, y, width, height, fill: "var(--none)"});
  const full = make(parent, "rect", {x, y: y + height * (1 - share), width, height: height * share,
    fill: share === 1 ? "var(--whole)" : "var(--part)"});
  make(parent, "rect", {x, y: y - 3, width: width + 1, height: height + 6, fill: "transparent",
    "data-says": contents(s, rank, block, t)});
  return full;
}

function panel(s, index) {
  s.states = playAll(s);
  const root = make($("panels"), "section");
  make(root, "h2", {}, s.algorithm);
  const facts = make(root, "dl", {class: "facts"});
  const fact = (name, value, small) => {
    const d = make(facts, "div");
    make(d, "dt", {}, name);
    make(make(d, "dd", {}, value), "small", {}, small ? " " + small : "");
  };
  fact("rounds", s.rounds, "at best " + s.best.rounds);
  fact("messages", number(s.messages), "of all ranks");
  fact("elements sent by the busiest", number(s.busiest.sent), "at best " + number(s.best.sent));
  fact("predicted time", time(s.seconds), "at best " + time(s.best.seconds));
  if (s.measured !== null) fact("measured time", time(s.measured), "on threads, median");
  if (s.predicted_over_measured !== null) fact("predicted over measured", s.predicted_over_measured.toFixed(2));
  make(root, "p", {class: s.verified ? "good" : "bad"}, (s.verified ? "\u2713 verified: " : "\u2717 ") + s.verdict);

  make(root, "h3", {}, "Who sends what to whom, when");
  const detail = s.ranks * s.blocks * (s.rounds + 1) <= 30000;
  const step = s.blocks <= 4 ? 12 : s.blocks <= 8 ? 8 : s.blocks <= 16 ? 5 : 3, strip = step * s.blocks;
  const lane = strip + Math.max(16, 44 - strip), left = 76, top = 40, high = 15;
  const row = s.rounds <= 8 ? 74 : s.rounds <= 24 ? 58 : 46;
  const width = left + lane * s.ranks + 10, height = top + row * s.rounds + 34;
  const x = r => left + lane * r + (lane - strip) / 2, y = t => top + row * t;
  const scroll = make(root, "div", {class: "scroll"});
  const shown = Math.min(width * 1.6, Math.max(width, 620));
  const svg = make(scroll, "svg", {viewBox: `0 0 ${width} ${height}`, width: shown, height: height * shown / width});
  svg.style.maxWidth = s.ranks <= 16 ? "100%" : "none";
  if (s.ranks <= 16) svg.style.height = "auto";
  const defs = make(svg, "defs");
  for (const kind of ["add", "replace"])
    make(make(defs, "marker", {id: kind + index, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9,
      markerUnits: "userSpaceOnUse", orient: "auto"}), "path", {d: "M0 .6 8 4 0 7.4z", fill: `var(--${kind})`});
  s.bands = list(s.rounds + 1, t =>
    make(svg, "rect", {class: "band", x: 4, y: y(t) - 9, width: width - 8, height: high + 18, rx: 8}));
  for (let r = 0; r < s.ranks; ++r) {
    make(svg, "text", {x: x(r) + strip / 2, y: 20, "text-anchor": "middle", class: "name"}, r);
    make(svg, "line", {class: "lane", x1: x(r) + strip / 2, x2: x(r) + strip / 2, y1: top, y2: y(s.rounds)});
  }
  make(svg, "text", {x: 14, y: 20, class: "soft"}, "rank");
  const first = s.arrows.find(a => a.phase === "gather");
  s.rows = list(s.rounds + 1, t => {
    const g = make(svg, "g", {class: "row"});
    const name = t === 0 ? "start" : t === s.rounds ? "end" : "after " + (t - 1);
    make(g, "text", {x: 14, y: y(t) + high - 3, class: "soft"}, name);
    for (let r = 0; r < s.ranks; ++r) {
      make(g, "rect", {x: x(r) - 2, y: y(t) - 2, width: strip + 3, height: high + 4, rx: 3, fill: "var(--panel)",
        stroke: "var(--lane)"});
      for (let b = 0; detail && b < s.blocks; ++b) box(g, s, r, b, t, x(r) + step * b, y(t), step - 1, high);
      if (!detail) {
        const share = s.states[t][r].reduce((sum, c) => sum + held(c).length, 0) / s.blocks / s.ranks;
        make(g, "rect", {x: x(r), y: y(t), width: strip, height: high, fill: "var(--none)", "data-says":
          `Rank ${r}: ${Math.round(100 * share)} % of all contributions; block by block in the table below`});
        make(g, "rect", {x: x(r), y: y(t) + high * (1 - share), width: strip, height: high * share,
          fill: share === 1 ? "var(--whole)" : "var(--part)", "pointer-events": "none"});
      }
    }
    g.addEventListener("click", () => go(t));
    return g;
  });
  const names = list(s.rounds, t =>
    make(svg, "text", {x: 14, y: y(t) + row / 2 + 12, class: "soft"}, "round " + t));
  if (first) names[first.round].textContent += " \u21a9";
  s.lines = s.arrows.map(a => {
    const middle = a.first + a.count > s.blocks ? a.first + (s.blocks - a.first) / 2 : a.first + a.count / 2;
    const x0 = x(a.from) + step * middle, y0 = y(a.round) + high + 3;
    const x1 = x(a.to) + step * middle, y1 = y(a.round + 1) - 4;
    const d = `M${x0} ${y0}C${x0} ${y0 + row * .28} ${x1} ${y1 - row * .3} ${x1} ${y1}`;
    const says = `Round ${a.round}: rank ${a.from} sends ${blockNames(a, s.blocks)} to rank ${a.to}, who ` +
      (a.then === "add" ? "adds them to its own" : "puts them in the place of its own");
    const line = make(svg, "path", {d, class: "message " + a.then, "marker-end": `url(#${a.then}${index})`});
    make(svg, "path", {d, class: "hit", "data-says": says});
    return line;
  });
  const key = make(root, "div", {class: "key"});
  const entry = (color, rule, words) => {
    const e = make(key, "span");
    make(e, "i", {class: rule, style: `background: var(--${color})`});
    e.append(words);
  };
  entry("part", "", "part of the sum"), entry("whole", "", "the whole sum");
  if (s.arrows.some(a => a.then === "add")) entry("add", "rule", "message, added");
  if (s.arrows.some(a => a.then === "replace")) entry("replace", "rule", "message, replaces");
  if (first) make(key, "span", {}, "\u21a9 the same messages backwards: all-gather");

  s.holdings = make(root, "h3");
  s.table = make(make(root, "div", {style: "overflow-x: auto"}), "svg");
  make(root, "div", {class: "key"}, "One dot for each rank's contribution, in reading order.");
  drawHoldings(s, 0);
}

// Which contributions each block holds: a square of dots, one for each rank.
function drawHoldings(s, t) {
  s.holdings.textContent = "What every block holds " +
    (t === 0 ? "at the start" : t === s.rounds ? "in the end" : "after round " + (t - 1));
  const side = Math.ceil(Math.sqrt(s.ranks)), dot = s.ranks > 16 ? 3 : s.ranks > 9 ? 4 : 7;
  const cell = side * (dot + 1) + 9, left = 62, top = 26;
  s.table.replaceChildren();
  s.table.setAttribute("width", left + Math.max(s.blocks * cell, 20) + 4);
  s.table.setAttribute("height", top + s.ranks * cell);
  for (let b = 0; b < s.blocks; ++b)
    make(s.table, "text", {x: left + b * cell + cell / 2 - 2, y: 16, "text-anchor": "middle", class: "soft"}, b);
  make(s.table, "text", {x: 0, y: 16, class: "soft"}, "block");
  for (let r = 0; r < s.ranks; ++r) {
    make(s.table, "text", {x: 0, y: top + r * cell + cell / 2 + 2, class: "soft"}, "rank " + r);
    for (let b = 0; b < s.blocks; ++b) {
      const counts = s.states[t][r][b], who = held(counts), x = left + b * cell, y = top + r * cell;
      make(s.table, "rect", {x, y, width: cell - 4, height: cell - 4, rx: 3, fill: "var(--none)",
        class: "cell", "data-rank": r, "data-block": b, "data-holds": who.join(","),
        "data-says": contents(s, r, b, t)});
      const d = who.map(c =>
        `M${x + 3 + c % side * (dot + 1)} ${y + 3 + (c / side | 0) * (dot + 1)}h${dot}v${dot}h-${dot}z`);
      make(s.table, "path", {d: d.join(""), fill: who.length === s.ranks ? "var(--whole)" : "var(--part)",
        "pointer-events": "none"});
    }
  }
}

const subjects = data.subjects, last = Math.max(...subjects.map(s => s.rounds));
let now = 0, timer = 0;
function go(t, keep) {
  now = Math.max(0, Math.min(last, t));
  $("slider").value = now;
  $("where").textContent = now === 0 ? "at the start" : "after round " + (now - 1) + " of 0\u2013" + (last - 1);
  for (const s of subjects) {
    const at = Math.min(now, s.rounds);
    s.bands.forEach((b, k) => b.classList.toggle("now", k === at));
    s.rows.forEach((g, k) => g.classList.toggle("later", k > at));
    s.lines.forEach((l, k) => {
      l.classList.toggle("now", s.arrows[k].round === now - 1);
      l.classList.toggle("done", s.arrows[k].round < now - 1);
    });
    drawHoldings(s, at);
    const area = s.bands[at].closest(".scroll"), a = area.getBoundingClientRect();
    const b = s.bands[at].getBoundingClientRect();
    if (b.bottom > a.bottom || b.top < a.top) area.scrollTop += b.top - a.top - a.height / 2;
  }
  if (!keep) history.replaceState(null, "", "#round=" + now);
}
function stop() { clearInterval(timer), timer = 0, $("play").textContent = "Play"; }
$("play").onclick = () => {
  if (timer) return stop();
  if (now === last) go(0);
  $("play").textContent = "Stop";
  timer = setInterval(() => now < last ? go(now + 1) : stop(), 900);
};
$("back").onclick = () => (stop(), go(now - 1));
$("on").onclick = () => (stop(), go(now + 1));
$("slider").max = last;
$("slider").oninput = event => (stop(), go(+event.target.value));
document.addEventListener("keydown", event => {
  if (event.target === $("slider") && event.key !== " ") return;
  if (event.key === "ArrowLeft") $("back").click();
  if (event.key === "ArrowRight") $("on").click();
  if (event.key === " ") event.preventDefault(), $("play").click();
});

function chart() {
  const width = 760, height = 300, left = 64, right = 150, top = 14, bottom = 40;
  const svg = make($("chart"), "svg", {viewBox: `0 0 ${width} ${height}`, width: "100%"});
  svg.style.maxWidth = width + "px";
  const bytes = data.sizes.map(n => 4 * n);
  const all = [...subjects.flatMap(s => s.curve), ...data.floor, ...subjects.map(s => s.measured)].filter(v => v > 0);
  if (!all.length) return;
  const low = Math.floor(Math.log10(Math.min(...all))), high = Math.ceil(Math.log10(Math.max(...all)));
  const x = b => left + (Math.log2(b) - 3) / 25 * (width - left - right);
  const y = s => top + (high - Math.log10(s)) / (high - low) * (height - top - bottom);
  for (let p = low; p <= high; ++p) {
    make(svg, "line", {class: "lane", x1: left, x2: width - right, y1: y(10 ** p), y2: y(10 ** p)});
    make(svg, "text", {x: left - 8, y: y(10 ** p) + 4, "text-anchor": "end", class: "soft"}, time(10 ** p));
  }
  const marks = {3: "8 B", 10: "1 KiB", 15: "32 KiB", 20: "1 MiB", 24: "16 MiB", 28: "256 MiB"};
  for (const [power, name] of Object.entries(marks))
    make(svg, "text", {x: x(2 ** power), y: height - 18, "text-anchor": "middle", class: "soft"}, name);
  const here = 4 * subjects[0].length;
  if (here >= 8 && here <= 2 ** 28)
    make(svg, "line", {x1: x(here), x2: x(here), y1: top, y2: height - bottom, stroke: "var(--soft)",
      "stroke-dasharray": "2 4"});
  subjects.forEach((s, i) => {
    if (s.measured > 0 && here >= 8 && here <= 2 ** 28)
      make(svg, "circle", {cx: x(here), cy: y(s.measured), r: 4.5, fill: i ? "var(--other)" : "var(--part)",
        "data-measured": s.algorithm});
  });
  const ends = [];
  const line = (values, color, dash, name) => {
    const d = values.map((v, i) => `${i ? "L" : "M"}${x(bytes[i])} ${y(v)}`).join("");
    make(svg, "path", {d, fill: "none", stroke: color, "stroke-width": 2.2, "stroke-dasharray": dash});
    let at = y(values.at(-1)) + 4;
    while (ends.some(e => Math.abs(e - at) < 15)) at += 3;
    ends.push(at);
    make(svg, "text", {x: width - right + 8, y: at, style: `fill: ${color}`, class: "name"}, name);
  };
  subjects.forEach((s, i) => line(s.curve, i ? "var(--other)" : "var(--part)", "", s.algorithm));
  line(data.floor, "var(--soft)", "5 4", "lower bound");
}
$("title").textContent = "Allreduce among " + subjects[0].ranks + (subjects[0].ranks === 1 ? " rank: " : " ranks: ") +
  subjects.map(s => s.algorithm).join(" and ");
document.title = $("title").textContent;
const net = data.network;
const nano = s => Number((s * 1e9).toPrecision(3)) + " ns";
$("model").textContent = `Alpha-beta-gamma model: ${time(net.alpha)} to start a message, ${nano(net.beta)} to move a ` +
  `byte, ${nano(net.gamma)} to add one; each rank sends one message at a time and receives one at a time. ` +
  `The dotted line is this page's vector of ${number(subjects[0].length)} floats` +
  (subjects[0].measured === null ? "." : ", the dots its measured times; the model was fitted to the same threads.");
subjects.forEach(panel);
chart();
go(Number(/round=(\d+)/.exec(location.hash)?.[1] ?? last), true);
</script>
</html>
)page";
