/**
 * Messages of the server, as docs/live.md has them. A page may talk to another version of the pack, before it is loaded
 * again after an update: a message of another shape is dropped here, so that nothing behind it has to expect one.
 */

/**
 * @typedef {{action: string, chunk: number, prompt?: string, blend?: number}} RunAction one that took effect
 * @typedef {Record<string, [progress: number, loss: number][]>} Losses by network; progress: 0 to 1
 * @typedef {{stage: string, step: number, of: number, left: number, file: string, losses: Losses}} Training
 *   left: seconds
 * @typedef {{threshold: number, points: [chunk: number, drift: number][], now: Measures}} Drift points: the largest of
 *   several chunks where the run has many
 * @typedef {{drift: number, spread: number, sharpness: number, motion: number, similarity: number,
 *   saturation: number | null}} Measures of the newest chunk
 * @typedef {{filename: string, subfolder: string, type: string}} ServerFile
 *
 * @typedef {object} RunState
 * @property {string} node_id
 * @property {string} run
 * @property {string} prompt_id of the prompt that it is a part of
 * @property {string} workflow its id, which copies share; "" if unknown
 * @property {"running" | "paused" | "stopping" | "ended" | "interrupted" | "failed"} state
 * @property {number} fps
 * @property {number} chunk how many are made
 * @property {number} chunks how many will be made; 0 if unknown
 * @property {number} frames how many are made
 * @property {number} first_frame the oldest one that the server still has
 * @property {number} first_new the first one that is new in this run; those before continue an older session
 * @property {number} made_fps
 * @property {number | null} first_seconds until the first frame
 * @property {number} cache_bytes
 * @property {boolean} steerable by prompts
 * @property {string} prompt
 * @property {string} note
 * @property {string} model its name; "" if it is not known
 * @property {{count: number, prompt: string}} refused typed prompts that the text encoder did not take: how many, and the
 *   newest
 * @property {RunAction[]} actions
 * @property {string} rows of a Prompt Timeline that makes the video again
 * @property {number} begins the second of the rows at which frame 0 is
 * @property {number} seconds
 * @property {Record<string, Record<string, number | string>>} seeds by node and input; text beyond 2 ** 53
 * @property {Training | null} training
 * @property {Drift | null} drift null before the first chunk
 * @property {string | null} session the name in Load Session under which the session that the run made is kept; null
 *   before the end, and if there is none any more
 * @property {ServerFile | null} video at the end
 * @property {ServerFile | null} video_so_far before the end
 *
 * @typedef {{node_id: string, run: string, chunk: number, first: number, count: number, numbers: number[],
 *   frames: string[]}} FramesMessage frames: JPEGs in base64; numbers: which of the `count` frames they are
 * @typedef {{node_id: string, run: string, first: number}} WithdrawnMessage
 */

/** @typedef {(value: any) => boolean} Check */

/** @type {Check} */
const text = (value) => typeof value === "string";
/** @type {Check} */
const flag = (value) => typeof value === "boolean";
/** @type {Check} */
const amount = (value) => Number.isFinite(value) && value >= 0;
/** @type {Check} */
const count = (value) => Number.isSafeInteger(value) && value >= 0;
/** @type {Check} */
const positive = (value) => amount(value) && value > 0;
/** @type {Check} */
const isObject = (value) => value === Object(value) && !Array.isArray(value);
/** @type {(check: Check) => Check} */
const orNull = (check) => (value) => value === null || check(value);
/** @type {(check: Check) => Check} */
const list = (check) => (value) => Array.isArray(value) && value.every(check);
/** @type {(check: Check) => Check} */
const record = (check) => (value) => isObject(value) && Object.values(value).every(check);
/** @type {(checks: Record<string, Check>) => Check} */
const shape = (checks) => (value) => isObject(value) && Object.entries(checks).every(([key, check]) => check(value[key]));

/** @type {Check} */
const seed = (value) => amount(value) || (text(value) && /^\d{1,20}$/.test(value));

const RUN = { node_id: text, run: text };
const STATES = ["running", "paused", "stopping", "ended", "interrupted", "failed"];

/** @type {Check} */
const point = (value) => list(amount)(value) && value.length === 2;

const TRAINING = { stage: text, step: count, of: count, left: amount, file: text, losses: record(list(point)) };

const MEASURES = {
  ...{ drift: amount, spread: amount, sharpness: amount, motion: amount, similarity: Number.isFinite },
  saturation: orNull(amount),
};

const DRIFT = { threshold: amount, points: list(point), now: shape(MEASURES) };

const FILE = { filename: text, subfolder: text, type: text };

const STATE = {
  ...RUN,
  ...{ prompt_id: text, workflow: text, state: (/** @type {any} */ value) => STATES.includes(value) },
  ...{ fps: positive, chunk: count, chunks: count, frames: count, first_frame: count, first_new: count },
  ...{ made_fps: amount, first_seconds: orNull(amount), cache_bytes: amount },
  ...{ steerable: flag, prompt: text, note: text, model: text, rows: text, seconds: amount, seeds: record(record(seed)) },
  refused: shape({ count, prompt: text }),
  actions: list(shape({ action: text, chunk: count })),
  training: orNull(shape(TRAINING)),
  drift: orNull(shape(DRIFT)),
  session: orNull(text),
  begins: amount,
  video: orNull(shape(FILE)),
  video_so_far: orNull(shape(FILE)),
};

const FRAMES = {
  ...RUN,
  ...{ chunk: Number.isSafeInteger, first: count, numbers: list(count), frames: list(text) },
  count: (/** @type {any} */ value) => count(value) && value > 0,
};

export const isState = /** @type {(value: any) => value is RunState} */ (shape(STATE));

export const isWithdrawn = /** @type {(value: any) => value is WithdrawnMessage} */ (shape({ ...RUN, first: count }));

/**
 * @param {any} value
 * @returns {value is FramesMessage}
 */
export const isFrames = (value) =>
  shape(FRAMES)(value) &&
  value.numbers.length === value.frames.length &&
  value.numbers.every((/** @type {number} */ number) => number >= value.first && number < value.first + value.count);
