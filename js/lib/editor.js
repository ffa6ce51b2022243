import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

/**
 * ComfyUI's editor as the pack uses it. No other module touches `app`, `api` or LiteGraph, so what an update of the
 * editor changes is mended here.
 */

// What the server says ------------------------------------------------------------------------------------------------

/** Calls `then(data)` for each message of a type; returns what ends that. */
export function listen(type, then) {
  const heard = ({ detail }) => then(detail);
  api.addEventListener(type, heard);
  return () => api.removeEventListener(type, heard);
}

/** Resolves to the name under which the server sends to this page, once it has said it. */
export const clientId = () =>
  new Promise((then) => {
    if (api.clientId) return then(api.clientId);
    const stop = listen("status", () => {
      if (!api.clientId) return;
      stop();
      then(api.clientId);
    });
  });

export const url = (path) => api.apiURL(path);

/** The address of a file that the server names as {filename, subfolder, type}. */
export const fileUrl = ({ filename, subfolder, type }) => url(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

export const get = (path) => ask(path, { cache: "no-store" });

export const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** The answer's JSON. Throws an Error with what the server says is wrong, and its `status`. */
async function ask(path, options) {
  const answer = await api.fetchApi(path, options);
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw Object.assign(new Error(body.error ?? answer.statusText), { status: answer.status });
}

// What the user sees --------------------------------------------------------------------------------------------------

export const locale = () => app.extensionManager?.setting.get("Comfy.Locale") ?? "en";

export const setting = (id) => app.extensionManager?.setting.get(id);

/** severity: "info", "success", "warn" or "error". */
export function toast(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 10_000 : 4000 });
}

export const confirm = (title, message) => app.extensionManager.dialog.confirm({ title, message });

/** Whether a workflow is being loaded, whose values are nobody's edits. */
export const loading = () => app.configuringGraph;

// Nodes ---------------------------------------------------------------------------------------------------------------

/** Runs `then` after a method that the editor calls on this one node. */
export function after(node, name, then) {
  const before = node[name];
  node[name] = function (...details) {
    const result = before?.apply(this, details);
    then(...details);
    return result;
  };
}

/**
 * A widget that is drawn by its own element, alike in the classic canvas and in Nodes 2.0. It takes no part in what Run
 * sends, nor in saved workflows.
 */
export function addElement(node, name, element, height) {
  // an older editor lets a fresh element stick out to the right
  Object.assign(element.style, { boxSizing: "border-box", minWidth: 0, overflow: "hidden" });
  const widget = node.addDOMWidget(name, `sf_${name}`, element, {
    serialize: false, // not in what Run sends
    hideOnZoom: false,
    hideInPanel: true, // beside the canvas, where a newer editor lists a node's widgets, its element could not be shown
    getMinHeight: () => (typeof height === "function" ? height() : height),
  });
  widget.serialize = false; // nor in the saved workflow
  return widget;
}

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/** Sets a widget's value as a user does. */
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  widget.value = value;
  widget.callback?.(value, app.canvas, node); // Nodes 2.0 draws what the callback is told
  redraw();
}

export const redraw = () => app.graph.setDirtyCanvas(true, true);

/** The node that an input is wired to and the number of its output, or null. */
export function originOf(node, input) {
  const slot = node.inputs?.findIndex((one) => one.name === input) ?? -1;
  const link = slot < 0 ? null : node.getInputLink?.(slot);
  const origin = link ? node.graph.getNodeById(link.origin_id) : null;
  return origin ? { node: origin, slot: link.origin_slot } : null;
}

/** Wires output number `slot` of `from` to an input of `to`. */
export function connect(from, slot, to, input) {
  from.connect(
    slot,
    to,
    to.inputs.findIndex((one) => one.name === input),
  );
}

/**
 * A new node, in the graph of `beside` and to its left, or in the middle of what the user sees.
 * @param place takes that box, [x, y, width, height], and returns where the node really goes
 */
export function addNode(type, beside, place = ([x, y]) => [x, y]) {
  const node = LiteGraph.createNode(type);
  const [x, y, width, height] = app.canvas.ds.visible_area ?? [0, 0, 800, 600];
  const wanted = beside
    ? [beside.pos[0] - node.size[0] - 60, beside.pos[1]]
    : [x + (width - node.size[0]) / 2, y + (height - node.size[1]) / 2];
  node.pos = place([...wanted, ...node.size]); // at once: an older editor's Nodes 2.0 keeps where it was when added
  (beside?.graph ?? app.canvas.graph ?? app.graph).add(node);
  redraw();
  return node;
}

/** The nodes of the graph that the user sees. */
export const nodesInView = () => (app.canvas.graph ?? app.graph).nodes;

/** Selects nodes and moves them into what the user sees. */
export function showNodes(nodes) {
  app.canvas.selectNodes(nodes);
  app.canvas.centerOnNode(nodes[0]);
  redraw();
}

/** Lets a node's list offer a value that came after the list was made. */
export function offerValue(node, name, value) {
  const options = widgetOf(node, name)?.options;
  if (Array.isArray(options?.values) && !options.values.includes(value)) options.values = [value, ...options.values];
}

// Beside the canvas ---------------------------------------------------------------------------------------------------

/**
 * A tab in the sidebar. To be called from an extension's setup().
 *
 * @param tab {{id, icon, title}} icon: a class of PrimeIcons
 * @param mount {(place: HTMLElement) => (() => void)} fills the tab when it is shown; returns what undoes that
 */
export function registerTab(tab, mount) {
  let shown = null; // {place, unmount}
  const destroy = () => {
    shown?.unmount();
    shown = null;
  };
  const render = (place) => {
    if (shown?.place === place) return; // the editor draws the same place again whenever something around it changes
    destroy();
    shown = { place, unmount: mount(place) };
  };
  app.extensionManager.registerSidebarTab({ ...tab, tooltip: tab.title, type: "custom", render, destroy });
}

// What the player needs -----------------------------------------------------------------------------------------------

/** Tells the editor of an extension: {name, nodeCreated(node), ...}. */
export const register = (extension) => app.registerExtension(extension);

/** A picture that the server answers with, as a Blob. Throws an Error if it has none. */
export async function picture(path) {
  const answer = await api.fetchApi(path, { cache: "no-store" });
  if (!answer.ok) throw Object.assign(new Error(answer.statusText), { status: answer.status });
  return answer.blob();
}

/** Lets the user's browser keep a Blob as a file. */
export function saveAs(blob, filename) {
  const href = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href, download: filename }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000); // not before the download has begun
}

/** The name of the workflow that a node is in, which it keeps when it is saved; undefined for a node without a graph. */
export const workflowOf = (node) => node.graph?.rootGraph.id;

/** Makes all that `change` does to the graph one step of the editor's undo. */
export function undoable(change) {
  app.canvas.emitBeforeChange();
  try {
    return change();
  } finally {
    app.canvas.emitAfterChange();
  }
}

/** Gives the canvas a turn of the wheel that an element on a node got. */
export const wheelCanvas = (event) => app.canvas.processMouseWheel(event);

/** The whole workflow's graph, whichever subgraph the user is in. */
export const rootGraph = () => app.rootGraph ?? app.graph.rootGraph ?? app.graph;

const places = new Map(); // of elements whose nodes were removed a moment ago

/**
 * Takes an element of addElement away with its node. Undo makes all nodes anew under their old ids; Nodes 2.0 then keeps
 * the place of each element and leaves it as it was, so the new element is put where the old one had been.
 */
export function keepPlace(node, name, element) {
  const key = () => `${node.id} ${name}`;
  after(node, "onRemoved", () => {
    const [id, place] = [key(), element.parentElement];
    element.remove();
    places.set(id, place);
    setTimeout(() => places.get(id) === place && places.delete(id), 1000);
  });
  after(node, "onConfigure", () => {
    const place = places.get(key());
    const put = () => element.isConnected || !place.isConnected || place.firstChild || place.append(element);
    if (place) requestAnimationFrame(() => requestAnimationFrame(put)); // when the editor has drawn what it draws itself
  });
}

/** Makes a new node at least so wide and high; a loaded one gets its own size afterwards. */
export const growTo = (node, size) => node.setSize(size.map((least, at) => Math.max(least, node.size[at])));
