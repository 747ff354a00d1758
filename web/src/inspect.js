// The page of `penstock inspect --html`.
import { facts, pageData, section, show } from "./components/dom.js";
import { bytes } from "./components/format.js";
import { explorer } from "./components/explorer.js";
import { treemap } from "./components/treemap.js";

const data = pageData();
show(facts([["File", data.path ?? ""], ["Size", bytes(data.bytes)]]));
for (const graph of data.graphs ?? []) {
  show(section(graph.name, explorer({ ...graph, details: (node) => ({ title: node.label, content: [] }) }).element));
}
if (data.constants) show(section("Constants", treemap({ title: "Constants by size", rows: data.constants, format: bytes })));
