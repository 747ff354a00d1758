// Places for the nodes of a directed graph, from top to bottom. dagre lays out; large graphs are
// given to it in pieces, because its time grows faster than they do.
import { Graph, layout } from "@dagrejs/dagre";

const NODE_GAP = 18;
const RANK_GAP = 34;
const MARGIN = 20;
const COLUMN_GAP = 60;
/** Graphs of more pixels stand in columns, together so many times as wide as they are high. */
const TALL = 2200;
const ASPECT = 1.6;
/** A piece has at least so many nodes, if it can be cut off at all. */
const PIECE = 24;
/** Above so many nodes a piece is laid out with shorter edges only, and in the quicker way. */
const LARGE = 400;
/** How many ranks the edges may span together: so many, and so many more for each node. */
const SPACIOUS = 600;
const ROOMY = [5, 1];

/**
 * nodes: [{ id, width, height }] in an order of execution, edges: [{ from, to, dashed? }]; both ends
 * of an edge are among the nodes. `note(edge)` is asked for a { text, width, height } to stand at the
 * end of an edge that would span too much of the graph: what a whole network reads, a mask for
 * instance, would cover everything with lines.
 *
 * Returns { places: Map of id to { x, y }, lines: [{ from, to, points, dashed }],
 * notes: [{ from, text, width, height, x, y }], width, height }.
 */
export function arrange(nodes, edges, note) {
  const ranks = ranksOf(nodes, edges);
  const order = nodes.map((node, index) => ({ node, index })).sort((a, b) => ranks.get(a.node.id) - ranks.get(b.node.id) || a.index - b.index).map(({ node }) => node);
  let found = null;
  for (const roomy of ROOMY) {
    const { near, far } = apart(edges, ranks, SPACIOUS + roomy * nodes.length);
    found = { far, pieces: cut(order, near) };
    if (Math.max(0, ...found.pieces.map(({ members }) => members.length)) <= LARGE) break;
  }
  const notes = found.far.map((edge) => ({ ...note(edge), ...edge, id: `${edge.from}>${edge.to}` }));
  return stacked(found.pieces, notes);
}

/** The longest way to each node from where the graph begins, edges back of loops apart. What nothing
 * leads to stands right above what reads it first. */
function ranksOf(nodes, edges) {
  const place = new Map(nodes.map((node, index) => [node.id, index]));
  const incoming = new Map(nodes.map((node) => [node.id, []]));
  const ranks = new Map();
  for (const { from, to } of edges) if (place.get(from) < place.get(to)) incoming.get(to).push(from);
  for (const { id } of nodes) ranks.set(id, Math.max(0, ...incoming.get(id).map((from) => ranks.get(from) + 1)));
  const first = new Map();
  for (const { from, to } of edges) first.set(from, Math.min(first.get(from) ?? Infinity, ranks.get(to)));
  for (const { id } of nodes) if (!incoming.get(id).length && first.has(id)) ranks.set(id, Math.max(0, first.get(id) - 1));
  return ranks;
}

/** The edges that span `room` ranks together, the shortest first, and the rest. */
function apart(edges, ranks, room) {
  const spans = edges.map((edge) => ({ edge, span: Math.abs(ranks.get(edge.to) - ranks.get(edge.from)) })).sort((a, b) => a.span - b.span);
  const [near, far] = [[], []];
  for (const { edge, span } of spans) {
    room -= span;
    (room >= 0 || span <= 2 ? near : far).push(edge);
  }
  return { near, far };
}

/** The graph in pieces, one below the other: all edges between a piece and those above it begin at
 * one node, its `anchor` (undefined where there are none). */
function cut(order, edges) {
  const place = new Map(order.map((node, index) => [node.id, index]));
  const last = order.map(() => -1); // where the last edge ends that begins here
  for (const { from, to } of edges) {
    const [a, b] = [place.get(from), place.get(to)].sort((x, y) => x - y);
    last[a] = Math.max(last[a], b);
  }
  const ending = order.map(() => []);
  last.forEach((end, begin) => end > begin && ending[end].push(begin));
  const open = new Set();
  const pieces = [{ anchor: undefined, members: [] }];
  const pieceOf = new Map();
  order.forEach((node, index) => {
    const piece = pieces[pieces.length - 1];
    piece.members.push(node);
    pieceOf.set(node.id, pieces.length - 1);
    for (const begin of ending[index]) open.delete(begin);
    if (last[index] > index) open.add(index);
    if (open.size <= 1 && piece.members.length >= PIECE && index + 1 < order.length) {
      const [anchor] = open;
      pieces.push({ anchor: anchor === undefined ? undefined : order[anchor], members: [] });
    }
  });
  for (const piece of pieces) piece.edges = [];
  for (const edge of edges) pieces[Math.max(pieceOf.get(edge.from), pieceOf.get(edge.to))].edges.push(edge);
  return pieces;
}

function laidOut({ anchor, members, edges }, notes) {
  const graph = new Graph();
  const large = members.length > LARGE;
  graph.setGraph({ ranker: large ? "tight-tree" : "network-simplex", nodesep: NODE_GAP, ranksep: RANK_GAP });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const { id, width, height } of [...(anchor ? [anchor] : []), ...members, ...notes]) graph.setNode(id, { width, height });
  for (const { from, to, dashed } of edges) graph.setEdge(from, to, { dashed });
  for (const { id, from, to } of notes) graph.setEdge(id, to, { dashed: true, source: from });
  layout(graph);
  return graph;
}

/** A piece laid out, its middle at 0, its top at 0: boxes, edges, and where its anchor's twin is. */
function prepared(piece, notes) {
  const ids = new Set(piece.members.map(({ id }) => id));
  const own = notes.filter(({ to }) => ids.has(to));
  const graph = laidOut(piece, own);
  const twin = piece.anchor && graph.node(piece.anchor.id);
  const boxes = [...piece.members, ...own].map((one) => ({ one, isNote: !ids.has(one.id), at: graph.node(one.id) }));
  const left = Math.min(...boxes.map(({ at }) => at.x - at.width / 2));
  const right = Math.max(...boxes.map(({ at }) => at.x + at.width / 2));
  // The rank of the anchor's twin takes the place of the last rank above, unless something else
  // stands in it.
  const first = Math.min(...boxes.map(({ at }) => at.y - at.height / 2));
  const top = twin ? Math.min(first, twin.y + twin.height / 2 + RANK_GAP) : first;
  const bottom = Math.max(...boxes.map(({ at }) => at.y + at.height / 2));
  return { piece, graph, boxes, twin, middle: (left + right) / 2, top, width: right - left, height: bottom - top + RANK_GAP };
}

/** All pieces, each below the one before, in as many columns as make the whole about as wide as a
 * window is. */
function stacked(pieces, notes) {
  const parts = pieces.filter(({ members }) => members.length).map((piece) => prepared(piece, notes));
  const height = parts.reduce((sum, part) => sum + part.height, 0);
  const width = Math.max(0, ...parts.map((part) => part.width)) + COLUMN_GAP;
  const columns = height > TALL ? Math.max(1, Math.round(Math.sqrt((ASPECT * height) / width))) : 1;
  const full = height / columns;
  const [places, lines, placed] = [new Map(), [], []];
  let [column, y, lowest] = [0, 0, 0];
  for (const part of parts) {
    // the column ends where that is nearer to its share than one part later
    const turned = y > 0 && y + part.height / 2 > full && column + 1 < columns;
    if (turned) [column, y] = [column + 1, 0];
    const [dx, dy] = [column * width + width / 2 - part.middle, MARGIN + y - part.top];
    for (const { one, isNote, at } of part.boxes) {
      const place = { x: at.x + dx, y: at.y + dy };
      if (isNote) placed.push({ ...one, ...place });
      else places.set(one.id, place);
    }
    lines.push(...linesOf(part, dx, dy, places, turned ? column * width : null));
    y += part.height;
    lowest = Math.max(lowest, y);
  }
  return { places, lines, notes: placed, width: (column + 1) * width, height: lowest + 2 * MARGIN - RANK_GAP };
}

/** The edges of a part where it stands. Those of its anchor begin where that stands already; from
 * the column before they go up at `border`. */
function linesOf({ piece: { anchor }, graph }, dx, dy, places, border) {
  return graph.edges().map((ends) => {
    const { points, dashed, source } = graph.edge(ends);
    const moved = points.map(({ x, y }) => ({ x: x + dx, y: y + dy }));
    const start = anchor && places.get(anchor.id);
    const foot = start && { x: start.x, y: start.y + anchor.height / 2 };
    const around = foot && border !== null ? [{ x: border, y: foot.y + RANK_GAP / 2 }, { x: border, y: foot.y }, { x: border, y: MARGIN }, { x: border, y: MARGIN / 2 }] : [];
    if (start && ends.v === anchor.id) moved.splice(0, 1, foot, ...around);
    if (start && ends.w === anchor.id) moved.splice(-1, 1, ...around.reverse(), foot);
    return { from: source ?? ends.v, to: ends.w, points: moved, dashed: Boolean(dashed || source) };
  });
}
