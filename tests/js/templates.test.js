import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { ORDER, folderOf, inOrder } from "../../js/templates.js";

test("the order has every template, once", () => {
  const folder = new URL("../../workflows/", import.meta.url);
  const names = readdirSync(folder).filter((name) => name.endsWith(".json"));
  assert.deepEqual([...ORDER].sort(), names.map((name) => name.slice(0, -".json".length)).sort());
});

test("templates are listed in that order, unknown ones at the end", () => {
  const listed = ["with_lora", "b_new", "tiny_live", "a_new", "text_to_video"];
  assert.deepEqual(inOrder(listed), ["tiny_live", "text_to_video", "with_lora", "a_new", "b_new"]);
  assert.equal(listed[0], "with_lora", "the list itself stays");
});

test("the pack's folder is in the address of its scripts", () => {
  assert.equal(folderOf("http://127.0.0.1:8188/extensions/comfyui-self-forcing/self_forcing.js"), "comfyui-self-forcing");
  assert.equal(folderOf("https://host/comfy/extensions/my%20pack/self_forcing.js?v=1"), "my pack");
  assert.equal(folderOf("file:///nowhere.js"), "");
});
