import assert from "node:assert/strict";
import { test } from "node:test";

import { parseKeys, symbolsOf } from "../../../js/player/key_bindings.js";

const errorsOf = (text) => parseKeys(text).errors.map(({ line, message, what }) => [line, message, what]);

test("arrows, letters and digits are bound to prompts and cuts, however they are spelled", () => {
  const text = "ArrowLeft = a red circle\n\n# a note\n  right=  a = b \n↑ ＝ up\nDOWN = Cut\nX = cut\n7 = a cut\r\nb = c";
  assert.deepEqual(Object.fromEntries(parseKeys(text).actions), {
    ArrowLeft: { action: "prompt", prompt: "a red circle" },
    ArrowRight: { action: "prompt", prompt: "a = b" },
    ArrowUp: { action: "prompt", prompt: "up" },
    ArrowDown: { action: "cut" },
    x: { action: "cut" },
    7: { action: "prompt", prompt: "a cut" },
    b: { action: "prompt", prompt: "c" },
  });
  assert.deepEqual(errorsOf(text), []);
});

test("a line that is wrong is named, binds nothing, and the others hold", () => {
  const text = ["a red circle", "ab = x", "= x", "a =", "b = one", "B = two", "Space = x", "ctrl+c = x", "é = x", `c = ${"x".repeat(2001)}`];
  assert.deepEqual(errorsOf(text.join("\n")), [
    [1, "keys.noEquals", "a red circle"],
    [2, "keys.noKey", "ab"],
    [3, "keys.noKey", ""],
    [4, "keys.noPrompt", "A"],
    [6, "keys.twice", "B"],
    [7, "keys.noKey", "Space"],
    [8, "keys.noKey", "ctrl+c"],
    [9, "keys.noKey", "é"],
    [10, "keys.tooLong", "C"],
  ]);
  assert.deepEqual([...parseKeys(text.join("\n")).actions], [["b", { action: "prompt", prompt: "one" }]]);
});

test("no text binds nothing", () => assert.equal(parseKeys("").actions.size, 0));

test("a key is written as people write it", () => assert.equal(symbolsOf(["ArrowLeft", "a", "7"]), "← A 7"));
