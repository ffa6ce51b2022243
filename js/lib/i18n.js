/**
 * Texts of the interface. They are written in locales/<language>/main.json, under "selfForcing".
 *
 * The server hands out the locale files of all packs at /i18n, as {language: main.json}.
 */

/** @typedef {Record<string, Record<string, string>>} Catalog texts by group and name */

const ENGLISH = "en";

/** @type {Record<string, Catalog | undefined>} by language */
let catalogs = {};

/**
 * Sets the texts of all languages.
 *
 * @param {Record<string, any>} answer the server's answer to /i18n
 */
export function setTexts(answer) {
  catalogs = Object.fromEntries(Object.entries(answer).map(([language, main]) => [language, main?.selfForcing]));
}

/**
 * Returns the function that gives texts in a language. English stands in for a language or a text that is missing.
 *
 * @param {string} locale such as "zh" or "zh-TW"
 * @returns {Translate}
 */
export function translator(locale) {
  const languages = [locale, locale.split("-")[0], ENGLISH];
  return (key, values = {}) => {
    const [group, name] = key.split(".");
    const texts = languages.map((language) => catalogs[language]?.[group]?.[name]);
    return fill(texts.find((text) => text !== undefined) ?? standIn(name, values), values);
  };
}

/**
 * Returns a readable text for when the server did not hand out its own: "chunk of 3 7" for chunkOf and {n: 3, m: 7}.
 *
 * @param {string} name
 * @param {Record<string, unknown>} values
 */
const standIn = (name, values) =>
  [name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`), ...Object.values(values)].join(" ");

/**
 * Puts values in the place of {their names}; a name without a value stays.
 *
 * @param {string} text
 * @param {Record<string, unknown>} values
 */
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
