import { h } from "./dom.js";

const OPEN_ABOVE = 0.25;
// Of more a person reads only the first: the rest waits behind a button.
const AT_FIRST = 30;

/**
 * A tree to drill down in, each row with a measure and its share of the whole.
 *
 * root: { name, value, children?: [...], note? }; format(value) -> text; with onPick(node), leaves
 * are buttons. What has more than a quarter of the whole is open at first, for `open` levels.
 */
export function tree({ root, format, label, onPick, open = 2 }) {
  const whole = root.value || 1;
  const row = (node, asButton) => [
    h("span", { class: "name" },
      asButton ? h("button", { class: "link", onclick: () => onPick(node) }, node.name) : node.name,
      node.note && h("span", { class: "muted" }, ` ${node.note}`)),
    h("span", { class: "measure" }, format(node.value)),
    h("span", { class: "meter", "aria-hidden": "true" }, h("i", { style: { width: `${Math.min(100, (100 * node.value) / whole)}%` } })),
  ];
  function item(node, depth) {
    const children = [...(node.children ?? [])].sort((a, b) => b.value - a.value);
    if (!children.length) return h("li", { class: "leaf" }, h("span", { class: "row" }, row(node, Boolean(onPick))));
    const inner = h("ul");
    const details = h("details", {}, h("summary", {}, h("span", { class: "row" }, row(node, false))), inner);
    // rows are made when they are first seen
    const rows = (some) => some.map((child) => item(child, depth + 1));
    const grow = () => {
      if (inner.childElementCount) return;
      const rest = children.slice(AT_FIRST);
      inner.append(...rows(children.slice(0, AT_FIRST)));
      if (!rest.length) return;
      const last = h("li", {}, h("button", { class: "more", onclick: () => more() }, `Show ${rest.length.toLocaleString("en")} more`));
      const more = () => {
        const added = rows(rest);
        last.replaceWith(...added);
        added[0].querySelector("button, summary")?.focus(); // the button that had it is gone
      };
      inner.append(last);
    };
    details.addEventListener("toggle", grow);
    if (depth < open && node.value / whole >= OPEN_ABOVE) {
      details.open = true;
      grow();
    }
    return h("li", {}, details);
  }
  return h("ul", { class: "tree", "aria-label": label }, item(root, 0));
}
