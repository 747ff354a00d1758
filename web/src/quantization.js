// The page of `penstock quantize-report --html`: what quantization costs each layer.
import { bars } from "./components/bars.js";
import { detailsPanel, pairs } from "./components/details.js";
import { facts, h, pageData, section, show } from "./components/dom.js";
import { bytes, count, decibels, number, percent, seconds, toNumber } from "./components/format.js";
import { histogram } from "./components/histogram.js";
import { table } from "./components/table.js";

const data = pageData();
const layers = data.layers;
const quantized = layers.filter((layer) => layer.quantized);
const floating = layers.filter((layer) => !layer.quantized);
const measured = (layer) => layer.held_out ?? layer.calibration;
const place = data.held_out_batches ? "held-out data" : "calibration data";
const known = (x) => !Number.isNaN(toNumber(x));
/** The error as a part of the signal: 40 dB -> 0.01. */
const part = (db) => (known(db) ? 10 ** (-toNumber(db) / 20) : NaN);
const inModule = new Map();
for (const layer of quantized) inModule.set(layer.module, (inModule.get(layer.module) ?? 0) + 1);
/** The module, with the node where that alone would not tell layers apart. */
const label = (layer) => [layer.module, (!layer.module || inModule.get(layer.module) > 1) && layer.node].filter(Boolean).join(" ");
const total = (name) => layers.reduce((sum, layer) => sum + layer[name], 0);

const headline = [
  ["Model", data.model],
  ["Scheme", data.scheme],
  ["Quantized", `${count(quantized.length)} of ${count(layers.length)} operators`],
  [`Result, ${count(data.batches)} calibration ${data.batches === 1 ? "batch" : "batches"}`, decibels(data.calibration_db)],
];
if (data.held_out_batches) headline.push([`Result, ${count(data.held_out_batches)} held out`, decibels(data.held_out_db)]);
headline.push(
  ["Weights", `${bytes(total("float_bytes"))} → ${bytes(total("bytes"))}`],
  ["Time", `${seconds(total("float_seconds"))} → ${seconds(total("seconds"))}`],
);
show(facts(headline), h("p", { class: "muted" },
  `Decibels are the signal's power over the error's: 40 dB is an error of a hundredth. Times are ${data.times}.`));

const saturated = quantized.filter((layer) => toNumber(measured(layer).saturated) > 0);
const errors = (of) => quantized.filter((layer) => known(of(layer))).map((layer) => ({ name: label(layer), value: part(of(layer)) }));
show(section("Worst layers",
  h("p", {}, `A layer's own error: the quantized layer on the float model's values, on ${place}, as a part of its result.`),
  bars({ title: "Own error", rows: errors((layer) => measured(layer).own_db), format: percent, unit: "error / result", measure: "Own error" }),
  saturated.length
    ? bars({ title: "Values beyond the range", rows: saturated.map((layer) => ({ name: label(layer), value: measured(layer).saturated })), format: percent, unit: "share of values", measure: "Beyond the range" })
    : h("p", {}, "No value lies beyond the range of its integers.")));

if (quantized.length) {
  const worst = quantized[0];
  show(section(`The worst: ${label(worst)}`,
    h("p", {}, `${worst.operator}, ${decibels(measured(worst).own_db)} by itself. Dashed lines are the ends of the range that its integers have.`),
    histograms(worst)));
}

const panel = detailsPanel();
const columns = [
  { title: "Layer", value: label, pick: true },
  { title: "Own", value: (layer) => toNumber(layer.calibration.own_db), text: (layer) => decibels(layer.calibration.own_db), number: true },
  ...(data.held_out_batches ? [{ title: "Own, held out", value: (layer) => toNumber(layer.held_out.own_db), text: (layer) => decibels(layer.held_out.own_db), number: true }] : []),
  { title: "Accumulated", value: (layer) => toNumber(measured(layer).accumulated_db), text: (layer) => decibels(measured(layer).accumulated_db), number: true },
  { title: "Beyond the range", value: (layer) => toNumber(measured(layer).saturated), text: (layer) => percent(measured(layer).saturated), number: true },
  { title: "Bytes saved", value: (layer) => layer.float_bytes - layer.bytes, text: (layer) => bytes(layer.float_bytes - layer.bytes), number: true },
  { title: "Time saved", value: (layer) => layer.float_seconds - layer.seconds, text: (layer) => seconds(layer.float_seconds - layer.seconds), number: true },
];
show(section("Layers",
  h("p", {}, "The worst first. A layer's name opens its histograms, with the range that its integers have."),
  h("div", { class: "beside" }, h("div", {}, table({ columns, rows: quantized, caption: "Quantized layers", onPick: (layer) => panel.show(label(layer), details(layer)) })), panel.element)));

if (floating.length) {
  const groups = Map.groupBy(floating, (layer) => layer.reason);
  const reasons = [...groups].map(([why, rows]) => ({ why, count: rows.length, operators: [...new Set(rows.map((layer) => layer.operator))].join(", ") }));
  const each = table({
    caption: "Operators that stay in float", rows: floating,
    columns: [
      { title: "Operator", value: (layer) => layer.operator },
      { title: "Module", value: (layer) => layer.module || "–" },
      { title: "Why", value: (layer) => layer.reason },
      { title: "Accumulated", value: (layer) => toNumber(measured(layer).accumulated_db), text: (layer) => decibels(measured(layer).accumulated_db), number: true },
    ],
  });
  show(section("In float", reasons.length === floating.length ? each : [
    table({
      caption: "Why operators stay in float", rows: reasons.sort((a, b) => b.count - a.count), tall: false,
      columns: [
        { title: "Why", value: (row) => row.why },
        { title: "Operators", value: (row) => row.count, number: true },
        { title: "Which", value: (row) => row.operators },
      ],
    }),
    h("details", {}, h("summary", {}, `All ${count(floating.length)}`), each),
  ]));
}

function details(layer) {
  return [
    pairs([
      ["Operator", layer.operator], ["Node", layer.node], ["Line", layer.source], ["Form", layer.form],
      ["Own error", errorsOf(layer, "own_db")], ["Accumulated", errorsOf(layer, "accumulated_db")],
      ["Range", layer.range && `${number(layer.range[0])} to ${number(layer.range[1])}`],
      ["Weight scales", layer.weight_scales && `${number(layer.weight_scales[0])} to ${number(layer.weight_scales[1])}`],
      ["Bytes", layer.float_bytes > 0 && `${bytes(layer.float_bytes)} → ${bytes(layer.bytes)}`],
      ["Multiplications", layer.macs > 0 && count(layer.macs)],
    ]),
    histograms(layer),
  ];
}

function histograms(layer) {
  const ends = layer.range ? [{ at: layer.range[0], name: "least" }, { at: layer.range[1], name: "largest" }] : [];
  const drawn = (title, found, marks, unit) => found && histogram({ title, bins: bins(found), unit, marks, log: true });
  return [
    drawn("Activations, calibration data", layer.calibration.activations, ends, "value"),
    drawn("Activations, held-out data", layer.held_out?.activations, ends, "value"),
    drawn("Weights", layer.weights, [], "weight"),
  ].filter(Boolean);
}

function errorsOf(layer, name) {
  if (!known(layer.calibration[name])) return null;
  const found = [`${decibels(layer.calibration[name])} on calibration data`];
  if (layer.held_out) found.push(`${decibels(layer.held_out[name])} on held-out data`);
  return found;
}

function bins({ low, high, counts }) {
  const width = (high - low) / counts.length;
  return counts.map((n, index) => ({ from: low + index * width, to: low + (index + 1) * width, count: n }));
}
