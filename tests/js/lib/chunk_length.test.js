import assert from "node:assert/strict";
import { test } from "node:test";
import { lengthOf } from "../../../js/lib/chunk_length.js";

test("the length before Run is that of whole chunks, as the server makes them", () => {
  const chunks = { chunk: 3, first: 3 };
  assert.deepEqual(lengthOf(4, 16, { ...chunks, isEmpty: true }), { chunks: 6, seconds: 69 / 16 });
  assert.deepEqual(lengthOf(4, 16, { ...chunks, isEmpty: false }), { chunks: 6, seconds: 72 / 16 });
  assert.deepEqual(lengthOf(0.1, 16, { ...chunks, isEmpty: true }), { chunks: 1, seconds: 9 / 16 });
  assert.deepEqual(lengthOf(1, 16, { chunk: 1, first: 1, isEmpty: true }), { chunks: 5, seconds: 17 / 16 });
});
