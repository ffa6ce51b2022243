/** The length of a video in whole chunks. */

const FRAMES_OF_A_LATENT = 4; // of Wan 2.1, the only kind of model that the nodes take

/**
 * @typedef {object} Rollout
 * @property {number} chunk latent frames of a chunk
 * @property {number} first latent frames of the first one
 * @property {boolean} isEmpty whether the session has no frames yet
 */

/**
 * Returns what Run makes, as `chunks_for` in sf_core/session/streaming.py counts it.
 *
 * @param {number} seconds
 * @param {number} fps
 * @param {Rollout} rollout
 */
export function lengthOf(seconds, fps, { chunk, first, isEmpty }) {
  const wanted = Math.max(1, Math.round(seconds * fps));
  const begun = isEmpty ? 1 + FRAMES_OF_A_LATENT * (first - 1) : 0; // a video's first latent is one frame
  const more = Math.ceil(Math.max(0, wanted - begun) / (FRAMES_OF_A_LATENT * chunk));
  return { chunks: more + (isEmpty ? 1 : 0), seconds: (begun + more * FRAMES_OF_A_LATENT * chunk) / fps };
}
