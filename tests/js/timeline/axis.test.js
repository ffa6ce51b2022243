import assert from "node:assert/strict";
import test from "node:test";

import * as axis from "../../../js/timeline/axis.js";

test("a block lasts to the next row in time, and a row without a prompt keeps the one before", () => {
  const rows = [
    { second: 3, prompt: "b" },
    { second: 0, prompt: "a" },
    { second: 4, prompt: "" },
  ];
  const found = axis.blocksOf(rows).map(({ index, end, before, holding }) => [index, end, before, holding]);
  assert.deepEqual(found, [
    [1, 3, "", "a"],
    [0, 4, "a", "b"],
    [2, Infinity, "b", "b"],
  ]);
});

test("the axis shows all rows and a quarter more", () => {
  assert.deepEqual(axis.fit([{ second: 8 }, { second: 2 }]), { from: 0, to: 10 });
  assert.deepEqual(axis.fit([{ second: 0 }]), axis.fit([]));
});

test("the axis ends where the video does, unless a row comes later", () => {
  assert.deepEqual(axis.fit([{ second: 2 }, { second: 5 }], 9), { from: 0, to: 9 });
  assert.deepEqual(axis.fit([], 9), { from: 0, to: 9 });
  assert.deepEqual(axis.fit([{ second: 8 }], 5), { from: 0, to: 10 });
});

test("zooming keeps what is under the pointer where it is", () => {
  const whole = { from: 0, to: 10 };
  const near = axis.zoom(whole, 4, 0.5, whole);
  assert.deepEqual(near, { from: 2, to: 7 });
  assert.deepEqual(axis.zoom(near, 4, 2, whole), whole);
  assert.deepEqual(axis.zoom(whole, 5, 1e9, whole), { from: 0, to: 80 });
  assert.equal(axis.zoom(whole, 0, 1e-9, whole).to, 0.5);
});

test("a second out of sight is shown", () => {
  assert.deepEqual(axis.showing({ from: 0, to: 4 }, 3), { from: 0, to: 4 });
  assert.deepEqual(axis.showing({ from: 0, to: 4 }, 9), { from: 7, to: 11 });
  assert.deepEqual(axis.showing({ from: 8, to: 12 }, 0), { from: 0, to: 4 });
});

test("the axis is written on at few round seconds", () => {
  assert.deepEqual(axis.ticks({ from: 0, to: 4 }), [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]);
  assert.deepEqual(axis.ticks({ from: 2.9, to: 3.4 }), [2.9, 3, 3.1, 3.2, 3.3, 3.4]);
  for (const to of [0.5, 1, 7.5, 33, 100, 3601, 86400, 1e6]) {
    const found = axis.ticks({ from: 0, to });
    assert.ok(found.length >= 2 && found.length <= 11, `${to}: ${found}`);
  }
});

test("a row snaps, and passes no neighbour nor 0", () => {
  assert.equal(axis.snapped(2.3, 0.25, null, null), 2.25);
  assert.equal(axis.snapped(-3, 0.25, null, null), 0);
  assert.equal(axis.snapped(0.1, 0.25, 1, 3), 1.25);
  assert.equal(axis.snapped(9, 0.25, 1, 3), 2.75);
  assert.equal(axis.snapped(9, 0.25, 1.1, 2.9), 2.75);
  assert.equal(axis.snapped(9, 0.01, 1, 3), 2.99);
  assert.equal(axis.snapped(2, 0.25, 2, 2.25), null);
  assert.equal(axis.snapped(0.07, 0.01, null, null), 0.07);
});

test("an arrow goes to the next place on the grid, and no further than the neighbours", () => {
  assert.equal(axis.stepped(2.3, 1, 0.25, null, null), 2.5);
  assert.equal(axis.stepped(2.3, -1, 0.25, null, null), 2.25);
  assert.equal(axis.stepped(0, -1, 0.25, null, null), null);
  assert.equal(axis.stepped(2.75, 1, 0.25, 1, 3), null);
  assert.equal(axis.stepped(1.25, -1, 0.25, 1, 3), null);
  assert.equal(axis.stepped(2.3, 1, 0.01, null, null), 2.31);
});

test("the same prompt has the same colour, other prompts mostly another", () => {
  assert.equal(axis.colourOf("A red circle"), axis.colourOf("a red circle"));
  const colours = new Set(Array.from({ length: 40 }, (_, at) => axis.colourOf(`prompt ${at}`)));
  assert.ok(colours.size > 30, `${colours.size} colours`);
});

test("white letters can be read on every colour", () => {
  for (let at = 0; at < 500; at++) {
    const [hue, saturation, lightness] = axis
      .colourOf(at ? `prompt ${at}` : "")
      .match(/\d+/g)
      .map(Number);
    assert.ok(contrastWithWhite(hue, saturation / 100, lightness / 100) >= 4.5, `hue ${hue}`);
  }
});

/** By WCAG 2. */
function contrastWithWhite(hue, saturation, lightness) {
  const chroma = saturation * Math.min(lightness, 1 - lightness);
  const linear = [0, 8, 4].map((shift) => {
    const place = (shift + hue / 30) % 12;
    const value = lightness - chroma * Math.max(-1, Math.min(place - 3, 9 - place, 1));
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05);
}
