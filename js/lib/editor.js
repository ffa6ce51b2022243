import { app } from "../../../scripts/app.js";
import { nodeAt } from "./ids.js";

/**
 * Adapter to ComfyUI's editor, with widgets.js and previews.js. No other module uses `app` or `LiteGraph`; nodes and their
 * widgets, which the editor hands to extensions, are used directly where no function here does more.
 */

// The extension -------------------------------------------------------------------------------------------------------

/** @param {{name: string, [hook: string]: any}} extension */
export const register = (extension) => app.registerExtension(extension);

/** @returns {string} the language of the interface, such as "en" */
export const locale = () => app.extensionManager?.setting.get("Comfy.Locale") ?? "en";

/** @param {string} id */
export const setting = (id) => app.extensionManager?.setting.get(id);

/** Whether a workflow is being loaded: values that change meanwhile are no edits. */
export const loading = () => app.configuringGraph;

/**
 * @param {"info" | "success" | "warn" | "error"} severity
 * @param {string} summary
 * @param {string} [detail]
 */
export function toast(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 10_000 : 4000 });
}

/**
 * @param {string} title
 * @param {string} message
 */
export const confirm = (title, message) => app.extensionManager.dialog.confirm({ title, message });

/**
 * Asks for a text. Resolves to null if the user gives none.
 *
 * @param {string} title
 * @param {string} message
 * @param {string} defaultValue
 */
export const ask = (title, message, defaultValue) =>
  app.extensionManager.dialog.prompt({ title, message, defaultValue });

/**
 * Adds a tab to the sidebar. To be called from an extension's setup().
 *
 * @param {{id: string, icon: string, title: string, label: string}} tab icon: a class of PrimeIcons; label: below it
 * @param {(place: HTMLElement) => (() => void)} mount fills the tab when it is shown; returns the function that undoes it
 */
export function registerTab(tab, mount) {
  /** @type {{place: HTMLElement, unmount: () => void} | null} */
  let shown = null;
  const destroy = () => {
    shown?.unmount();
    shown = null;
  };
  /** @param {HTMLElement} place */
  const render = (place) => {
    if (shown?.place === place) return; // the editor renders the same place again whenever something around it changes
    destroy();
    shown = { place, unmount: mount(place) };
  };
  app.extensionManager.registerSidebarTab({ ...tab, tooltip: tab.title, type: "custom", render, destroy });
}

// The graph -----------------------------------------------------------------------------------------------------------

/** The graph of the whole workflow, whichever subgraph the user looks at. */
export const rootGraph = () => app.rootGraph ?? app.graph.rootGraph ?? app.graph;

/** The graph that the user looks at. */
export const graphInView = () => app.canvas.graph ?? app.graph;

export const nodesInView = () => graphInView().nodes;

/** The workflows of the editor's tabs: their paths, and the open one's object, path and id. */
export const workflows = {
  workflow: () => app.extensionManager?.workflow?.activeWorkflow ?? rootGraph(),
  path: () => app.extensionManager?.workflow?.activeWorkflow?.path ?? "",
  id: () => rootGraph().id,
  /** @returns {string[]} */
  openPaths: () => (app.extensionManager?.workflow?.openWorkflows ?? []).map(({ path }) => path),
};

/**
 * Calls `begin()` when the editor loads a workflow, also for another tab and for an undo, and the function that it returns
 * once its tab is open.
 *
 * @param {() => () => void} begin
 */
export function onLoad(begin) {
  const load = app.loadGraphData;
  /** @param {...any} details */
  app.loadGraphData = async function (...details) {
    const end = begin();
    try {
      return await load.apply(this, details);
    } finally {
      end();
    }
  };
}

/**
 * Makes all changes to the graph within `change` one step of the editor's undo.
 *
 * @template Result
 * @param {() => Result} change
 */
export function undoable(change) {
  app.canvas.emitBeforeChange();
  try {
    return change();
  } finally {
    app.graph.updateExecutionOrder(); // else the next Run numbers the nodes anew, which would be a second step
    app.canvas.emitAfterChange();
  }
}

/**
 * Returns the workflow as the server runs it.
 *
 * @returns {Promise<{output: Record<string, any>, workflow: object}>}
 */
export const graphToPrompt = () => app.graphToPrompt();

/** @returns {ComfyNode[]} the nodes that the user has selected */
export const selectedNodes = () => Object.values(app.canvas.selected_nodes ?? {});

/** Queues the workflow, as Run does. */
export const queue = () => app.queuePrompt(0);

export const redraw = () => app.graph.setDirtyCanvas(true, true);

/**
 * Selects nodes and scrolls the canvas to the first.
 *
 * @param {ComfyNode[]} nodes
 */
export function showNodes(nodes) {
  app.canvas.selectNodes(nodes);
  app.canvas.centerOnNode(nodes[0]);
  redraw();
}

/**
 * Shows a node in the middle of the canvas, after opening its tab and its subgraph.
 *
 * @param {string} id the node's execution id
 * @param {string} path of the workflow in its tab
 * @returns {Promise<boolean>} whether there still is such a node
 */
export async function showNodeOf(id, path) {
  const { workflow, command } = app.extensionManager;
  for (let tabs = workflow?.openWorkflows.length ?? 0; tabs > 0 && workflows.path() !== path; tabs--)
    await command.execute("Workspace.NextOpenedWorkflow");
  const node = workflows.path() === path ? nodeAt(rootGraph(), id) : null;
  if (!node) return false;
  if (node.graph !== graphInView()) openGraph(node.graph, id);
  showNodes([node]);
  return true;
}

/** @type {(graph: ComfyGraph, id: string) => void} */
function openGraph(graph, id) {
  const holder = nodeAt(rootGraph(), id.split(":").slice(0, -1).join(":"));
  if (holder) app.canvas.openSubgraph?.(graph, holder);
  else app.canvas.setGraph?.(graph);
}

/**
 * Hands a wheel event that an element on a node received to the canvas.
 *
 * @param {WheelEvent} event
 */
export const wheelCanvas = (event) => app.canvas.processMouseWheel(event);

// Nodes ---------------------------------------------------------------------------------------------------------------

/**
 * Adds a node: in the graph of `neighbour` and to its left, or in the middle of the view.
 *
 * @param {string} type
 * @param {ComfyNode | null} [neighbour]
 * @param {(wanted: Box) => [number, number]} [place] takes the box that the node would have, and returns its position
 */
export function addNode(type, neighbour, place = ([x, y]) => [x, y]) {
  const node = LiteGraph.createNode(type);
  const [x, y, width, height] = Array.from(app.canvas.ds.visible_area ?? [0, 0, 800, 600]);
  const [left, top] = neighbour
    ? [neighbour.pos[0] - node.size[0] - 60, neighbour.pos[1]]
    : [x + (width - node.size[0]) / 2, y + (height - node.size[1]) / 2];
  // before it is added: Nodes 2.0 of an older editor keeps the position that a node had then
  node.pos = place([left, top, node.size[0], node.size[1]]);
  (neighbour?.graph ?? graphInView()).add(node);
  redraw();
  return node;
}

/**
 * The output that an input is wired to, or null.
 *
 * @param {ComfyNode} node
 * @param {string} input
 * @returns {Origin | null}
 */
export function originOf(node, input) {
  const slot = node.inputs?.findIndex(({ name }) => name === input) ?? -1;
  const link = slot < 0 ? null : node.getInputLink?.(slot);
  const origin = link ? node.graph.getNodeById(link.origin_id) : null;
  return link && origin ? { node: origin, slot: link.origin_slot } : null;
}

/**
 * The nodes that an output is wired to, once for each wire.
 *
 * @param {Origin} origin
 * @returns {ComfyNode[]}
 */
export const targetsOf = ({ node, slot }) => node.getOutputNodes?.(slot) ?? [];

/**
 * Wires an output, given by its number, to an input.
 *
 * @param {ComfyNode} from
 * @param {number} slot
 * @param {ComfyNode} to
 * @param {string} input
 */
export function connect(from, slot, to, input) {
  const target = to.inputs.findIndex(({ name }) => name === input);
  from.connect(slot, to, target);
}

/**
 * Makes a new node at least this wide and high. A loaded one gets its own size afterwards.
 *
 * @param {ComfyNode} node
 * @param {[number, number]} size
 */
export const growTo = (node, [width, height]) =>
  node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])]);

/**
 * Runs `then` after a method of one node or widget that the editor calls.
 *
 * @param {ComfyNode | ComfyWidget} target
 * @param {string} name
 * @param {(...details: any[]) => void} then
 */
export function after(target, name, then) {
  const methods = /** @type {Record<string, any>} */ (target);
  const before = methods[name];
  /** @param {...any} details */
  methods[name] = function (...details) {
    const result = before?.apply(this, details);
    then(...details);
    return result;
  };
}
