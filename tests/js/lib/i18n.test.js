import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { afterEach, test } from "node:test";

import { setTexts, translatedNote, translator } from "../../../js/lib/i18n.js";
import { MAIN } from "../texts.js";

const FOLDER = new URL("../../../js/", import.meta.url);
const KEY = /"((?:player|steering|keys|training|sessions|timeline|replay|verify)\.\w+)"/g;

const SOURCES = readdirSync(FOLDER, { recursive: true })
  .filter((name) => name.endsWith(".js"))
  .map((name) => readFileSync(new URL(name, FOLDER), "utf8"));
const USED = new Set(SOURCES.flatMap((source) => [...source.matchAll(KEY)].map(([, key]) => key)));

const keysOf = (language) =>
  Object.entries(MAIN[language].selfForcing).flatMap(([group, texts]) => Object.keys(texts).map((name) => `${group}.${name}`));
const textOf = (language, key) => key.split(".").reduce((texts, name) => texts[name], MAIN[language].selfForcing);
const namesIn = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();

afterEach(() => setTexts(MAIN));

test("every key that the code uses has a text in every language, and no text is unused", () => {
  assert.ok(USED.size > 100);
  for (const language of Object.keys(MAIN)) assert.deepEqual(keysOf(language).sort(), [...USED].sort(), language);
});

test("a translation takes the same values", () => {
  for (const key of USED) assert.deepEqual(namesIn(textOf("zh", key)), namesIn(textOf("en", key)), key);
});

test("Chinese texts are Chinese", () => {
  const same = ["player.natural", "player.double", "training.stageSelfForcing"];
  for (const key of USED) if (!same.includes(key)) assert.match(textOf("zh", key), /[\u4e00-\u9fff]/, key);
});

test("values are put in place of their names, and names without a value stay", () => {
  setTexts({ en: { selfForcing: { a: { b: "{one} of {two}" } } } });
  assert.equal(translator("en")("a.b", { one: 0 }), "0 of {two}");
  assert.equal(translator("en")("a.b", { one: "$& {two}" }), "$& {two} of {two}");
});

test("a variant takes the texts of its language, and English stands in for what is missing", () => {
  assert.equal(translator("zh-TW")("player.play"), textOf("zh", "player.play"));
  assert.equal(translator("fr")("player.play"), "Play (Space)");
  setTexts({ en: MAIN.en, zh: { selfForcing: {} }, de: {} });
  assert.equal(translator("zh")("player.play"), "Play (Space)");
  assert.equal(translator("de")("player.play"), "Play (Space)");
});

test("a template's note is shown in the editor's language, and one that somebody changed as it is", () => {
  const workflow = JSON.parse(readFileSync(new URL("../../../workflows/tiny_live.json", import.meta.url), "utf8"));
  const [note] = workflow.nodes.find(({ type }) => type === "MarkdownNote").widgets_values;
  assert.match(translatedNote(note, "zh-TW"), /^## 微型演示：实时/);
  assert.equal(translatedNote(note, "fr"), note);
  assert.equal(translatedNote(`${note} mine`, "zh"), `${note} mine`);
});

test("without texts from the server a key is readable, and keeps its values", () => {
  for (const answer of [{}, { en: null }, { en: { nodeDefs: {} } }]) {
    setTexts(answer);
    assert.equal(translator("zh")("player.chunkOf", { n: 3, m: 7 }), "chunk of 3 7");
  }
});
