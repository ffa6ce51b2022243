import assert from "node:assert/strict";
import { test } from "node:test";

import { Tabs } from "../../../js/player/tabs.js";

/** An editor with tabs {path, id}, and what its page stores. */
function setUp(stored = { value: null }) {
  const editor = { open: { path: "a", id: "template" }, tabs: [] };
  const show = (tab) => {
    editor.open = tab;
    if (!editor.tabs.includes(tab)) editor.tabs.push(tab);
  };
  show(editor.open);
  const adapter = {
    workflow: () => editor.open,
    path: () => editor.open.path,
    id: () => editor.open.id,
    openPaths: () => editor.tabs.map(({ path }) => path),
  };
  const store = { read: () => structuredClone(stored.value), write: (value) => (stored.value = structuredClone(value)) };
  return { tabs: new Tabs(adapter, store), show, stored, editor };
}

test("a prompt is of the tab that queued it, whatever the tab is called later and whatever is open", () => {
  const { tabs, show, editor } = setUp();
  const first = editor.open;
  tabs.queue()("p");
  first.path = "renamed";
  const name = tabs.current;
  show({ path: "a (2)", id: "template" }); // a copy
  tabs.queue()("q");
  assert.equal(tabs.of("p"), name);
  assert.equal(tabs.of("q"), tabs.current);
  assert.notEqual(tabs.current, name);
  show(first);
  assert.equal(tabs.current, name);
  assert.equal(tabs.of("of somebody else"), undefined);
});

test("messages that come before the answer to the request are of the tab that asks", () => {
  const { tabs, show } = setUp();
  const [name, answer] = [tabs.current, tabs.queue()];
  show({ path: "b", id: "other" });
  assert.equal(tabs.of("p"), name);
  answer("p");
  assert.equal(tabs.of("p"), name);
  tabs.queue()(); // was refused
  assert.equal(tabs.of("later"), undefined);
});

test("while a workflow is loaded no tab is open", () => {
  const { tabs } = setUp();
  const end = tabs.load();
  assert.equal(tabs.current, null);
  end();
  assert.equal(typeof tabs.current, "string");
});

test("a page that is loaded again knows its tabs by path, and by workflow if that path is gone", () => {
  const { tabs, show, stored, editor } = setUp();
  tabs.queue()("p");
  show({ path: "b", id: "template" });
  tabs.queue()("q");
  const [one, two] = [tabs.of("p"), tabs.of("q")];
  assert.notEqual(one, two);

  const again = setUp(stored);
  again.editor.tabs.push({ path: "b", id: "template" }); // restored, not opened yet
  again.show({ path: "Unsaved", id: "template" }); // was "a"
  again.editor.tabs = again.editor.tabs.filter(({ path }) => path !== "a");
  assert.equal(again.tabs.current, one);
  again.show({ path: "b", id: "template" });
  assert.equal(again.tabs.current, two);
  again.show({ path: "c", id: "template" }); // a new copy
  assert.ok(![one, two].includes(again.tabs.current));
  again.show({ path: "d", id: "another" });
  assert.ok(![one, two].includes(again.tabs.current));
  assert.equal(editor.open.path, "b");
});

test("only the newest prompts are remembered", () => {
  const { tabs } = setUp();
  for (let n = 0; n < 300; n++) tabs.queue()(`p${n}`);
  assert.equal(tabs.of("p0"), undefined);
  assert.equal(tabs.of("p299"), tabs.current);
});
