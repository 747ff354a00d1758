import { select } from "d3-selection";
import { curveBasis, line } from "d3-shape";
import "d3-transition";
import { zoom, zoomIdentity } from "d3-zoom";

import { h, s } from "./dom.js";
import { arrange } from "./layout.js";

const HEIGHT = 40;
const WIDEST = 250;
const NARROWEST = 70;
const PAD = 14;
/** Below this scale colours are shown, and no text. */
const READABLE = 0.3;

const pen = document.createElement("canvas").getContext("2d");
function widthOf(text, font) {
  pen.font = font;
  return pen.measureText(text).width;
}

/** The text, cut so that it takes `most` pixels. The namespace of an operator goes first. */
function fitted(text, font, most) {
  if (widthOf(text, font) <= most) return text;
  const name = text.indexOf("::");
  if (name > 0) return fitted(`…${text.slice(name + 2)}`, font, most);
  let end = text.length;
  while (end > 1 && widthOf(`${text.slice(0, end)}…`, font) > most) end = Math.floor(end * 0.93);
  return `${text.slice(0, end)}…`;
}

/**
 * A directed graph, laid out from top to bottom, to zoom and walk in.
 *
 * nodes: [{ id, label, sub?, tone?, spoken? }], edges: [{ from, to, dashed? }] by id; onPick(node).
 * covered() says how many pixels at the bottom lie under something else.
 * Returns { element, height, buttons, pick(id), find(ids), paint(tone(node)), clear() }. By keyboard: one stop of the Tab key,
 * up and down arrows along the edges, left and right in the order of `nodes`, Enter picks.
 */
export function drawGraph({ nodes, edges, onPick, label, covered = () => 0 }) {
  const font = "system-ui, sans-serif";
  const prepared = nodes.map((node) => {
    const text = fitted(node.label, `13px ${font}`, WIDEST - PAD);
    const sub = node.sub ? fitted(node.sub, `11px ${font}`, WIDEST - PAD) : "";
    const width = Math.max(NARROWEST, widthOf(text, `13px ${font}`) + PAD + 8, widthOf(sub, `11px ${font}`) + PAD + 8);
    return { ...node, text, sub, width, height: HEIGHT };
  });
  const byId = new Map(prepared.map((node) => [node.id, node]));
  const graph = arrange(prepared, edges.filter(({ from, to }) => byId.has(from) && byId.has(to)), ({ from }) => {
    const text = fitted(`↑ ${byId.get(from).label}`, `11px ${font}`, WIDEST / 2);
    return { text, width: widthOf(text, `11px ${font}`) + PAD, height: HEIGHT / 2 };
  });
  const path = line((p) => p.x, (p) => p.y).curve(curveBasis);

  const lines = graph.lines.map(({ from, to, points, dashed }) => {
    const drawn = s("path", { class: dashed ? "edge dashed" : "edge", d: path(points), "marker-end": "url(#arrow)" });
    return { from, to, drawn };
  });
  const shapes = new Map();
  for (const node of prepared) {
    const at = graph.places.get(node.id);
    Object.assign(node, { x: at.x, y: at.y });
    const [left, top] = [-node.width / 2, -HEIGHT / 2];
    const shape = s("g", {
      class: "node", transform: `translate(${at.x},${at.y})`, role: "button", tabindex: "-1", "data-id": node.id,
      style: node.tone ? { "--tone": node.tone } : null,
      "aria-label": node.spoken ?? [node.label, node.sub].filter(Boolean).join(", "),
      onclick: () => pick(node.id), onkeydown: (event) => keyed(event, node),
    },
    s("rect", { x: left, y: top, width: node.width, height: HEIGHT, rx: 5 }),
    s("rect", { class: "stripe", x: left, y: top + 4, width: 4, height: HEIGHT - 8, rx: 2 }),
    s("text", { x: left + PAD, y: node.sub ? -3 : 5 }, node.text),
    node.sub && s("text", { class: "sub", x: left + PAD, y: 13 }, node.sub),
    s("title", {}, [node.label, node.sub].filter(Boolean).join("\n")));
    shapes.set(node.id, shape);
  }
  const notes = graph.notes.map(({ from, text, width, height, x, y }) =>
    s("g", { class: "note", transform: `translate(${x},${y})`, onclick: () => pick(from, true) },
      s("rect", { x: -width / 2, y: -height / 2, width, height, rx: 10 }),
      s("text", { x: 0, y: 4 }, text), s("title", {}, `from ${byId.get(from).label}, far above`)));
  const view = s("g", {}, lines.map((one) => one.drawn), notes, [...shapes.values()]);
  const marker = s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerUnits: "userSpaceOnUse", markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse" }, s("path", { class: "arrow", d: "M0,0L8,4L0,8z" }));
  const svg = s("svg", { role: "group", "aria-label": `${label}: ${nodes.length} nodes. Arrow keys walk along the edges, Enter shows details.` }, s("defs", {}, marker), view);
  const element = h("div", { class: "canvas" }, svg);

  const behaviour = zoom().scaleExtent([0.005, 4]).on("zoom", ({ transform }) => {
    view.setAttribute("transform", transform);
    element.classList.toggle("far", transform.k < READABLE);
  });
  const selection = select(svg).call(behaviour).on("dblclick.zoom", null);
  const size = graph;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const moved = (soft) => (soft && !calm ? selection.transition().duration(250) : selection);
  const frame = () => [svg.clientWidth || 600, svg.clientHeight || 400];
  const rows = prepared; // in the order of execution

  /** The whole graph. */
  function fit() {
    const [wide, high] = frame();
    const scale = Math.min(wide / size.width, high / size.height, 1.5);
    moved(true).call(behaviour.transform, zoomIdentity.translate((wide - size.width * scale) / 2, (high - size.height * scale) / 2).scale(scale));
  }
  /** Its first nodes, large enough to be read. */
  function begin() {
    const [wide, high] = frame();
    const all = Math.min(wide / size.width, high / size.height);
    const scale = Math.min(1, Math.max(all, 0.8));
    const first = rows[0];
    const top = all >= scale ? (high - size.height * scale) / 2 : 0;
    selection.call(behaviour.transform, zoomIdentity.translate(wide / 2 - (first ? first.x : 0) * scale, Math.max(0, top)).scale(scale));
  }
  function centre(node, soft = true) {
    const [wide, high] = frame();
    const scale = 1;
    moved(soft).call(behaviour.transform, zoomIdentity.translate(wide / 2 - node.x * scale, (high - covered()) / 2 - node.y * scale).scale(scale));
  }

  let current = rows[0]?.id;
  shapes.get(current)?.setAttribute("tabindex", "0");
  function focus(node, soft) {
    shapes.get(current)?.setAttribute("tabindex", "-1");
    current = node.id;
    const shape = shapes.get(current);
    shape.setAttribute("tabindex", "0");
    shape.focus({ preventScroll: true });
    centre(node, soft);
  }
  function keyed(event, node) {
    const neighbour = (own, other) => lines.filter((one) => one[own] === node.id).map((one) => byId.get(one[other])).sort((a, b) => a.x - b.x)[0];
    const at = rows.findIndex((one) => one.id === node.id);
    const next = {
      ArrowDown: () => neighbour("from", "to"), ArrowUp: () => neighbour("to", "from"),
      ArrowRight: () => rows[at + 1], ArrowLeft: () => rows[at - 1], Home: () => rows[0], End: () => rows[rows.length - 1],
    }[event.key];
    if (next) {
      event.preventDefault();
      const found = next();
      if (found) focus(found, false);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pick(node.id);
    }
  }

  let picked = null;
  function mark(id) {
    shapes.get(picked)?.classList.remove("picked");
    picked = id;
    shapes.get(id)?.classList.add("picked");
    for (const one of lines) one.drawn.classList.toggle("near", id !== null && (one.from === id || one.to === id));
  }
  /** Pick a node as a click does; with `move`, bring it into the middle. */
  function pick(id, move = false) {
    const node = byId.get(id);
    if (!node) return;
    mark(id);
    if (move) {
      shapes.get(current)?.setAttribute("tabindex", "-1");
      current = id;
      shapes.get(id).setAttribute("tabindex", "0");
      requestAnimationFrame(() => centre(node)); // after the panel has taken its room
    }
    onPick?.(nodes.find((one) => one.id === id));
  }
  /** Show which nodes a search found; null ends it. */
  function find(ids) {
    const found = new Set(ids ?? []);
    element.classList.toggle("searching", ids !== null);
    for (const [id, shape] of shapes) shape.classList.toggle("found", found.has(id));
  }

  /** Colours the nodes: a stripe of each; from afar all of it. */
  function paint(tone) {
    for (const node of nodes) shapes.get(node.id).style.setProperty("--tone", tone(node));
  }

  const step = (factor) => moved(true).call(behaviour.scaleBy, factor);
  const buttons = [
    h("button", { "aria-label": "Zoom in", onclick: () => step(1.4) }, "+"),
    h("button", { "aria-label": "Zoom out", onclick: () => step(1 / 1.4) }, "−"),
    h("button", { onclick: fit }, "Fit"),
    h("button", { onclick: begin }, "Start"),
  ];
  let begun = false;
  new ResizeObserver(() => {
    if (begun || !svg.clientWidth) return;
    begun = true;
    begin();
  }).observe(element);
  return { element, height: graph.height, buttons, pick, find, paint, clear: () => mark(null), centre: (id) => byId.has(id) && centre(byId.get(id)) };
}
