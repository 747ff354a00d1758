// The boxes of a method's graph: what stands in them, what a search finds, what a click shows.
import { pairs } from "../components/details.js";
import { h } from "../components/dom.js";
import { percent, seconds } from "../components/format.js";
import { valueText, valueWords } from "./values.js";

const FAMILIES = {
  product: ["Products", "var(--tone-1)"],
  elementwise: ["Elementwise", "var(--tone-2)"],
  movement: ["Movement", "var(--tone-3)"],
  other: ["Other nodes", "var(--tone-4)"],
  kernel: ["Outside of delegates", "var(--tone-5)"],
  backend: ["Other backends", "var(--tone-6)"],
  edge: ["Inputs and outputs", "var(--muted)"],
};
const ENGINES = {
  native: ["Our own kernels", "var(--tone-2)"],
  xnnpack: ["XNNPACK", "var(--tone-1)"],
  kernel: ["NumPy kernels", "var(--tone-5)"],
  none: ["Not known", "var(--muted)"],
};
const HEAT = [[0.05, "5 % and more"], [0.02, "2 to 5 %"], [0.01, "1 to 2 %"], [0.002, "0.2 to 1 %"], [0, "less"]];
const heatTone = (step) => `color-mix(in srgb, var(--bad) ${100 - step * 23}%, var(--line))`;

/** The end of a path of modules: it tells more than the beginning. */
const tail = (path) => (path && path.length > 20 ? `…${path.slice(path.indexOf(".", path.length - 20) + 1 || path.length - 19)}` : path);
const shapeOf = (value) => (value?.shape ? value.shape.join(" × ") || "scalar" : "");

/** What explorer() takes for a method. */
export function methodGraph(method, data) {
  const times = new Map();
  const carriers = new Map();
  if (data.timings && data.timings.method === method.name) {
    for (const row of data.timings.rows) {
      const node = row.node ?? -1;
      const id = node < 0 ? `i${row.instruction}` : `i${row.instruction}n${node}`;
      times.set(id, row);
      for (const other of row.with_nodes ?? []) carriers.set(`i${row.instruction}n${other}`, id);
    }
  }
  const nodes = method.drawing.nodes.map((box) => {
    const [node, time] = [boxOf(box, method, data), times.get(box.id)];
    // what ran it says more than what would
    const engine = time?.engine in ENGINES ? time.engine : node.engine;
    return { ...node, time, engine, carrier: carriers.get(box.id) };
  });
  const used = (table, key) => Object.entries(table).filter(([name]) => nodes.some((node) => node[key] === name)).map(([, [name, tone]]) => ({ name, tone }));
  const palettes = [
    { name: "kind", tone: (node) => FAMILIES[node.family][1], legend: used(FAMILIES, "family") },
    { name: "engine", tone: (node) => ENGINES[node.engine][1], legend: used(ENGINES, "engine") },
  ];
  if (times.size) {
    const step = (node) => HEAT.findIndex(([least]) => (node.time?.share ?? 0) >= least);
    palettes.unshift({ name: "time", tone: (node) => heatTone(step(node)), legend: HEAT.map(([, name], index) => ({ name: `${name} of the time`, tone: heatTone(index) })) });
  }
  const names = new Map(nodes.map((node) => [node.id, node]));
  return {
    label: `the graph of ${method.name}`,
    nodes,
    edges: method.drawing.edges.map((edge) => ({ from: edge.start, to: edge.end, dashed: Boolean(edge.jump) })),
    palettes,
    details: (node) => detailsOf(names.get(node.id), names),
  };
}

function boxOf(box, method, data) {
  if (box.kind === "input" || box.kind === "output") {
    const value = method.values[(box.kind === "input" ? method.inputs : method.outputs)[box.position]];
    const label = `${box.kind} ${box.position}`;
    const sub = [value.dtype ?? value.text, shapeOf(value)].filter(Boolean).join(" ");
    return { id: box.id, label, sub, family: "edge", engine: "none", search: `${label} ${valueWords(value)}`, values: { Value: [valueText(value)] } };
  }
  const one = method.instructions[box.position];
  if (box.kind !== "node") return instructionBox(box, one, method);
  const delegate = method.delegates[one.delegate];
  const node = delegate.nodes[box.node];
  const values = new Map(delegate.values.map((value) => [value.id ?? 0, value]));
  const [inputs, outputs] = [node.inputs.map((id) => values.get(id)), node.outputs.map((id) => values.get(id))];
  const origin = node.origin ?? {};
  return {
    id: box.id, label: node.kind, counted: true, sub: [tail(origin.module), shapeOf(outputs[0])].filter(Boolean).join(" · "),
    family: data.families[node.kind], engine: node.engine || "none", origin,
    place: `node ${box.node} of delegate ${one.delegate} (${delegate.backend}), instruction ${box.position}`,
    values: { Inputs: inputs.map(valueText), Outputs: outputs.map(valueText) },
    attributes: { ...node.attributes, ...(node.clamp ? { range: node.clamp.map((end, index) => end ?? (index ? "∞" : "−∞")).join(" to ") } : {}) },
    search: [node.kind, origin.module, origin.source, origin.operator, node.engine, ...[...inputs, ...outputs].map(valueWords)].join(" "),
  };
}

function instructionBox(box, one, method) {
  const [inputs, outputs] = [(one.inputs ?? []).map((id) => method.values[id]), (one.outputs ?? []).map((id) => method.values[id])];
  const origin = one.origin ?? {};
  const delegate = one.delegate === undefined ? null : method.delegates[one.delegate];
  return {
    id: box.id, label: one.label, counted: one.kind === "kernel" || one.kind === "delegate", sub: [tail(origin.module), shapeOf(outputs.find((value) => value?.shape))].filter(Boolean).join(" · "),
    family: delegate ? "backend" : "kernel", engine: one.kind === "kernel" ? "kernel" : "none", origin,
    place: `instruction ${box.position}: ${one.text}`,
    values: { Inputs: inputs.map(valueText), Outputs: outputs.map(valueText) },
    attributes: delegate ? { payload_bytes: delegate.bytes, ...(delegate.error ? { error: delegate.error } : {}) } : {},
    search: [one.label, one.text, origin.module, origin.source, origin.operator, ...[...inputs, ...outputs].map(valueWords)].join(" "),
  };
}

function detailsOf(node, names) {
  const origin = node.origin ?? {};
  const content = pairs([
    ["Time", node.time && `${seconds(node.time.seconds)} a call, ${percent(node.time.share)}`],
    ["Its time is in", node.carrier && names.get(node.carrier)?.place],
    ["Engine", node.engine !== "none" && ENGINES[node.engine][0]],
    ["Ran as", node.time?.operators?.join(", ")],
    ["Module", origin.module && h("code", {}, origin.module)],
    ["Source", origin.source && h("code", {}, origin.source)],
    ["Operator", origin.operator && h("code", {}, origin.operator)],
    ...Object.entries(node.values ?? {}),
    ...Object.entries(node.attributes ?? {}).map(([name, value]) => [name.replace(/_/g, " "), Array.isArray(value) ? value.join(", ") : String(value)]),
    ["Place", node.place],
  ]);
  return { title: node.label, content };
}
