// Asked in the browser by page_checks.py: each function returns what is wrong.
({
  /** Controls and regions without a name for a screen reader. */
  nameless() {
    const wanted = "button, input, select, summary, [role=img], [role=region], aside";
    const named = (e) =>
      e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim() || e.labels?.length || e.title;
    return [...document.querySelectorAll(wanted)].filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 120));
  },

  /** What has a name for screen readers, and no role to be named; and regions that share a name. */
  misnamed() {
    const found = [...document.querySelectorAll("svg g[aria-label]:not([role])")].map((e) => e.outerHTML.slice(0, 120));
    const text = (e) => e.getAttribute("aria-label") ?? document.getElementById(e.getAttribute("aria-labelledby"))?.textContent;
    const regions = [...document.querySelectorAll("section[aria-labelledby], [role=region]")].filter((e) => e.checkVisibility()).map(text);
    return [...found, ...regions.filter((name, i) => regions.indexOf(name) !== i)];
  },

  /** Headings that skip a level, and a title that is not the only one. */
  headings() {
    const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter((e) => e.checkVisibility()).map((e) => Number(e.tagName[1]));
    const skips = levels.filter((level, i) => i && level > levels[i - 1] + 1);
    return levels[0] === 1 && levels.lastIndexOf(1) === 0 ? skips : ["not one title at the top"];
  },

  /** Charts without their numbers behind them. */
  chartsWithoutTables() {
    const figures = [...document.querySelectorAll("figure")].filter((e) => !e.querySelector("details table"));
    return figures.map((e) => e.querySelector("figcaption").textContent);
  },

  /** Text that is cut by the edge of its chart, or meets its neighbour on an axis. */
  cutText() {
    const wrong = [];
    for (const svg of document.querySelectorAll("figure svg")) {
      const frame = svg.getBoundingClientRect();
      for (const text of svg.querySelectorAll("text")) {
        const box = text.getBoundingClientRect();
        const inside = box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
        if (box.width && !inside) wrong.push(`cut: ${text.textContent}`);
      }
      for (const axis of svg.querySelectorAll('g[data-part$="tick label"]')) {
        const labels = [...axis.querySelectorAll("text")].filter((e) => e.textContent);
        const boxes = labels.map((e) => e.getBoundingClientRect());
        for (let i = 1; i < boxes.length; i++) {
          const [p, q] = [boxes[i - 1], boxes[i]];
          const meets = p.left < q.right && q.left < p.right && p.top < q.bottom - 1 && q.top < p.bottom - 1;
          if (meets) wrong.push(`overlap: ${labels[i - 1].textContent}, ${labels[i].textContent}`);
        }
      }
    }
    return wrong;
  },

  /** Boxes of the graph that overlap, and text that is wider than its box. */
  graph() {
    const wrong = [];
    const boxes = [...document.querySelectorAll(".canvas")].flatMap((canvas, number) =>
      [...canvas.querySelectorAll(".node, .note")].map((g) => {
        const { e: x, f: y } = g.transform.baseVal.consolidate().matrix;
        const rect = g.querySelector("rect").getBBox();
        for (const text of g.querySelectorAll("text")) {
          const at = text.getBBox();
          if (at.x < rect.x - 1 || at.x + at.width > rect.x + rect.width + 1) wrong.push(`too wide: ${text.textContent}`);
        }
        const [left, top] = [x + rect.x, y + rect.y];
        return { number, left, right: left + rect.width, top, bottom: top + rect.height, name: g.textContent };
      }),
    );
    boxes.sort((a, b) => a.number - b.number || a.top - b.top);
    boxes.forEach((a, i) => {
      for (let j = i + 1; j < boxes.length && boxes[j].number === a.number && boxes[j].top < a.bottom; j++) {
        if (a.left < boxes[j].right && boxes[j].left < a.right) wrong.push(`overlap: ${a.name} / ${boxes[j].name}`);
      }
    });
    return wrong;
  },

  /** A page that has to be scrolled sideways. */
  tooWide() {
    const width = document.documentElement.scrollWidth;
    return width <= innerWidth ? [] : [`${width} of ${innerWidth} pixels`];
  },
})
