import { h, redrawn } from "./dom.js";
import { table } from "./table.js";

/**
 * A chart with its title, and behind it the same numbers as a table.
 *
 * draw(width) -> an element (an SVG of Observable Plot, for instance); it is drawn anew when the
 * width changes. `columns` and `rows` are those of table(); `summary` is said by screen readers.
 */
export function figure({ title, draw, columns, rows, summary, onPick, sort }) {
  const drawing = redrawn((width) => {
    const chart = draw(width);
    const svg = chart.matches?.("svg") ? chart : chart.querySelector?.("svg");
    if (svg) {
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", summary ?? title);
      // Plot names the parts, but what has no role may have no name for screen readers
      for (const part of svg.querySelectorAll("g[aria-label]")) {
        part.dataset.part = part.getAttribute("aria-label");
        part.removeAttribute("aria-label");
      }
    }
    return chart;
  });
  const numbers = columns &&
    h("details", { class: "data" }, h("summary", {}, "As a table"), table({ columns, rows, caption: title, quiet: true, onPick, sort }));
  return h("figure", {}, h("figcaption", {}, title), drawing, numbers);
}
