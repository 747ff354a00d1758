// The page of `penstock inspect --html`: what a program holds.
import { bars } from "./components/bars.js";
import { facts, h, later, pageData, section, show } from "./components/dom.js";
import { explorer } from "./components/explorer.js";
import { bytes, count, percent, seconds } from "./components/format.js";
import { table } from "./components/table.js";
import { treemap } from "./components/treemap.js";
import { memoryPlan } from "./inspect/memory.js";
import { methodGraph } from "./inspect/nodes.js";
import { quantization } from "./inspect/values.js";

const valueColumns = [
  { title: "Name", value: (one) => one.name },
  { title: "Type", value: (one) => one.dtype ?? one.text },
  { title: "Shape", value: (one) => (one.shape ? one.shape.join(" × ") || "scalar" : "–"), text: (one) => (one.shape ? `${one.dynamic ? "at most " : ""}${one.shape.join("\u00a0×\u00a0") || "scalar"}` : "–") },
  { title: "Quantization", value: (one) => (one.quantization ? quantization(one.quantization) : "–") },
  { title: "Size", value: (one) => one.bytes ?? 0, text: (one) => bytes(one.bytes ?? 0), number: true },
];

const data = pageData();
const explorers = new Map();

const single = data.methods.length === 1;
const headline = [
  ["File", data.path],
  ["Size", bytes(data.bytes)],
  ["Constants", bytes(data.constant_bytes)],
  ["Methods", count(data.methods.length)],
];
if (data.timings) headline.push([`A call, ${data.timings.threads} thread${data.timings.threads === 1 ? "" : "s"}`, seconds(data.timings.seconds)]);
show(facts(headline));

const fixed = data.methods.filter((method) => !method.instructions.length);
for (const method of data.methods) if (method.instructions.length) show(methodSection(method));
if (fixed.length) {
  show(section("Methods that only give a value", table({
    caption: "Methods without instructions", rows: fixed, tall: fixed.length > 12,
    columns: [
      { title: "Name", value: (method) => method.name },
      { title: "Gives", value: (method) => method.outputs.map((id) => method.values[id].text).join(", ") },
    ],
  })));
}
show(constantsSection());
const named = Object.entries(data.named_data ?? {});
if (named.length) {
  show(section("Named data", table({
    caption: "Blobs that delegates look up by name", rows: named, sort: "Size",
    columns: [
      { title: "Name", value: ([name]) => name },
      { title: "Size", value: ([, size]) => size, text: ([, size]) => bytes(size), number: true },
    ],
  })));
}

function methodSection(method) {
  const drawn = methodGraph(method, data);
  const nodes = method.delegation.delegated + method.delegation.outside;
  const frame = later(() => {
    const found = explorer(drawn);
    explorers.set(method.name, found);
    return found.element;
  }, `Laying out ${count(drawn.nodes.length)} nodes`);
  const kinds = new Map();
  for (const node of drawn.nodes) if (node.counted) kinds.set(node.label, (kinds.get(node.label) ?? 0) + 1);
  const rows = [...kinds].map(([name, value]) => ({ name, value }));
  return section(`Method ${method.name}`,
    facts([
      ["Delegated", method.share === null || method.share === undefined ? "not known" : `${percent(method.share)} of ${count(nodes)} node${nodes === 1 ? "" : "s"}`],
      ["Instructions", count(method.instructions.length)],
      ["Delegates", count(method.delegates.length)],
      ["Planned memory", bytes(method.memory.sizes.reduce((a, b) => a + b, 0))],
    ]),
    table({ caption: "Inputs and outputs", label: `Inputs and outputs of ${method.name}`, tall: false, columns: valueColumns, rows: [
      ...method.inputs.map((id, index) => ({ name: `input\u00a0${index}`, ...method.values[id] })),
      ...method.outputs.map((id, index) => ({ name: `output\u00a0${index}`, ...method.values[id] })),
    ] }),
    method.delegates.length > 0 && h("div", {}, h("h3", {}, "Delegates"), table({
      caption: "Delegates", label: `Delegates of ${method.name}`, quiet: true, tall: method.delegates.length > 12, rows: method.delegates.map((one, number) => ({ ...one, number })),
      columns: [
        { title: "Delegate", value: (one) => one.number, text: (one) => `delegate\u00a0${one.number}` },
        { title: "Backend", value: (one) => one.backend },
        { title: "Nodes", value: (one) => one.nodes?.length, text: (one) => (one.nodes ? count(one.nodes.length) : one.error ? `cannot be read: ${one.error}` : "known to the backend alone"), number: true },
        { title: "Payload", value: (one) => one.bytes, text: (one) => bytes(one.bytes), number: true },
      ],
    })),
    h("h3", {}, "Graph"), frame,
    rows.length > 0 && bars({ title: "Operators", rows, format: count, unit: "nodes", measure: "Nodes", whole: true }),
    memoryPlan(method));
}

function constantsSection() {
  const rows = (data.constants ?? []).map((one) => ({ ...one, value: one.bytes }));
  if (!rows.length) return section("Constants", h("p", {}, "There are none."));
  const open = (row) => {
    const where = row.instruction === undefined ? null : row.node === undefined ? `i${row.instruction}` : `i${row.instruction}n${row.node}`;
    const found = where && explorers.get(row.method);
    if (!found) return;
    found.element.scrollIntoView({ block: "center" });
    found.open(where);
  };
  return section("Constants", treemap({
    title: `Constants by size: ${bytes(data.constant_bytes)} in ${count(rows.length)}`, rows, format: bytes, onPick: open,
    columns: [
      { title: "Name", value: (row) => row.name, pick: true },
      { title: "Size", value: (row) => row.value, text: (row) => bytes(row.value), number: true },
      { title: "Type", value: (row) => row.dtype ?? "" },
      { title: "Shape", value: (row) => (row.shape ? row.shape.join(" × ") : "") },
      { title: "In", value: (row) => [single ? "" : row.method, row.delegate === undefined ? (row.method ? "program" : "named data") : `delegate ${row.delegate}`].filter(Boolean).join(", ") },
    ],
  }));
}
