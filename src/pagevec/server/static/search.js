/** Questions and their pages. */

import { fetchPicture, searchPages } from "./api.js";
import { byId, count, documentName, element, say } from "./dom.js";
import { ALL_WORDS, fillChips } from "./maps.js";
import { createPage, foundWords, markWords, tellingWords } from "./page.js";

const HITS = 12;
const CARD_WIDTH = 640;

/**
 * Manage the results.
 * @param {{selection: function(): string[], open: function(object): void,
 *   onError: function(?Error): void}} parts
 *   selection: ids of the documents to search in; open: shows a hit large; onError: gets what
 *   went wrong, or null as a search starts.
 * @returns {{run: function(string): Promise<void>, stop: function(): void, clear: function(): void}}
 *   stop: ends what is still being asked for, pictures too.
 */
export function createSearch({ selection, open, onError }) {
  const results = byId("results");
  const summary = byId("summary");
  let controller = new AbortController();
  let cards = [];

  async function run(query) {
    controller.abort();
    controller = new AbortController();
    const { signal } = controller;
    onError(null);
    say(summary, "Searching…");
    results.ariaBusy = "true";
    try {
      const documents = selection();
      const filter = documents.length > 0 ? { documents } : {};
      show(await searchPages({ query, k: HITS, maps: true, ...filter }, signal), signal);
    } catch (error) {
      if (signal.aborted) return;
      empty();
      say(summary, "The search failed.");
      onError(error);
    }
    results.ariaBusy = "false";
  }

  function show({ words, hits, query }, signal) {
    empty();
    cards = hits.map((hit, place) => createCard(hit, place, tellingWords(words)));
    cards.forEach((card) => results.append(element("li", {}, card.node)));
    const some = `${count(hits.length, "page")} for “${query}”`;
    say(summary, hits.length === 0 ? "No pages found." : some);
    const isMapped = hits.some((hit) => hit.maps);
    const group = byId("words");
    group.hidden = !isMapped;
    const paint = (word) => cards.forEach((card) => card.paint(isMapped ? word : null));
    const chips = fillChips(group, words, { onShow: paint });
    cards.forEach((card, place) => {
      card.node.addEventListener("click", () => {
        open({ hits, cards, place, words, kept: isMapped ? chips.kept() : ALL_WORDS });
      });
      card.load(signal);
    });
  }

  function empty() {
    cards.forEach((card) => card.release());
    cards = [];
    results.replaceChildren();
    byId("words").replaceChildren();
    byId("words").hidden = true;
  }

  return {
    run,
    stop: () => controller.abort(),
    clear: () => {
      controller.abort();
      empty();
      summary.textContent = "";
    },
  };
}

/** A hit's card; `url` tells where its picture lies, as long as the card is shown. */
function createCard(hit, place, words) {
  const page = hit.image && createPage(hit, "");
  const frame = element("span", { className: "frame" });
  let url = null;
  if (page) frame.append(page.node);
  else frame.append(createText(hit, words));
  const node = element(
    "button",
    { type: "button", className: "card", dataset: { hit: hit.page_url, rank: place + 1 } },
    element(
      "span",
      { className: "card-head" },
      element("span", { className: "rank" }, String(place + 1)),
      documentName(hit.document.name),
    ),
    frame,
    element("span", { className: "missing", dir: "auto" }, hit.error ?? ""),
    foundWords(hit),
    element(
      "span",
      { className: "card-foot" },
      element("span", {}, `Page ${hit.page}`),
      element("span", { className: "score", title: "Score" }, hit.score.toFixed(2)),
    ),
  );

  async function load(signal) {
    if (!page) return;
    frame.classList.add("loading");
    try {
      ({ url } = await fetchPicture(hit.image, CARD_WIDTH, signal));
      if (signal.aborted) release();
      else page.show(url);
    } catch (error) {
      if (signal.aborted) return;
      frame.replaceChildren(element("span", { className: "reason" }, error.message));
    }
    frame.classList.remove("loading");
  }

  function release() {
    if (url) URL.revokeObjectURL(url);
    url = null;
  }

  return { node, load, release, paint: (word) => page?.paint(word), url: () => url };
}

function createText(hit, words) {
  const snippet = hit.snippet ?? "A text without words to show.";
  return element("span", { className: "text-page", dir: "auto" }, markWords(snippet, words));
}
