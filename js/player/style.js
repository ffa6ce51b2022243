import { FONT } from "../lib/looks.js";

/**
 * CSS of the player, in the editor's own colours. Both editors' names of them are here, the newer ones first.
 *
 * Every row below the picture has a height of its own, whatever it shows: the picture keeps its size.
 */
export const STYLE = `
.sf-player { --surface: var(--comfy-input-bg, #222); --text: var(--input-text, #ddd);
  --accent: var(--primary-background, var(--p-primary-color, #0b8ce9));
  --quiet: color-mix(in srgb, var(--text) 76%, var(--surface)); --line: color-mix(in srgb, var(--text) 22%, var(--surface));
  --hover: color-mix(in srgb, var(--text) 13%, var(--surface)); --row: 28px;
  --warn: color-mix(in srgb, #f0930f 75%, var(--text)); --stop: color-mix(in srgb, #f04a4a 78%, var(--text));
  container-type: inline-size; display: flex; flex-direction: column; height: 100%; border-radius: 8px;
  background: var(--surface); color: var(--text); font: 12px/1.35 ${FONT};
  font-variant-numeric: tabular-nums; outline: none; user-select: none; overflow: clip !important; }
.lg-node .sf-player { --surface: var(--component-node-widget-background, var(--comfy-input-bg, #222)); }
.sf-player [hidden] { display: none !important; }
.sf-player:focus-visible { box-shadow: inset 0 0 0 2px var(--accent); }

.sf-stage { position: relative; flex: 1 1 0; min-height: 60px; display: flex; overflow: hidden; background: #000;
  border-radius: 8px 8px 0 0; color: #e8e8e8; cursor: default; }
.sf-picture { flex: 1; min-width: 0; overflow: auto; display: flex; scrollbar-width: thin; }
.sf-picture > canvas, .sf-picture > video { display: block; margin: auto; flex: none; }
.sf-fit { overflow: hidden; }
.sf-fit > canvas, .sf-fit > video { width: 100%; height: 100%; object-fit: contain; }
.sf-hint { position: absolute; inset: 0; display: grid; place-items: center; padding: 16px; text-align: center;
  text-wrap: balance; pointer-events: none; }
.sf-bezel { position: absolute; left: 50%; top: 50%; translate: -50% -50%; display: flex; align-items: center; gap: 8px;
  max-width: 80%; padding: 8px 12px; border-radius: 20px; background: rgb(0 0 0 / 66%); color: #fff; opacity: 0;
  pointer-events: none; white-space: nowrap; }

.sf-below { flex: none; display: flex; flex-direction: column; padding: 0 6px 4px; }
.sf-seek { --at: 0; position: relative; height: 20px; margin: 0 4px; cursor: pointer; touch-action: none; outline: none; }
.sf-seek[aria-disabled="true"] { cursor: default; opacity: 0.5; }
.sf-track { position: absolute; inset: 8px 0; border-radius: 2px; overflow: hidden; background: var(--line); }
.sf-track > div { position: absolute; top: 0; bottom: 0; left: 0; width: 100%; transform-origin: left; }
.sf-made { background: color-mix(in srgb, var(--text) 38%, var(--surface)); transform: scaleX(var(--made)); }
.sf-buffered { background: color-mix(in srgb, var(--text) 58%, var(--surface));
  transform: translateX(calc(100% * var(--b0))) scaleX(calc(var(--b1) - var(--b0))); }
.sf-played { background: var(--accent); transform: scaleX(var(--at)); }
.sf-track > .sf-withdrawn { left: calc(100% * var(--w0)); width: calc(100% * (var(--w1) - var(--w0)));
  background: repeating-linear-gradient(135deg, var(--warn) 0 3px, transparent 3px 6px); }
.sf-track > .sf-chunks { left: calc(100% * var(--c0)); width: calc(100% * var(--c1));
  background: linear-gradient(to right, var(--surface) 1px, transparent 1px) 0 0 / calc(100% * var(--c2)) 100%; }
.sf-marks { position: absolute; inset: 3px 0; pointer-events: none; overflow: hidden; }
.sf-marks > i { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; border-radius: 1px;
  left: calc(100% * (var(--frame) - var(--from)) / var(--span)); background: var(--text); }
.sf-marks > .sf-reroll-mark { background: var(--warn); }
.sf-marks > .sf-cut-mark { background: linear-gradient(var(--text) 0 4px, transparent 4px 10px, var(--text) 10px); }
.sf-thumb { position: absolute; inset: 0; transform: translateX(calc(100% * var(--at))); pointer-events: none; }
.sf-thumb::before { content: ""; position: absolute; left: -5px; top: 5px; width: 10px; height: 10px; border-radius: 50%;
  background: var(--text); box-shadow: 0 0 0 1px var(--surface); }
.sf-seek:hover .sf-thumb::before, .sf-seek:focus-visible .sf-thumb::before { scale: 1.3; }
.sf-seek:focus-visible .sf-thumb::before { box-shadow: 0 0 0 2px var(--surface), 0 0 0 4px var(--accent); }
.sf-seek[aria-disabled="true"] .sf-thumb { display: none; }
.sf-tip { position: absolute; bottom: 100%; left: calc(100% * var(--at)); translate: calc(-100% * var(--at)) 0; display: flex;
  flex-direction: column; max-width: 80%; width: max-content; padding: 3px 7px; border-radius: 5px; background: rgb(0 0 0 / 82%);
  color: #fff; pointer-events: none; overflow-wrap: anywhere; }

.sf-row { display: flex; align-items: center; gap: 2px; height: var(--row); }
.sf-space { flex: 1; }
.sf-player button { box-sizing: border-box; min-width: var(--row); height: var(--row); padding: 0 6px; border: 0;
  border-radius: 6px; background: transparent; color: inherit; font: inherit; cursor: pointer; display: inline-flex;
  align-items: center; justify-content: center; gap: 6px; white-space: nowrap; }
.sf-player button:hover:enabled { background: var(--hover); }
.sf-player :is(button, input):disabled { cursor: default; }
.sf-player button > svg { pointer-events: none; }
.sf-player button:disabled > svg { opacity: 0.45; }
.sf-player :is(button, input):focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
.sf-player .sf-live { font-size: 11px; font-weight: 600; letter-spacing: 0.04em; color: var(--quiet); }
.sf-live::before { content: ""; width: 7px; height: 7px; border-radius: 50%; background: currentColor; }
.sf-player .sf-now::before { background: #f03e3e; }
.sf-player .sf-now { color: var(--text); }
.sf-player .sf-speed { font-weight: 600; }

.sf-slot { display: flow-root; height: calc(var(--row) + 4px); padding-top: 2px; }
.sf-steering { gap: 4px; }
.sf-field { position: relative; flex: 1; min-width: 0; height: 100%; display: flex; align-items: center; box-sizing: border-box;
  border: 1px solid var(--line); border-radius: 6px; background: color-mix(in srgb, var(--surface) 70%, Canvas); }
.sf-field:focus-within { border-color: var(--accent); }
.sf-field > input { flex: 1; min-width: 0; height: 100%; box-sizing: border-box; padding: 0 8px; border: 0; background: none;
  color: inherit; font: inherit; }
.sf-player .sf-field > input { outline: none; }
.sf-field > input::placeholder { color: var(--quiet); opacity: 1; }
.sf-blend { padding: 0 4px; color: var(--quiet); white-space: nowrap; }
.sf-blend:empty { display: none; }
.sf-player .sf-prompts { min-width: 24px; height: 24px; padding: 0 4px; margin-right: 1px; }
.sf-actions { display: flex; gap: 2px; }
.sf-player .sf-stop:enabled { color: var(--stop); }
.sf-ended { gap: 6px; }
.sf-player .sf-ended > button { flex: 1; background: var(--hover); }
.sf-player .sf-ended > button:hover:enabled { background: var(--line); }
.sf-controls > .sf-ended { gap: 4px; min-width: 0; }
.sf-player .sf-controls > .sf-ended > button { flex: 0 1 auto; min-width: 0; padding: 0 10px; overflow: hidden; }

.sf-message { display: flex; align-items: center; gap: 4px; height: 18px; padding: 0 4px; color: var(--quiet); }
.sf-message[data-tone="warn"] { color: var(--text); box-shadow: inset 3px 0 0 -1px var(--warn); padding-left: 7px; }
.sf-message[data-tone="wait"] .sf-text { font-style: italic; }
.sf-text { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; user-select: text; }
.sf-player .sf-more { flex: none; height: 18px; min-width: 0; text-decoration: underline; }
.sf-status { display: flex; align-items: center; gap: 0 6px; height: 24px; padding-left: 4px; color: var(--quiet); }
.sf-state { color: var(--text); white-space: nowrap; }
.sf-state:not(:empty)::before { content: ""; display: inline-block; width: 7px; height: 7px; margin-right: 6px; border-radius: 50%;
  background: var(--quiet); vertical-align: 1px; }
[data-tone="live"] > .sf-state::before { background: #3fb55f; }
[data-tone="late"] > .sf-state::before { background: var(--warn); }
[data-tone="failed"] > .sf-state::before { background: #f03e3e; }
.sf-facts { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.sf-player .sf-info { min-width: 24px; height: 24px; padding: 0; }
.sf-info > svg { width: 14px; }

.sf-losses { flex: none; padding-top: 6px; }
.sf-losses > svg { display: block; width: 100%; height: 60px; border-radius: 4px; background: color-mix(in srgb, var(--surface) 70%, Canvas); }
.sf-legend { display: flex; gap: 12px; justify-content: flex-end; height: 16px; font-size: 11px; color: var(--quiet); }
.sf-legend i { display: inline-block; width: 7px; height: 7px; margin-right: 5px; border-radius: 50%; }

.sf-drift { margin: 4px 8px; color: var(--accent); }
.sf-drift > svg { display: block; width: 100%; height: 48px; border-radius: 4px; background: color-mix(in srgb, var(--surface) 70%, Canvas); }
.sf-limit { stroke: var(--warn); }
.sf-popup { position: fixed; inset: auto; margin: 0; box-sizing: border-box; min-width: 200px; max-width: min(360px, 90vw); padding: 6px;
  border: 1px solid var(--line); border-radius: 8px; background: var(--surface); color: var(--text);
  box-shadow: 0 6px 24px rgb(0 0 0 / 40%); overflow: auto; font: 13px/1.4 ${FONT}; user-select: text; }
.sf-popup hr { margin: 5px 4px; border: 0; border-top: 1px solid var(--line); }
.sf-popup h4 { margin: 6px 8px 2px; font-size: 11px; font-weight: 600; color: var(--quiet); }
.sf-popup p { margin: 4px 8px; overflow-wrap: anywhere; }
.sf-player .sf-item { width: 100%; padding: 0 8px; justify-content: space-between; text-align: left; white-space: normal;
  height: auto; min-height: var(--row); }
.sf-player .sf-item:disabled { color: var(--quiet); opacity: 0.7; }
.sf-choice { display: flex; align-items: center; gap: 2px; padding-left: 8px; min-height: var(--row); }
.sf-choice > span { flex: 1; margin-right: 12px; }
.sf-player .sf-choice > button[aria-pressed="true"] { background: var(--text); color: var(--surface); }
.sf-choice > input { width: 48px; height: 26px; box-sizing: border-box; padding: 0 0 0 6px; border: 1px solid var(--line); border-radius: 6px;
  background: none; color: inherit; font: inherit; }
.sf-popup textarea { display: block; width: calc(100% - 16px); box-sizing: border-box; margin: 4px 8px; padding: 4px 6px; resize: vertical;
  border: 1px solid var(--line); border-radius: 6px; background: none; color: inherit; font: inherit; }
.sf-popup textarea::placeholder { color: var(--quiet); opacity: 1; }
.sf-popup .sf-wrong { box-shadow: inset 3px 0 0 -1px var(--warn); padding-left: 7px; }
.sf-popup dl { display: grid; grid-template-columns: auto 1fr; gap: 3px 14px; margin: 4px 8px; }
.sf-popup dl > div { display: contents; }
.sf-popup dt { color: var(--quiet); }
.sf-popup dd { margin: 0; overflow-wrap: anywhere; }

/* dark in every theme, as the screen around the picture is */
.sf-player:fullscreen { --surface: #1c1c1e; --text: #eee; color-scheme: dark; border-radius: 0; background: #000; }
.sf-player:fullscreen .sf-stage { border-radius: 0; }
.sf-player:fullscreen .sf-below { position: absolute; left: 0; right: 0; bottom: 0; padding: 0 max(16px, calc(50% - 480px)) 8px;
  background: color-mix(in srgb, var(--surface) 88%, transparent); transition: opacity 0.2s; }
.sf-player.sf-idle:fullscreen { cursor: none; }
.sf-player.sf-idle:fullscreen .sf-below { opacity: 0; }

@container (max-width: 330px) {
  .sf-controls:has(> .sf-ended) { flex-wrap: wrap; gap: 0 2px; height: calc(2 * var(--row)); }
  .sf-controls > .sf-ended { order: 1; flex: 1 1 100%; }
  .sf-player .sf-controls > .sf-ended > button { flex: 1; }
  .sf-slot { height: calc(2 * var(--row) + 6px); }
  .sf-steering { height: auto; flex-wrap: wrap; }
  .sf-steering > .sf-field { flex: 1 1 100%; height: var(--row); }
  .sf-steering > .sf-actions { flex: 1; justify-content: space-between; }
  .sf-status { flex-wrap: wrap; height: 56px; align-content: flex-start; position: relative; }
  .sf-state { line-height: 24px; }
  .sf-facts { flex: 1 1 100%; white-space: normal; }
  .sf-player .sf-info { position: absolute; right: 0; top: 0; }
}
@media (pointer: coarse) {
  .sf-player { --row: 36px; }
  .sf-seek { height: 28px; }
  .sf-track { inset: 12px 0; }
  .sf-marks { inset: 7px 0; }
  .sf-thumb::before { top: 7px; width: 14px; height: 14px; left: -7px; }
  .sf-status { position: relative; }
  .sf-info::after { content: ""; position: absolute; right: 0; bottom: 0; width: var(--row); height: var(--row); }
}
@media (prefers-reduced-motion: reduce) {
  .sf-player:fullscreen .sf-below { transition: none; }
}
`;
