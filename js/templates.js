/** The order of the pack's templates. */

/** As the template browser shows them: what runs at once first, then the same uses with a real model, then other models. */
export const ORDER = [
  ...["tiny_live", "tiny_live_app", "tiny_playable", "tiny_text_to_video", "tiny_image_to_video", "tiny_extend_video"],
  ...["tiny_video_to_video", "tiny_prompt_timeline", "tiny_long_video"],
  ...["tiny_fork_and_reroll", "tiny_step_by_step", "tiny_train"],
  ...["text_to_video", "live_steering", "prompt_timeline", "image_to_video", "extend_video", "long_video", "with_lora"],
  ...["day_long", "rolling", "shots", "krea"],
];

/**
 * Returns the names in the order of ORDER, and those that it does not have at the end. The server lists them as its file
 * system does.
 *
 * @param {string[]} names
 */
export function inOrder(names) {
  /** @param {string} name */
  const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  return [...names].sort((one, other) => place(one) - place(other) || one.localeCompare(other));
}

/**
 * The folder of this pack below custom_nodes, by the address of one of its scripts.
 *
 * @param {string} address
 */
export const folderOf = (address) => decodeURIComponent(/\/extensions\/([^/]+)\//.exec(address)?.[1] ?? "");
