import { app } from "../../../scripts/app.js";
import { make } from "./dom.js";
import { nodeAt } from "./ids.js";

/**
 * Adapter to ComfyUI's editor. No other module uses `app` or `LiteGraph`; nodes and their widgets, which the editor
 * hands to extensions, are used directly where no function here does more.
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
const graphInView = () => app.canvas.graph ?? app.graph;

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

/** Queues the workflow, as Run does. */
export const queue = () => app.queuePrompt(0);

const redraw = () => app.graph.setDirtyCanvas(true, true);

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

// Widgets -------------------------------------------------------------------------------------------------------------

/**
 * @param {ComfyNode} node
 * @param {string} name
 */
export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/**
 * Sets a widget's value as a user does.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {unknown} value
 */
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  widget.value = value;
  widget.callback?.(value, app.canvas, node); // Nodes 2.0 draws the value that the callback gets
  redraw();
}

/** Labels of widgets as they were before `setLabel`. @type {WeakMap<ComfyWidget, string | undefined>} */
const labels = new WeakMap();

/**
 * Sets the label of a widget, which no workflow keeps.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {string | null} label null: the one that it had
 */
export function setLabel(node, name, label) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  if (!labels.has(widget)) labels.set(widget, widget.label);
  const wanted = label ?? labels.get(widget);
  if (widget.label === wanted) return;
  widget.label = wanted;
  redraw();
}

/**
 * Lets a node's list offer a value that the server did not know when it made the list.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {string} value
 */
export function offerValue(node, name, value) {
  const options = widgetOf(node, name)?.options;
  if (Array.isArray(options?.values) && !options.values.includes(value)) options.values = [value, ...options.values];
}

/** Pixels that the classic canvas leaves above and below an element, together. */
export const MARGIN = 20;

/**
 * Adds a widget that is drawn by its own element, alike in the classic canvas and in Nodes 2.0. Neither prompts nor saved
 * workflows hold it. The element goes away with its node.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {() => number} height in pixels, at least, with the editor's margin
 */
export function addElement(node, name, element, height) {
  // an older editor lets a new element stick out to the right, and in Nodes 2.0 gives it no height of its own
  const minHeight = `${Math.max(0, height() - MARGIN)}px`;
  Object.assign(element.style, { boxSizing: "border-box", minWidth: 0, minHeight, overflow: "hidden" });
  const widget = node.addDOMWidget(name, `sf_${name}`, element, {
    serialize: false, // not in prompts
    hideOnZoom: false,
    hideInPanel: true, // a newer editor lists a node's widgets in a panel too, where the element could not be shown
    getMinHeight: height,
  });
  widget.serialize = false; // not in saved workflows
  keepPlace(node, name, element);
  growTo(node, node.computeSize()); // the classic canvas leaves a new node as high as it was without the element
}

/**
 * Lets subgraphs show a node's previews outside, as they do for a node that has a widget of such a name.
 *
 * @param {ComfyNode} node
 */
export function offerPreview(node) {
  const options = { serialize: false, hidden: true, canvasOnly: true };
  const widget = { name: "$$sf-preview", type: "sf_preview", value: "", options, hidden: true, serialize: false };
  node.addCustomWidget?.({ ...widget, draw: () => {}, computeSize: () => [0, -4] }); // -4: the gap below it
}

/** CSS for Nodes 2.0, which draws a node's preview in its body: the player shows more. */
const NO_PREVIEW = `
[data-testid^="node-body-"]:has(.sf-player) > img, [data-testid^="node-body-"]:has(.sf-player) > img + div { display: none; }
`;

/** Adds the CSS that nodes with a player need outside of it. */
export const hidePreviews = () => document.head.append(make("style", { textContent: NO_PREVIEW }));

/**
 * Removes the preview from a node whose player is on the screen again: the server sent it while it was not.
 *
 * @param {ComfyNode} node
 */
export function removePreview(node) {
  for (const key of [`${node.id}`, `${node.graph.id}:${node.id}`]) delete app.nodePreviewImages?.[key];
  if (!node.imgs) return;
  node.imgs = undefined;
  removeWidget(node, "$$canvas-image-preview");
  redraw();
}

/** Parents of elements whose nodes were removed a moment ago. @type {Map<string, HTMLElement | null>} */
const parents = new Map();

/**
 * Removes an element with its node. Undo makes all nodes anew under their old ids; Nodes 2.0 then keeps the parent of each
 * element and leaves it as it was, so the new element is put into the parent of the old one.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {HTMLElement} element
 */
function keepPlace(node, name, element) {
  const key = () => `${node.id} ${name}`;
  after(node, "onRemoved", () => {
    const [id, parent] = [key(), element.parentElement];
    element.remove();
    parents.set(id, parent);
    setTimeout(() => parents.get(id) === parent && parents.delete(id), 1000);
  });
  const restore = () => {
    const parent = parents.get(key());
    if (!parent) return;
    const put = () => element.isConnected || !parent.isConnected || parent.firstChild || parent.append(element);
    requestAnimationFrame(() => requestAnimationFrame(put)); // after the editor has drawn its own elements
  };
  restore(); // an element may be added to a node that has its id already
  after(node, "onConfigure", restore);
}

/**
 * Whether the user can see the element of a node's widget, at least after moving the canvas: it is not in a subgraph that
 * is closed, nor behind App mode unless it is a part of the app.
 *
 * @param {ComfyNode} node
 * @param {string} name
 */
export function isOnScreen(node, name) {
  if (widgetOf(node, name)?.element?.checkVisibility()) return true;
  return node.graph === graphInView() && Boolean(app.canvas.canvas?.checkVisibility());
}

/**
 * Removes the text that ComfyUI shows on a node while it runs. Some editors keep it after the run, others do not.
 *
 * @param {ComfyNode} node
 */
export const removeProgressText = (node) => removeWidget(node, "$$node-text-preview");

/** @type {(node: ComfyNode, name: string) => void} */
function removeWidget(node, name) {
  const at = node.widgets?.findIndex((widget) => widget.name === name) ?? -1;
  if (at < 0) return;
  node.widgets?.[at].onRemove?.();
  node.widgets?.splice(at, 1);
}

/**
 * Lets Run send the value of a text widget with %date:...% and %Node.widget% replaced, as the editor does it for the file
 * names of ComfyUI's own classes.
 *
 * @param {ComfyNode} node
 * @param {string} name
 */
export function replacePatterns(node, name) {
  const widget = widgetOf(node, name);
  const replace = window.comfyAPI?.utils?.applyTextReplacements;
  if (!widget || !replace) return;
  widget.serializeValue = () => (typeof widget.value === "string" ? replace(app, widget.value) : widget.value);
}
