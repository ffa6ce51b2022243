/** CSS of the player, in the editor's own colours. */
export const STYLE = `
.sf-player { display: flex; flex-direction: column; gap: 4px; height: 100%; font: 11px/1.4 sans-serif;
  color: var(--input-text, #ddd); outline: none; user-select: none; }
.sf-player [hidden] { display: none !important; }
.sf-picture { position: relative; flex: 1 1 0; min-height: 60px; border-radius: 4px; overflow: auto; display: flex;
  background: var(--comfy-input-bg, #222); scrollbar-width: thin; }
.sf-player:focus-visible .sf-picture { outline: 2px solid var(--p-primary-color, #4a90d9); outline-offset: -2px; }
.sf-picture > canvas, .sf-picture > video { display: block; margin: auto; flex: none; }
.sf-fit > canvas, .sf-fit > video { width: 100%; height: 100%; object-fit: contain; }
.sf-hint { margin: auto; padding: 12px; text-align: center; color: var(--descrip-text, #999); }
.sf-frame { position: relative; flex: 1 1 0; min-height: 60px; display: flex; }
.sf-badge { position: absolute; left: 4px; top: 4px; max-width: calc(100% - 20px); pointer-events: none; display: flex;
  flex-direction: column; align-items: flex-start; gap: 2px; color: #fff; font-size: 10px;
  font-variant-numeric: tabular-nums; }
.sf-badge > div { padding: 1px 6px; border-radius: 3px; background: rgb(0 0 0 / 62%); }
.sf-badge > div:empty { display: none; }
.sf-over .sf-facts { opacity: 0; transition: opacity 0.15s; }
.sf-over:hover .sf-facts, .sf-over:focus-within .sf-facts { opacity: 1; }
.sf-controls, .sf-row { display: flex; align-items: center; gap: 4px; flex-wrap: wrap; }
.sf-player button { min-width: 24px; height: 22px; padding: 0 5px; border: 1px solid transparent; border-radius: 4px;
  background: transparent; color: inherit; font: inherit; cursor: pointer; display: inline-flex; align-items: center;
  justify-content: center; }
.sf-player button:hover:not(:disabled) { background: var(--comfy-input-bg, #222);
  border-color: var(--border-color, #4e4e4e); }
.sf-player button:disabled { opacity: 0.45; }
.sf-player :is(button, input):disabled { cursor: default; }
.sf-player :is(button, input):focus-visible { outline: 2px solid var(--p-primary-color, #4a90d9); outline-offset: -2px; }
.sf-player input:disabled::placeholder { color: var(--descrip-text, #999); opacity: 1; }
.sf-player button[aria-pressed="true"] { color: var(--p-primary-color, #4a90d9); }
.sf-place { flex: 1 1 70px; min-width: 50px; height: 16px; margin: 0; accent-color: var(--p-primary-color, #4a90d9); }
.sf-time { white-space: nowrap; font-variant-numeric: tabular-nums; }
.sf-losses { flex: none; }
.sf-losses > svg { display: block; width: 100%; height: 60px; border-radius: 4px;
  background: var(--comfy-input-bg, #222); }
.sf-legend { display: flex; gap: 10px; justify-content: flex-end; font-size: 10px; font-variant-numeric: tabular-nums; }
.sf-steering { display: flex; flex-direction: column; gap: 4px; }
.sf-steering input { height: 24px; box-sizing: border-box; padding: 0 6px;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd); font: inherit; }
.sf-steering input[type="text"] { flex: 1 1 140px; min-width: 0; }
.sf-steering input[type="number"] { width: 44px; padding-right: 0; }
.sf-steering label { display: inline-flex; align-items: center; gap: 4px; color: var(--descrip-text, #999); }
.sf-steering button { border-color: var(--border-color, #4e4e4e); }
.sf-waits { flex: 1 1 80px; min-width: 0; }
.sf-waits, .sf-done > div { overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  color: var(--descrip-text, #999); }
.sf-waits.sf-asked { color: var(--input-text, #ddd); font-style: italic; }
.sf-done { font-size: 10px; }
.sf-note { padding: 2px 6px; border-left: 3px solid #c07a1a; overflow-wrap: anywhere; user-select: text; }
.sf-note > summary { cursor: pointer; }
.sf-note.sf-short > summary { list-style: none; cursor: auto; }
`;
