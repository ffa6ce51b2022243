const MAX_BYTES = 8 * 2 ** 20; // of pictures; older ones are asked for again when they are wanted
const GRACE = 1; // frames that the next one may be late before that is a wait
const ROUNDING = 1e-6; // frames: a clock's sums are not exact
const MEASURED = 2; // seconds over which pictures are counted

/**
 * Frames that come in chunks, now early and now late, and what is to be shown of them at a time: number by number at
 * the video's own rate. It has no timer and no clock: every method that depends on the time is told it, in seconds.
 *
 * Playing begins with the first chunk. When there is nothing more to show it holds the newest frame, or begins again if
 * `loop` is on, and goes on with what comes. It never goes back by itself, and leaves nothing out that it has time for.
 */
export class FrameQueue {
  loop = false;
  /** Whether it goes on by itself. */
  playing = true;
  /** Whether more frames will come. */
  live = true;
  /** Whether frames are wanted and do not come. */
  late = false;
  /** How often that was so. */
  interruptions = 0;
  /** The oldest frame that can be shown, and the one after the newest. */
  first = 0;
  end = 0;
  /** Pictures that were drawn. */
  shown = 0;

  #fps;
  #time = -Infinity; // when #position was right
  #position = 0; // in frames; at the end: the newest frame had its time
  #due = null; // since when the next frame is wanted
  #excused = false; // from being late, until a chunk comes: whoever jumps to the end has to wait
  #counted = false; // this wait is among the interruptions
  #chunks = []; // {first, count, numbers, arrived}, in order
  #pictures;
  #drawn = []; // times, of late
  #begun = null; // the first of all

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

  get empty() {
    return this.end <= this.first;
  }

  // what comes --------------------------------------------------------------------------------------------------------

  /** A chunk: frames `first` to `first + count - 1`; `numbers` says which of them are in `frames`. */
  add({ first, count, numbers, frames }, now) {
    this.#settle(now);
    if (this.empty) this.first = this.#position = first;
    this.end = Math.max(this.end, first + count);
    this.#chunks = this.#chunks.filter((one) => one.first !== first);
    const at = this.#chunks.findLastIndex((one) => one.first < first) + 1;
    this.#chunks.splice(at, 0, { first, count, numbers, arrived: now });
    numbers.forEach((number, k) => this.#pictures.put(number, frames[k]));
    this.late = this.#excused = this.#counted = false;
    this.#due = null;
  }

  /** Frames from `first` on never were. */
  withdraw(first, now) {
    this.#settle(now);
    if (first >= this.end) return;
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

  /** There are so many frames, seen or not, of which those from `first` on can be had: begins at the newest. */
  join(frames, first, now) {
    this.#settle(now);
    if (this.empty) {
      [this.first, this.end, this.#position] = [first, frames, frames];
      this.#excused = true;
    }
    this.end = Math.max(this.end, frames);
  }

  /** Frames before `first` can no longer be had. */
  forget(first) {
    if (!this.empty) this.first = Math.min(Math.max(this.first, first), this.end - 1);
  }

  /** No more frames will come. */
  finish(now) {
    this.#settle(now);
    this.live = this.late = false;
  }

  // what the user does ------------------------------------------------------------------------------------------------

  play(now) {
    this.#settle(now);
    if (!this.live && this.#position >= this.end - 1) this.#position = this.first;
    this.playing = true;
  }

  pause(now) {
    this.#settle(now);
    this.playing = false;
    this.#position = Math.max(this.first, Math.min(this.#position, this.end - 1));
    this.#wanted(null);
  }

  seek(number, now) {
    this.#settle(now);
    this.#position = Math.max(this.first, Math.min(number, this.end - 1));
    this.#wanted(null);
  }

  /** Leaves out what is waiting to be shown: plays what has just been made, as if each chunk had been shown at once. */
  goLive(now) {
    this.#settle(now);
    this.#position = Math.max(this.#position, this.#newest(now));
    this.#excused = this.playing = true;
  }

  setFps(fps, now) {
    this.#settle(now);
    this.#fps = fps;
  }

  // what is to be seen ------------------------------------------------------------------------------------------------

  /** The number of the frame that is to be shown, or null. */
  at(now) {
    this.#settle(now);
    return this.empty ? null : Math.max(0, Math.min(Math.floor(this.#position + ROUNDING), this.end - 1));
  }

  /** Whether `at` will change without a message or a user. */
  moving(now) {
    this.#settle(now);
    if (!this.playing || this.empty) return false;
    return this.#position < this.end || (this.#due !== null && !this.late);
  }

  /** Seconds from what is shown to what has just been made. */
  behind(now) {
    this.#settle(now);
    return Math.max(0, this.#newest(now) - this.#position) / this.#fps;
  }

  /**
   * What to draw for a frame: {number, picture} of it or of the nearest earlier one that was sent. The picture is
   * undefined if it has to be fetched; null if there is nothing to draw.
   */
  pictureOf(number) {
    if (this.#pictures.has(number)) return { number, picture: this.#pictures.get(number) };
    const at = this.#chunks.findLastIndex((one) => one.first <= number);
    const chunk = this.#chunks[at];
    const seen = chunk && number < chunk.first + chunk.count;
    // of frames whose message did not come, nobody knows which there are
    if (!seen) return number >= this.first && number < this.end ? { number, picture: undefined } : null;
    for (let k = at; k >= 0; k--) {
      const sent = this.#chunks[k].numbers.findLast((one) => one <= number);
      if (sent !== undefined) return { number: sent, picture: this.#pictures.get(sent) };
    }
    return { number, picture: undefined };
  }

  has(number) {
    return this.#pictures.has(number);
  }

  /** Keeps a picture that was fetched. */
  keep(number, picture) {
    if (number < this.end) this.#pictures.put(number, picture);
  }

  /** A picture was drawn. */
  drawn(now) {
    this.shown += 1;
    this.#drawn.push(now);
    this.#begun ??= now;
    while (this.#drawn[0] <= now - MEASURED) this.#drawn.shift();
  }

  /** Pictures drawn a second, of late. */
  shownFps(now) {
    const lately = this.#drawn.filter((time) => time > now - MEASURED).length;
    return lately / Math.max(0.5, Math.min(MEASURED, now - this.#begun));
  }

  // the clock ---------------------------------------------------------------------------------------------------------

  /** Moves on to the present. */
  #settle(now) {
    const passed = now - this.#time;
    if (passed < 0) return;
    this.#time = now;
    if (!this.playing || this.empty || passed === Infinity) return;
    const position = this.#position + passed * this.#fps;
    if (position < this.end - ROUNDING) this.#position = position;
    else this.#reachedEnd(position, now);
  }

  #reachedEnd(position, now) {
    if (!this.live && !this.loop) {
      this.playing = false;
      this.#position = this.end - 1;
    } else if (this.loop) {
      this.#position = this.first + ((position - this.end) % (this.end - this.first));
      if (this.live) this.#isLate();
    } else {
      this.#position = this.end;
      this.#due ??= now - (position - this.end) / this.#fps;
      if (now - this.#due > GRACE / this.#fps) this.#isLate();
    }
  }

  #isLate() {
    if (this.#excused) return;
    this.late = true;
    if (!this.#counted) this.interruptions += 1;
    this.#counted = true;
  }

  #wanted(due) {
    this.#due = due;
    this.late = false;
  }

  /** The position of a player that never waited to begin a chunk. */
  #newest(now) {
    const newest = this.#chunks.at(-1);
    const end = newest ? newest.first + newest.count : -1;
    return end < this.end ? this.end : Math.min(this.end, newest.first + (now - newest.arrived) * this.#fps);
  }
}

/** Pictures by number. The ones that came first make room; a picture is a string or a Blob. */
class Pictures {
  bytes = 0;
  #pictures = new Map();
  #maxBytes;

  constructor(maxBytes) {
    this.#maxBytes = maxBytes;
  }

  has(number) {
    return this.#pictures.has(number);
  }

  get(number) {
    return this.#pictures.get(number);
  }

  put(number, picture) {
    this.#drop(number);
    this.#pictures.set(number, picture);
    this.bytes += sizeOf(picture);
    for (const oldest of this.#pictures.keys()) {
      if (this.bytes <= this.#maxBytes || oldest === number) break;
      this.#drop(oldest);
    }
  }

  dropFrom(first) {
    for (const number of [...this.#pictures.keys()]) if (number >= first) this.#drop(number);
  }

  #drop(number) {
    if (!this.has(number)) return;
    this.bytes -= sizeOf(this.get(number));
    this.#pictures.delete(number);
  }
}

const sizeOf = (picture) => picture.size ?? picture.length;
