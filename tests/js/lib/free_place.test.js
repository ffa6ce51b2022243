import assert from "node:assert/strict";
import { test } from "node:test";
import { freePlace } from "../../../js/lib/free_place.js";

test("a new node is put below what is in its way", () => {
  assert.deepEqual(freePlace([0, 0, 10, 10], [], 5), [0, 0]);
  assert.deepEqual(freePlace([0, 0, 10, 10], [[5, 5, 10, 10]], 5), [0, 20]);
  assert.deepEqual(freePlace([0, 0, 10, 10], [[5, 5, 10, 10], [0, 22, 10, 10]], 5), [0, 37]);
  assert.deepEqual(freePlace([0, 0, 10, 10], [[100, 0, 10, 10]], 5), [0, 0]);
});
