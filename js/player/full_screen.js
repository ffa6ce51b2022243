const IDLE = 2500; // milliseconds without a movement after which the controls go away

/** Shows an element on the whole screen. Its controls go away while the pointer rests. */
export class FullScreen {
  #element;
  #timer = 0;

  /**
   * @param {HTMLElement} element
   * @param {() => void} changed
   */
  constructor(element, changed) {
    this.#element = element;
    element.addEventListener("fullscreenchange", () => {
      this.#awake();
      changed();
    });
    for (const type of ["pointermove", "pointerdown", "keydown"]) element.addEventListener(type, () => this.#awake());
  }

  get on() {
    return document.fullscreenElement === this.#element;
  }

  /** @returns {Promise<void>} rejects if the browser does not allow it */
  toggle() {
    return this.on ? document.exitFullscreen() : this.#element.requestFullscreen();
  }

  #awake() {
    clearTimeout(this.#timer);
    this.#element.classList.remove("sf-idle");
    if (this.on) this.#timer = setTimeout(() => this.#element.classList.add("sf-idle"), IDLE);
  }

  remove() {
    clearTimeout(this.#timer);
    if (this.on) document.exitFullscreen();
  }
}
