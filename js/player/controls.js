import { fill } from "../lib/i18n.js";

const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
  loop:
    "M4 4.5h6V2l4 3.5-4 3.5V6.5H4.5v3h-2V6A1.5 1.5 0 0 1 4 4.5z" +
    "m8 7H6V14l-4-3.5L6 7v2.5h5.5v-3h2V10a1.5 1.5 0 0 1-1.5 1.5z",
  live: "M2 3l6 5-6 5zM8 3l6 5-6 5z",
  camera: "M2 4.5h3L6 3h4l1 1.5h3v8.5H2zM8 6a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
};

/** An element with properties, listeners by name ("onclick") among them, and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function icon(name) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": true }))
    drawing.setAttribute(key, value);
  path.setAttribute("d", ICONS[name]);
  path.setAttribute("fill", "currentColor");
  path.setAttribute("fill-rule", "evenodd");
  drawing.append(path);
  return drawing;
}

function name(button, text) {
  button.title = text;
  button.setAttribute("aria-label", text);
}

/**
 * The row below the picture.
 * @param on what the user's hand does: {toggle, seek(seconds), loop, live, size, snapshot, replay}
 */
export function createControls(said, on) {
  const button = (label, act, ...content) => {
    const made = make("button", { type: "button", onclick: act }, ...content);
    name(made, label);
    return made;
  };
  const play = button(said.play, on.toggle);
  const place = make("input", { type: "range", min: 0, step: "any", className: "sf-place", "aria-label": said.place });
  place.oninput = () => on.seek(Number(place.value));
  const time = make("span", { className: "sf-time" });
  const loop = button(said.loop, on.loop, icon("loop"));
  const live = button(said.goLive, on.live, icon("live"));
  const size = button(said.size, on.size);
  const snapshot = button(said.snapshot, on.snapshot, icon("camera"));
  const replay = button(said.replayTitle, on.replay, said.replay);
  const element = make("div", { className: "sf-controls" }, play, place, time, loop, live, size, snapshot, replay);

  return {
    element,
    /** seconds: at, from, to; behind: seconds, or null if nothing is live. */
    show({ playing, at, from, to, step, loops, behind, sized, canReplay }) {
      play.replaceChildren(icon(playing ? "pause" : "play"));
      name(play, playing ? said.pause : said.play);
      Object.assign(place, { min: from, max: Math.max(from, to - step), step });
      place.value = at;
      time.textContent = fill(said.time, { at: at.toFixed(1), to: to.toFixed(1) });
      place.setAttribute("aria-valuetext", time.textContent);
      loop.setAttribute("aria-pressed", loops);
      live.hidden = behind === null;
      live.disabled = behind !== null && behind < step;
      name(live, behind < step ? said.goLive : fill(said.goLiveBehind, { n: behind.toFixed(1) }));
      size.textContent = said[sized];
      replay.hidden = !canReplay;
    },
  };
}
