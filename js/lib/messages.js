/** What docs/live.md says a message is: anything else is none, and is not passed on. */

const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isFact = (value) => typeof value === "number" && Number.isFinite(value) && value >= 0;
const isList = (value, of) => Array.isArray(value) && value.every(of);
const isAction = (value) => isText(value?.action) && isCount(value.chunk);
const isFile = (value) => isText(value?.filename) && isText(value.subfolder) && isText(value.type);
const isObject = (value) => value === Object(value) && !Array.isArray(value);
const isSeeds = (value) =>
  isObject(value) && Object.values(value).every((one) => isObject(one) && Object.values(one).every(isFact));
const isPoint = (value) => isList(value, isFact) && value.length === 2;
const isTraining = (value) =>
  isText(value?.stage) &&
  isText(value.file) &&
  isCount(value.step) &&
  isCount(value.of) &&
  isFact(value.left) &&
  isObject(value.losses) &&
  Object.values(value.losses).every((points) => isList(points, isPoint));
const isRun = (data) => isText(data?.node_id) && isText(data.run);

const STATES = ["running", "paused", "stopping", "ended", "interrupted", "failed"];
const COUNTS = ["chunk", "chunks", "frames", "first_frame"];

export const isState = (data) =>
  isRun(data) &&
  STATES.includes(data.state) &&
  COUNTS.every((name) => isCount(data[name])) &&
  ["made_fps", "cache_bytes", "seconds"].every((name) => isFact(data[name])) &&
  isFact(data.fps) &&
  data.fps > 0 &&
  (data.first_seconds === null || isFact(data.first_seconds)) &&
  ["prompt", "note", "rows", "workflow"].every((name) => isText(data[name])) &&
  isList(data.actions, isAction) &&
  isSeeds(data.seeds) &&
  (data.training === null || isTraining(data.training)) &&
  (data.video === null || isFile(data.video));

export const isFrames = (data) =>
  isRun(data) &&
  ["chunk", "first", "count"].every((name) => Number.isSafeInteger(data[name])) &&
  isCount(data.first) &&
  data.count > 0 &&
  isList(data.frames, isText) &&
  isList(data.numbers, (number) => number >= data.first && number < data.first + data.count) &&
  data.numbers.length === data.frames.length;

export const isWithdrawn = (data) => isRun(data) && isCount(data.first);
