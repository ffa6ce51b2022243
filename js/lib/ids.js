/**
 * Returns the ids under which the server runs a node: "7", or "3:7" inside subgraph node 3. There are several if the
 * subgraph that holds the node is used several times, and none if it is not used.
 *
 * @param {ComfyNode} node
 */
export function executionIds(node) {
  /** @type {string[]} */
  const ids = [];
  /** @type {(graph: ComfyGraph, prefix: string) => void} */
  const search = (graph, prefix) => {
    if (graph === node.graph) ids.push(prefix + node.id);
    for (const inner of graph.nodes) if (inner.subgraph) search(inner.subgraph, `${prefix}${inner.id}:`);
  };
  if (node.graph) search(node.graph.rootGraph, "");
  return ids;
}

/**
 * Returns the node of an execution id: "7", or "3:7" inside subgraph node 3.
 *
 * @type {(graph: ComfyGraph, id: string) => ComfyNode | null | undefined}
 */
export function nodeAt(graph, id) {
  const [first, ...inner] = id.split(":");
  const node = graph.getNodeById(first) ?? graph.getNodeById(Number(first)); // older editors' ids are numbers
  return inner.length && node ? node.subgraph && nodeAt(node.subgraph, inner.join(":")) : node;
}
