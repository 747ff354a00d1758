import { axisX, barX, plot, ruleX, text } from "@observablehq/plot";

import { figure } from "./figure.js";

const ROW = 26;

const cut = (name, most) => (name.length <= most ? name : `${name.slice(0, most - 1)}…`);

/**
 * Horizontal bars, longest first.
 *
 * rows: [{ name, value, tone? }]; format(value) -> text with its unit; `unit` names the axis;
 * `most` is how many bars are drawn (all are in the table); `whole`: values are whole numbers.
 */
export function bars({ title, rows, format, unit, most = 20, measure = "Value", whole = false }) {
  const shown = [...rows].sort((a, b) => b.value - a.value).slice(0, most);
  const largest = Math.max(...shown.map((row) => row.value), 0) || 1;
  const draw = (width) => {
    const letters = Math.floor((width * 0.38) / 7);
    const names = shown.map((row, index) => ({ ...row, key: index, label: cut(row.name, letters) }));
    const left = Math.max(40, ...names.map((row) => row.label.length * 7.6 + 14));
    return plot({
      width, height: shown.length * ROW + 50, marginLeft: left, marginRight: 70, marginTop: 8, marginBottom: 40,
      x: { domain: [0, largest], label: null },
      y: { domain: names.map((row) => row.key), label: null, tickFormat: (key) => names[key].label },
      marks: [
        axisX({ ticks: Math.min(Math.max(2, Math.floor(width / 180)), whole ? largest : Infinity), tickFormat: (value) => format(value), label: unit ?? null }),
        barX(names, { x: "value", y: "key", fill: (row) => row.tone ?? "var(--bar)", title: (row) => `${row.name}: ${format(row.value)}`, insetTop: 2, insetBottom: 2 }),
        text(names, { x: "value", y: "key", text: (row) => format(row.value), textAnchor: "start", dx: 4, fill: "currentColor" }),
        ruleX([0]),
      ],
      color: { type: "identity" },
    });
  };
  const columns = [
    { title: "Name", value: (row) => row.name },
    { title: measure, value: (row) => row.value, text: (row) => format(row.value), number: true },
  ];
  const rest = rows.length - shown.length;
  const heading = rest > 0 ? `${title} (the ${shown.length} largest of ${rows.length})` : title;
  return figure({ title: heading, draw, columns, rows, sort: measure, summary: `${heading}; the table below has the numbers` });
}
