const MEASURED = 2; // seconds over which it counts

/** How many pictures are drawn per second. Like FrameQueue, it takes the time as `now`, in seconds. */
export class DrawnRate {
  /** @type {number[]} */
  #times = []; // of the last MEASURED seconds
  /** @type {number | null} */
  #first = null; // time of the first picture

  /**
   * Counts a picture.
   *
   * @param {number} now
   */
  count(now) {
    this.#times.push(now);
    this.#first ??= now;
    while (this.#times[0] <= now - MEASURED) this.#times.shift();
  }

  /**
   * Pictures drawn per second, over the last MEASURED seconds.
   *
   * @param {number} now
   */
  fps(now) {
    const count = this.#times.filter((time) => time > now - MEASURED).length;
    return count / Math.max(0.5, Math.min(MEASURED, now - (this.#first ?? now)));
  }
}
