/**
 * The highest place at or below `wanted` where a box meets none of `boxes`. All are [x, y, width, height].
 */
export function freePlace(wanted, boxes, gap) {
  const [x, , width, height] = wanted;
  let y = wanted[1];
  const inTheWay = () =>
    boxes.filter(
      (box) =>
        x < box[0] + box[2] + gap && box[0] < x + width + gap && y < box[1] + box[3] + gap && box[1] < y + height + gap,
    );
  for (let met = inTheWay(); met.length; met = inTheWay()) y = Math.max(...met.map((box) => box[1] + box[3] + gap));
  return [x, y];
}
