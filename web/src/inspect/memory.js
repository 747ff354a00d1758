// The memory plan of a method over its instructions.
import { axisX, axisY, plot, rect, ruleY } from "@observablehq/plot";

import { h, legend } from "../components/dom.js";
import { figure } from "../components/figure.js";
import { bytes, count } from "../components/format.js";
import { valueText } from "./values.js";

const TONES = {
  input: "var(--tone-1)", output: "var(--tone-2)", intermediate: "var(--tone-3)", state: "var(--tone-4)", constant: "var(--tone-5)",
};

export function memoryPlan(method) {
  const plan = method.memory;
  const all = (plan.values ?? []).map((one) => ({ ...one, text: valueText(method.values[one.value]) }));
  const drawn = [...new Set(all.map((one) => one.memory))].sort((a, b) => a - b);
  if (!drawn.length) return h("p", { class: "muted" }, "No memory is planned.");
  const charts = drawn.map((memory) => chart(all.filter((one) => one.memory === memory), memory, method, drawn.length > 1));
  const kinds = Object.entries(TONES).filter(([kind]) => all.some((one) => one.kind === kind));
  return h("div", {},
    h("h3", {}, "Memory plan"),
    h("p", {}, `Values that are live at the same time need ${bytes(plan.peak)} at most. What delegates need inside is not in the file.`),
    legend(kinds),
    charts);
}

function chart(rows, memory, method, several) {
  const size = method.memory.sizes[memory - 1] ?? Math.max(...rows.map((one) => one.offset + one.bytes));
  const end = Math.max(1, method.instructions.length);
  const title = `${several ? `Memory ${memory}: w` : "W"}here values lie (bytes), from their first instruction to their last; ${bytes(size)}`;
  const draw = (width) => plot({
    width, height: 300, marginLeft: 76, marginBottom: 42, marginTop: 16, marginRight: 20,
    x: { domain: [0, end], label: null }, y: { domain: [0, size || 1], label: null }, color: { type: "identity" },
    marks: [
      axisX({ label: "instruction", ticks: Math.min(end, Math.floor(width / 70)), tickFormat: (x) => (Number.isInteger(x) ? count(x) : "") }),
      axisY({ label: null, ticks: 5, tickFormat: (y) => bytes(y) }),
      rect(rows.filter((one) => one.bytes > 0), {
        x1: "first", x2: (one) => one.last + 1, y1: "offset", y2: (one) => one.offset + one.bytes, inset: 0.5,
        fill: (one) => TONES[one.kind] ?? "var(--bar)", fillOpacity: 0.8, title: (one) => `${one.text}\ninstructions ${one.first} to ${one.last}`,
      }),
      ruleY([0]),
    ],
  });
  return figure({
    title, draw, rows, sort: "Size", summary: title,
    columns: [
      { title: "Value", value: (one) => one.text },
      { title: "Size", value: (one) => one.bytes, text: (one) => bytes(one.bytes), number: true },
      { title: "Offset", value: (one) => one.offset, text: (one) => count(one.offset), number: true },
      { title: "From instruction", value: (one) => one.first, number: true },
      { title: "To instruction", value: (one) => one.last, number: true },
    ],
  });
}
