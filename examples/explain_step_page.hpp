/// The page that explain_step --html writes: one file, with nothing to load. The program puts its data in the place of
/// "THE DATA"; what stands in its part "private" is drawn on hatched ground.
#pragma once

inline constexpr const char* explain_step_page = R"page(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>One step of DP-SGD</title>
<style>
:root {
  color-scheme: light dark;
  --page: #f7f6f3; --panel: #ffffff; --ink: #1e2128; --soft: #676c79; --line: #e2e0da; --lane: #d5d2ca;
  --hatch: #f0e9f6; --secret: #7a4fa3; --bound: #c8620f; --noise: #8d919c; --open: #16875f; --light: 48%;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121419; --panel: #1a1d24; --ink: #e8eaf0; --soft: #9ba1b0; --line: #2c303a; --lane: #383d49;
    --hatch: #262130; --secret: #c3a1e6; --bound: #ffae63; --noise: #858b9a; --open: #3fc08f; --light: 64%;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 24px; font-weight: 650; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; font-weight: 650; margin: 0 0 4px; }
p { margin: 0; color: var(--soft); max-width: 100ch; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 14px; padding: 18px 20px;
  margin-top: 18px; min-width: 0; }
.facts { display: flex; flex-wrap: wrap; gap: 6px 26px; margin: 16px 0 0; padding: 0; }
.facts dt { color: var(--soft); font-size: 12px; }
.facts dd { margin: 0; font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums; }
.badge { display: inline-block; padding: 0 9px; border: 1px solid var(--secret); border-radius: 9px;
  color: var(--secret); font-size: 12px; font-weight: 600; vertical-align: 2px; margin-left: 8px; }
.badge.open { border-color: var(--open); color: var(--open); }
.scroll { overflow-x: auto; margin-top: 12px; }
svg { display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg .name { font-weight: 600; } svg .secret { fill: var(--secret); font-weight: 600; }
svg .open { fill: var(--open); font-weight: 600; }
.lane { stroke: var(--lane); stroke-width: 1; }
.bound { stroke: var(--bound); stroke-width: 1.6; stroke-dasharray: 5 4; }
.away { opacity: .36; }
.hit { fill: transparent; }
#tip { position: fixed; z-index: 3; pointer-events: none; background: var(--ink); color: var(--page);
  padding: 7px 11px; border-radius: 8px; font-size: 13px; line-height: 1.4; max-width: 30em;
  opacity: 0; transition: opacity .08s; }
</style>
<main>
<h1 id="title">One step of DP-SGD</h1>
<p>What lies on hatched ground is private: it says something about single people, and nobody
but the ranks may see it. The rest may be published. Point at anything to see its numbers.</p>
<dl class="facts" id="facts"></dl>
<section>
  <h2>1, 2. Who is drawn, and the length of each gradient<span class="badge">private</span></h2>
  <p id="clip"></p>
  <div class="scroll"><div id="records"></div></div>
</section>
<section>
  <h2>3, 4. The sum, and the noise<span class="badge">private</span> until they are together<span
    class="badge open">public</span></h2>
  <p id="adding"></p>
  <div class="scroll"><div id="vector"></div></div>
</section>
<section>
  <h2>5. The new parameters<span class="badge open">public</span></h2>
  <p id="stepping"></p>
  <div class="scroll"><div id="parameters"></div></div>
</section>
<section>
  <h2>What it costs</h2>
  <p id="claim"></p>
</section>
</main>
<div id="tip" role="tooltip"></div>
<script>
"use strict";
const data = "THE DATA";
const hidden = data.private, open = data.public;
const SVG = "http://www.w3.org/2000/svg";
const $ = id => document.getElementById(id);
function make(parent, tag, attributes = {}, text) {
  const html = ["div", "dt", "dd"].includes(tag);
  const e = html ? document.createElement(tag) : document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}
const number = x => String(Number(Number(x).toPrecision(4)));
const rankColor = r => r < 0 ? "var(--soft)" : `hsl(${(212 + 100 * r) % 360} 58% var(--light))`;
const count = open.coordinates.length;
const owner = i => open.scattered ? open.shards.findIndex(s => i >= s.first && i < s.first + s.count) : -1;

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
function hatching(svg, id) {
  const p = make(make(svg, "defs"), "pattern", {id, width: 14, height: 14, patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)"});
  make(p, "rect", {width: 7, height: 14, fill: "var(--hatch)"});
}

function facts() {
  const fact = (name, value) => {
    const d = make($("facts"), "div");
    make(d, "dt", {}, name), make(d, "dd", {}, value);
  };
  fact("records", open.records), fact("ranks", open.ranks), fact("parameters", count);
  fact("drawn with probability", number(open.sampling_rate)), fact("expected batch", number(open.batch_size));
  fact("clip bound C", number(open.clip)), fact("noise deviation", number(open.noise_deviation));
  fact("learning rate", number(open.learning_rate));
}

// Each record: an outline as long as its gradient, filled as far as the clip lets it count.
function records() {
  const left = 330, right = 130, row = 26, top = 26, width = 1080;
  const most = Math.max(open.clip, ...hidden.records.map(r => r.norm)) * 1.04;
  const x = v => left + v / most * (width - left - right), height = top + row * hidden.records.length + 30;
  const svg = make($("records"), "svg", {viewBox: `0 0 ${width} ${height}`, width, height});
  hatching(svg, "h1");
  make(svg, "rect", {x: 0, y: 0, width, height, fill: "url(#h1)", rx: 8});
  for (const [at, name] of [[52, "record"], [94, "rank"], [130, "age"], [186, "income"], [224, "educ"],
      [254, "sex"], [298, "work"]])
    make(svg, "text", {x: at, y: 17, class: "soft", "text-anchor": "end"}, name);
  hidden.records.forEach((r, i) => {
    const y = top + row * i, g = make(svg, "g", {class: r.drawn ? "drawn" : "away", "data-record": i,
      "data-norm": r.norm, "data-clipped": r.clipped_norm,
      "data-says": `Record ${i}, held by rank ${r.rank}: loss ${number(r.loss)}, gradient of length ` +
        `${number(r.norm)}, times ${number(r.factor)}: ${number(r.clipped_norm)}. ` +
        (r.drawn ? "Drawn: it counts." : "Not drawn: it does not count in this step.")});
    make(g, "rect", {class: "hit", x: 0, y, width, height: row});
    const cell = (at, text) => make(g, "text", {x: at, y: y + 17, "text-anchor": "end"}, text);
    cell(52, i), cell(94, r.rank).setAttribute("style", `fill: ${rankColor(r.rank)}; font-weight: 600`);
    cell(130, r.age), cell(186, r.income.toLocaleString("en-US")), cell(224, r.educ);
    cell(254, r.sex ? "f" : "m"), cell(298, r.employed ? "yes" : "no");
    make(g, "rect", {x: left, y: y + 5, width: Math.max(1, x(r.norm) - left), height: row - 10, fill: "none",
      stroke: rankColor(r.rank), "stroke-dasharray": "3 2", rx: 2});
    make(g, "rect", {x: left, y: y + 5, width: Math.max(1, x(r.clipped_norm) - left), height: row - 10,
      fill: rankColor(r.rank), rx: 2});
    make(g, "text", {x: width - right + 12, y: y + 17, class: "soft"},
      r.drawn ? "drawn, \u00d7 " + number(r.factor) : "not drawn");
  });
  make(svg, "line", {class: "bound", x1: x(open.clip), x2: x(open.clip), y1: top - 6, y2: height - 20});
  make(svg, "text", {x: x(open.clip), y: height - 6, "text-anchor": "middle", style: "fill: var(--bound)"},
    "C = " + number(open.clip));
}

// Rows of bars, one bar for each coordinate. rows: {name, values, color(i), secret, says(i)}.
const column = Math.max(17, Math.min(58, 900 / count)), side = 150;
function bars(place, rows, id, scale) {
  const high = 58, gap = 10, top = 8, names = 104, width = side + column * count + 90;
  const height = top + rows.length * (high + gap) + 24 + names;
  const svg = make($(place), "svg", {viewBox: `0 0 ${width} ${height}`, width, height});
  hatching(svg, id);
  const x = i => side + column * i;
  rows.forEach((row, k) => {
    const y = top + k * (high + gap), middle = y + high / 2;
    if (row.secret)
      make(svg, "rect", {x: 0, y: y - gap / 2, width: side + column * count + 8, height: high + gap,
        fill: `url(#${id})`});
    make(svg, "text", {x: 10, y: middle - 2, class: "name"}, row.name);
    make(svg, "text", {x: 10, y: middle + 13, class: row.secret ? "secret" : "open"},
      row.secret ? "private" : "public");
    make(svg, "line", {class: "lane", x1: side, x2: x(count), y1: middle, y2: middle});
    const size = v => Math.abs(v) / scale * (high / 2);
    row.values.forEach((v, i) => {
      make(svg, "rect", {x: x(i) + 2, y: v > 0 ? middle - size(v) : middle, width: column - 4, rx: 1.5,
        height: Math.max(.6, size(v)), fill: row.color(i)});
      make(svg, "rect", {class: "hit", x: x(i), y: y - gap / 2, width: column, height: high + gap,
        "data-says": `${open.coordinates[i]}: ${row.says} ${number(v)}`});
    });
  });
  const y = top + rows.length * (high + gap);
  if (open.scattered) open.shards.forEach((s, r) => {
    if (s.count === 0) return;
    make(svg, "rect", {x: x(s.first) + 1, y, width: column * s.count - 2, height: 18, rx: 4, fill: rankColor(r),
      "data-rank": r, "data-first": s.first, "data-count": s.count,
      "data-says": `Rank ${r} owns coordinates ${s.first} to ${s.first + s.count - 1}: it adds their noise and steps ` +
        "the optimizer on them"});
    make(svg, "text", {x: x(s.first + s.count / 2), y: y + 13, "text-anchor": "middle", "pointer-events": "none",
      style: "fill: var(--panel); font-weight: 600"}, column * s.count > 44 ? "rank " + r : r);
  });
  make(svg, "text", {x: 10, y: y + 13, class: "soft"}, open.scattered ? "owned by" : "every rank owns all");
  open.coordinates.forEach((name, i) => {
    const at = x(i) + column / 2 + 4;
    make(svg, "text", {x: at, y: y + 28, class: "soft", "text-anchor": "end",
      transform: `rotate(-55 ${at} ${y + 28})`}, name.replace("layer ", "").replace(" to unit ", " \u2192 "));
  });
}

function vector() {
  const rows = hidden.partial_sums.map((values, r) => ({name: "rank " + r + " adds up", values,
    color: () => rankColor(r), secret: true, says: `the clipped gradients that rank ${r} holds add up to`}));
  const byOwner = i => rankColor(owner(i));
  if (open.ranks > 1)
    rows.push({name: "the sum", values: hidden.sum, color: byOwner, secret: true, says: "the sum over all ranks is"});
  else rows[0].name = "the sum";
  rows.push({name: "the noise", values: hidden.noise, color: () => "var(--noise)", secret: true, says: "the noise is"});
  rows.push({name: "together", values: open.noised_sum, color: byOwner, secret: false, says: "sum and noise are"});
  const all = rows.flatMap(r => r.values.map(Math.abs));
  bars("vector", rows, "h2", Math.max(...all, 1e-9));
}

function parameters() {
  const high = 190, top = 12, width = side + column * count + 90, height = top + high + 26;
  const svg = make($("parameters"), "svg", {viewBox: `0 0 ${width} ${height}`, width, height});
  const most = Math.max(...open.before.map(Math.abs), ...open.after.map(Math.abs), 1e-9) * 1.08;
  const x = i => side + column * i + column / 2, y = v => top + high / 2 - v / most * high / 2;
  for (const v of [-most / 1.08, 0, most / 1.08]) {
    make(svg, "line", {class: "lane", x1: side, x2: side + column * count, y1: y(v), y2: y(v)});
    make(svg, "text", {x: side - 10, y: y(v) + 4, "text-anchor": "end", class: "soft"}, number(v));
  }
  open.before.forEach((v, i) => {
    const w = open.after[i], color = rankColor(owner(i));
    make(svg, "line", {x1: x(i), x2: x(i), y1: y(v), y2: y(w), stroke: color, "stroke-width": 2});
    make(svg, "circle", {cx: x(i), cy: y(v), r: 3.5, fill: "var(--panel)", stroke: color, "stroke-width": 1.6});
    make(svg, "circle", {cx: x(i), cy: y(w), r: 4.5, fill: color});
    make(svg, "rect", {class: "hit", x: x(i) - column / 2, y: top, width: column, height: high, "data-coordinate": i,
      "data-after": w, "data-says": `${open.coordinates[i]}: ${number(v)} before, gradient ` +
        `${number(open.gradient[i])}, ${number(w)} after`});
  });
  make(svg, "text", {x: side, y: height - 4, class: "soft"}, "\u25cb before   \u25cf after, in the color of the owner");
}

$("clip").textContent = `Each of the ${open.records} records is drawn by itself, with probability ` +
  `${number(open.sampling_rate)}. The dashed outline is the length of its gradient; what is longer than C is made ` +
  "shorter, so that nobody counts for more than C (the filled part).";
$("adding").textContent = `Each rank adds up the clipped gradients of the records that it holds and that were drawn. ` +
  (open.ranks === 1 ? "" : `By the allreduce "${open.allreduce}" ` + (open.scattered
    ? "each rank then owns a shard of the sum, and adds the noise to its own shard alone. "
    : "every rank then has all of the sum, and adds the same noise. ")) +
  `The noise has standard deviation ${number(open.noise_multiplier)} \u00d7 C = ${number(open.noise_deviation)} on each ` +
  "coordinate, once, however many ranks there are. All rows have one scale.";
$("stepping").textContent = `Sum and noise together are divided by ${number(open.batch_size)}, the expected batch (the ` +
  `true one is private). The new parameter is the old one less ${number(open.learning_rate)} times this.`;
$("claim").textContent = `With a secret key such a step is ${open.claim_of_such_a_step}. This one's key is the seed ` +
  `${open.seed}, so that it can be repeated: it is not private. The sum grows with the batch, and the noise does not: ` +
  "a step of a thousand records is mostly sum, this one mostly noise.";
facts(), records(), vector(), parameters();
</script>
</html>
)page";
