/** Heat maps: which cells of a page are similar to a word, and the chips that choose the word. */

import { element } from "./dom.js";

const RED = [230, 30, 30];
const STRENGTH = 0.6;

/** Stands for the map of all words, where others are places in the list of words. */
export const ALL_WORDS = -1;

/**
 * Paint a map, one pixel for each cell; the browser scales it smoothly to the page.
 * @param {HTMLCanvasElement} canvas
 * @param {{rows: number, columns: number, whole: string, words: string[]}} maps
 * @param {number} word its place in the query, or ALL_WORDS.
 */
export function paintMap(canvas, maps, word) {
  const cells = atob(word === ALL_WORDS ? maps.whole : maps.words[word] ?? "");
  const image = new ImageData(maps.columns, maps.rows);
  for (let cell = 0; cell < cells.length; cell += 1) {
    const share = cells.charCodeAt(cell) / 255;
    // Squared: half of what is above the median would otherwise colour most of the page.
    image.data.set([...RED, Math.round(255 * STRENGTH * share ** 2)], 4 * cell);
  }
  canvas.width = maps.columns;
  canvas.height = maps.rows;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/**
 * Fill `group` with a chip for each word. Hovering and focusing show a word, clicking keeps it.
 * @param {HTMLElement} group
 * @param {string[]} words
 * @param {{kept?: number, onShow: function(number): void}} options
 *   kept: the word that is shown at first; onShow: gets the word to show.
 * @returns {{kept: function(): number}} the word that a click keeps.
 */
export function fillChips(group, words, { kept = ALL_WORDS, onShow }) {
  const chips = ["", ...words].map((word, place) => {
    const chip = element("button", { type: "button", dataset: { word } }, word || "All words");
    const mine = place - 1;
    chip.addEventListener("click", () => keep(mine === kept ? ALL_WORDS : mine));
    for (const event of ["pointerenter", "focus"]) chip.addEventListener(event, () => onShow(mine));
    for (const event of ["pointerleave", "blur"]) chip.addEventListener(event, () => onShow(kept));
    return chip;
  });
  const keep = (word) => {
    kept = word;
    chips.forEach((chip, place) => chip.setAttribute("aria-pressed", String(place - 1 === kept)));
    onShow(kept);
  };
  group.replaceChildren(...chips);
  keep(kept);
  return { kept: () => kept };
}
