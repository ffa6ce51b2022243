import assert from "node:assert/strict";
import test from "node:test";

import { formatSecond } from "../../../js/lib/format.js";
import * as timeline from "../../../js/timeline/text.js";

const { parse } = timeline;
const TEXT = `# opening

0: a red circle: moving left
  2.25  Blend 3 :  a blue square
4.50 CUT:
# noise
5.25 seed 18446744073709551615 :
6 recache: a green triangle  `;

const bare = (rows) => rows.map(({ line: _, ...row }) => row);
const row = (second, prompt = "", options = {}) => ({
  ...{ second, prompt, blend: 1, recache: false, cut: false, seed: null },
  ...options,
});

/** A generator of the same numbers each time, for the random tests. */
function dice(seed) {
  const next = () => (seed = (seed * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
  const below = (count) => Math.floor(next() * count);
  return { below, one: (list) => list[below(list.length)], chance: (share) => next() < share };
}

const MAX_SEED = 2n ** 64n - 1n;
const PROMPTS = ["a red circle", "a: b", "x # y", "# no comment", "画", "a  b", "cut", "1: 2", "blend 3"];

function randomRow(of, second) {
  const options = { blend: of.chance(0.3) ? 1 + of.below(1000) : 1, recache: of.chance(0.2) && (of.chance(0.5) || "joint"), cut: of.chance(0.3) };
  const seed = of.chance(0.3) ? of.one([0n, 7n, 2n ** 53n + 1n, MAX_SEED]) : null;
  const bare = (options.cut || seed !== null) && of.chance(0.4);
  return row(second, bare ? "" : of.one(PROMPTS), { ...options, seed });
}

function randomRows(of) {
  const seconds = new Set(Array.from({ length: 1 + of.below(6) }, () => of.below(40_000_000) / 10 ** of.below(7)));
  return [...seconds].map((second) => randomRow(of, second));
}

function write({ second, prompt, blend, recache, cut, seed }) {
  const options = [blend > 1 && `blend ${blend}`, recache && (recache === "joint" ? recache : "recache"), cut && "cut", seed !== null && `seed ${seed}`];
  return `${[formatSecond(second), ...options].filter(Boolean).join(" ")}: ${prompt}`.trimEnd();
}

/** The rows as a person writes them: spaces, comments, capitals, any order. */
function randomText(of, rows) {
  const ends = of.one(["\n", "\r\n"]);
  const written = rows.flatMap((each) => {
    let line = write(each);
    const colon = line.indexOf(":");
    if (of.chance(0.3)) line = ` ${line.slice(0, colon).toUpperCase().replaceAll(" ", "  ")} ${line.slice(colon)}\t`;
    if (of.chance(0.2) && !/: *\d/.test(line)) line = line.replace(/: */, ":"); // digits there would be minutes
    return [...(of.chance(0.3) ? [of.one(["", "# a: b", "   ", "nonsense", "1 2: 3"])] : []), line];
  });
  return written.join(ends) + (of.chance(0.4) ? ends : "");
}

test("rows are read with their options, in any spelling", () => {
  const { rows, errors } = parse(TEXT);
  assert.deepEqual(errors, []);
  assert.deepEqual(bare(rows), [
    row(0, "a red circle: moving left"),
    row(2.25, "a blue square", { blend: 3 }),
    row(4.5, "", { cut: true }),
    row(5.25, "", { seed: 2n ** 64n - 1n }),
    row(6, "a green triangle", { recache: true }),
  ]);
  assert.deepEqual(
    rows.map((each) => each.line),
    [3, 4, 5, 7, 8],
  );
});

test("each bad line says what is wrong with it, and the other rows are read", () => {
  const bad = {
    "a cat": "timeline.noColon",
    ": a cat": "timeline.noSecond",
    "-1: a cat": "timeline.noSecond",
    "1e3: a cat": "timeline.noSecond",
    "nan: a cat": "timeline.noSecond",
    "1 quickly: a cat": "timeline.unknownOption",
    "1 blend: a cat": "timeline.badBlend",
    "1 blend 0: a cat": "timeline.badBlend",
    "1 blend 1001: a cat": "timeline.badBlend",
    "1 blend 1.5: a cat": "timeline.badBlend",
    "1 seed: a cat": "timeline.badSeed",
    "1 seed 18446744073709551616: a cat": "timeline.badSeed",
    "1 seed -1: a cat": "timeline.badSeed",
    "1:": "timeline.noPrompt",
    "1 recache blend 2:  ": "timeline.noPrompt",
    "2.0: a cat": "timeline.sameSecond",
  };
  for (const [line, message] of Object.entries(bad)) {
    const { rows, errors } = parse(`2: a dog\n${line}\n3: a cow`);
    assert.deepEqual(errors, [{ line: 2, message }], line);
    assert.deepEqual(bare(rows), [row(2, "a dog"), row(3, "a cow")]);
  }
});

test("what is written is read again as the same", () => {
  const of = dice(1);
  for (let round = 0; round < 500; round++) {
    const rows = randomRows(of);
    assert.deepEqual(parse(rows.map(write).join("\n")), {
      rows: rows.map((each, at) => ({ ...each, line: at + 1 })),
      errors: [],
    });
  }
});

test("an edit changes its row and no byte of another line", () => {
  const of = dice(2);
  for (let round = 0; round < 1000; round++) {
    const text = randomText(of, randomRows(of));
    const { rows, errors } = parse(text);
    const index = of.below(rows.length);
    const [name, value, expected] = of.one([
      ["moveRow", 50, { second: 50 }],
      ["setPrompt", " a  new\none: b ", { prompt: "a  new one: b" }],
    ]);
    const after = timeline[name](text, index, value);
    const wanted = rows.map((each, at) => (at === index ? { ...each, ...expected } : each));
    assert.deepEqual(parse(after), { rows: wanted, errors }, `${name} ${index} of ${JSON.stringify(text)}`);
    assert.deepEqual(without(after, rows[index].line), without(text, rows[index].line));
  }
});

const without = (text, line) => text.split(/(\r\n|\n)/).filter((_, at) => at !== 2 * (line - 1));

test("an edit that changes nothing leaves the text as it is", () => {
  const { rows } = parse(TEXT);
  for (const [index, each] of rows.entries()) {
    assert.equal(timeline.setPrompt(TEXT, index, each.prompt), TEXT);
    if (each.second !== 4.5) assert.equal(timeline.moveRow(TEXT, index, each.second), TEXT);
  }
});

test("a row keeps its spelling but for what was changed", () => {
  assert.equal(timeline.moveRow(TEXT, 1, 2.5).split("\n")[3], "  2.5  Blend 3 :  a blue square");
  assert.equal(timeline.setPrompt(TEXT, 1, "x").split("\n")[3], "  2.25  Blend 3 :  x");
  assert.equal(timeline.setPrompt(TEXT, 2, "x").split("\n")[4], "4.50 CUT: x");
});

test("a new row is where time puts it, and is the only new line", () => {
  const of = dice(3);
  for (let round = 0; round < 500; round++) {
    const text = randomText(of, randomRows(of));
    const { rows, errors } = parse(text);
    const after = timeline.addRow(text, 1.234567, "new: x");
    const found = parse(after);
    const added = found.rows.findIndex((each) => each.second === 1.234567);
    assert.deepEqual(bare(found.rows).toSpliced(added, 1), bare(rows));
    assert.equal(found.errors.length, errors.length);
    assert.equal(timeline.removeRow(after, added), text);
  }
  const lines = timeline.addRow("# one\n0: a\n# two\n4: b\n", 2, "c").split("\n");
  assert.deepEqual(lines, ["# one", "0: a", "2: c", "# two", "4: b", ""]);
  assert.equal(timeline.addRow("", 2, "c"), "2: c");
  assert.equal(timeline.addRow("# one", 2, "c"), "# one\n2: c");
  assert.equal(timeline.addRow("4: b", 2, "c"), "2: c\n4: b");
});

test("a removed row leaves the others", () => {
  assert.equal(timeline.removeRow("0: a\n1: b\n2: c", 1), "0: a\n2: c");
  assert.equal(timeline.removeRow("0: a\n1: b\n2: c", 2), "0: a\n1: b");
  assert.equal(timeline.removeRow("0: a\n", 0), "");
  assert.equal(timeline.removeRow("0: a", 0), "");
});

test("times may be minutes, and colons full-width", () => {
  const text = "0:05 a cat\n1:30: a dog\n1：02：03.5 blend 3： 画\n7：a bird\n8: 1: two\n１：１０ 狗\n2:00 cut of meat";
  const seconds = parse(text).rows.map(({ second, prompt }) => [second, prompt]);
  const expected = [
    ...[[5, "a cat"], [90, "a dog"], [3723.5, "画"], [7, "a bird"], [8, "1: two"], [70, "狗"], [120, "cut of meat"]],
  ];
  assert.deepEqual(seconds, expected);
  const lines = ["1:60: a", "1:30:00:00: a", "1:5: a", "1:30:5: a", "00:00:05,000 --> 1", "1:05 cut", "1:05 Seed 3 cut"];
  const wrong = parse(lines.join("\n")).errors.map(({ message }) => message);
  assert.deepEqual(wrong, [...Array(5).fill("timeline.noSecond"), "timeline.noColon", "timeline.noColon"]);
  assert.equal(timeline.moveRow("0:05 a cat", 0, 7), "7: a cat");
  assert.equal(timeline.moveRow("1:30 cut: a cat", 0, 7), "7 cut: a cat");
  assert.equal(timeline.setPrompt("0:05 a cat", 0, "a dog"), "0:05: a dog");
});
