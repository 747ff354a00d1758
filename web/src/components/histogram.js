import { axisX, axisY, plot, rectY, ruleX, ruleY } from "@observablehq/plot";

import { figure } from "./figure.js";
import { count, number } from "./format.js";

/**
 * A histogram out of bins that were counted before.
 *
 * bins: [{ from, to, count }]; `unit` names the horizontal axis; `marks` are vertical lines, for the
 * ends of a range for instance: [{ at, name }].
 */
export function histogram({ title, bins, unit, marks = [], log = false }) {
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const powers = Array.from({ length: Math.ceil(Math.log10(most)) + 1 }, (_, power) => 10 ** power);
  // 0 and 1 lie close together where there are many decades
  const counts = most < 10 ? [1, 2, 5] : powers.slice(Math.log1p(1) / Math.log1p(most) < 0.1 ? 1 : 0);
  const ticks = [0, ...counts.filter((x) => x <= most)];
  const shown = log ? bins.filter((bin) => bin.count > 0) : bins;
  const draw = (width) =>
    plot({
      width, height: 240, marginLeft: 60, marginBottom: 44, marginTop: 24,
      y: { type: log ? "symlog" : "linear", label: null },
      marks: [
        axisX({ label: unit, ticks: Math.max(3, Math.floor(width / 110)), tickFormat: (x) => number(x) }),
        axisY({ label: "count", ticks: log ? ticks : 5, tickFormat: (x) => count(x) }),
        rectY(shown, { x1: "from", x2: "to", y: "count", fill: "var(--bar)", title: (bin) => `${number(bin.from)} to ${number(bin.to)}: ${count(bin.count)}` }),
        ruleX(marks, { x: "at", stroke: "var(--second)", strokeWidth: 2, strokeDasharray: "4 3", title: (mark) => `${mark.name}: ${number(mark.at)}` }),
        ruleY([0]),
      ],
    });
  const columns = [
    { title: "From", value: (bin) => bin.from, text: (bin) => number(bin.from), number: true },
    { title: "To", value: (bin) => bin.to, text: (bin) => number(bin.to), number: true },
    { title: "Count", value: (bin) => bin.count, text: (bin) => count(bin.count), number: true },
  ];
  const said = marks.map((mark) => `${mark.name} at ${number(mark.at)}`).join(", ");
  return figure({ title, draw, columns, rows: bins, summary: said ? `${title}; ${said}` : title });
}
