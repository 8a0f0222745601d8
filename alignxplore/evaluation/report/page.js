"use strict";

// Tables: a click on a heading sorts, a checkbox hides a column.

function number(text) {
  const found = text.replace("−", "-").match(/^[+-]?[0-9.]+/);
  return found ? parseFloat(found[0]) : null;
}

function compare(a, b, up) {
  const x = number(a), y = number(b), sign = up ? 1 : -1;
  if (x !== null && y !== null) return sign * (x - y);
  if (x !== null || y !== null) return x !== null ? -1 : 1;  // what is missing comes last, either way
  return sign * (a < b ? -1 : a > b ? 1 : 0);
}

function add(parent, tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  parent.appendChild(element);
  return element;
}

function sortBy(table, heads, place) {
  const head = heads[place], up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const groups = [];  // a row of ours, with the published one and the difference below it
  for (const row of body.rows) {
    if (row.classList.contains("beside") && groups.length) groups.at(-1).push(row); else groups.push([row]);
  }
  groups.sort(([r], [s]) => compare(r.cells[place].textContent, s.cells[place].textContent, up));
  groups.flat().forEach(row => body.appendChild(row));
}

function offerColumns(section, table, heads) {
  const box = add(section, "details", undefined, "columns");
  add(box, "summary", "columns", "note");
  heads.forEach((head, place) => {
    if (!place) return;
    const label = add(box, "label"), check = add(label, "input");
    check.type = "checkbox";
    check.checked = true;
    label.append(" " + head.textContent);
    check.addEventListener("change", () => {
      for (const row of table.rows) row.cells[place].hidden = !check.checked;
    });
  });
}

for (const section of document.querySelectorAll("section.table")) {
  const table = section.querySelector("table"), heads = [...table.querySelectorAll("th")];
  heads.forEach((head, place) => head.firstChild.addEventListener("click", () => sortBy(table, heads, place)));
  offerColumns(section, table, heads);
}

// Samples: packed, one package a benchmark, unpacked when they are first looked at.

const packs = new Map([...document.querySelectorAll("script[data-benchmark]")].map(x => [x.dataset.benchmark, x]));
const unpacked = new Map();

async function unpack(name) {
  if (!unpacked.has(name)) {
    const bytes = Uint8Array.from(atob(packs.get(name).textContent), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(name, JSON.parse(await new Response(stream).text()));
  }
  return unpacked.get(name);
}

const $ = id => document.getElementById(id);
const view = { all: [], found: [], at: 0, words: [], evidence: null };
const joined = (...names) => names.map(name => String(name).replace(/[%|]/g, encodeURIComponent)).join("|");
const split = key => key.split("|").map(decodeURIComponent);
const writer = x => joined(x.policy, x.setting, x.seed);
const reader = x => joined(x.judge, x.protocol);
const spoken = key => split(key).filter((part, i) => part && !(i === 2 && part === "0")).join(", ");

const OUTCOMES = {
  "all": () => true,
  "right": s => verdict(s) === "right",
  "wrong": s => verdict(s) === "wrong",
  "undecided": s => verdict(s) === "undecided",
  "bad format": s => verdict(s) === "bad format",
  "answer not read": s => verdict(s) === "parse failure",
  "missing": s => verdict(s) === "missing",
  "the choice flips with the order": s => flipped(s),
  "the two policies disagree": (s, t) => s && t && verdict(s) !== verdict(t),
};

function verdict(score) {
  if (!score) return "not asked";
  if (score.value === null) return "missing";
  if (score.outcome !== "ok") return score.outcome.replace("_", " ");
  const wrong = score.k ? score.value === 0 : score.value < 0.5;  // among k items a tie may be worth less than half
  return score.value > 0.5 ? "right" : wrong ? "wrong" : "undecided";
}

function flipped(score) {
  if (score && score.k) return (score.flips || []).some(Boolean);
  return Boolean(score) && (score.orders || []).some(([a, b]) => a !== null && b !== null && (a > 0.5) !== (b > 0.5));
}

function scoreOf(sample, key) {
  const chosen = $("reader").value, mine = sample.scores.filter(x => writer(x) === key);
  // A baseline has no downstream model: it is the same beside each of them.
  return mine.find(x => reader(x) === chosen) || mine.find(x => x.judge === "none" && chosen.endsWith("|" + x.protocol));
}

function textOf(sample) {
  if (!("searched" in sample)) {
    const told = sample.summaries.flatMap(s => s.stages.flatMap(x => [x.reasoning, x.summary, x.text]));
    const seen = [...sample.history, ...(sample.target ? [sample.target] : [])].flatMap(x => [x.query, x.chosen, x.rejected]);
    sample.searched = [sample.user, ...told, ...seen.flat()].filter(Boolean).join("\n").toLowerCase();
  }
  return sample.searched;
}

function fill(select, names, chosen, shown) {
  select.replaceChildren();
  for (const name of names) add(select, "option", (shown || spoken)(name)).value = name;
  if (names.includes(chosen)) select.value = chosen;
}

function filter() {
  const wanted = $("search").value.trim().toLowerCase(), fits = OUTCOMES[$("outcome").value];
  view.found = view.all.filter(sample =>
    fits(scoreOf(sample, $("left").value), scoreOf(sample, $("right").value)) && textOf(sample).includes(wanted));
  go(0);
}

function go(at) {
  view.at = Math.max(0, Math.min(at, view.found.length - 1));
  view.words = [];
  view.evidence = null;
  $("count").textContent = view.found.length ? (view.at + 1) + " of " + view.found.length : "none";
  draw();
}

// Of a baseline, which has none, one that was asked in its protocol.
function readerOf(cell, readers) {
  const asked = reader(cell), end = "|" + cell.protocol;
  return readers.includes(asked) ? asked : readers.find(key => key.endsWith(end));
}

async function choose(name, cell) {
  try {
    view.all = await unpack(name);
  } catch (error) {
    $("sample").replaceChildren();
    const said = "This browser cannot unpack the samples (" + error.message + "); samples.jsonl holds them.";
    add($("sample"), "p", said, "bad");
    return;
  }
  $("left_out").textContent = packs.get(name).dataset.leftOut;
  const writers = [...new Set(view.all.flatMap(s => [...s.scores, ...s.summaries].map(writer)))];
  const written = new Set(view.all.flatMap(s => s.summaries.map(writer)));
  const told = writers.filter(key => written.has(key) && key.includes("|full|"));
  const readers = [...new Set(view.all.flatMap(s => s.scores.map(reader)))].filter(key => !key.startsWith("none|"));
  const [left, right, who] = ["left", "right", "reader"].map(id => $(id).value);
  fill($("left"), writers, cell ? writers.find(key => key.startsWith(joined(cell.policy, cell.setting, ""))) : left || told.at(-1));
  fill($("right"), ["", ...writers], right || (cell ? "" : told.at(-2)), key => key ? spoken(key) : "nothing");
  fill($("reader"), readers, cell ? readerOf(cell, [who, ...readers]) : who);
  filter();
}

// One sample.

function escaped(word) {
  return word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

function marked(parent, text, kind) {
  const line = add(parent, "div", undefined, kind);
  if (!view.words.length) { line.textContent = text; return; }
  const parts = text.split(new RegExp("(" + view.words.map(escaped).join("|") + ")", "iu"));
  parts.forEach((part, i) => { if (i % 2) add(line, "mark", part); else line.append(part); });
}

function interaction(parent, x, kind) {
  const card = add(parent, "div", undefined, kind);
  if (x.query) add(card, "div", x.query, "text note");
  for (const item of [x.chosen].flat()) marked(card, "chosen: " + item, "text");
  for (const item of [x.rejected].flat()) if (item !== null) marked(card, "passed over: " + item, "text rejected");
}

function folded(parent, title, text) {
  const box = add(parent, "details");
  add(box, "summary", title, "note");
  add(box, "div", text, "text");
}

function bar(parent, name, p) {
  const line = add(parent, "span", name, "order");
  if (p === null) { add(line, "span", " not asked"); return; }
  const box = add(line, "span", "", "bar"), inside = add(box, "i");
  inside.style.width = (100 * p).toFixed(1) + "%";
  add(line, "span", (100 * p).toFixed(1) + " %");
}

function verdicts(parent, sample, key) {
  for (const s of sample.scores.filter(x => writer(x) === key)) {
    const line = add(parent, "div"), said = verdict(s);
    add(line, "strong", said + "  ", { right: "good", undecided: "" }[said] ?? "bad");
    add(line, "span", (s.judge === "none" ? "without a model" : s.judge + ", protocol " + s.protocol) + "  ");
    for (const [first, second] of s.orders || []) { bar(line, "first", first); bar(line, "second", second); }
    if (typeof s.prompt === "number") folded(parent, "question to the downstream model", sample.prompts[s.prompt]);
    for (const answer of s.unread || []) folded(parent, "answer that could not be read", answer);
  }
}

function statements(parent, text) {
  const line = add(parent, "div", undefined, "text");
  for (const part of text.split(/([.,;:!?]\s|\n)/)) {
    const words = [...new Set(part.match(/[\p{L}\p{N}-]{4,}/gu) || [])];
    if (!words.length) { line.append(part); continue; }
    const button = add(line, "button", part, "statement");
    button.type = "button";
    const on = words.join() === view.words.join();
    button.setAttribute("aria-pressed", String(on));
    button.addEventListener("click", () => { view.evidence = null; view.words = on ? [] : words; draw(); });
  }
}

function counted(one) {
  return one.verdict + ": " + one.supports.length + " for it, " + one.contradicts.length + " against it";
}

// Each statement with its verdict; a click shows the choices that speak for it and against it.
function judged(parent, text, found) {
  const line = add(parent, "div", undefined, "text");
  let place = 0;
  for (const one of found) {
    line.append(text.slice(place, one.start));
    const button = add(line, "button", text.slice(one.start, one.end), "statement " + one.verdict.replace(" ", "-"));
    button.type = "button";
    button.title = counted(one);
    const on = view.evidence === one;
    button.setAttribute("aria-pressed", String(on));
    button.addEventListener("click", () => { view.words = []; view.evidence = on ? null : one; draw(); });
    place = one.end;
  }
  line.append(text.slice(place));
}

function stageCard(card, sample, stage, title, found) {
  if (title) add(card, "div", title, "note");
  if (stage.dropped) add(card, "div", stage.dropped + " oldest interactions did not fit", "note");
  if (typeof stage.prompt === "number") folded(card, "prompt", sample.prompts[stage.prompt]);
  if (stage.reasoning) folded(card, "reasoning", stage.reasoning);
  if (stage.problem) {
    add(card, "div", "bad format: " + stage.problem, "bad");
    if (stage.text) folded(card, "raw answer", stage.text);
  } else if (found && stage.summary) judged(card, stage.summary, found);
  else statements(card, stage.summary);
}

function side(parent, sample, key) {
  const card = add(parent, "div", undefined, "card");
  add(card, "strong", spoken(key));
  const written = sample.summaries.find(s => writer(s) === key);
  if (written && written.error) add(card, "div", written.error, "bad");
  const stages = written ? written.stages : [];
  const linked = written && written.evidence, reader = split($("reader").value)[0];
  const found = linked && (linked[reader] || Object.values(linked)[0]);
  stages.forEach((stage, i) => stageCard(
    card, sample, stage, stages.length > 1 ? "stage " + (i + 1) : "", i + 1 === stages.length ? found : null));
  verdicts(card, sample, key);
}

function draw() {
  const place = $("sample"), sample = view.found[view.at], open = place.querySelector("details.history")?.open;
  place.replaceChildren();
  if (!sample) { add(place, "p", "No sample fits.", "note"); return; }
  const kinds = sample.kinds.length ? " · " + sample.kinds.join(", ") : "";
  add(place, "p", "user " + sample.user + " · record " + sample.record + kinds, "note");
  if (sample.target) interaction(add(place, "div", "to be predicted", "card"), sample.target);
  const pair = add(place, "div", undefined, "pair");
  for (const key of [$("left").value, $("right").value]) if (key) side(pair, sample, key);
  const history = add(place, "details", undefined, "card history"), count = sample.history.length;
  history.open = open || view.words.length > 0 || Boolean(view.evidence);
  const newest = count < sample.shown ? "; the newest " + count : "";
  add(history, "summary", "history as shown to a policy: " + sample.shown + " interactions, oldest first" + newest);
  const first = sample.shown - count;  // places are counted in all that was shown
  const bears = i => !view.evidence ? "" : view.evidence.supports.includes(first + i) ? "for it"
    : view.evidence.contradicts.includes(first + i) ? "against it" : "";
  sample.history.forEach((x, i) => {
    interaction(history, x, "card " + bears(i).replace(" ", "-"));
    if (bears(i)) history.lastChild.prepend(bears(i));
  });
  if (view.evidence) {
    history.querySelector("summary").append("; " + counted(view.evidence));
  }
  if (view.words.length) {
    const holding = [...history.querySelectorAll(".card")].filter(card => card.querySelector("mark")).length;
    history.querySelector("summary").append("; " + holding + " hold a word of the statement");
  }
}

function onKey(event) {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j") go(view.at + 1);
  else if (event.key === "k") go(view.at - 1);
  else if (event.key === "/") { event.preventDefault(); $("search").focus(); }
}

function browse() {
  fill($("benchmark"), [...packs.keys()]);
  fill($("outcome"), Object.keys(OUTCOMES));
  const load = cell => choose($("benchmark").value, cell);
  $("benchmark").addEventListener("change", () => load());
  for (const id of ["left", "right", "reader", "outcome"]) $(id).addEventListener("change", filter);
  $("search").addEventListener("input", filter);
  $("before").addEventListener("click", () => go(view.at - 1));
  $("after").addEventListener("click", () => go(view.at + 1));
  document.addEventListener("keydown", onKey);
  for (const button of document.querySelectorAll("[data-cell]")) button.addEventListener("click", async () => {
    const [benchmark, policy, setting, judge, protocol] = split(button.dataset.cell);
    $("benchmark").value = benchmark;
    await load({ policy, setting, judge, protocol });
    $("samples").scrollIntoView();
  });
  const seen = new IntersectionObserver(entries => {
    if (entries.some(entry => entry.isIntersecting)) { seen.disconnect(); if (!view.all.length) load(); }
  }, { rootMargin: "200px" });
  seen.observe($("samples"));
}

if (packs.size) browse();
