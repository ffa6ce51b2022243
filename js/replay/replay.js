import * as editor from "../lib/editor.js";
import { makeReplay } from "./graph.js";

/** Replay, in ComfyUI's editor. */
export const { replay, replayFromFile } = makeReplay(editor);
