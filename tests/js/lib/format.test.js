import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBytes, formatSecond, inTwo, unescapeHtml } from "../../../js/lib/format.js";

const [KIB, MIB, GIB] = [2 ** 10, 2 ** 20, 2 ** 30];

// that Python formats them alike is tested in tests/project/test_js.py
test("a size is written in the largest unit of which it is one", () => {
  const sizes = {
    ...{ 0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", [432 * KIB]: "432 KiB", 2516582: "2.4 MiB" },
    ...{ [310 * MIB]: "310.0 MiB", [3.1 * GIB]: "3.1 GiB", [5 * GIB]: "5.0 GiB", [2048 * GIB]: "2048.0 GiB" },
  };
  for (const [bytes, text] of Object.entries(sizes)) assert.equal(formatBytes(Number(bytes)), text);
});

test("seconds have at most six decimals and no zeros at the end", () => {
  const written = [0, 2, 2.5, 2.25, 0.1 + 0.2, 1 / 3, 1e-9, 100].map(formatSecond);
  assert.deepEqual(written, ["0", "2", "2.5", "2.25", "0.3", "0.333333", "0", "100"]);
});

test("a text is divided after its first sentence", () => {
  assert.deepEqual(inTwo("It does not know 'cat'. Its words: a, b; c."), ["It does not know 'cat'.", "Its words: a, b; c."]);
  assert.deepEqual(inTwo("One of 2.5 s"), ["One of 2.5 s", ""]);
  assert.deepEqual(inTwo(""), ["", ""]);
});

test("a text that the server escaped for editors is shown as it was", () => {
  assert.equal(unescapeHtml("&lt;a&gt; &amp;amp; b &quot;"), "<a> &amp; b &quot;");
});
