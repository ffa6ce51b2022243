/** @typedef {import("./screen.js").Picture} Picture */

/** Pictures by number, within a number of bytes: the ones that came first are dropped. */
export class Pictures {
  bytes = 0;
  /** @type {Map<number, Picture>} */
  #pictures = new Map();
  #maxBytes;

  /** @param {number} maxBytes */
  constructor(maxBytes) {
    this.#maxBytes = maxBytes;
  }

  /** The number of the picture that came first. @returns {number | undefined} */
  get oldest() {
    return this.#pictures.keys().next().value;
  }

  /** @param {number} number */
  has(number) {
    return this.#pictures.has(number);
  }

  /** @param {number} number */
  get(number) {
    return this.#pictures.get(number);
  }

  /** @type {(number: number, picture: Picture) => void} */
  put(number, picture) {
    this.#drop(number);
    this.#pictures.set(number, picture);
    this.bytes += sizeOf(picture);
    for (const oldest of this.#pictures.keys()) {
      if (this.bytes <= this.#maxBytes || oldest === number) break;
      this.#drop(oldest);
    }
  }

  /** @param {number} first */
  dropFrom(first) {
    for (const number of [...this.#pictures.keys()]) if (number >= first) this.#drop(number);
  }

  /** @param {number} number */
  #drop(number) {
    const picture = this.get(number);
    if (picture === undefined) return;
    this.bytes -= sizeOf(picture);
    this.#pictures.delete(number);
  }
}

/** @param {Picture} picture */
const sizeOf = (picture) => (typeof picture === "string" ? picture.length : picture.size);
