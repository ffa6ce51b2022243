/**
 * Returns the highest place at or below `wanted` where a box meets no other.
 *
 * @param {Box} wanted
 * @param {Box[]} boxes
 * @param {number} gap that stays free between two boxes
 * @returns {[number, number]}
 */
export function freePlace([x, wantedY, width, height], boxes, gap) {
  let y = wantedY;
  const met = () =>
    boxes.filter(
      (box) =>
        x < box[0] + box[2] + gap && box[0] < x + width + gap && y < box[1] + box[3] + gap && box[1] < y + height + gap,
    );
  for (let inTheWay = met(); inTheWay.length; inTheWay = met())
    y = Math.max(...inTheWay.map((box) => box[1] + box[3] + gap));
  return [x, y];
}
