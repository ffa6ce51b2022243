import assert from "node:assert/strict";
import { test } from "node:test";

import { asOfLoader } from "../../js/certificates.js";
import { Texts, textOf } from "../../js/texts.js";

class View {
  text = "";
  now = "";
  get isEmpty() {
    return this.text === "";
  }
  show(text) {
    this.text = this.now = text;
  }
  showProgress(text) {
    this.now = text;
  }
  endProgress() {
    this.now = this.text;
  }
}

/** Nodes are {ids}. The tab "one" is open. */
function setUp(language = "en") {
  const tabs = { current: "one", of: (prompt) => ({ p: "one", q: "two" })[prompt] };
  const texts = new Texts({ idsOf: (node) => node.ids, tabs, language: () => language });
  const add = (...ids) => {
    const [node, view] = [{ ids }, new View()];
    texts.add(node, view);
    return { node, view };
  };
  return { texts, tabs, add };
}

const result = (node, prompt_id, text) => ({ node, prompt_id, output: { sf_text: [text] } });

test("a result's text is shown by the node of the tab that queued it, and by no copy of the workflow", () => {
  const { texts, tabs, add } = setUp();
  const first = add("5", "3:5");
  texts.result(result("3:5", "p", "of one"));
  texts.result(result("5", "q", "of two"));
  assert.equal(first.view.now, "of one");
  texts.remove(first.node);
  tabs.current = null; // while it is loaded
  const copy = add("5");
  texts.offerAll();
  assert.equal(copy.view.now, "");
  tabs.current = "two";
  texts.offerAll();
  assert.equal(copy.view.now, "of two");
});

test("a node that has a text already, as what its file holds, gets no older one", () => {
  const { texts, add } = setUp();
  texts.say("5", "older");
  const { view } = add("5");
  view.show("newer");
  texts.offerAll();
  assert.equal(view.now, "newer");
});

test("what a node says while it works is not kept, and is gone when the run is", () => {
  const { texts, add } = setUp();
  const { view } = add("5");
  texts.say("5", "last time");
  assert.equal(texts.progress("5", "working", "one"), true);
  assert.equal(view.now, "working");
  assert.equal(texts.progress("5", "of a copy in another tab", "two"), true);
  assert.equal(texts.progress("9", "of another pack", "one"), false);
  assert.equal(view.now, "working");
  texts.endProgress();
  assert.equal(view.now, "last time");
});

test("a result that the server kept from a page in another language is in this page's", () => {
  const output = { sf_text: ["fits"], sf_text_in: [{ en: "fits", zh: "放得下" }] };
  assert.equal(textOf(output, "zh-TW"), "放得下");
  assert.equal(textOf({ ...output, sf_text: ["放得下"] }, "fr"), "fits");
  assert.equal(textOf({ sf_text: ["of an older server"] }, "zh"), "of an older server");
  assert.equal(textOf({ sf_text: ["of one", "", "of another"] }, "en"), "of one\nof another");
});

test("a certificate is its loader's text, which the loader's older one does not replace", () => {
  const certificate = result("sf-verify-3_5", "p", "verify passed");
  assert.deepEqual(asOfLoader(certificate), { ...certificate, node: "3:5" });
  assert.equal(asOfLoader(result("3:5", "p", "Self Forcing")).output, null);
  assert.equal(asOfLoader(result("3:5", "q", "Self Forcing")).output.sf_text[0], "Self Forcing");
  assert.deepEqual(asOfLoader({ node: "sf-verify-5" }), { node: "5" }); // while it works
});
