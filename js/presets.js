import { after } from "./lib/editor.js";
import { widgetOf } from "./lib/widgets.js";

const CUSTOM = "custom";

/**
 * Lets the widgets of Rollout Settings show the values of the chosen preset, and turns the preset to "custom" when one of
 * them is edited.
 *
 * Loading a workflow changes nothing. Most ways of loading call no callback. Loading an API prompt calls all of them in
 * one go, so a choice takes effect only in the next microtask. Changes until then are no edits; of their values, those
 * that are not an input's default stay, as the server uses them in place of the preset's.
 *
 * @param {ComfyNode} node
 * @param {() => boolean} enabled whether changes are the user's
 */
export function followPreset(node, enabled) {
  const groups = node.constructor.nodeData?.input;
  const inputs = { ...groups?.required, ...groups?.optional };
  /** @type {Record<string, Record<string, unknown>> | undefined} */
  const presets = inputs.preset?.[1]?.sf_presets;
  const preset = widgetOf(node, "preset");
  if (!presets || !preset) return;
  const names = new Set(Object.values(presets).flatMap(Object.keys));
  const followers = (node.widgets ?? []).filter((widget) => names.has(widget.name));
  let writing = false;
  let chosen = false; // a preset, in this task
  /** @type {Set<ComfyWidget>} */
  const changed = new Set(); // in this task

  /** @type {(widget: ComfyWidget, value: unknown) => void} */
  function write(widget, value) {
    if (widget.value === value) return;
    writing = true;
    try {
      widget.value = value;
      widget.callback?.(value); // Nodes 2.0 draws the value that the callback gets
    } finally {
      writing = false;
    }
  }

  /** @param {ComfyWidget} widget */
  const isGiven = (widget) => changed.has(widget) && widget.value !== inputs[widget.name]?.[1]?.default;

  function settle() {
    const values = chosen ? presets?.[preset?.value] : undefined;
    const given = followers.filter(isGiven);
    chosen = false;
    changed.clear();
    if (!values) return;
    for (const widget of followers) if (!given.includes(widget)) write(widget, values[widget.name]);
    node.graph?.setDirtyCanvas(true, true);
  }

  after(preset, "callback", () => {
    if (writing || chosen || !enabled()) return;
    chosen = true;
    queueMicrotask(settle);
  });
  for (const widget of followers)
    after(widget, "callback", () => {
      if (writing || !enabled()) return;
      if (!chosen && !changed.size) queueMicrotask(settle);
      changed.add(widget);
      const values = chosen ? undefined : presets[preset.value];
      if (values && values[widget.name] !== widget.value) write(preset, CUSTOM);
    });
}
