import { axisX, axisY, dot, gridX, gridY, line, plot, text } from "@observablehq/plot";

import { figure } from "./figure.js";
import { number } from "./format.js";

/** The decades between two numbers, for the ticks of a logarithmic axis. */
function decades(low, high, most) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  return Array.from({ length: Math.max(0, Math.floor((last - first) / step) + 1) }, (_, i) => 10 ** (first + i * step));
}

/** Where a line's name stands: at which of its points, and how. */
const NAMES = {
  below: [0, { dx: 8, dy: 4, textAnchor: "start", lineAnchor: "top" }],
  above: [-1, { dy: -6, textAnchor: "end", lineAnchor: "bottom" }],
  left: [-1, { dx: -14, dy: 4, textAnchor: "end", lineAnchor: "top" }],
};

/**
 * Points on two axes, logarithmic unless `log: false`: a roofline with `lines`.
 *
 * points: [{ name, x, y, size?, tone? }]; x and y: { label, format(value) };
 * lines: [{ name, points: [{ x, y }, ...], nameAt? }], for what the machine can do at most; `nameAt`
 * is one of NAMES.
 */
export function scatter({ title, points, x, y, lines = [], log = true, onPick }) {
  const fine = points.filter((p) => Number.isFinite(p.x) && Number.isFinite(p.y) && (!log || (p.x > 0 && p.y > 0)));
  const ends = lines.flatMap((one) => one.points);
  const span = (key) => {
    const all = [...fine, ...ends].map((p) => p[key]).filter((v) => !log || v > 0);
    const [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [1, 10];
    return log ? [low / 1.6, high * 1.6] : [Math.min(0, low), high * 1.05 || 1];
  };
  const type = log ? "log" : "linear";
  const fx = x.format ?? number;
  const fy = y.format ?? number;
  const draw = (width) => {
    const [rangeX, rangeY] = [span("x"), span("y")];
    const ticksX = log ? decades(...rangeX, Math.floor(width / 90)) : Math.max(3, Math.floor(width / 110));
    const ticksY = log ? decades(...rangeY, 6) : 6;
    return plot({
      width, height: Math.min(460, Math.max(300, width * 0.6)), marginLeft: 90, marginRight: 24, marginBottom: 48, marginTop: 30,
      x: { type, domain: rangeX, label: null }, y: { type, domain: rangeY, label: null },
      r: { range: [3, 14] }, color: { type: "identity" },
      marks: [
        gridX(ticksX.length ? ticksX : undefined, { strokeOpacity: 0.15 }),
        gridY(ticksY.length ? ticksY : undefined, { strokeOpacity: 0.15 }),
        axisX({ ticks: ticksX, tickFormat: (v) => fx(v), label: x.label }),
        axisY({ ticks: ticksY, tickFormat: (v) => fy(v), label: y.label }),
        lines.map((one) => line(one.points, { x: "x", y: "y", stroke: "var(--second)", strokeWidth: 2 })),
        dot(fine, { x: "x", y: "y", r: fine.some((p) => p.size) ? "size" : 4, fill: (p) => p.tone ?? "var(--bar)", fillOpacity: 0.75, stroke: "var(--ground)", title: (p) => `${p.name}\n${x.label}: ${fx(p.x)}\n${y.label}: ${fy(p.y)}`, tip: true }),
        lines.map((one) => {
          const [at, where] = NAMES[one.nameAt ?? "below"];
          return text([one.points.at(at)], { x: "x", y: "y", text: () => one.name, fill: "var(--second)", stroke: "var(--ground)", strokeWidth: 4, paintOrder: "stroke", ...where });
        }),
      ],
    });
  };
  const columns = [
    { title: "Name", value: (p) => p.name, pick: Boolean(onPick) },
    { title: x.label, value: (p) => p.x, text: (p) => fx(p.x), number: true },
    { title: y.label, value: (p) => p.y, text: (p) => fy(p.y), number: true },
  ];
  return figure({ title, draw, columns, rows: points, onPick, summary: `${title}: ${fine.length} points; the table below has them` });
}
