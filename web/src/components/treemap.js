import { hierarchy, treemap as squarified, treemapSquarify } from "d3-hierarchy";

import { h } from "./dom.js";
import { figure } from "./figure.js";

const GAP = 2;
const HEIGHT = 384;

/** Areas by size: rows [{ name, value, note? }]; the largest `most` are drawn, the rest as one. */
export function treemap({ title, rows, format, onPick, most = 120, columns }) {
  const sorted = [...rows].filter((row) => row.value > 0).sort((a, b) => b.value - a.value);
  const rest = sorted.slice(most);
  const shown = sorted.slice(0, most);
  if (rest.length) shown.push({ name: `${rest.length} smaller ones`, value: rest.reduce((sum, row) => sum + row.value, 0), rest: true });
  const draw = (width) => {
    const root = hierarchy({ children: shown }).sum((row) => row.value ?? 0);
    squarified().tile(treemapSquarify).size([width, HEIGHT]).paddingInner(GAP)(root);
    const largest = shown[0]?.value ?? 1;
    return h("div", { class: "treemap", role: "group", "aria-label": title }, (root.children ?? []).map((leaf) => {
      const row = leaf.data;
      const [wide, high] = [leaf.x1 - leaf.x0, leaf.y1 - leaf.y0];
      const text = wide > 50 && high > 20;
      return h("button", {
        title: `${row.name}: ${format(row.value)}`, "aria-label": `${row.name}: ${format(row.value)}`,
        tabindex: "-1", // by keyboard, the table below is the quicker way
        onclick: () => !row.rest && onPick?.(row),
        style: { left: `${leaf.x0}px`, top: `${leaf.y0}px`, width: `${wide}px`, height: `${high}px`, "--share": `${15 + (45 * row.value) / largest}%` },
      }, text && h("span", {}, row.name), text && high > 36 && h("span", {}, format(row.value)));
    }));
  };
  const plain = [
    { title: "Name", value: (row) => row.name, pick: Boolean(onPick) },
    { title: "Size", value: (row) => row.value, text: (row) => format(row.value), number: true },
  ];
  return figure({ title, draw, columns: columns ?? plain, rows: sorted, onPick, sort: "Size" });
}
