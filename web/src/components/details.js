import { h } from "./dom.js";

/**
 * A panel beside (on a phone: over) something, with the details of what was picked.
 *
 * panel.element goes into the page; panel.show(title, content) opens it and moves the focus there;
 * closing (button or Escape) gives the focus back. `content` is nodes, or use pairs() for a list.
 */
export function detailsPanel({ onClose } = {}) {
  let before = null;
  const title = h("h3", { tabindex: "-1" });
  const body = h("div");
  const close = () => {
    element.hidden = true;
    onClose?.();
    before?.focus({ preventScroll: true });
  };
  const element = h("aside", { class: "details", "aria-label": "Details", hidden: true, onkeydown: (event) => event.key === "Escape" && close() },
    h("header", {}, title, h("button", { "aria-label": "Close the details", onclick: close }, "✕")), body);
  return {
    element,
    close,
    show(heading, content) {
      if (!element.contains(document.activeElement)) before = document.activeElement;
      title.textContent = heading;
      body.replaceChildren(...[content].flat(2).filter(Boolean));
      element.hidden = false;
      element.scrollTop = 0;
      title.focus({ preventScroll: true });
    },
  };
}

/** A list of names and values; pairs whose value is missing or empty are left out. */
export const pairs = (list) =>
  h("dl", {}, list.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
    .map(([name, value]) => [h("dt", {}, name), ...[value].flat().map((one) => h("dd", {}, one))]));
