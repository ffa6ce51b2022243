import { make } from "../lib/dom.js";
import * as editor from "../lib/editor.js";
import { translator } from "../lib/i18n.js";
import { isState } from "../lib/messages.js";
import { get, getBlob, listen, post, url } from "../lib/server.js";
import { continueInNewNodes, hasModel, loadSession } from "./continue.js";
import { factsOf, isNews, keyOf, kindOf, nameToKeep, titleOf } from "./model.js";
import { STYLE } from "./style.js";

/**
 * @typedef {import("./model.js").Entry} Entry
 * @typedef {{element: HTMLElement, show: (entry: Entry) => void, remove: () => void}} Card
 * @typedef {{tooltip: TextKey, label: TextKey, run: (entry: Entry, t: Translate, refresh: () => Promise<void>) => unknown}}
 *   Action of a button on a card
 */

const PATH = "/self_forcing/sessions";
const REFRESH = 2000; // milliseconds between two requests while something is live
const ENDS = ["execution_success", "execution_error", "execution_interrupted"];

/** @type {Record<import("./model.js").Kind, TextKey>} */
const KINDS = {
  live: "sessions.live",
  ended: "sessions.ended",
  saved: "sessions.saved",
  interrupted: "sessions.interrupted",
  damaged: "sessions.damaged",
};

/** Adds the tab of sessions to the sidebar. To be called from the extension's setup(). */
export function addSessionsPanel() {
  const title = translator(editor.locale())("sessions.title");
  editor.registerTab({ id: "self-forcing-sessions", icon: "pi pi-video", title }, mountSessions);
}

/**
 * Fills an element with the list of sessions and keeps it up to date. Returns the function that ends that.
 *
 * @param {HTMLElement} place
 */
function mountSessions(place) {
  const t = translator(editor.locale());
  /** @type {Map<string, Card>} */
  const cards = new Map(); // by keyOf
  /** @type {Entry[]} */
  let entries = [];
  let timer = 0;
  /** @type {Promise<void> | null} */
  let request = null;
  let again = false; // whether to send another request after this one
  let removed = false;

  const list = make("ul");
  const note = make("p", { role: "status" });
  const label = { title: t("sessions.refresh"), "aria-label": t("sessions.refresh") };
  const icon = make("span", { className: "pi pi-refresh" });
  const button = make("button", { type: "button", onclick: () => refresh(), ...label }, icon);
  const header = make("header", {}, make("h2", {}, t("sessions.title")), button);
  const style = make("style", { textContent: STYLE });
  const properties = { className: "sf-sessions", "aria-label": t("sessions.title") };
  const root = make("section", properties, style, header, note, list);
  place.replaceChildren(root);

  /** Asks the server for the list. A call during a request sends one more after it. */
  async function refresh() {
    again = request !== null;
    request ??= ask().finally(() => {
      request = null;
      if (again && !removed) refresh();
    });
    return request;
  }

  async function ask() {
    clearTimeout(timer);
    try {
      const { sessions } = await get(PATH);
      if (removed) return;
      entries = sessions;
      draw();
      showNote(entries.length ? "" : t("sessions.empty"));
    } catch (error) {
      if (!removed) showNote(t("sessions.failed", { why: /** @type {Error} */ (error).message }));
    }
    if (!removed && entries.some(({ kind }) => kind === "live")) timer = setTimeout(refreshIfVisible, REFRESH);
  }

  function refreshIfVisible() {
    if (document.hidden) timer = setTimeout(refreshIfVisible, REFRESH);
    else refresh();
  }

  /** @param {string} text */
  function showNote(text) {
    if (note.textContent !== text) note.textContent = text; // screen readers read each change aloud
    note.hidden = !text;
  }

  /** Draws the cards. Those that stay are not moved, so that the focus stays where it is. */
  function draw() {
    const keys = new Set(entries.map(keyOf));
    for (const [key, card] of cards) {
      if (keys.has(key)) continue;
      if (card.element.contains(document.activeElement)) button.focus();
      card.remove();
      cards.delete(key);
    }
    let next = list.firstChild;
    for (const entry of entries) {
      const card = cards.get(keyOf(entry)) ?? makeCard(entry, t, refresh);
      cards.set(keyOf(entry), card);
      card.show(entry);
      if (card.element === next) next = next.nextSibling;
      else list.insertBefore(card.element, next);
    }
  }

  const stops = [
    listen("self_forcing.run", (state) => isState(state) && isNews(state, entries) && refresh()),
    ...ENDS.map((type) => listen(type, () => refresh())), // Save Session may come after the run
  ];
  refresh();
  return () => {
    removed = true;
    clearTimeout(timer);
    for (const stop of stops) stop();
    for (const card of cards.values()) card.remove();
    root.remove();
  };
}

/**
 * Makes the card of a session. `show` updates it as the session grows.
 *
 * @param {Entry} entry
 * @param {Translate} t
 * @param {() => Promise<void>} refresh
 * @returns {Card}
 */
function makeCard(entry, t, refresh) {
  const picture = make("img", { alt: "", loading: "lazy", hidden: true, onerror: () => showPicture(false) });
  const placeholder = make("i", { className: "pi pi-video", "aria-hidden": "true" });
  const name = make("b");
  const kind = make("span");
  const facts = make("div");
  const buttons = make("div", { className: "sf-buttons" }, ...actionsFor(entry).map(makeButton));
  const element = make("li", {}, picture, placeholder, make("div", {}, make("div", {}, name, kind), facts), buttons);
  let pictured = ""; // the path of the picture that was asked for last
  let copy = ""; // the address of a picture in the page's memory
  let removed = false;

  /** @param {boolean} shown */
  function showPicture(shown) {
    picture.hidden = !shown;
    placeholder.hidden = shown;
  }

  /** @param {string} path */
  async function loadPicture(path) {
    pictured = path;
    if (entry.kind !== "live") return showPictureAt(url(path));
    // a run's pictures are its user's alone, and an <img> asks without saying whose it is
    const blob = await getBlob(path).catch(() => null); // its frame was withdrawn, or the run has just ended
    if (!blob || removed || path !== pictured) return;
    const older = copy;
    copy = URL.createObjectURL(blob);
    showPictureAt(copy);
    URL.revokeObjectURL(older);
  }

  /** @param {string} source */
  function showPictureAt(source) {
    picture.src = source;
    showPicture(true);
  }

  /** @param {Entry} newer */
  function show(newer) {
    entry = newer;
    if (entry.picture && entry.picture !== pictured) loadPicture(entry.picture);
    name.textContent = element.ariaLabel = titleOf(entry, t);
    kind.textContent = t(KINDS[kindOf(entry)]);
    kind.className = `sf-kind sf-${kindOf(entry)}`;
    facts.replaceChildren(
      ...factsOf(entry, t, editor.locale()).map((line) => make("div", { className: "sf-fact" }, line)),
    );
  }

  /** @param {Action} action */
  function makeButton({ label, tooltip, run }) {
    const button = make("button", { type: "button", title: t(tooltip) }, t(label));
    button.ariaLabel = `${t(label)}: ${titleOf(entry, t)}`;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await run(entry, t, refresh);
      } catch (error) {
        editor.toast("error", t("sessions.refused"), /** @type {Error} */ (error).message);
      }
      button.disabled = false;
    });
    return button;
  }

  function remove() {
    removed = true;
    URL.revokeObjectURL(copy);
    element.remove();
  }

  return { element, show, remove };
}

/** @param {Entry} entry */
const actionsFor = (entry) => {
  if (entry.kind === "live") return [FORK];
  return kindOf(entry) === "damaged" ? [DELETE] : [CONTINUE, LOAD, DELETE];
};

/** @type {Action} */
const LOAD = {
  label: "sessions.load",
  tooltip: "sessions.loadTooltip",
  run: ({ name }, t) => showAdded([loadSession(name)], t),
};

/** @type {Action} */
const CONTINUE = {
  label: "sessions.continue",
  tooltip: "sessions.continueTooltip",
  run: ({ name }, t) => showAdded(continueInNewNodes(name), t),
};

/** @type {Action} */
const FORK = {
  label: "sessions.fork",
  tooltip: "sessions.forkTooltip",
  async run(entry, t, refresh) {
    const { name } = await post(`${PATH}/keep`, { node_id: entry.node_id, name: nameToKeep(entry) });
    editor.toast("success", t("sessions.kept", { name }));
    showAdded([loadSession(name)], t);
    refresh();
  },
};

/** @type {Action} */
const DELETE = {
  label: "sessions.delete",
  tooltip: "sessions.deleteTooltip",
  async run(entry, t, refresh) {
    const name = titleOf(entry, t);
    if (!(await editor.confirm(t("sessions.deleteTitle"), t("sessions.deleteQuestion", { name })))) return;
    try {
      await post(`${PATH}/delete`, { name: entry.name });
      editor.toast("success", t("sessions.deleted", { name }));
    } finally {
      await refresh();
    }
  },
};

/** @type {(nodes: ComfyNode[], t: Translate) => void} */
function showAdded(nodes, t) {
  editor.showNodes(nodes);
  editor.toast("info", t("sessions.added"), hasModel(nodes[0]) ? "" : t("sessions.wireModel"));
}
