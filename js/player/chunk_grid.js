/** Where the chunks of a video begin. The first one may be shorter; all others have the same number of frames. */

/**
 * @typedef {object} ChunkGrid
 * @property {number} from where the first chunk of the run begins
 * @property {number} second where the second one begins
 * @property {number} length frames of a chunk
 * @property {number} end where the last planned chunk ends; without a plan, the frames made
 */

/**
 * Returns the grid of a run's chunks; null before the first one.
 *
 * @param {{chunk: number, chunks: number, frames: number, first_new: number}} state
 * @param {number} longest frames of the longest chunk that came; 0: none has come
 * @returns {ChunkGrid | null}
 */
export function chunkGrid({ chunk, chunks, frames, first_new }, longest) {
  const made = frames - first_new;
  if (!chunk || made <= 0) return null;
  const length = Math.max(Math.ceil(made / chunk), Math.min(longest, made));
  const second = first_new + Math.max(1, made - length * (chunk - 1));
  const planned = Math.max(chunk, chunks);
  return { from: first_new, second, length, end: second + length * (planned - 1) };
}

/**
 * Returns the number of the chunk that holds a frame, from 1; 0 for frames that are older than the run.
 *
 * @type {(grid: ChunkGrid, frame: number) => number}
 */
export function chunkAt({ from, second, length }, frame) {
  if (frame < from) return 0;
  return frame < second ? 1 : 2 + Math.floor((frame - second) / length);
}

/**
 * Returns the first frame of a chunk.
 *
 * @type {(grid: ChunkGrid, chunk: number) => number}
 */
export function startOf({ from, second, length }, chunk) {
  if (chunk < 1) return 0;
  return chunk === 1 ? from : second + length * (chunk - 2);
}

/**
 * Returns where to go from a frame to be at the beginning of the next chunk, or of this one, or of the one before.
 *
 * @type {(grid: ChunkGrid, frame: number, direction: 1 | -1) => number}
 */
export function chunkBeside(grid, frame, direction) {
  const chunk = chunkAt(grid, frame);
  if (direction > 0) return startOf(grid, chunk + 1);
  return startOf(grid, startOf(grid, chunk) < frame ? chunk : chunk - 1);
}
