import { make } from "../lib/dom.js";
import * as editor from "../lib/editor.js";
import { translator } from "../lib/i18n.js";
import { isState } from "../lib/messages.js";
import { get, getBlob, listen, onWaiting, url } from "../lib/server.js";
import { PATH, actionsFor } from "./actions.js";
import { factsOf, isNews, keyOf, kindOf, nameOf, titleOf } from "./model.js";
import { STYLE } from "./style.js";

/**
 * @typedef {import("./model.js").Entry} Entry
 * @typedef {import("./actions.js").PathOf} PathOf
 * @typedef {{element: HTMLElement, show: (entry: Entry) => void, remove: () => void}} Card
 */

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

/**
 * Adds the tab of sessions to the sidebar. To be called from the extension's setup().
 *
 * @param {PathOf} pathOf
 */
export function addSessionsPanel(pathOf) {
  const t = translator(editor.locale());
  const tab = { id: "self-forcing-sessions", icon: "pi pi-video", title: t("sessions.title"), label: t("sessions.tab") };
  editor.registerTab(tab, (place) => mountSessions(place, pathOf));
}

/**
 * Fills an element with the list of sessions and keeps it up to date. Returns the function that ends that.
 *
 * @param {HTMLElement} place
 * @param {PathOf} pathOf
 */
function mountSessions(place, pathOf) {
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
  const waiting = make("p", { role: "status", hidden: true });
  const label = { title: t("sessions.refresh"), "aria-label": t("sessions.refresh") };
  const icon = make("span", { className: "pi pi-refresh" });
  const button = make("button", { type: "button", onclick: () => refresh(), ...label }, icon);
  const header = make("header", {}, make("h2", {}, t("sessions.title")), button);
  const style = make("style", { textContent: STYLE });
  const properties = { className: "sf-sessions", "aria-label": t("sessions.title") };
  const root = make("section", properties, style, header, waiting, note, list);
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
      const card = cards.get(keyOf(entry)) ?? makeCard(entry, t, { refresh, pathOf });
      cards.set(keyOf(entry), card);
      card.show(entry);
      if (card.element === next) next = next.nextSibling;
      else list.insertBefore(card.element, next);
    }
  }

  /** @param {number} prompts */
  function showWaiting(prompts) {
    waiting.hidden = !prompts;
    waiting.textContent = prompts ? t("sessions.waiting", { n: prompts }) : "";
  }

  const stops = [
    onWaiting(showWaiting),
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
 * @param {import("./actions.js").Page} page
 * @returns {Card}
 */
function makeCard(entry, t, page) {
  const picture = make("img", { alt: "", loading: "lazy", hidden: true, onerror: () => showPicture(false) });
  const placeholder = make("i", { className: "pi pi-video", "aria-hidden": "true" });
  const name = make("b");
  const kind = make("span");
  const facts = make("div");
  const buttons = make("div", { className: "sf-buttons" }, ...actionsFor(entry, page).map(makeButton));
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
    name.title = entry.kind === "live" ? t("sessions.node", { id: entry.node_id }) : nameOf(entry);
    kind.textContent = t(KINDS[kindOf(entry)]);
    kind.className = `sf-kind sf-${kindOf(entry)}`;
    facts.replaceChildren(
      ...factsOf(entry, t, editor.locale()).map((line) => make("div", { className: "sf-fact", title: line }, line)),
    );
  }

  /** @param {import("./actions.js").Action} action */
  function makeButton({ label, tooltip, run }) {
    const button = make("button", { type: "button", title: t(tooltip) }, t(label));
    button.ariaLabel = `${t(label)}: ${titleOf(entry, t)}`;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await run(entry, t, page);
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
