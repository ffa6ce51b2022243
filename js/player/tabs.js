/**
 * Tabs of the editor, and the prompts that each queued. The id of a workflow names no tab: copies of a template have the
 * same one.
 */

/**
 * @typedef {object} Editor the editor, as Tabs needs it
 * @property {() => object} workflow the workflow of the tab that is open; the same object for as long as the tab exists
 * @property {() => string} path of that workflow
 * @property {() => string | undefined} id of that workflow
 * @property {() => string[]} openPaths of the workflows of all tabs
 *
 * @typedef {object} Store what a page that is loaded again still knows
 * @property {() => any} read
 * @property {(value: object) => void} write
 *
 * @typedef {{path: string, id: string | undefined}} Place
 */

const REMEMBERED = 100; // prompts

export class Tabs {
  #editor;
  #store;
  /** @type {WeakMap<object, string>} names of tabs */
  #names = new WeakMap();
  /** @type {Map<string, Place>} by name, of the tabs that this page has seen */
  #places = new Map();
  /** @type {Map<string, Place>} by name, of the tabs before the page was loaded again that were not opened yet */
  #former = new Map();
  /** @type {Map<string, string>} names of tabs by prompt */
  #prompts = new Map();
  /** @type {{tab: string | null}[]} prompts that are being queued */
  #queueing = [];
  #loading = 0;

  /**
   * @param {Editor} editor
   * @param {Store} store
   */
  constructor(editor, store) {
    this.#editor = editor;
    this.#store = store;
    const { places, prompts } = store.read() ?? {};
    if (Array.isArray(places) && Array.isArray(prompts)) {
      this.#former = new Map(places);
      this.#prompts = new Map(prompts);
    }
  }

  /** The name of the tab that is open; null while the editor loads a workflow, which may be another tab's. */
  get current() {
    if (this.#loading) return null;
    const workflow = this.#editor.workflow();
    const place = { path: this.#editor.path(), id: this.#editor.id() };
    const name = this.#names.get(workflow) ?? this.#formerName(place) ?? crypto.randomUUID();
    this.#names.set(workflow, name);
    const known = this.#places.get(name);
    if (known?.path !== place.path || known.id !== place.id) {
      this.#places.set(name, place);
      this.#keep();
    }
    return name;
  }

  /** The id of the workflow in the tab that is open. */
  get workflow() {
    return this.#editor.id();
  }

  /**
   * The name of the tab that queued a prompt; undefined if no tab of this page did.
   *
   * @param {string} prompt
   */
  of(prompt) {
    const known = this.#prompts.get(prompt);
    if (known !== undefined) return known;
    const [first] = this.#queueing; // its messages may come before the answer that names it
    if (first) this.#add(prompt, first.tab);
    return this.#prompts.get(prompt);
  }

  /**
   * The path of the workflow whose tab queued a prompt; undefined if no tab of this page did.
   *
   * @param {string} prompt
   */
  pathOf(prompt) {
    const name = this.#prompts.get(prompt) ?? "";
    return (this.#places.get(name) ?? this.#former.get(name))?.path;
  }

  /** Notes that the open tab queues a prompt. Returns the function that takes its id, or nothing if it was refused. */
  queue() {
    const asked = { tab: this.current };
    this.#queueing.push(asked);
    /** @param {string} [prompt] */
    return (prompt) => {
      this.#queueing.splice(this.#queueing.indexOf(asked), 1);
      if (prompt) this.#add(prompt, asked.tab);
    };
  }

  /** Notes that the editor loads a workflow. Returns the function that ends it. */
  load() {
    this.#loading += 1;
    return () => {
      this.#loading -= 1;
    };
  }

  /** @type {(prompt: string, tab: string | null) => void} */
  #add(prompt, tab) {
    if (tab === null) return;
    this.#prompts.set(prompt, tab);
    for (const oldest of [...this.#prompts.keys()].slice(0, -REMEMBERED)) this.#prompts.delete(oldest);
    this.#keep();
  }

  /**
   * The name that this tab had before the page was loaded again. A tab may have got another path by that, so one whose
   * path no other tab has is found by its workflow alone.
   *
   * @param {Place} place
   */
  #formerName({ path, id }) {
    const alike = [...this.#former].filter(([, place]) => place.id === id);
    const open = this.#editor.openPaths();
    const found = alike.find(([, place]) => place.path === path) ?? alike.find(([, place]) => !open.includes(place.path));
    if (found) this.#former.delete(found[0]);
    return found?.[0];
  }

  #keep() {
    const used = new Set(this.#prompts.values());
    const places = [...this.#former, ...this.#places].filter(([name]) => used.has(name));
    this.#store.write({ places, prompts: [...this.#prompts] });
  }
}
