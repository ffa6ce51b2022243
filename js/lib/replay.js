import * as editor from "./editor.js";
import { makeReplay } from "./replay_graph.js";

export const { replay, replayFromFile } = makeReplay(editor);
