// The page of `penstock compare --html`.
import { areaY, axisX, axisY, dot, gridY, line, plot, ruleY } from "@observablehq/plot";

import { bars } from "./components/bars.js";
import { detailsPanel, pairs } from "./components/details.js";
import { facts, h, pageData, section, show } from "./components/dom.js";
import { figure } from "./components/figure.js";
import { count, decibels, number, shape, toNumber } from "./components/format.js";
import { table } from "./components/table.js";

const data = pageData();
const layers = data.layers.map((layer, index) => ({
  ...layer,
  index,
  sqnr: toNumber(layer.sqnr_db),
  types: [...new Set(layer.dtypes)].join(" | "),
}));
const ratio = (value) => (toNumber(value) === Infinity ? "equal" : decibels(value));
// Of a long path the end tells more.
const tail = (name) => (name.length <= 36 ? name : `…${name.slice(-35)}`);
const difference = (row) => `${number(row.largest, 2)} of ${number(row.extent, 2)}`;

const named = [
  { title: "No.", value: (row) => row.index + 1, number: true },
  { title: "Layer", value: (row) => row.name, pick: true },
  { title: "SQNR", value: (row) => row.sqnr, text: (row) => ratio(row.sqnr_db), number: true },
  { title: "Loses", value: (row) => row.loss_db, text: (row) => (row.loss_db === null ? "–" : decibels(row.loss_db)), number: true },
  { title: "Difference", value: (row) => row.largest, text: difference, number: true },
  { title: "Types", value: (row) => row.types },
  { title: "Source", value: (row) => row.source },
];

const panel = detailsPanel();
const pick = (layer) =>
  panel.show(
    layer.name,
    pairs([
      ["Layer", `${layer.index + 1} of ${layers.length}`],
      ["Operator", layer.operator],
      ["Source", layer.source],
      ["SQNR", ratio(layer.sqnr_db)],
      ["Loses", layer.loss_db === null ? "–" : decibels(layer.loss_db)],
      ["Largest difference", difference(layer)],
      ["Shape", shape(layer.shape)],
      [data.a, `${layer.kinds[0]}, ${layer.dtypes[0]}`],
      [data.b, `${layer.kinds[1]}, ${layer.dtypes[1]}`],
      ["Note", layer.note || "–"],
    ]),
  );

function course() {
  const finite = layers.filter((layer) => Number.isFinite(layer.sqnr));
  const top = Math.max(data.threshold_db, ...finite.map((layer) => layer.sqnr)) * 1.08;
  const low = Math.min(0, ...finite.map((layer) => layer.sqnr));
  // What is equal stands at the upper edge.
  const drawn = layers.map((layer) => ({ ...layer, y: Number.isFinite(layer.sqnr) ? layer.sqnr : layer.sqnr > 0 ? top : low }));
  const first = data.first === null ? [] : [drawn[data.first]];
  const draw = (width) =>
    plot({
      width, height: 340, marginLeft: 64, marginRight: 20, marginTop: 26, marginBottom: 44,
      x: { domain: [0.5, layers.length + 0.5], label: null }, y: { domain: [low, top], label: null },
      marks: [
        gridY({ strokeOpacity: 0.15 }),
        axisX({ ticks: Math.min(layers.length, Math.floor(width / 80)), tickFormat: (v) => (Number.isInteger(v) ? count(v) : ""), label: "layer" }),
        axisY({ ticks: 6, tickFormat: (v) => decibels(v), label: "SQNR" }),
        areaY(drawn, { x: (l) => l.index + 1, y1: low, y2: "y", fill: "var(--bar)", fillOpacity: 0.12 }),
        ruleY([data.threshold_db], { stroke: "var(--second)", strokeDasharray: "5 4" }),
        line(drawn, { x: (l) => l.index + 1, y: "y", stroke: "var(--bar)", strokeWidth: 1.5 }),
        dot(drawn, { x: (l) => l.index + 1, y: "y", r: 3, fill: "var(--bar)", title: (l) => `${l.index + 1}: ${l.name}\n${ratio(l.sqnr_db)}`, tip: true }),
        dot(first, { x: (l) => l.index + 1, y: "y", r: 7, stroke: "var(--second)", strokeWidth: 2.5 }),
      ],
    });
  return figure({
    title: `Signal to noise along the layers; dashed: ${decibels(data.threshold_db)}, from where on values agree`,
    draw,
    rows: layers,
    columns: named.filter((column) => column.title !== "Source").map(({ pick: _, ...column }) => column),
    summary: `Signal to noise of ${layers.length} layers in order; the section All layers has the numbers`,
  });
}

const first = data.first === null ? null : layers[data.first];
show(
  facts([
    ["Verdict", data.agree ? "they agree" : "they do not agree"],
    ["Compared on", data.inputs],
    ["Agree from", decibels(data.threshold_db)],
    ["First below", first ? `${first.name}, ${ratio(first.sqnr_db)}` : "no layer"],
    ["Layers compared", count(layers.length)],
    ...(data.left_out.length ? [["Left out", count(data.left_out.length)]] : []),
  ]),
  section(
    "Outputs",
    table({
      caption: "Each output",
      rows: data.outputs.map((output, index) => ({ ...output, index })),
      columns: [
        { title: "Output", value: (row) => row.index, number: true },
        { title: "Shape", value: (row) => shape(row.shape) },
        { title: "SQNR", value: (row) => toNumber(row.sqnr_db), text: (row) => ratio(row.sqnr_db), number: true },
        { title: "Largest difference", value: (row) => row.largest, text: difference, number: true },
      ],
      tall: false,
    }),
  ),
);
if (layers.length) {
  const losing = layers.filter((layer) => layer.loss_db > 0).map((layer) => ({ name: tail(layer.name), value: layer.loss_db }));
  show(
    section(
      "Where they part",
      course(),
      losing.length > 0 && bars({ title: "What a layer loses against the worst value it reads", rows: losing, format: decibels, measure: "Loses", most: 12 }),
    ),
    section("All layers", table({ caption: "All layers, in order", rows: layers, columns: named, onPick: pick }), panel.element),
  );
}
if (data.left_out.length) {
  show(
    section(
      "Left out",
      h("p", { class: "muted" }, "These values differ, and all that follows from them agrees: an error would not vanish, so they are not the same thing in both programs."),
      table({
        caption: "Values left out, in order",
        rows: data.left_out.map((layer) => ({ ...layer, sqnr: toNumber(layer.sqnr_db) })),
        columns: [
          { title: "Layer", value: (row) => row.name },
          { title: "SQNR", value: (row) => row.sqnr, text: (row) => ratio(row.sqnr_db), number: true },
          { title: "Made by", value: (row) => [...new Set(row.kinds)].join(" | ") },
          { title: "Why", value: (row) => row.note },
        ],
        tall: false,
      }),
    ),
  );
}
const lone = [data.a, data.b].map((label, side) => [label, data.unmatched[side]]).filter(([, names]) => names.length);
if (lone.length) {
  show(
    section(
      "Without a counterpart",
      lone.map(([label, names]) => h("details", {}, h("summary", {}, `${label}: ${count(names.length)} ${names.length === 1 ? "value" : "values"}`), h("ul", {}, names.map((name) => h("li", {}, name))))),
    ),
  );
}
