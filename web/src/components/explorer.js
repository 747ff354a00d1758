import { detailsPanel } from "./details.js";
import { h, legend } from "./dom.js";
import { drawGraph } from "./graph.js";

/**
 * A graph with a search field and a panel of details.
 *
 * nodes: [{ id, label, sub?, tone?, search }] (`search`: all text that a search looks through);
 * details(node) -> { title, content }; palettes: [{ name, tone(node), legend: [{ name, tone }] }],
 * the ways to colour the nodes, to choose from.
 * Returns { element, open(id) }.
 */
export function explorer({ nodes, edges, label, details, palettes = [] }) {
  const panel = detailsPanel({ onClose: () => drawing.clear() });
  const drawing = drawGraph({
    nodes, edges, label,
    covered: () => {
      const [panelBox, box] = [panel.element, drawing.element].map((one) => one.getBoundingClientRect());
      const over = !panel.element.hidden && panelBox.left < box.right - 1 && panelBox.width > box.width / 2;
      return over ? Math.max(0, box.bottom - panelBox.top) : 0;
    },
    onPick: (node) => {
      const { title, content } = details(node);
      panel.show(title, content);
    },
  });
  const texts = nodes.map((node) => ({ id: node.id, text: (node.search ?? node.label).toLowerCase() }));
  const said = h("output", { class: "muted", "aria-live": "polite" });
  let found = [];
  let at = -1;

  function search() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    at = -1;
    found = words.length ? texts.filter(({ text }) => words.every((word) => text.includes(word))).map(({ id }) => id) : [];
    drawing.find(words.length ? found : null);
    said.textContent = words.length ? `${found.length.toLocaleString("en")} of ${nodes.length.toLocaleString("en")} nodes` : "";
    previous.disabled = next.disabled = !found.length;
    if (found.length) drawing.centre(found[0]);
  }
  function step(by) {
    if (!found.length) return;
    at = at < 0 ? (by > 0 ? 0 : found.length - 1) : (at + by + found.length) % found.length;
    said.textContent = `${at + 1} of ${found.length.toLocaleString("en")}`;
    drawing.pick(found[at], true);
    field.focus({ preventScroll: true });
  }
  const field = h("input", {
    type: "search", placeholder: "Operator, module or tensor", "aria-label": `Search ${label}`, oninput: search,
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      step(event.shiftKey ? -1 : 1);
    },
  });
  const previous = h("button", { "aria-label": "Previous match", disabled: true, onclick: () => step(-1) }, "↑");
  const next = h("button", { "aria-label": "Next match", disabled: true, onclick: () => step(1) }, "↓");
  const meaning = h("div");
  const paint = ({ tone, legend: entries }) => {
    drawing.paint(tone);
    meaning.replaceChildren(legend(entries.map((entry) => [entry.name, entry.tone])));
  };
  const choice = palettes.length > 1 && h("label", {}, "Colour by ",
    h("select", { onchange: (event) => paint(palettes[event.target.selectedIndex]) }, palettes.map(({ name }) => h("option", {}, name))));
  if (palettes.length) paint(palettes[0]);
  const element = h("div", {},
    h("div", { class: "tools" }, field, previous, next, said, drawing.buttons, choice),
    palettes.length > 0 && meaning,
    h("div", { class: "workspace", style: { "--drawn": `${drawing.height}px` } }, drawing.element, panel.element));
  return { element, open: (id) => drawing.pick(id, true) };
}
