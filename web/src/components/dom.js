// Elements out of plain values. Text becomes text: nothing here reads HTML out of a string.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: attributes, `onclick` and the like, `style` as an object; children are nodes or text. */
export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** The same for SVG. */
export const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** What Python gave to `page(kind, title, data)`. */
export const pageData = () => JSON.parse(document.getElementById("data").textContent);

/** Put sections into the page's body. */
export const show = (...children) => document.getElementById("main").append(...children.flat(2).filter(Boolean));

/** A section with a heading. */
export const section = (title, ...children) => {
  const id = `section-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}-${count++}`;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), ...children);
};
let count = 0;

/** Labelled numbers in a row: facts([["Size", "14.0 MB"], ...]). */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

/** What colours mean: legend([["input", "var(--tone-1)"], ...]); an entry may be missing. */
export const legend = (entries) => h("ul", { class: "legend" }, entries.filter(Boolean).map(([name, tone]) => h("li", {}, h("i", { style: { background: tone } }), name)));

/** Calls `draw(width)` now and whenever the width of the element changes; shows what it returns. */
export function redrawn(draw, minimum = 300) {
  const frame = h("div", { class: "drawing" });
  let width = 0;
  const update = () => {
    const now = Math.max(minimum, Math.floor(frame.clientWidth));
    if (now === width) return;
    width = now;
    frame.replaceChildren(draw(width));
  };
  new ResizeObserver(() => requestAnimationFrame(update)).observe(frame);
  return frame;
}

/** Puts what takes long to make into the page after the rest has been drawn: make() -> element. */
export function later(make, what = "Drawing") {
  const frame = h("div", {}, h("p", { class: "muted", role: "status" }, `${what} …`));
  requestAnimationFrame(() => setTimeout(() => frame.replaceChildren(make())));
  return frame;
}
