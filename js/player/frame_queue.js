import { Pictures } from "./pictures.js";

const MAX_BYTES = 8 * 2 ** 20; // of pictures; older ones are fetched again when they are needed
const GRACE = 1; // frames of delay that do not count as a wait
const ROUNDING = 1e-6; // frames: sums of times are not exact

/** @typedef {import("./screen.js").Picture} Picture */
/** @typedef {{first: number, count: number, numbers: number[], arrived: number}} Chunk frames of one message */

/**
 * A playback queue of frames that come in chunks, early or late: says which frame to show at a time, at the video's own
 * rate. It has no timer and no clock; every method that depends on the time takes it as `now`, in seconds.
 *
 * Playback begins with the first chunk. At the newest frame it waits for the next chunk, or begins again if `loop` is on.
 * It never goes back by itself, and skips no frame that there is time to show.
 */
export class FrameQueue {
  loop = false;
  playing = true;
  /** Whether more frames will come. */
  live = true;
  /** Whether playback waits for frames that are due. */
  late = false;
  /** Number of such waits. */
  interruptions = 0;
  /** The oldest frame that can be shown. */
  first = 0;
  /** The number after that of the newest frame. */
  end = 0;

  /** Frames that a re-roll took back and that were not made again yet: up to this number. */
  withdrawnTo = 0;
  /** Whether frames came, so that the position is one that was watched. */
  sawFrames = false;
  /** Frames of the longest message: those of a chunk, unless it came in parts. */
  longest = 0;

  #fps;
  #rate = 1; // of playback; 2: twice as fast
  #time = -Infinity; // of #position
  #position = 0; // in frames; equal to `end` after the newest frame had its time
  /** @type {number | null} */
  #due = null; // when the next frame was to be shown
  #excused = false; // until the next chunk no wait counts as late: the user jumped to the end, or paused the run
  #counted = false; // whether this wait is among the interruptions
  /** @type {Chunk[]} */
  #chunks = []; // in the order of their frames
  #pictures;

  /** @param {{fps?: number, maxBytes?: number}} options */
  constructor({ fps = 16, maxBytes = MAX_BYTES } = {}) {
    this.#fps = fps;
    this.#pictures = new Pictures(maxBytes);
  }

  get fps() {
    return this.#fps;
  }

  get bytes() {
    return this.#pictures.bytes;
  }

  /** The oldest frame whose picture is in memory, as those of the frames after it that were sent. */
  get bufferedFrom() {
    return Math.min(this.#pictures.oldest ?? this.end, this.end);
  }

  get empty() {
    return this.end <= this.first;
  }

  // arrivals ---------------------------------------------------------------------------------------------------------

  /**
   * Adds a chunk: frames `first` to `first + count - 1`, of which `numbers` came as pictures, `frames`.
   *
   * @param {{first: number, count: number, numbers: number[], frames: Picture[]}} chunk
   * @param {number} now
   */
  add({ first, count, numbers, frames }, now) {
    this.#settle(now);
    if (this.empty) this.first = this.#position = first;
    this.end = Math.max(this.end, first + count);
    this.#chunks = this.#chunks.filter((one) => one.first !== first);
    const at = this.#chunks.findLastIndex((one) => one.first < first) + 1;
    this.#chunks.splice(at, 0, { first, count, numbers, arrived: now });
    this.sawFrames = true;
    this.longest = Math.max(this.longest, count);
    numbers.forEach((number, k) => this.#pictures.put(number, frames[k]));
    this.late = this.#excused = this.#counted = false;
    this.#due = null;
  }

  /**
   * Drops frames from `first` on: their chunk was re-rolled.
   *
   * @param {number} first
   * @param {number} now
   */
  withdraw(first, now) {
    this.#settle(now);
    if (first >= this.end) return;
    this.withdrawnTo = Math.max(this.end, this.withdrawnTo);
    this.end = first;
    this.first = Math.min(this.first, first);
    this.#chunks = this.#chunks.filter((one) => one.first < first);
    for (const one of this.#chunks) {
      one.count = Math.min(one.count, first - one.first);
      one.numbers = one.numbers.filter((number) => number < first);
    }
    this.#pictures.dropFrom(first);
    if (this.#position >= first) this.#position = this.playing ? first : Math.max(this.first, first - 1);
  }

  /**
   * Joins a run that has made `frames` frames. The server still has those from `first` on; playback begins at the newest.
   *
   * @param {number} frames
   * @param {number} first
   * @param {number} now
   */
  join(frames, first, now) {
    this.#settle(now);
    if (this.empty) {
      [this.first, this.end, this.#position] = [first, frames, frames];
      this.#excused = true;
    }
    this.end = Math.max(this.end, frames);
  }

  /**
   * Counts no wait for the next chunk as late: the user paused the run.
   *
   * @param {number} now
   */
  excuse(now) {
    this.#settle(now);
    this.#excused = true;
    this.late = false;
  }

  /**
   * Gives up frames before `first`: the server no longer has them.
   *
   * @param {number} first
   */
  forget(first) {
    if (this.empty) return;
    this.first = Math.min(Math.max(this.first, first), this.end - 1);
    const needed = this.#chunks.findIndex((one) => one.first + one.count > this.first);
    if (needed > 0) this.#chunks.splice(0, needed);
  }

  /**
   * Ends the queue: no more frames will come.
   *
   * @param {number} now
   */
  finish(now) {
    this.#settle(now);
    this.live = this.late = false;
  }

  // actions of the user -----------------------------------------------------------------------------------------------

  /** @param {number} now */
  play(now) {
    this.#settle(now);
    if (!this.live && this.#position >= this.end - 1) this.#position = this.first;
    this.playing = true;
  }

  /** @param {number} now */
  pause(now) {
    this.#settle(now);
    this.playing = false;
    this.#position = Math.max(this.first, Math.min(this.#position, this.end - 1));
    this.#endWait();
  }

  /** @type {(number: number, now: number) => void} */
  seek(number, now) {
    this.#settle(now);
    this.#position = Math.max(this.first, Math.min(number, this.end - 1));
    this.#endWait();
  }

  /**
   * Skips the frames that wait to be shown: goes where a player would be that showed each chunk at once.
   *
   * @param {number} now
   */
  goLive(now) {
    this.#settle(now);
    this.#position = Math.max(this.#position, this.#newest(now));
    this.#excused = this.playing = true;
  }

  /**
   * Goes on at the newest frame: what came before was there before the run.
   *
   * @param {number} now
   */
  skipOld(now) {
    this.#settle(now);
    this.#position = this.end;
    this.#excused = true;
  }

  /** @type {(rate: number, now: number) => void} */
  setRate(rate, now) {
    this.#settle(now);
    this.#rate = rate;
  }

  /** @type {(fps: number, now: number) => void} */
  setFps(fps, now) {
    this.#settle(now);
    this.#fps = fps;
  }

  // what to show ------------------------------------------------------------------------------------------------------

  /**
   * The number of the frame to show, or null.
   *
   * @param {number} now
   */
  at(now) {
    this.#settle(now);
    return this.empty ? null : Math.max(0, Math.min(Math.floor(this.#position + ROUNDING), this.end - 1));
  }

  /**
   * Whether `at` or `late` will change by the time alone.
   *
   * @param {number} now
   */
  moving(now) {
    this.#settle(now);
    if (!this.playing || this.empty) return false;
    return this.#position < this.end || (this.#due !== null && !this.late);
  }

  /**
   * Seconds from the shown frame to the newest one.
   *
   * @param {number} now
   */
  behind(now) {
    this.#settle(now);
    return Math.max(0, this.#newest(now) - this.#position) / this.#fps;
  }

  /**
   * The picture to draw for a frame: its own, or that of the nearest earlier frame that was sent. null if there is none.
   *
   * @param {number} number
   * @returns {import("./screen.js").WantedPicture | null}
   */
  pictureOf(number) {
    if (this.#pictures.has(number)) return { number, picture: this.#pictures.get(number) };
    const at = this.#chunks.findLastIndex((one) => one.first <= number);
    const chunk = this.#chunks[at];
    const isInChunk = chunk && number < chunk.first + chunk.count;
    // the message of this frame did not come: it may or may not have been sent
    if (!isInChunk) return number >= this.first && number < this.end ? { number, picture: undefined } : null;
    for (let k = at; k >= 0; k--) {
      const sent = this.#chunks[k].numbers.findLast((one) => one <= number);
      if (sent !== undefined) return { number: sent, picture: this.#pictures.get(sent) };
    }
    return { number, picture: undefined };
  }

  /** @param {number} number */
  has(number) {
    return this.#pictures.has(number);
  }

  /**
   * Keeps a picture that was fetched.
   *
   * @param {number} number
   * @param {Picture} picture
   */
  keep(number, picture) {
    if (number < this.end) this.#pictures.put(number, picture);
  }

  // the clock ---------------------------------------------------------------------------------------------------------

  /**
   * Moves the position to the present.
   *
   * @param {number} now
   */
  #settle(now) {
    const passed = now - this.#time;
    if (passed < 0) return;
    this.#time = now;
    if (!this.playing || this.empty || passed === Infinity) return;
    const position = this.#position + passed * this.#fps * this.#rate;
    if (position < this.end - ROUNDING) this.#position = position;
    else this.#reachedEnd(position, now);
  }

  /** @type {(position: number, now: number) => void} */
  #reachedEnd(position, now) {
    if (!this.live && !this.loop) {
      this.playing = false;
      this.#position = this.end - 1;
    } else if (this.loop) {
      this.#position = this.first + ((position - this.end) % (this.end - this.first));
      if (this.live) this.#markLate();
    } else {
      this.#position = this.end;
      this.#due ??= now - (position - this.end) / (this.#fps * this.#rate);
      if (now - this.#due > GRACE / this.#fps) this.#markLate();
    }
  }

  #markLate() {
    if (this.#excused || this.#rate > 1) return; // whoever watches it faster than it is made has to wait
    this.late = true;
    if (!this.#counted) this.interruptions += 1;
    this.#counted = true;
  }

  #endWait() {
    this.#due = null;
    this.late = false;
  }

  /**
   * The position of a player that shows each chunk as soon as it comes.
   *
   * @param {number} now
   */
  #newest(now) {
    const newest = this.#chunks.at(-1);
    if (!newest || newest.first + newest.count < this.end) return this.end;
    return Math.min(this.end, newest.first + (now - newest.arrived) * this.#fps);
  }
}
