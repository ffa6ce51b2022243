import * as editor from "../lib/editor.js";
import { freePlace } from "../lib/free_place.js";
import { factsOf, fill, isNews, keyOf, nameToKeep, soleOrigin, titleOf } from "./model.js";
import { words } from "../lib/i18n.js";

const PATH = "/self_forcing/sessions";
const AGAIN = 2000; // milliseconds between two looks while something is live
const GAP = 80; // between new nodes and others; Nodes 2.0 draws them larger than they say they are
const ENDS = ["execution_success", "execution_error", "execution_interrupted"];

const STYLE = `
.sf-sessions { height: 100%; box-sizing: border-box; display: flex; flex-direction: column; color: var(--input-text, #ddd);
  background: var(--comfy-menu-bg, #353535); font: 13px/1.4 sans-serif; }
.sf-sessions header { display: flex; align-items: center; gap: 8px; padding: 10px 12px; }
.sf-sessions h2 { flex: 1; margin: 0; font-size: 15px; font-weight: 600; }
.sf-sessions ul { flex: 1; overflow-y: auto; margin: 0; padding: 0 12px 12px; list-style: none; }
.sf-sessions li { display: grid; grid-template-columns: 84px minmax(0, 1fr); gap: 8px 10px; margin-bottom: 10px; padding: 8px;
  background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e); border-radius: 8px; }
.sf-sessions li > img, .sf-sessions li > i { width: 84px; height: 64px; border-radius: 4px; object-fit: contain;
  background: var(--comfy-menu-bg, #353535); }
.sf-sessions li > i { display: grid; place-items: center; font-size: 22px; color: var(--descrip-text, #999); }
.sf-sessions [hidden] { display: none !important; }
.sf-sessions b { overflow-wrap: anywhere; margin-right: 6px; }
.sf-sessions .sf-kind { font-size: 11px; padding: 0 6px; border: 1px solid currentColor; border-radius: 9px; white-space: nowrap; }
.sf-sessions .sf-live { color: var(--p-green-500, #3a3); }
.sf-sessions .sf-damaged { color: var(--error-text, #e55); }
.sf-sessions .sf-fact { color: var(--descrip-text, #999); font-size: 12px; overflow-wrap: anywhere; }
.sf-sessions .sf-buttons { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: 5px; }
.sf-sessions button { padding: 2px 7px; font: inherit; font-size: 12px; cursor: pointer; color: var(--input-text, #ddd);
  background: var(--comfy-menu-bg, #353535); border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; }
.sf-sessions button:hover:enabled { border-color: var(--input-text, #ddd); }
.sf-sessions button:focus-visible { outline: 2px solid var(--p-primary-color, #4a9eff); outline-offset: 1px; }
.sf-sessions button:disabled { opacity: 0.5; cursor: default; }
.sf-sessions p { margin: 0; padding: 0 12px 12px; color: var(--descrip-text, #999); }
`;

/** Adds the tab of sessions to the sidebar. To be called from the extension's setup(). */
export function addSessionsPanel() {
  const { sessionsTitle } = words(editor.locale());
  editor.registerTab({ id: "self-forcing-sessions", icon: "pi pi-video", title: sessionsTitle }, mountSessions);
}

/** Fills `place` with the sessions, and keeps them up to date until the function that it returns is called. */
export function mountSessions(place) {
  const said = words(editor.locale());
  const cards = new Map(); // by keyOf
  let entries = [];
  let timer = 0;
  let asking = null; // the request under way
  let askAgain = false;
  let gone = false;

  const list = make("ul");
  const note = make("p", { role: "status" });
  const button = make("button", { type: "button", title: said.sessionsRefresh, ariaLabel: said.sessionsRefresh });
  button.append(make("span", { className: "pi pi-refresh" }));
  button.addEventListener("click", () => refresh());
  const header = make("header", {}, make("h2", { textContent: said.sessionsTitle }), button);
  const root = make("section", { className: "sf-sessions", ariaLabel: said.sessionsTitle });
  root.append(make("style", { textContent: STYLE }), header, note, list);
  place.replaceChildren(root);

  /** Asks the server; one request at a time, and once more if it is called meanwhile. */
  async function refresh() {
    askAgain = asking != null;
    asking ??= ask().finally(() => {
      asking = null;
      if (askAgain && !gone) refresh();
    });
    return asking;
  }

  async function ask() {
    clearTimeout(timer);
    try {
      const { sessions } = await editor.get(PATH);
      if (gone) return;
      entries = sessions;
      draw();
      say(entries.length ? "" : said.sessionsEmpty);
    } catch (error) {
      if (!gone) say(fill(said.sessionsFailed, { why: error.message }));
    }
    if (!gone && entries.some(({ kind }) => kind === "live")) timer = setTimeout(look, AGAIN);
  }

  function look() {
    if (document.hidden) timer = setTimeout(look, AGAIN);
    else refresh();
  }

  function say(text) {
    if (note.textContent !== text) note.textContent = text; // it is read aloud
    note.hidden = !text;
  }

  /** Cards that stay are not moved, so that the focus stays where it is. */
  function draw() {
    const keys = new Set(entries.map(keyOf));
    for (const [key, card] of cards) {
      if (keys.has(key)) continue;
      if (card.element.contains(document.activeElement)) button.focus();
      card.element.remove();
      cards.delete(key);
    }
    let next = list.firstChild;
    for (const entry of entries) {
      const key = keyOf(entry);
      if (!cards.has(key)) cards.set(key, makeCard(said, refresh));
      const { element, show } = cards.get(key);
      show(entry);
      if (element === next) next = next.nextSibling;
      else list.insertBefore(element, next);
    }
  }

  const deaf = [
    editor.listen("self_forcing.run", (state) => isNews(state, entries) && refresh()),
    ...ENDS.map((type) => editor.listen(type, () => refresh())), // Save Session comes after the run
  ];
  refresh();
  return () => {
    gone = true;
    clearTimeout(timer);
    for (const stop of deaf) stop();
    root.remove();
  };
}

/** One session: `element`, and `show(entry)`, which may be called again as the session grows. */
function makeCard(said, refresh) {
  const picture = make("img", { alt: "", loading: "lazy", hidden: true });
  const placeholder = make("i", { className: "pi pi-video", ariaHidden: "true" });
  picture.addEventListener("error", () => showPicture(false));
  const name = make("b");
  const kind = make("span");
  const facts = make("div");
  const buttons = make("div", { className: "sf-buttons" });
  const element = make("li", {}, picture, placeholder, make("div", {}, make("div", {}, name, kind), facts), buttons);
  let entry = null;

  function showPicture(shown) {
    picture.hidden = !shown;
    placeholder.hidden = shown;
  }

  function show(newer) {
    const first = entry === null;
    const source = newer.picture == null ? "" : editor.url(newer.picture);
    if (source && source !== (entry?.picture && editor.url(entry.picture))) {
      picture.src = source;
      showPicture(true);
    }
    entry = newer;
    const which = entry.error != null ? "Damaged" : entry.kind[0].toUpperCase() + entry.kind.slice(1);
    name.textContent = element.ariaLabel = titleOf(entry, said);
    kind.textContent = said[`sessions${which}`];
    kind.className = `sf-kind sf-${which.toLowerCase()}`;
    facts.replaceChildren(
      ...factsOf(entry, said, editor.locale()).map((line) => make("div", { className: "sf-fact", textContent: line })),
    );
    if (first) for (const action of actionsFor(entry)) buttons.append(makeButton(action));
  }

  function makeButton(action) {
    const label = said[`sessions${action}`];
    const button = make("button", { type: "button", textContent: label, title: said[`sessions${action}Tooltip`] });
    button.ariaLabel = `${label}: ${titleOf(entry, said)}`;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await ACTIONS[action](entry, said, refresh);
      } catch (error) {
        editor.toast("error", said.sessionsRefused, error.message);
      }
      button.disabled = false;
    });
    return button;
  }

  return { element, show };
}

const actionsFor = (entry) => {
  if (entry.kind === "live") return ["Fork"];
  return entry.error == null ? ["Continue", "Load", "Delete"] : ["Delete"];
};

/** What a card's buttons do, by the end of the name of their words. */
const ACTIONS = {
  Load: ({ name }, said) => added([addLoader(name)], said),
  Continue: ({ name }, said) => {
    const loader = addLoader(name);
    added([loader, addStream(loader)], said);
  },
  async Fork(entry, said, refresh) {
    const { name } = await editor.post(`${PATH}/keep`, { node_id: entry.node_id, name: nameToKeep(entry) });
    editor.toast("success", fill(said.sessionsKept, { name }));
    added([addLoader(name)], said);
    refresh();
  },
  async Delete(entry, said, refresh) {
    const title = titleOf(entry, said);
    if (!(await editor.confirm(said.sessionsDeleteTitle, fill(said.sessionsDeleteAsk, { name: title })))) return;
    try {
      await editor.post(`${PATH}/delete`, { name: entry.name });
      editor.toast("success", fill(said.sessionsDeleted, { name: title }));
    } finally {
      await refresh();
    }
  },
};

function added(nodes, said) {
  editor.showNodes(nodes);
  const wired = editor.originOf(nodes[0], "model");
  editor.toast("info", said.sessionsAdded, wired ? "" : said.sessionsWireModel);
}

/** Load Session with a file, where nothing else is. */
function addLoader(name) {
  const others = [...editor.nodesInView()];
  const boxes = others.map((node) => [...node.pos, ...node.size]);
  const loader = editor.addNode("SFLoadSession", null, ([x, y, width, height]) =>
    freePlace([x, y, 2 * width + GAP, 2 * height], boxes, GAP), // also for what goes on with it
  );
  editor.offerValue(loader, "file", name);
  editor.setWidget(loader, "file", name);
  wire(loader, "model", others);
  return loader;
}

/** Stream Video that goes on with what a Load Session node gives. */
function addStream(loader) {
  const others = editor.nodesInView().filter((node) => node !== loader);
  const stream = editor.addNode("SFStreamVideo", loader, () => [loader.pos[0] + loader.size[0] + GAP, loader.pos[1]]);
  editor.connect(loader, 0, stream, "session");
  for (const input of ["vae", "clip"]) wire(stream, input, others);
  return stream;
}

/** Wires an input where the graph leaves no choice; else it is the user's. */
function wire(node, input, others) {
  const origin = soleOrigin(others, input, editor.originOf);
  if (origin && node.inputs.some((one) => one.name === input)) editor.connect(origin.node, origin.slot, node, input);
}

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
