/** CSS values that all parts of the interface share. */

/** The editor's own font. */
export const FONT = "var(--font-inter, Inter, sans-serif)";
