// The page of `penstock profile --html`: where the time of a call goes.
import { bars } from "./components/bars.js";
import { detailsPanel, pairs } from "./components/details.js";
import { facts, h, legend, pageData, section, show } from "./components/dom.js";
import { bandwidth, bytes, count, flops, number, percent, seconds } from "./components/format.js";
import { scatter } from "./components/scatter.js";
import { table } from "./components/table.js";
import { tree } from "./components/tree.js";

const data = pageData();
const { peaks } = data;
// XNNPACK's clock counts microseconds: of shorter times there are no rates.
const CLOCK = 2e-6;

const rows = data.rows.map((row) => {
  const known = row.seconds >= CLOCK;
  const work = row.work ?? {};
  const ran = row.with_nodes.length + 1;
  return {
    ...row,
    name: (row.node >= 0 ? `${row.label} #${row.node}` : row.label) + (ran > 1 ? ` (+${ran - 1})` : ""),
    module: row.origin.module,
    source: row.origin.source,
    operations: work.operations ?? 0,
    int8: work.int8 ?? false,
    rate: known && work.operations ? (work.operations * row.calls) / row.seconds : null,
    moved: known && row.bytes ? (row.bytes * row.calls) / row.seconds : null,
    roof: known && row.least_seconds ? row.least_seconds / row.seconds : null,
  };
});

const panel = detailsPanel();
const unseenOf = (row) => data.unseen.filter((one) => one.instruction === row.instruction && row.with_nodes.includes(one.node));
const pick = (row) => panel.show(row.name, pairs([
  ["Time of a call", seconds(row.seconds)],
  ["Share", percent(row.share)],
  ["Calls", row.calls === 1 ? "" : number(row.calls)],
  ["Instruction", row.instruction >= 0 ? String(row.instruction) : ""],
  ["Module", row.module],
  ["Source", row.source],
  ["Operator", row.origin.operator],
  ["Engine", row.engine],
  ["Ran as", row.operators.length > 0 && row.operators],
  ["In the same operator", row.with_nodes.length > 0 && unseenOf(row).map((one) => `${one.label} #${one.node}`)],
  ["Operations", row.operations ? count(row.operations) : ""],
  ["Read and written", row.bytes ? bytes(row.bytes) : ""],
  ["Speed", row.rate && flops(row.rate)],
  ["Bytes a second", row.moved && bandwidth(row.moved)],
  ["Of what the machine can do", row.roof && percent(row.roof)],
]));

const threads = `${data.threads} thread${data.threads === 1 ? "" : "s"}`;
show(facts([
  ["Program", data.path],
  ["Method", data.method],
  [`A call, ${threads}`, seconds(data.seconds)],
  data.ordinary && ["A call, not measured", seconds(data.ordinary)],
  ["Measured", `${count(data.calls)} ${data.calls === 1 ? "call" : "calls"}`],
  ["Engine", data.engine],
].filter(Boolean)));
show(h("p", { class: "muted" },
  `The times are first deciles over the calls, the call is their sum. Whole calls took ${data.quartiles.map(seconds).join(", ")} (quartiles)${peaks.busy ? "; the machine was busy" : ""}. ${data.mind ? `M${data.mind.slice(1)}. ` : ""}`
  + `${peaks.processor} can do, with ${threads}: ${[peaks.fp32 && `${flops(peaks.fp32)} in fp32`, peaks.int8 && `${flops(peaks.int8).replace("FLOP", "OP")} in int8`, `${bandwidth(peaks.memory)} from memory, ${bandwidth(peaks.cache)} from the cache`].filter(Boolean).join(", ")}.`));
show(rooflineSection(), moduleSection(), operatorSection(), nodeSection(), h("div", { class: "sheet" }, panel.element));

function rooflineSection() {
  const points = rows.filter((row) => row.rate && row.bytes).map((row) => ({
    ...row, x: row.operations / row.bytes, y: row.rate, size: row.seconds,
    tone: row.int8 ? "var(--second)" : "var(--bar)",
  }));
  if (!points.length) return null;
  const most = Math.max(...points.map((p) => p.x), 1) * 2;
  const least = Math.min(...points.map((p) => p.x), 1) / 2;
  const kinds = [["fp32", peaks.fp32], ["int8", peaks.int8]].filter(([name, value]) => value && points.some((p) => p.int8 === (name === "int8")));
  const top = Math.max(0, ...kinds.map(([, value]) => value)) || Math.max(...points.map((p) => p.y));
  const lines = [];
  for (const [name, value] of [["memory", peaks.memory], ["cache", peaks.cache]]) {
    const ridge = Math.min(top / value, most);
    // above the upper line there is room
    lines.push({ name, nameAt: name === "cache" ? "left" : "below", points: [least, ridge].map((x) => ({ x, y: x * value })) });
  }
  for (const [name, value] of kinds) {
    const from = Math.max(least, Math.min(value / peaks.cache, most / 2));
    lines.push({ name, nameAt: "above", points: [from, most].map((x) => ({ x, y: value })) });
  }
  return section("Roofline",
    h("p", { class: "muted" }, "Each point is a node, larger the longer it takes. Lines are what this machine can do: what lies far below both takes longer than it must."),
    legend([points.some((p) => !p.int8) && ["floating point", "var(--bar)"], points.some((p) => p.int8) && ["int8", "var(--second)"]]),
    scatter({
      title: "Speed by operations for each byte", points, lines, onPick: pick,
      x: { label: "Operations for each byte", format: (v) => number(v) },
      y: { label: "Operations a second", format: flops },
    }));
}

function moduleSection() {
  const root = { name: "the model", path: "", value: data.seconds, children: new Map(), rows: [] };
  for (const row of rows) {
    let here = root;
    const known = row.module || row.origin.operator;
    for (const part of known ? row.module.split(".").filter(Boolean) : ["(no module)"]) {
      if (!here.children.has(part)) here.children.set(part, { name: part, value: 0, children: new Map(), rows: [] });
      here = here.children.get(part);
      here.value += row.seconds;
    }
    here.rows.push(row);
  }
  const plain = (node) => {
    const modules = [...node.children.values()].map(plain);
    const own = node.rows.map((row) => ({ name: row.name, value: row.seconds, row }));
    // what a module does itself stands beside the modules in it
    return { name: node.name, value: node.value, note: percent(node.value / (data.seconds || 1)), children: [...modules, ...own] };
  };
  const found = plain(root);
  // Modules with more than half of the time are taken apart.
  const level = [];
  const apart = (node, path) => {
    const inner = node.children.filter((child) => child.children);
    if (node.value * 2 < data.seconds || !inner.length) level.push({ name: path, value: node.value });
    else for (const child of inner) apart(child, path && path !== "the model" ? `${path}.${child.name}` : child.name);
  };
  apart(found, "the model");
  return section("By module",
    level.length > 1 && bars({ title: "Time by module", rows: level, format: seconds, unit: "time of a call", measure: "Time" }),
    tree({ root: found, format: seconds, label: "Modules with their times", onPick: (node) => pick(node.row), open: 3 }));
}

function operatorSection() {
  const found = new Map();
  for (const row of rows) {
    const one = found.get(row.operator) ?? { name: row.operator, value: 0 };
    one.value += row.seconds;
    found.set(row.operator, one);
  }
  return section("By operator", bars({ title: "Time by operator", rows: [...found.values()], format: seconds, unit: "time of a call", measure: "Time", most: 12 }));
}

function nodeSection() {
  return section("By node", table({
    caption: "Nodes and instructions", rows, sort: "Time", onPick: pick,
    columns: [
      { title: "Node", value: (row) => row.name, pick: true },
      { title: "Time", value: (row) => row.seconds, text: (row) => seconds(row.seconds), number: true },
      { title: "Share", value: (row) => row.share, text: (row) => percent(row.share), number: true },
      { title: "Speed", value: (row) => row.rate, text: (row) => (row.rate ? flops(row.rate) : "–"), number: true },
      { title: "Bytes a second", value: (row) => row.moved, text: (row) => (row.moved ? bandwidth(row.moved) : "–"), number: true },
      { title: "Of the roof", value: (row) => row.roof, text: (row) => (row.roof ? percent(row.roof) : "–"), number: true },
      { title: "Module", value: (row) => row.module || "–" },
      { title: "Engine", value: (row) => row.engine || "–" },
    ],
  }));
}
