import assert from "node:assert/strict";
import { test } from "node:test";

import { FrameQueue } from "../../../js/player/frame_queue.js";

const FPS = 16;
const CHUNK = 12;
const SECONDS = CHUNK / FPS; // of a chunk

function chunk(first, { count = CHUNK, numbers = [...Array(count).keys()].map((k) => first + k), bytes = 1 } = {}) {
  return { first, count, numbers, frames: numbers.map((number) => `${number}`.padEnd(bytes, " ")) };
}

/** What is shown from one time to another, looking `rate` times a second: [{time, number}] of each change. */
function watch(queue, from, to, { rate = 240, arrivals = [] } = {}) {
  const seen = [];
  const coming = [...arrivals];
  for (let tick = Math.round(from * rate); tick <= to * rate + 1e-9; tick++) {
    const now = tick / rate;
    while (coming.length && coming[0][0] <= now + 1e-12) {
      const [time, act] = coming.shift();
      act(time);
    }
    const number = queue.at(now);
    if (number !== null && number !== seen.at(-1)?.number) seen.push({ time: now, number });
  }
  return seen;
}

const arrive = (queue, ...times) => times.map((time, k) => [time, (now) => queue.add(chunk(k * CHUNK), now)]);
const numbers = (seen) => seen.map((one) => one.number);
const upTo = (end, begin = 0) => Array.from({ length: end - begin }, (_, k) => begin + k);

/** Every frame one after the other, each for a frame's time at least. */
function assertSteady(seen, slack = 1 / 240 + 1e-9) {
  for (let k = 1; k < seen.length; k++) {
    assert.equal(seen[k].number, seen[k - 1].number + 1);
    assert.ok(seen[k].time - seen[k - 1].time >= 1 / FPS - slack, `frame ${seen[k].number} came too soon`);
  }
}

test("nothing is shown before the first chunk, which begins to play at once", () => {
  const queue = new FrameQueue({ fps: FPS });
  assert.equal(queue.at(5), null);
  assert.equal(queue.moving(5), false);
  assert.equal(queue.late, false);
  queue.add(chunk(0), 7);
  assert.equal(queue.at(7), 0);
  assert.equal(queue.at(7 + 1.01 / FPS), 1);
});

test("chunks in exact real time play without a wait", () => {
  const queue = new FrameQueue({ fps: FPS });
  const times = upTo(20).map((k) => 3 + k * SECONDS);
  const seen = watch(queue, 0, 3 + 20 * SECONDS - 0.01, { arrivals: arrive(queue, ...times) });
  assert.deepEqual(numbers(seen), upTo(20 * CHUNK));
  for (const { time, number } of seen) assert.ok(Math.abs(time - 3 - number / FPS) < 1 / 200);
  assert.equal(queue.interruptions, 0);
});

test("jitter of less than a frame is no wait", () => {
  const queue = new FrameQueue({ fps: FPS });
  const times = upTo(20).map((k) => k * SECONDS + (k % 2) * 0.05);
  const seen = watch(queue, 0, 15, { arrivals: arrive(queue, ...times) });
  assertSteady(seen);
  assert.equal(queue.interruptions, 0);
});

test("a burst is played at the video's rate, and none of it is left out", () => {
  const queue = new FrameQueue({ fps: FPS });
  const seen = watch(queue, 0, 5 * SECONDS - 0.01, { arrivals: arrive(queue, 0, 0, 0.01, 0.02, 0.03) });
  assert.deepEqual(numbers(seen), upTo(5 * CHUNK));
  assertSteady(seen);
  assert.equal(queue.interruptions, 0);
});

test("a faster model is not chased: what waits grows, until the user goes live", () => {
  const queue = new FrameQueue({ fps: FPS });
  watch(queue, 0, 3, { arrivals: arrive(queue, ...upTo(9).map((k) => k / 3)) });
  assert.equal(queue.at(3), 48);
  assert.ok(queue.behind(3) > 3);
  queue.goLive(3);
  assert.ok(queue.at(3) >= 8 * CHUNK, "in the newest chunk");
  assert.ok(queue.behind(3) < 0.01);
  assert.equal(queue.interruptions, 0);
});

test("going live when live changes nothing, and never goes back", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  const before = queue.at(0.3);
  queue.goLive(0.3);
  assert.equal(queue.at(0.3), before);
  queue.seek(11, 0.3);
  queue.goLive(0.3);
  assert.equal(queue.at(0.3), 11);
});

test("a slower model: the newest frame is held, it says late, counts, and goes on where it was", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  assert.equal(queue.at(SECONDS + 0.01), 11);
  assert.equal(queue.late, false);
  assert.equal(queue.moving(SECONDS + 0.01), true);
  assert.equal(queue.at(SECONDS + 1.1 / FPS), 11);
  assert.equal(queue.late, true);
  assert.equal(queue.moving(SECONDS + 0.2), false);
  assert.equal(queue.interruptions, 1);
  queue.add(chunk(12), 3);
  assert.equal(queue.late, false);
  assert.equal(queue.at(3), 12);
  const seen = watch(queue, 3, 6);
  assert.deepEqual(numbers(seen), upTo(24, 12));
  assertSteady(seen);
  assert.equal(queue.interruptions, 2);
});

test("a hidden tab skips what it did not show, and knows of the waits", () => {
  const queue = new FrameQueue({ fps: FPS });
  for (const [time, act] of arrive(queue, 0, SECONDS, 4)) act(time); // nobody asks in between
  assert.equal(queue.interruptions, 1);
  assert.equal(queue.at(4 + 5.5 / FPS), 29);
});

test("of frames that were left out, the nearest earlier one is shown", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0, { numbers: [0, 4, 8, 11] }), 0);
  assert.deepEqual([0, 3, 4, 7, 10, 11].map((number) => queue.pictureOf(number).number), [0, 0, 4, 4, 8, 11]);
  queue.add(chunk(12, { numbers: [] }), 0); // the connection was behind
  assert.deepEqual([12, 23].map((number) => queue.pictureOf(number).number), [11, 11]);
  assert.equal(queue.pictureOf(20).picture.trim(), "11");
  assert.equal(queue.pictureOf(24), null);
});

test("frames that no message told of have to be fetched", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.add(chunk(36), 0); // two chunks came while the connection was down
  assert.deepEqual(queue.pictureOf(20), { number: 20, picture: undefined });
  queue.keep(20, "fetched");
  assert.deepEqual(queue.pictureOf(20), { number: 20, picture: "fetched" });
  assert.equal(queue.pictureOf(36).number, 36);
});

test("withdrawn frames behind the playhead do not disturb what is shown", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.add(chunk(12), 0);
  assert.equal(queue.at(0.5), 8);
  queue.withdraw(12, 0.5);
  assert.equal(queue.end, 12);
  assert.equal(queue.at(0.5), 8);
  assert.equal(queue.pictureOf(12), null);
  queue.add(chunk(12, { bytes: 5 }), 0.6);
  assert.deepEqual(numbers(watch(queue, 0.6, 1.4)), upTo(23, 9));
  assert.equal(queue.pictureOf(13).picture.length, 5, "of the new chunk");
});

test("withdrawn frames under the playhead: it holds the frame before them until new ones come", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.add(chunk(12), 0);
  assert.equal(queue.at(1), 16);
  queue.withdraw(12, 1);
  assert.equal(queue.at(1), 11);
  assert.equal(queue.at(2), 11);
  assert.equal(queue.late, true);
  queue.add(chunk(12), 2.5);
  assert.equal(queue.at(2.5), 12);
});

test("withdrawing while it waits", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.add(chunk(12), 0);
  assert.equal(queue.at(5), 23);
  queue.withdraw(12, 5);
  assert.equal(queue.at(5.5), 11);
  queue.add(chunk(12), 6);
  assert.equal(queue.interruptions, 1);
  assert.deepEqual(numbers(watch(queue, 6, 6.7)), upTo(24, 12));
});

test("withdrawing everything leaves nothing to show", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.withdraw(0, 0.2);
  assert.equal(queue.at(0.3), null);
  assert.equal(queue.bytes, 0);
  queue.add(chunk(0), 1);
  assert.equal(queue.at(1), 0);
});

test("withdrawing inside a chunk keeps its beginning", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.withdraw(5, 0);
  assert.deepEqual([queue.end, queue.pictureOf(4).number, queue.pictureOf(5)], [5, 4, null]);
});

test("paused, nothing moves, whatever comes and goes", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.pause(0.25);
  assert.equal(queue.at(9), 4);
  queue.add(chunk(12), 9);
  assert.equal(queue.at(10), 4);
  assert.equal(queue.moving(10), false);
  assert.equal(queue.late, false);
  queue.play(10);
  assert.equal(queue.at(10 + 1.1 / FPS), 5);
  queue.pause(12);
  queue.withdraw(12, 13);
  queue.add(chunk(12), 14);
  assert.equal(queue.at(14), 11);
});

test("paused while it waits, it stays on the newest frame of that time", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  assert.equal(queue.at(2), 11);
  queue.pause(2);
  queue.add(chunk(12), 3);
  assert.equal(queue.at(4), 11);
});

test("with loop, what there is begins again; new frames are played when it comes to them", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.loop = true;
  queue.add(chunk(0), 0);
  assert.deepEqual(numbers(watch(queue, 0, 2 * SECONDS - 0.01)), [...upTo(12), ...upTo(12)]);
  assert.equal(queue.late, true);
  assert.equal(queue.interruptions, 1);
  queue.add(chunk(12), 2.2 * SECONDS);
  assert.equal(queue.late, false);
  assert.deepEqual(numbers(watch(queue, 2.2 * SECONDS, 4 * SECONDS - 0.01)), upTo(24, 2));
  assert.equal(queue.at(4 * SECONDS + 0.01), 0);
});

test("one frame loops too", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.loop = true;
  queue.add(chunk(0, { count: 1 }), 0);
  for (const now of [0.1, 1, 100]) assert.equal(queue.at(now), 0);
});

test("seeking goes to an old frame and plays on from there", () => {
  const queue = new FrameQueue({ fps: FPS });
  for (const first of [0, 12, 24]) queue.add(chunk(first), 0);
  assert.equal(queue.at(2), 32);
  queue.seek(3, 2);
  assert.equal(queue.at(2), 3);
  assert.equal(queue.at(2 + 10.5 / FPS), 13);
  queue.seek(-5, 3);
  assert.equal(queue.at(3), 0);
  queue.seek(999, 3);
  assert.equal(queue.at(3), 35);
});

test("when no more will come it stops at the end, and play begins again", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.finish(0.1);
  assert.equal(queue.at(0.2), 3);
  assert.equal(queue.at(2), 11);
  assert.deepEqual([queue.playing, queue.late, queue.interruptions], [false, false, 0]);
  queue.play(3);
  assert.deepEqual(numbers(watch(queue, 3, 4)), upTo(12));
});

test("pictures are bounded in memory, the oldest make room, and their numbers stay known", () => {
  const queue = new FrameQueue({ fps: FPS, maxBytes: 1000 });
  for (let k = 0; k < 100; k++) queue.add(chunk(k * CHUNK, { bytes: 50 }), k);
  assert.ok(queue.bytes <= 1000);
  assert.deepEqual(queue.pictureOf(7), { number: 7, picture: undefined });
  assert.equal(queue.pictureOf(1199).picture.trim(), "1199");
  queue.keep(7, "again");
  assert.equal(queue.pictureOf(7).picture, "again");
  assert.ok(queue.bytes <= 1000);
});

test("a picture bigger than all room is still shown", () => {
  const queue = new FrameQueue({ fps: FPS, maxBytes: 10 });
  queue.add(chunk(0, { count: 1, bytes: 99 }), 0);
  assert.equal(queue.pictureOf(0).picture.length, 99);
});

test("joining a run that goes on shows its newest frame, waits without blame, and goes on", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.join(372, 100, 0);
  assert.equal(queue.at(0), 371);
  assert.deepEqual(queue.pictureOf(371), { number: 371, picture: undefined });
  assert.equal(queue.at(3), 371);
  assert.deepEqual([queue.late, queue.interruptions], [false, 0]);
  queue.add(chunk(372), 4);
  assert.deepEqual(numbers(watch(queue, 4, 4.5)), upTo(381, 372));
  queue.seek(0, 5);
  assert.equal(queue.at(5), 100);
  queue.forget(200);
  queue.seek(0, 5);
  assert.equal(queue.at(5), 200);
});

test("joining again after messages were lost knows of the frames in between", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.join(48, 0, 2);
  assert.equal(queue.end, 48);
  assert.deepEqual(numbers(watch(queue, 2, 2 + 3.5 / FPS)), [12, 13, 14, 15]);
});

test("a chunk that comes twice counts once", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0, { bytes: 2 }), 0);
  queue.add(chunk(0, { bytes: 2 }), 0);
  queue.add(chunk(12, { bytes: 2 }), 0.1);
  queue.add(chunk(0, { bytes: 2 }), 0.2);
  assert.equal(queue.end, 24);
  assert.equal(queue.bytes, 48);
  assert.equal(queue.pictureOf(5).number, 5);
});

test("another rate holds from the moment on it is set", () => {
  const queue = new FrameQueue({ fps: 10 });
  queue.add(chunk(0), 0);
  queue.setFps(20, 0.5);
  assert.equal(queue.at(0.5), 5);
  assert.equal(queue.at(0.601), 7);
});

/** Numbers that look random and are the same each time. */
function draws(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("whatever comes when: never back by itself, never faster than the video, nothing left out", () => {
  for (let seed = 1; seed <= 150; seed++) {
    const draw = draws(seed);
    const queue = new FrameQueue({ fps: FPS, maxBytes: 300 });
    let [now, made, shown] = [0, 0, null];
    let changed = -1;
    let floor = 0; // below it, a withdrawal took what was shown
    for (let step = 0; step < 400; step++) {
      now += draw() / 200;
      const what = draw();
      if (what < 0.03) {
        const count = 1 + Math.floor(draw() * 16);
        queue.add(chunk(made, { count, numbers: upTo(made + count, made).filter(() => draw() < 0.7), bytes: 3 }), now);
        made += count;
      } else if (what < 0.04 && made > 0) {
        made = Math.floor(draw() * made);
        queue.withdraw(made, now);
        if (shown !== null && shown >= made) [shown, changed, floor] = [made ? made - 1 : null, -1, made];
      }
      const number = queue.at(now);
      assert.equal(queue.end, made);
      if (number === null) {
        assert.equal(made, 0);
        continue;
      }
      assert.ok(number < made);
      if (shown !== null && number !== shown) {
        assert.equal(number, shown + 1, `seed ${seed}: from ${shown} to ${number}`);
        const withdrawn = number === floor;
        assert.ok(withdrawn || now - changed >= 1 / FPS - 1 / 200 - 1e-9, `seed ${seed}: frame ${number} too soon`);
      }
      if (number !== shown) [shown, changed] = [number, now];
      const drawn = queue.pictureOf(number);
      assert.ok(drawn.number <= number);
      assert.ok(queue.bytes <= 300);
    }
  }
});

test("whatever the user does, a frame that exists is shown", () => {
  for (let seed = 1; seed <= 100; seed++) {
    const draw = draws(seed);
    const queue = new FrameQueue({ fps: FPS });
    let [now, made] = [0, 0];
    const acts = [
      () => queue.add(chunk((made += 12) - 12), now),
      () => queue.play(now),
      () => queue.pause(now),
      () => queue.seek(Math.floor(draw() * 60) - 5, now),
      () => queue.goLive(now),
      () => (queue.loop = !queue.loop),
      () => queue.withdraw((made = Math.max(0, made - 12)), now),
      () => queue.finish(now),
    ];
    for (let step = 0; step < 300; step++) {
      now += draw() * 0.3;
      acts[Math.floor(draw() ** 2 * acts.length)]();
      const number = queue.at(now);
      if (made) assert.ok(number >= 0 && number < made, `seed ${seed}: ${number} of ${made}`);
      else assert.equal(number, null);
      assert.ok(queue.behind(now) >= 0);
    }
  }
});

test("a wait that the user's own pause of the run makes is not late", () => {
  const queue = new FrameQueue({ fps: FPS });
  watch(queue, 0, SECONDS / 2, { arrivals: arrive(queue, 0) });
  queue.excuse(SECONDS / 2);
  queue.at(10 * SECONDS);
  assert.equal(queue.late, false);
  assert.equal(queue.interruptions, 0);
});

test("at twice the speed twice as many frames are shown, and at a quarter a quarter", () => {
  for (const [rate, at] of [[2, 16], [0.25, 2]]) {
    const queue = new FrameQueue({ fps: FPS });
    queue.add(chunk(0, { count: 48 }), 0);
    queue.setRate(rate, 0);
    assert.equal(queue.at(0.5), at);
  }
});

test("whoever watches faster than the video is made waits, which is not late", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.setRate(2, 0);
  watch(queue, 0, 4, { arrivals: arrive(queue, 0) });
  assert.equal(queue.interruptions, 0);
  assert.equal(queue.late, false);
});

test("a run that goes on from older frames opens at what is new", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0, { count: 33 }), 0);
  queue.skipOld(0);
  assert.equal(queue.at(0.1), 32);
  queue.add(chunk(33), 0.5);
  assert.equal(queue.at(0.5), 33);
});

test("frames that a re-roll took back are known until they were made again", () => {
  const queue = new FrameQueue({ fps: FPS });
  queue.add(chunk(0), 0);
  queue.add(chunk(12), 0);
  queue.withdraw(12, 0.1);
  assert.ok(queue.withdrawnTo > queue.end);
  queue.add(chunk(12), 0.2);
  assert.ok(queue.withdrawnTo <= queue.end);
});
