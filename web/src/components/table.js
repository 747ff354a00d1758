import { h } from "./dom.js";

const AT_FIRST = 200;

/**
 * A table that sorts by a click on a heading.
 *
 * columns: [{ title, value(row) -> number|string, text?(row) -> string, number?: true, pick?: true }]
 * With onPick(row), cells of the column marked `pick` are buttons. `sort` is the column to sort by at
 * first (largest first), else the order of `rows` stays. Long tables show their first rows. With
 * `quiet` the caption, which stands in a heading already, is for screen readers alone. `label` tells
 * tables of one caption apart.
 */
export function table({ columns, rows, caption, label = caption, sort, onPick, tall = true, quiet = false }) {
  let by = columns.findIndex((column) => column.title === sort);
  let descending = true;
  let limit = AT_FIRST;
  const body = h("tbody");
  const more = h("button", { class: "more", onclick: () => ((limit = Infinity), draw()) });

  const heads = columns.map((column, index) => {
    const turn = () => {
      descending = by === index ? !descending : Boolean(column.number);
      by = index;
      draw();
    };
    const mark = h("span", { "aria-hidden": "true" });
    const button = h("button", { onclick: turn }, column.title, mark);
    return { mark, cell: h("th", { scope: "col", class: column.number ? "number" : null }, button) };
  });

  function sorted() {
    if (by < 0) return rows;
    const { value } = columns[by];
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      const [noX, noY] = [x ?? null, y ?? null].map((v) => v === null || Number.isNaN(v));
      if (noX || noY) return noX - noY; // what is not known stands last, whichever way
      const found = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
      return descending ? -found : found;
    };
    return [...rows].sort(order);
  }

  function cell(column, row) {
    const text = String(column.text ? column.text(row) : (column.value(row) ?? "–"));
    const inner = column.pick && onPick ? h("button", { class: "link", onclick: () => onPick(row) }, text) : text;
    const long = /\S{25}/.test(text) ? "long" : null; // to be broken anywhere
    return h("td", { class: column.number ? "number" : long }, inner);
  }

  function draw() {
    heads.forEach(({ cell, mark }, index) => {
      cell.removeAttribute("aria-sort");
      mark.textContent = "";
      if (index !== by) return;
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      mark.textContent = descending ? " ▾" : " ▴";
    });
    const shown = sorted().slice(0, limit);
    body.replaceChildren(...shown.map((row) => h("tr", {}, columns.map((column) => cell(column, row)))));
    more.textContent = `Show all ${rows.length.toLocaleString("en")} rows`;
    more.hidden = rows.length <= limit;
  }

  draw();
  return h(
    "div",
    // what scrolls can be reached by keyboard
    { class: tall ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": label ?? "Table" },
    h("table", {}, caption && h("caption", { class: quiet ? "hidden" : null }, caption), h("thead", {}, h("tr", {}, heads.map((head) => head.cell))), body),
    more,
  );
}
