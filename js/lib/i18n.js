/**
 * Texts of the interface. They are written in locales/<language>/main.json, under "selfForcing". The notes of templates are
 * under "selfForcingNotes", by the digest of the English one.
 *
 * The server hands out the locale files of all packs at /i18n, as {language: main.json}.
 */

/** @typedef {Record<string, Record<string, string>>} Catalog texts by group and name */

const ENGLISH = "en";

/** @type {Record<string, Catalog | undefined>} by language */
let catalogs = {};
/** @type {Record<string, Record<string, string> | undefined>} by language and digest */
let notes = {};

/**
 * Sets the texts of all languages.
 *
 * @param {Record<string, any>} answer the server's answer to /i18n
 */
export function setTexts(answer) {
  catalogs = Object.fromEntries(Object.entries(answer).map(([language, main]) => [language, main?.selfForcing]));
  notes = Object.fromEntries(Object.entries(answer).map(([language, main]) => [language, main?.selfForcingNotes]));
}

/**
 * Returns the function that gives texts in a language. English stands in for a language or a text that is missing.
 *
 * @param {string} locale such as "zh" or "zh-TW"
 * @returns {Translate}
 */
export function translator(locale) {
  const languages = [...variants(locale), ENGLISH];
  return (key, values = {}) => {
    const [group, name] = key.split(".");
    const texts = languages.map((language) => catalogs[language]?.[group]?.[name]);
    return fill(texts.find((text) => text !== undefined) ?? standIn(name, values), values);
  };
}

/** @param {string} locale */
const variants = (locale) => [locale, locale.split("-")[0]];

/**
 * Returns the note of a template in a language; a note that is no template's, or has no translation, as it is.
 *
 * @param {string} note
 * @param {string} locale
 */
export function translatedNote(note, locale) {
  const key = digestOf(note);
  return variants(locale).map((language) => notes[language]?.[key]).find((text) => text !== undefined) ?? note;
}

/**
 * The digest of a text (FNV-1a of its bytes in UTF-8, 32 bits), as tests/project/test_translations.py computes it. The
 * browser's own digests are missing on pages that are not served by HTTPS.
 *
 * @param {string} text
 */
function digestOf(text) {
  const hash = new TextEncoder().encode(text).reduce((sum, byte) => Math.imul(sum ^ byte, 0x01000193), 0x811c9dc5);
  return (hash >>> 0).toString(16).padStart(8, "0");
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
