import * as editor from "../lib/editor.js";
import { makeReplay } from "./graph.js";

export const { replay, replayFromFile } = makeReplay(editor);
