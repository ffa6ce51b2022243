import { after, locale } from "./lib/editor.js";
import { widgetOf } from "./lib/widgets.js";
import { post } from "./lib/server.js";
import { noteRate } from "./frame_rate.js";

/**
 * Shows on Load Self Forcing Model, before any run, which model the chosen file holds, and what the server says of it.
 *
 * It asks when a file or a preset is chosen, and when the node is made or loaded. Only the newest answer is shown.
 *
 * @param {ComfyNode} node
 * @param {import("./words.js").Words} words
 */
export function addRecognition(node, words) {
  let asked = "";

  async function ask() {
    const [name, preset] = ["model_name", "preset"].map((input) => valueOf(node, input));
    const key = `${preset} ${name}`;
    if (typeof name !== "string" || typeof preset !== "string" || key === asked) return;
    asked = key;
    let text, fps;
    try {
      ({ text, fps } = await post("/self_forcing/model", { name, preset, language: locale() }));
    } catch (error) {
      text = error instanceof Error ? error.message : String(error);
    }
    if (key !== asked) return;
    words.show(text);
    noteRate(node, fps);
  }

  for (const input of ["model_name", "preset"]) {
    const widget = widgetOf(node, input);
    if (widget) after(widget, "callback", () => queueMicrotask(ask));
  }
  after(node, "onConfigure", () => queueMicrotask(ask));
  after(node, "onAdded", () => queueMicrotask(ask));
}

/**
 * Returns the value of a widget; nothing if the input is wired, as the value comes from elsewhere then.
 *
 * @param {ComfyNode} node
 * @param {string} name
 */
function valueOf(node, name) {
  const wired = node.inputs?.some((input) => input.name === name && input.link != null);
  return wired ? undefined : widgetOf(node, name)?.value;
}
