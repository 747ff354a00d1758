import { hierarchy, treemap as squarified, treemapSquarify } from "d3-hierarchy";

import { h } from "./dom.js";
import { figure } from "./figure.js";
import { count } from "./format.js";

const GAP = 2;
const HEIGHT = 384;

/**
 * Areas by size: rows [{ name, value, note? }]. The largest `most` are drawn, the smaller ones as one
 * area with their sum, which opens: then the largest `most` of those are drawn, and so on.
 */
export function treemap({ title, rows, format, onPick, most = 120, columns }) {
  const sorted = [...rows].filter((row) => row.value > 0).sort((a, b) => b.value - a.value);
  const draw = (width) => {
    const frame = h("div", {});
    const update = (start) => frame.replaceChildren(...level(start, width, update));
    update(0);
    return frame;
  };

  /** Those from number `start` on; `go` shows another level. */
  function level(start, width, go) {
    const end = start + most;
    const shown = sorted.slice(start, end);
    const rest = sorted.slice(end);
    const sum = rest.reduce((all, row) => all + row.value, 0);
    const name = rest.length === 1 ? "1 smaller one" : `${count(rest.length)} smaller ones`;
    if (rest.length) shown.push({ name, value: sum, rest: true });
    const back = start > 0 && h("button", { type: "button", onclick: () => go(Math.max(0, start - most)) }, "Larger ones");
    const more = rest.length > 0 && h("button", { type: "button", onclick: () => go(end) }, `Show ${name}, ${format(sum)} in all`);
    const steps = (back || more) && h("div", { class: "tools" }, back, more);
    const largest = shown[0]?.value ?? 1;
    const areas = laidOut(shown, width).map((leaf) => {
      const row = leaf.data;
      const [wide, high] = [leaf.x1 - leaf.x0, leaf.y1 - leaf.y0];
      const text = wide > 50 && high > 20;
      return h("button", {
        title: `${row.name}: ${format(row.value)}`, "aria-label": `${row.name}: ${format(row.value)}`,
        tabindex: "-1", // by keyboard, the table below is the quicker way
        onclick: () => (row.rest ? go(end) : onPick?.(row)),
        style: { left: `${leaf.x0}px`, top: `${leaf.y0}px`, width: `${wide}px`, height: `${high}px`, "--share": `${15 + (45 * Math.min(row.value, largest)) / largest}%` },
      }, text && h("span", {}, row.name), text && high > 36 && h("span", {}, format(row.value)));
    });
    return [h("div", { class: "treemap", role: "group", "aria-label": title }, areas), steps].filter(Boolean);
  }

  const plain = [
    { title: "Name", value: (row) => row.name, pick: Boolean(onPick) },
    { title: "Size", value: (row) => row.value, text: (row) => format(row.value), number: true },
  ];
  return figure({ title, draw, columns: columns ?? plain, rows: sorted, onPick, sort: "Size" });
}

function laidOut(shown, width) {
  const root = hierarchy({ children: shown }).sum((row) => row.value ?? 0);
  squarified().tile(treemapSquarify).size([width, HEIGHT]).paddingInner(GAP)(root);
  return root.children ?? [];
}
