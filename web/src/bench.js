// The page of `penstock bench --html`.
import { axisX, axisY, dot, gridX, link, plot, ruleX } from "@observablehq/plot";

import { bars } from "./components/bars.js";
import { facts, h, pageData, section, show } from "./components/dom.js";
import { figure } from "./components/figure.js";
import { bytes, count, decibels, number, seconds, toNumber } from "./components/format.js";
import { table } from "./components/table.js";

const PRECISIONS = { float: "fp32", "static int8": "int8", "dynamic int8": "int8, dynamic" };
const ROW = 30;
const milliseconds = (value) => seconds(toNumber(value) / 1e3);
const megabytes = (value) => (value === null ? "–" : bytes(value * 1e6));
const times = (value) => `${number(value)} ×`;

const data = pageData();
const rows = data.rows.map((row) => ({
  ...row,
  precision: PRECISIONS[row.precision] ?? row.precision,
  // the file last: on a phone the end is cut, and what stays still tells the rows apart
  name: `${row.title} ${PRECISIONS[row.precision] ?? row.precision}, ${row.file}`,
  tone: row.runtime.startsWith("penstock") ? "var(--bar)" : "var(--second)",
}));
const threads = [...new Set(rows.map((row) => row.threads))];
const plural = (n) => `${n} thread${n > 1 ? "s" : ""}`;

function ratios(of) {
  const timed = of.filter((row) => row.ratio);
  const draw = (width) => {
    const letters = Math.floor((width * 0.42) / 7);
    const named = timed.map((row, key) => ({
      ...row, ...row.ratio, key,
      label: row.name.length <= letters ? row.name : `${row.name.slice(0, letters - 1)}…`,
    }));
    const left = Math.max(40, ...named.map((row) => row.label.length * 7.6 + 14));
    return plot({
      width, height: named.length * ROW + 56, marginLeft: left, marginRight: 30, marginTop: 8, marginBottom: 44,
      x: { label: null, domain: [0, Math.max(1, ...named.map((row) => row.high)) * 1.05] },
      y: { type: "band", domain: named.map((row) => row.key), label: null },
      color: { type: "identity" },
      marks: [
        gridX({ strokeOpacity: 0.15 }),
        ruleX([1], { stroke: "currentColor", strokeDasharray: "4 3" }),
        axisX({ ticks: Math.max(2, Math.floor(width / 160)), tickFormat: times, label: "time over the first row's" }),
        axisY({ tickFormat: (key) => named[key].label, tickSize: 0 }),
        link(named, { x1: "low", x2: "high", y1: "key", y2: "key", stroke: "tone", strokeWidth: 6, strokeOpacity: 0.35, strokeLinecap: "round" }),
        dot(named, { x: "median", y: "key", fill: "tone", r: 5, title: (row) => `${row.name}\n${times(row.median)} (${times(row.low)} to ${times(row.high)})`, tip: true }),
      ],
    });
  };
  const spread = (row) => `${number(row.ratio.median)} (${number(row.ratio.low)} to ${number(row.ratio.high)})`;
  return figure({
    title: "Ratio: median and quartiles of the turns",
    draw,
    rows: timed,
    columns: [
      { title: "Runtime and file", value: (row) => row.name },
      { title: "Ratio", value: (row) => row.ratio.median, text: spread, number: true },
    ],
    summary: `Time of each over that of ${timed[0]?.name}; the table below has the numbers`,
  });
}

function measured(of) {
  const columns = [
    { title: "Runtime", value: (row) => row.title },
    { title: "File", value: (row) => row.file },
    { title: "Precision", value: (row) => row.precision },
    { title: "Best", value: (row) => row.best_ms, text: (row) => (row.error ? "fails" : milliseconds(row.best_ms)), number: true },
    { title: "Median", value: (row) => row.times_ms?.median, text: (row) => (row.times_ms ? milliseconds(row.times_ms.median) : "–"), number: true },
    { title: "Ratio", value: (row) => row.ratio?.median, text: (row) => number(row.ratio?.median), number: true },
    { title: "Load", value: (row) => row.load_ms, text: (row) => milliseconds(row.load_ms), number: true },
    { title: "Memory", value: (row) => row.growth_mb, text: (row) => megabytes(row.growth_mb), number: true },
    { title: "Process", value: (row) => row.peak_mb, text: (row) => megabytes(row.peak_mb), number: true },
    ...(of.some((row) => row.sqnr_db !== null)
      ? [{ title: "SQNR", value: (row) => toNumber(row.sqnr_db), text: (row) => decibels(row.sqnr_db), number: true }]
      : []),
  ];
  return table({ columns, rows: of, caption: "All figures", label: `All figures, ${plural(of[0].threads)}`, tall: false });
}

const lines = [...(data.notices ?? []), ...data.warnings];
show(
  facts([
    ["Processor", data.machine.processor],
    ["Date", data.machine.date],
    ["Turns of each launch", `${number(data.seconds)} s, ${count(data.launches)} launch${data.launches > 1 ? "es" : ""}`],
    ["Versions", data.machine.versions],
  ]),
  lines.length > 0 && section("Mind", h("ul", {}, lines.map((line) => h("li", {}, line)))),
);
for (const number_ of threads) {
  const of = rows.filter((row) => row.threads === number_);
  const failed = of.filter((row) => row.error);
  show(
    section(
      plural(number_),
      ratios(of),
      bars({
        title: "Best run",
        rows: of.filter((row) => row.best_ms !== null).map((row) => ({ name: row.name, value: row.best_ms, tone: row.tone })),
        format: milliseconds,
        measure: "Time",
      }),
      measured(of),
      failed.length > 0 && h("ul", {}, failed.map((row) => h("li", {}, `${row.name} fails: ${row.error}`))),
      h("p", { class: "muted" }, "Load: from the file to the first answer. Memory: what that adds to the process’s peak. SQNR: against eager PyTorch, of the worst output on the worst sample."),
    ),
  );
}
