import { FrameQueue } from "./frame_queue.js";

/** The playback of a run: of its frames while they come, and of its video once the screen shows that. */
export class Playback {
  queue = new FrameQueue();
  #screen;
  /** @type {boolean | null} */
  #loops = null; // the user's choice
  #paused = false; // by the user
  #speed = 1;
  #opensAt = 0; // the frame at which a video opens that this player did not see being made

  /** @param {import("./screen.js").Screen} screen */
  constructor(screen) {
    this.#screen = screen;
  }

  /**
   * Starts again with no frames.
   *
   * @param {boolean} loops whether to loop, unless the user chose
   */
  begin(loops) {
    this.#paused = false;
    this.queue = new FrameQueue({ fps: this.queue.fps });
    this.queue.loop = this.#loops ?? loops;
    this.queue.setRate(this.#speed, clock());
    this.#opensAt = 0;
    this.#screen.clear();
  }

  /**
   * Lets the finished video begin at a frame, if this player did not see it being made.
   *
   * @param {number} frame
   */
  openAt(frame) {
    this.#opensAt = frame;
  }

  /**
   * Puts the finished video in the place of the frames. It starts at the moment where they are.
   *
   * @param {string} src
   */
  showVideo(src) {
    const { video } = this.#screen;
    video.loop = this.#loops ?? true;
    video.defaultPlaybackRate = video.playbackRate = this.#speed;
    this.#screen.showVideo(src, {
      moment: () => (this.queue.sawFrames ? (this.queue.at(clock()) ?? 0) : this.#opensAt) / this.queue.fps,
      plays: () => !this.#paused,
    });
  }

  get playing() {
    return this.#screen.showsVideo ? !this.#screen.video.paused : this.queue.playing;
  }

  get speed() {
    return this.#speed;
  }

  set speed(speed) {
    this.#speed = speed;
    const { video } = this.#screen;
    video.defaultPlaybackRate = video.playbackRate = speed;
    this.queue.setRate(speed, clock());
  }

  get loops() {
    return this.#screen.showsVideo ? this.#screen.video.loop : this.queue.loop;
  }

  /** Whether the picture, or what the queue says of it, changes by the time alone. */
  get moves() {
    return this.#screen.showsVideo ? this.playing : this.queue.moving(clock());
  }

  /** The position and the range of the slider, in seconds. */
  get moment() {
    const [{ fps, first, end }, { video }] = [this.queue, this.#screen];
    if (!this.#screen.showsVideo) return { at: (this.queue.at(clock()) ?? 0) / fps, from: first / fps, to: end / fps };
    // currentTime may be just before the frame that the video shows
    return { at: Math.floor(video.currentTime * fps + 0.01) / fps, from: 0, to: video.duration || 0 };
  }

  /** The frame that is shown. */
  get frame() {
    return Math.round(this.moment.at * this.queue.fps);
  }

  /** Where the frames begin and end that are in memory. @returns {[number, number]} */
  get buffered() {
    const [{ fps, bufferedFrom, end }, { video, showsVideo }] = [this.queue, this.#screen];
    if (!showsVideo) return [bufferedFrom, end];
    const { buffered } = video;
    const last = buffered.length - 1;
    return last < 0 ? [0, 0] : [buffered.start(last) * fps, buffered.end(last) * fps];
  }

  /** Plays or pauses. */
  toggle() {
    const { showsVideo, video } = this.#screen;
    this.#paused = this.playing;
    if (showsVideo && this.#paused) video.pause();
    else if (showsVideo) this.#screen.play();
    else if (this.#paused) this.queue.pause(clock());
    else this.queue.play(clock());
  }

  /** @param {number} seconds */
  seek(seconds) {
    const { fps } = this.queue;
    const frame = Math.round(seconds * fps);
    // into the middle of the frame: its beginning may be rounded to the one before
    if (this.#screen.showsVideo) this.#screen.video.currentTime = (frame + 0.5) / fps;
    else this.queue.seek(frame, clock());
  }

  /**
   * Pauses, and moves by a number of frames.
   *
   * @param {number} frames
   */
  step(frames) {
    this.go(this.frame + frames);
  }

  /**
   * Pauses at a frame.
   *
   * @param {number} frame
   */
  go(frame) {
    if (this.playing) this.toggle();
    const { fps } = this.queue;
    const { from, to } = this.moment;
    this.seek(Math.max(from * fps, Math.min(frame, Math.round(to * fps) - 1)) / fps);
  }

  toggleLoop() {
    this.#loops = !this.loops;
    this.#screen.video.loop = this.queue.loop = this.#loops;
  }

  goLive() {
    this.#paused = false;
    this.queue.goLive(clock());
  }
}

/** The present, in seconds. */
export const clock = () => performance.now() / 1000;
