/** The picture of a page with its heat map over it, in the results and in the viewer. */

import { element } from "./dom.js";
import { paintMap } from "./maps.js";

const USUAL_RATIO = 1 / Math.SQRT2; // of A4, until the picture tells its own

/**
 * Build the picture of a hit's page.
 * @param {object} hit
 * @param {string} alternative what the picture shows, in words.
 * @returns {{node: HTMLElement, show: function(string): void, paint: function(?number): void}}
 *   show: takes the URL of the picture; paint: takes the word whose map to show, null for none.
 */
export function createPage(hit, alternative) {
  const image = element("img", { alt: alternative, hidden: true });
  const canvas = element("canvas", { ariaHidden: "true" });
  const node = element("span", { className: "page" }, image, canvas);
  const setRatio = (ratio) => node.style.setProperty("--ratio", String(ratio));
  setRatio(hit.maps ? hit.maps.columns / hit.maps.rows : USUAL_RATIO);
  image.addEventListener("load", () => {
    setRatio(image.naturalWidth / image.naturalHeight);
    image.hidden = false;
  });
  return {
    node,
    show: (url) => {
      image.src = url;
    },
    paint: (word) => {
      canvas.hidden = word === null || !hit.maps;
      if (!canvas.hidden) paintMap(canvas, hit.maps, word);
    },
  };
}

/**
 * Return the words of the query by which the text of a page was found, if it was.
 * @param {{found_words: string[], found_by: string[]}} hit
 * @returns {HTMLElement}
 */
export function foundWords({ found_words: words, found_by: by }) {
  const alone = !by.includes("vectors");
  const why = alone ? "Found by the words of its text alone" : "Its text has";
  const chips = words.map((word) => element("span", { className: "found-word" }, word));
  const heard = element("span", { className: "unseen" }, `${why}: `);
  const content = words.length === 0 ? [] : [heard, ...chips];
  return element("span", { className: "found", title: why, dir: "auto" }, ...content);
}

/**
 * Return `text` with the chosen words of the query marked.
 * @param {string} text
 * @param {string[]} words
 * @returns {DocumentFragment}
 */
export function markWords(text, words) {
  const marked = new DocumentFragment();
  if (words.length === 0) {
    marked.append(text);
    return marked;
  }
  const escaped = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  // A pattern with a group: every second part is a word.
  text.split(new RegExp(`(${escaped.join("|")})`, "giu")).forEach((part, place) => {
    marked.append(place % 2 ? element("mark", {}, part) : part);
  });
  return marked;
}

/**
 * Return the words worth marking in a text: not the short ones, which stand everywhere.
 * @param {string[]} words
 */
export const tellingWords = (words) =>
  words.filter((word) => word.length > 3 || /[^a-z]/i.test(word));
