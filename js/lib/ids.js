/**
 * The ids under which the server runs a node: "7", or "3:7" inside subgraph node 3. There are several if the subgraph
 * that holds the node is used several times, and none if it is not used.
 */
export function executionIds(node) {
  const found = [];
  const look = (graph, prefix) => {
    if (graph === node.graph) found.push(prefix + node.id);
    for (const inner of graph.nodes) if (inner.subgraph) look(inner.subgraph, `${prefix}${inner.id}:`);
  };
  if (node.graph) look(node.graph.rootGraph, "");
  return found;
}
