import assert from "node:assert/strict";
import { test } from "node:test";

import { chunkAt, chunkBeside, chunkGrid, startOf } from "../../../js/player/chunk_grid.js";

/** Of a run of `chunk` chunks, the first of which has 9 frames and the others 12, after `older` frames. */
const run = (chunk, { older = 0, chunks = 0, short = 3 } = {}) => ({
  ...{ chunk, chunks, first_new: older },
  frames: older + 12 * chunk - short,
});

test("chunks begin where they were made, whether the first is shorter or not", () => {
  for (const short of [3, 0])
    for (const older of [0, 33])
      for (let chunk = 1; chunk < 20; chunk++) {
        const longest = chunk > 1 ? 12 : 12 - short;
        const grid = chunkGrid(run(chunk, { short, older }), longest);
        for (let k = 1; k <= chunk; k++) {
          const first = older + (k === 1 ? 0 : 12 * (k - 1) - short);
          assert.equal(startOf(grid, k), first, `chunk ${k} of ${chunk}`);
          assert.equal(chunkAt(grid, first), k);
          if (first > older) assert.equal(chunkAt(grid, first - 1), k - 1);
        }
      }
});

test("a page that saw no chunk of a longer run knows them from the state alone", () => {
  const grid = chunkGrid(run(8), 0);
  assert.deepEqual([1, 2, 3].map((chunk) => startOf(grid, chunk)), [0, 9, 21]);
});

test("a run of a planned length ends where its last chunk will end", () => {
  assert.equal(chunkGrid(run(5, { chunks: 20 }), 12).end, 12 * 20 - 3);
  assert.equal(chunkGrid(run(5), 12).end, 12 * 5 - 3);
});

test("a step goes to the beginning of a chunk: of the next, of this one, or of the one before", () => {
  const grid = chunkGrid(run(6), 12);
  assert.equal(chunkBeside(grid, 10, 1), 21);
  assert.equal(chunkBeside(grid, 10, -1), 9);
  assert.equal(chunkBeside(grid, 9, -1), 0);
  assert.equal(chunkBeside(grid, 0, -1), 0);
});

test("before the first chunk there are none", () => {
  assert.equal(chunkGrid(run(0, { short: 0 }), 0), null);
  assert.equal(chunkGrid({ chunk: 1, chunks: 0, frames: 4, first_new: 9 }, 4), null);
});
