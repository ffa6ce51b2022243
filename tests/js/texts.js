import { readFileSync } from "node:fs";

import { setTexts } from "../../js/lib/i18n.js";

/** The locale files as the server hands them out: {language: main.json}. */
export const MAIN = Object.fromEntries(
  ["en", "zh"].map((language) => {
    const file = new URL(`../../locales/${language}/main.json`, import.meta.url);
    return [language, JSON.parse(readFileSync(file, "utf8"))];
  }),
);

setTexts(MAIN);
