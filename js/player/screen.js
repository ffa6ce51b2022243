import { make } from "../lib/dom.js";

/**
 * @typedef {string | Blob} Picture a JPEG in base64, or any picture
 * @typedef {{number: number, picture: Picture | undefined}} WantedPicture undefined: it has to be fetched
 */

/** The picture of the player: a canvas for single frames, and the finished video in its place. */
export class Screen {
  canvas = make("canvas", { width: 1, height: 1, hidden: true });
  video = make("video", { muted: true, loop: true, playsInline: true, preload: "auto", hidden: true });
  element = make("div", { className: "sf-picture" }, this.canvas, this.video);

  #host;
  /** @type {WantedPicture | null} */
  #wanted = null;
  /** @type {number | null} */
  #drawn = null; // number of the frame on the canvas
  #drawing = false;
  #retried = ""; // address of the video that was loaded again after an error
  #generation = 0; // counts clear() and forget(): results of asynchronous work that began before are dropped
  #removed = new AbortController();

  /**
   * @param {{fetch: (number: number) => Promise<Picture | undefined>, drawn: () => void, changed: () => void}} host
   *   fetch: gets the picture of a frame; drawn: called after a picture was drawn; changed: called when the video plays,
   *   pauses, moves or cannot be played
   */
  constructor(host) {
    this.#host = host;
    const { signal } = this.#removed;
    for (const type of ["play", "pause", "timeupdate", "seeked", "durationchange"])
      this.video.addEventListener(type, () => this.showsVideo && host.changed(), { signal });
    this.video.addEventListener("error", () => this.video.hasAttribute("src") && this.#retryVideo(), { signal });
  }

  get showsVideo() {
    return !this.video.hidden;
  }

  /** Width and height of what is shown, in pixels; null if nothing is. @returns {[number, number] | null} */
  get size() {
    const { canvas, video } = this;
    if (this.showsVideo) return [video.videoWidth, video.videoHeight];
    return canvas.hidden ? null : [canvas.width, canvas.height];
  }

  /**
   * Draws a picture. Of those that come while another is drawn, only the newest is.
   *
   * @param {WantedPicture | null} wanted
   */
  want(wanted) {
    if (!wanted || wanted.number === this.#wanted?.number) return;
    this.#wanted = wanted;
    if (!this.#drawing) this.#draw(this.#generation);
  }

  /** @param {number} generation */
  async #draw(generation) {
    this.#drawing = true;
    while (generation === this.#generation && this.#wanted && this.#wanted.number !== this.#drawn) {
      const { number, picture } = this.#wanted;
      const bitmap = await this.#bitmap(number, picture);
      if (generation !== this.#generation) return bitmap?.close();
      this.#drawn = number;
      if (!bitmap) continue;
      this.#copyToCanvas(bitmap);
      this.#host.drawn();
    }
    this.#drawing = false;
  }

  /** @param {ImageBitmap} bitmap */
  #copyToCanvas(bitmap) {
    const { width, height } = bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
    bitmap.close();
    if (this.canvas.hidden !== this.showsVideo) this.canvas.hidden = this.showsVideo;
  }

  /**
   * null if the picture is gone or damaged.
   *
   * @type {(number: number, picture: Picture | undefined) => Promise<ImageBitmap | null>}
   */
  async #bitmap(number, picture) {
    try {
      const found = picture ?? (await this.#host.fetch(number));
      const blob = typeof found === "string" ? new Blob([decodeBase64(found)], { type: "image/jpeg" }) : found;
      return blob ? await createImageBitmap(blob) : null;
    } catch {
      return null;
    }
  }

  /**
   * Shows a video once it is loaded; the canvas stays until then.
   *
   * @param {string} src
   * @param {{moment: () => number, plays: () => boolean}} start asked when it is loaded: the second to start at, and
   *   whether to play
   */
  showVideo(src, { moment, plays }) {
    const { video } = this;
    if (video.getAttribute("src") === src) return;
    const generation = this.#generation;
    video.hidden = true;
    video.src = src;
    const once = { once: true, signal: this.#removed.signal };
    const seek = () => {
      if (generation !== this.#generation) return;
      video.addEventListener("seeked", reveal, once);
      video.currentTime = Math.max(0, Math.min(moment(), video.duration - 0.01));
    };
    const reveal = () => {
      if (generation !== this.#generation) return;
      video.hidden = false;
      this.canvas.hidden = true;
      if (plays()) this.play();
      this.#host.changed();
    };
    video.addEventListener("loadeddata", seek, once);
  }

  play() {
    this.video.play().catch(() => {}); // rejected if the video is cleared meanwhile
  }

  /** Loads the video once more after an error, which a busy server may have made; then the frames stay. */
  #retryVideo() {
    const src = this.video.getAttribute("src") ?? "";
    if (this.#retried === src) return this.#dropVideo();
    this.#retried = src;
    this.video.load();
  }

  #dropVideo() {
    this.video.hidden = true;
    this.video.removeAttribute("src");
    this.canvas.hidden = this.#drawn === null;
    this.#host.changed();
  }

  /**
   * The visible picture as a PNG; null if there is none.
   *
   * @returns {Promise<Blob | null>}
   */
  async snapshot() {
    const { size } = this;
    if (!size) return null;
    const [width, height] = size;
    const source = this.showsVideo ? this.video : this.canvas;
    const copy = make("canvas", { width, height });
    copy.getContext("2d")?.drawImage(source, 0, 0);
    return new Promise((resolve) => copy.toBlob(resolve, "image/png"));
  }

  /** Empties the screen. */
  clear() {
    this.forget();
    Object.assign(this.canvas, { width: 1, height: 1, hidden: true });
    this.video.hidden = true;
    this.video.removeAttribute("src");
    this.video.load();
  }

  /** Makes the screen draw the next picture even if its number is that of the last one, as after a re-roll. */
  forget() {
    this.#wanted = this.#drawn = null;
    this.#generation += 1;
    this.#drawing = false;
  }

  remove() {
    this.clear();
    this.#removed.abort();
  }
}

/** @param {string} text */
const decodeBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
