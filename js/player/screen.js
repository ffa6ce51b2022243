import { make } from "./controls.js";

/**
 * Where pictures are drawn, and where the finished video plays in their place.
 * @param on {fetch(number), drawn(), video(), error()}: how a picture is had that is not there; what has happened
 */
export class Screen {
  canvas = make("canvas", { width: 1, height: 1, hidden: true });
  video = make("video", { muted: true, loop: true, playsInline: true, preload: "auto", hidden: true });
  element = make("div", { className: "sf-picture" }, this.canvas, this.video);

  #on;
  #wanted = null; // {number, picture}
  #drawn = null; // a number
  #drawing = false;
  #era = 0; // what was begun in an earlier one is not drawn
  #gone = new AbortController();

  constructor(on) {
    this.#on = on;
    const { signal } = this.#gone;
    for (const type of ["play", "pause", "timeupdate", "seeked", "durationchange"])
      this.video.addEventListener(type, () => this.showsVideo && on.video(), { signal });
    this.video.addEventListener("error", () => this.video.hasAttribute("src") && this.#noVideo(), { signal });
  }

  get showsVideo() {
    return !this.video.hidden;
  }

  /** Draws a picture, of those that are wanted while another is drawn only the newest. */
  want(wanted) {
    if (!wanted || wanted.number === this.#wanted?.number) return;
    this.#wanted = wanted;
    if (!this.#drawing) this.#draw(this.#era);
  }

  async #draw(era) {
    this.#drawing = true;
    while (era === this.#era && this.#wanted && this.#wanted.number !== this.#drawn) {
      const { number, picture } = this.#wanted;
      const bitmap = await this.#bitmap(number, picture);
      if (era !== this.#era) return bitmap?.close();
      this.#drawn = number;
      if (!bitmap) continue;
      Object.assign(this.canvas, { width: bitmap.width, height: bitmap.height });
      this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      this.canvas.hidden = this.showsVideo;
      this.#on.drawn();
    }
    this.#drawing = false;
  }

  /** null if it cannot be had, or is no picture. */
  async #bitmap(number, picture) {
    try {
      picture ??= await this.#on.fetch(number);
      const blob = typeof picture === "string" ? new Blob([bytesOf(picture)], { type: "image/jpeg" }) : picture;
      return await createImageBitmap(blob);
    } catch {
      return null;
    }
  }

  /** Plays a file once it is loaded; until then what is there stays, and `moment` and `plays` are asked only then. */
  showVideo(src, { moment, plays }) {
    if (this.video.getAttribute("src") === src) return;
    const { video } = this;
    const era = this.#era;
    video.hidden = true;
    video.src = src;
    const once = { once: true, signal: this.#gone.signal };
    const begin = () => {
      if (era !== this.#era) return;
      video.addEventListener("seeked", reveal, once);
      video.currentTime = Math.max(0, Math.min(moment(), video.duration - 0.01));
    };
    const reveal = () => {
      if (era !== this.#era) return;
      video.hidden = false;
      this.canvas.hidden = true;
      if (plays()) this.play();
      this.#on.video();
    };
    video.addEventListener("loadeddata", begin, once);
  }

  play() {
    this.video.play().catch(() => {}); // it was taken away meanwhile
  }

  #noVideo() {
    this.video.hidden = true;
    this.video.removeAttribute("src");
    this.canvas.hidden = this.#drawn === null;
    this.#on.error();
  }

  /** What is seen now, as a PNG; null if nothing is. */
  async snapshot() {
    const from = this.showsVideo ? this.video : this.canvas;
    if (from.hidden) return null;
    const [width, height] = this.showsVideo ? [from.videoWidth, from.videoHeight] : [from.width, from.height];
    const copy = make("canvas", { width, height });
    copy.getContext("2d").drawImage(from, 0, 0);
    return new Promise((done) => copy.toBlob(done, "image/png"));
  }

  clear() {
    this.#era += 1;
    this.#wanted = this.#drawn = null;
    this.#drawing = false;
    Object.assign(this.canvas, { width: 1, height: 1, hidden: true });
    this.video.hidden = true;
    this.video.removeAttribute("src");
    this.video.load();
  }

  /** A picture that was withdrawn comes again under its number. */
  forget() {
    this.#wanted = this.#drawn = null;
    this.#era += 1;
    this.#drawing = false;
  }

  remove() {
    this.clear();
    this.#gone.abort();
  }
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
