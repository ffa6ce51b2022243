import { FONT } from "../lib/looks.js";

/** CSS of the sessions panel. */
export const STYLE = `
.sf-sessions { height: 100%; box-sizing: border-box; display: flex; flex-direction: column; color: var(--input-text, #ddd);
  background: var(--comfy-menu-bg, #353535); font: 13px/1.4 ${FONT}; }
.sf-sessions header { display: flex; align-items: center; gap: 8px; padding: 10px 12px; }
.sf-sessions h2 { flex: 1; margin: 0; font-size: 15px; font-weight: 600; }
.sf-sessions ul { flex: 1; overflow-y: auto; margin: 0; padding: 0 12px 12px; list-style: none; }
.sf-sessions li { display: grid; grid-template-columns: 84px minmax(0, 1fr); gap: 8px 10px; margin-bottom: 10px; padding: 8px;
  background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e); border-radius: 8px; }
.sf-sessions li > img, .sf-sessions li > i { width: 84px; height: 64px; border-radius: 4px; object-fit: contain;
  background: var(--comfy-menu-bg, #353535); }
.sf-sessions li > i { display: grid; place-items: center; font-size: 22px; color: var(--descrip-text, #999); }
.sf-sessions [hidden] { display: none !important; }
.sf-sessions b { overflow-wrap: anywhere; margin-right: 6px; }
.sf-sessions .sf-kind { font-size: 11px; padding: 0 6px; border: 1px solid currentColor; border-radius: 9px; white-space: nowrap; }
.sf-sessions .sf-live { color: var(--p-green-500, #3a3); }
.sf-sessions .sf-damaged { color: var(--error-text, #e55); }
.sf-sessions .sf-fact { color: var(--descrip-text, #999); font-size: 12px; overflow-wrap: anywhere; }
.sf-sessions .sf-buttons { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: 5px; }
.sf-sessions button { padding: 2px 7px; font: inherit; font-size: 12px; cursor: pointer; color: var(--input-text, #ddd);
  background: var(--comfy-menu-bg, #353535); border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; }
.sf-sessions button:hover:enabled { border-color: var(--input-text, #ddd); }
.sf-sessions button:focus-visible { outline: 2px solid var(--p-primary-color, #4a9eff); outline-offset: 1px; }
.sf-sessions button:disabled { opacity: 0.5; cursor: default; }
.sf-sessions p { margin: 0; padding: 0 12px 12px; color: var(--descrip-text, #999); }
`;
