import * as editor from "../lib/editor.js";
import * as widgets from "../lib/widgets.js";
import { makeReplay } from "./graph.js";

/** Replay, in ComfyUI's editor. */
export const { replay, replayFromFile } = makeReplay({ ...editor, ...widgets });
