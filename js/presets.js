const CUSTOM = "custom";

/**
 * Lets the widgets of Rollout Settings show the values of the preset that is picked, and makes the preset "custom" when
 * one of them is edited: the server looks at them only then.
 *
 * Loading a workflow changes nothing. Most loading calls no callback; loading an API prompt calls all of them in one go,
 * so picking takes effect only after the code that picked is done, and what it edits until then is not an edit.
 *
 * @param enabled whether changes are the user's
 */
export function followPreset(node, enabled) {
  const presets = node.constructor.nodeData?.input?.required?.preset?.[1]?.sf_presets;
  const preset = node.widgets?.find((widget) => widget.name === "preset");
  if (!presets || !preset) return;
  const names = new Set(Object.values(presets).flatMap(Object.keys));
  const followers = node.widgets.filter((widget) => names.has(widget.name));
  let writing = false;
  let picked = false;

  function write(widget, value) {
    if (widget.value === value) return;
    writing = true;
    try {
      widget.value = value;
      widget.callback?.(value); // Nodes 2.0 draws what the callback is told
    } finally {
      writing = false;
    }
  }

  function showPicked() {
    picked = false;
    const values = presets[preset.value];
    if (!values) return;
    for (const widget of followers) write(widget, values[widget.name]);
    node.graph?.setDirtyCanvas(true, true);
  }

  afterCallback(preset, () => {
    if (writing || picked || !enabled()) return;
    picked = true;
    queueMicrotask(showPicked);
  });
  for (const widget of followers)
    afterCallback(widget, () => {
      if (writing || picked || !enabled()) return;
      const values = presets[preset.value];
      if (values && values[widget.name] !== widget.value) write(preset, CUSTOM);
    });
}

function afterCallback(widget, then) {
  const before = widget.callback;
  widget.callback = function (...details) {
    const result = before?.apply(this, details);
    then();
    return result;
  };
}
