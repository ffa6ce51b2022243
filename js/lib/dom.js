/** Helpers for elements of the page. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} properties properties, listeners ("onclick") among them, and attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    if (name in element) Reflect.set(element, name, value);
    else element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * Makes an element of a drawing.
 *
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number | boolean>} attributes
 * @param {...Node} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * Saves a Blob as a file, in the browser's folder for downloads.
 *
 * @param {Blob} blob
 * @param {string} filename
 */
export function saveAs(blob, filename) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download: filename }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000); // not before the download has begun
}
