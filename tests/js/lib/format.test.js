import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBytes, formatSecond } from "../../../js/lib/format.js";

const [KIB, MIB, GIB] = [2 ** 10, 2 ** 20, 2 ** 30];

test("a size reads as in the server's messages: in the largest unit of which it is a tenth", () => {
  const sizes = {
    ...{ 0: "0 bytes", 102: "102 bytes", 103: "0.1 KiB", 999: "1.0 KiB", 2048: "2.0 KiB" },
    ...{ [50 * KIB]: "50.0 KiB", [432 * KIB]: "0.4 MiB", 2516582: "2.4 MiB", [100 * MIB]: "100.0 MiB" },
    ...{ [310 * MIB]: "0.3 GiB", [3.1 * GIB]: "3.1 GiB", [5 * GIB]: "5.0 GiB", [2048 * GIB]: "2048.0 GiB" },
  };
  for (const [bytes, text] of Object.entries(sizes)) assert.equal(formatBytes(Number(bytes)), text);
});

test("halves are rounded as Python rounds them", () => {
  assert.deepEqual([0.25, 0.75, 1.25, 2.75].map((size) => formatBytes(size * GIB)), [
    "0.2 GiB",
    "0.8 GiB",
    "1.2 GiB",
    "2.8 GiB",
  ]);
});

test("seconds have at most six decimals and no zeros at the end", () => {
  const written = [0, 2, 2.5, 2.25, 0.1 + 0.2, 1 / 3, 1e-9, 100].map(formatSecond);
  assert.deepEqual(written, ["0", "2", "2.5", "2.25", "0.3", "0.333333", "0", "100"]);
});
