import { FONT } from "../lib/looks.js";

/** CSS of the timeline widget, part of the widget's element so that it comes and goes with it. */
export const STYLE = `
.sf-timeline {
  display: flex; flex-direction: column; height: 100%; min-height: 100px; border-radius: 6px; position: relative;
  background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd); border: 1px solid var(--border-color, #4e4e4e);
  font: 11px/1.3 ${FONT}; user-select: none; cursor: default;
}
.sf-timeline-track { flex: 1; position: relative; overflow: hidden; min-height: 44px; }
.sf-timeline-before, .sf-timeline-block { position: absolute; top: 3px; bottom: 3px; box-sizing: border-box; overflow: hidden; }
.sf-timeline-before {
  left: 0; padding: 3px 6px; border: 1px dashed var(--border-color, #4e4e4e); border-radius: 4px; font-style: italic;
  color: var(--descrip-text, #999); white-space: nowrap; text-overflow: ellipsis;
}
.sf-timeline-block { padding: 3px 4px 2px 10px; border-radius: 4px; color: #fff; min-width: 10px; outline: none; }
.sf-timeline-block:focus { box-shadow: inset 0 0 0 2px #fff, inset 0 0 0 3px #000; }
.sf-timeline-handle {
  position: absolute; left: 0; top: 0; bottom: 0; width: 8px; cursor: ew-resize; touch-action: none;
  background: rgb(255 255 255 / 35%); border-right: 1px solid rgb(0 0 0 / 35%);
}
.sf-timeline-handle:hover, .sf-timeline-dragged .sf-timeline-handle { background: rgb(255 255 255 / 75%); }
.sf-timeline-marks { display: flex; align-items: center; gap: 5px; white-space: nowrap; font-size: 10px; opacity: 0.95; pointer-events: none; }
.sf-timeline-mark { display: inline-flex; align-items: center; gap: 2px; }
.sf-timeline-mark svg { width: 11px; height: 11px; fill: none; stroke: currentColor; stroke-width: 1.6; }
.sf-timeline-mark svg { stroke-linecap: round; stroke-linejoin: round; }
.sf-timeline-text { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
.sf-timeline-kept { font-style: italic; opacity: 0.75; }
.sf-timeline-time {
  position: absolute; bottom: 4px; transform: translateX(-50%); padding: 1px 6px; border-radius: 8px; pointer-events: none;
  background: #fff; color: #000; font-weight: bold; white-space: nowrap;
}
.sf-timeline-edit {
  position: absolute; inset: 3px; box-sizing: border-box; padding: 2px 8px; border-radius: 4px; font: inherit; resize: none;
  background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd); border: 2px solid var(--p-primary-color, #4b9fe1);
  outline: none;
}
.sf-timeline-axis {
  height: 20px; flex: none; position: relative; overflow: hidden; cursor: copy; color: var(--descrip-text, #999);
  border-top: 1px solid var(--border-color, #4e4e4e);
}
.sf-timeline-tick { position: absolute; top: 0; padding: 2px 0 0 3px; border-left: 1px solid currentColor; height: 100%; pointer-events: none; }
.sf-timeline-add {
  position: absolute; right: 0; top: 0; bottom: 0; width: 24px; border: 0; padding: 0; font: bold 14px ${FONT};
  border-left: 1px solid var(--border-color, #4e4e4e); background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd);
  cursor: pointer;
}
.sf-timeline-add:hover { background: var(--border-color, #4e4e4e); }
.sf-timeline-add:focus-visible { outline: 2px solid var(--p-primary-color, #4b9fe1); outline-offset: -2px; }
.sf-timeline-errors { max-height: 32px; overflow: auto; padding: 1px 6px; color: var(--error-text, #ff4444); user-select: text; }
.sf-timeline-errors:empty { display: none; }
`;
