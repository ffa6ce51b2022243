import { api } from "../../../scripts/api.js";

/** ComfyUI's server, reached through the editor's `api`. No other module uses `api`. */

/**
 * Calls `then(data)` for each websocket message of a type; returns the function that ends it.
 *
 * @param {string} type
 * @param {(data: any) => void} then
 */
export function listen(type, then) {
  /** @param {Event} event */
  const listener = (event) => then(/** @type {CustomEvent} */ (event).detail);
  api.addEventListener(type, listener);
  return () => api.removeEventListener(type, listener);
}

/**
 * Resolves to the name under which the server sends to this page, once the server has given it one.
 *
 * @returns {Promise<string>}
 */
export const clientId = () =>
  new Promise((resolve) => {
    if (api.clientId) return resolve(api.clientId);
    const stop = listen("status", () => {
      if (!api.clientId) return;
      stop();
      resolve(api.clientId);
    });
  });

/**
 * Calls `begin()` when the page queues a prompt, and the function that it returns with the id of that prompt, or with
 * nothing if the server refused it. The server learns the name of the workflow.
 *
 * @param {() => (prompt?: string) => void} begin
 * @param {() => string} name
 */
export function onQueue(begin, name) {
  const queue = api.queuePrompt;
  /** @param {...any} details */
  api.queuePrompt = async function (...details) {
    const end = begin();
    const [number, prompt, ...more] = details;
    details = [number, named(prompt, name()), ...more];
    /** @type {{prompt_id?: string} | undefined} */
    let answer;
    try {
      answer = await queue.apply(this, details);
    } finally {
      end(answer?.prompt_id);
    }
    return answer;
  };
}

/**
 * Queues a prompt of the page's own. Throws an Error if the server refuses it.
 *
 * @param {{output: Record<string, any>, workflow: object}} prompt
 */
export const queuePrompt = (prompt) => api.queuePrompt(0, prompt);

/**
 * Takes messages of a type before the editor does: of those for which `take(data)` is true the editor hears nothing.
 *
 * @param {string} type
 * @param {(data: any) => boolean} take
 */
export function divert(type, take) {
  const dispatch = api.dispatchCustomEvent;
  /** @param {[type: string, data?: any]} message */
  api.dispatchCustomEvent = function (...message) {
    return (message[0] === type && take(message[1])) || dispatch.apply(this, message);
  };
}

/**
 * Lets `change` arrange what the template browser lists: names of templates by the folder of their pack.
 *
 * @param {(templates: Record<string, string[]>) => Record<string, string[]>} change
 */
export function onTemplates(change) {
  const templates = api.getWorkflowTemplates;
  if (!templates) return; // an editor without it lists them as it likes
  api.getWorkflowTemplates = async () => change(await templates.call(api));
}

/**
 * Returns a prompt whose workflow has its name, as nodes/adapters/graph_facts.py reads it.
 *
 * @type {(prompt: any, name: string) => any}
 */
const named = (prompt, name) =>
  prompt?.workflow && name
    ? { ...prompt, workflow: { ...prompt.workflow, extra: { ...prompt.workflow.extra, sf_workflow: name } } }
    : prompt;

/**
 * Calls `then` with the number of prompts that wait for the one that runs, when it changes; returns the function that ends
 * it.
 *
 * @param {(waiting: number) => void} then
 */
export const onWaiting = (then) =>
  listen("status", (status) => then(Math.max(0, (status?.exec_info?.queue_remaining ?? 0) - 1)));

/** @param {string} path */
export const url = (path) => api.apiURL(path);

/**
 * Returns the address of a file.
 *
 * @param {{filename: string, subfolder: string, type: string}} file as the server names it
 */
export const fileUrl = ({ filename, subfolder, type }) => url(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

/**
 * Returns the answer's JSON. Throws an Error with the server's message.
 *
 * @param {string} path
 * @param {RequestInit} options
 */
export const get = (path, options = {}) => request(path, { cache: "no-store", ...options });

/**
 * Returns the answer's JSON. Throws an Error with the server's message.
 *
 * @param {string} path
 * @param {object} body
 */
export const post = (path, body) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/**
 * Fetches a picture. Throws an Error if there is none.
 *
 * @param {string} path
 */
export async function getBlob(path) {
  const answer = await api.fetchApi(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.blob();
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<any>}
 */
async function request(path, options) {
  const answer = await api.fetchApi(path, options);
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw new Error(body.error ?? answer.statusText);
}
