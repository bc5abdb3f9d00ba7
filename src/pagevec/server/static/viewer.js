/** One page, large: its map, its zoom, its text, and the way to the other hits. */

import { fetchPicture, readPage } from "./api.js";
import { byId, element, sentence, setOptional } from "./dom.js";
import { ALL_WORDS, fillChips } from "./maps.js";
import { createPage, foundWords, markWords, tellingWords } from "./page.js";

const LARGE_WIDTH = 1600;
const ZOOM_STEP = 1.25;
const MOST_ZOOM = 6;

/**
 * Manage the dialog.
 * @returns {{open: function(object): void, close: function(): void}} open: takes the hits, their
 *   cards, the place of the hit to show, the words, and the word whose map is kept.
 */
export function createViewer() {
  const dialog = byId("viewer");
  const stage = byId("stage");
  const toggle = byId("map-toggle");
  let opened = null;
  let place = 0;
  let zoom = 1;
  let chips = { kept: () => ALL_WORDS };
  let word = ALL_WORDS;
  let page = null;
  let text = "";
  let url = null;
  let controller = new AbortController();

  function open(what) {
    opened = what;
    chips = { kept: () => what.kept };
    dialog.showModal();
    show(what.place);
    stage.focus();
  }

  function show(next) {
    release();
    place = next;
    const hit = opened.hits[place];
    setZoom(1);
    describe(hit);
    page = hit.image ? createPage(hit, `Page ${hit.page} of ${hit.document.name}`) : null;
    stage.replaceChildren(page?.node ?? element("div", { className: "text-page", dir: "auto" }));
    byId("viewer-text-part").hidden = false;
    text = "";
    const small = opened.cards[place].url();
    if (small) page.show(small); // until the large one is here
    showChips(hit);
    loadPicture(hit, controller.signal);
    loadText(hit, controller.signal);
  }

  function describe(hit) {
    const name = element("bdi", { className: "name" }, hit.document.name);
    byId("viewer-title").replaceChildren(
      name,
      element("span", { className: "quiet" }, `Page ${hit.page} · score ${hit.score.toFixed(2)}`),
    );
    byId("viewer-place").textContent = `${place + 1} of ${opened.hits.length}`;
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === opened.hits.length - 1;
    byId("viewer-found").replaceChildren(foundWords(hit));
    setOptional(byId("viewer-fault"), hit.error && sentence(hit.error));
    setOptional(byId("viewer-thumbnail"), null);
    byId("viewer-snippet-part").hidden = !hit.snippet;
  }

  function showChips(hit) {
    const group = byId("viewer-words");
    group.hidden = !hit.maps;
    toggle.parentElement.hidden = !hit.maps;
    const reason = sentence(hit.no_maps ?? "this page has no map");
    setOptional(byId("no-maps"), hit.maps ? null : reason);
    const onShow = (chosen) => {
      word = chosen;
      draw();
    };
    chips = fillChips(group, opened.words, { kept: chips.kept(), onShow });
  }

  /** Show the map of the word, and the word in the texts. */
  function draw() {
    page?.paint(toggle.checked ? word : null);
    const marked = word === ALL_WORDS ? tellingWords(opened.words) : [opened.words[word]];
    const { snippet } = opened.hits[place];
    byId("viewer-snippet").replaceChildren(markWords(snippet ?? "", marked));
    byId("viewer-text").replaceChildren(markWords(text, marked));
    if (!page) stage.firstChild.replaceChildren(markWords(text || (snippet ?? ""), marked));
  }

  async function loadPicture(hit, signal) {
    if (!hit.image) return;
    try {
      const picture = await fetchPicture(hit.image, LARGE_WIDTH, signal);
      if (signal.aborted) {
        URL.revokeObjectURL(picture.url);
        return;
      }
      url = picture.url;
      page.show(url);
      const { reason } = picture;
      const why = reason && `Only a small picture of this page is left. ${sentence(reason)}`;
      setOptional(byId("viewer-thumbnail"), why);
    } catch (error) {
      if (!signal.aborted) setOptional(byId("viewer-fault"), error.message);
    }
  }

  async function loadText(hit, signal) {
    const note = byId("viewer-text-note");
    setOptional(note, "Loading…");
    try {
      const answer = await readPage(hit.page_url, signal);
      text = answer.text ?? "";
      draw();
      byId("viewer-text-part").hidden = !page; // a text stands on the stage
      setOptional(note, text ? null : "No text is stored with this page.");
    } catch (error) {
      if (!signal.aborted) setOptional(note, error.message);
    }
  }

  function step(by) {
    const next = place + by;
    if (next >= 0 && next < opened.hits.length) show(next);
  }

  /** Zoom, keeping the point of the page at `x`, `y` of the stage where it is. */
  function setZoom(wanted, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const next = Math.min(Math.max(wanted, 1), MOST_ZOOM);
    const [left, top] = [stage.scrollLeft + x, stage.scrollTop + y];
    const factor = next / zoom;
    zoom = next;
    stage.style.setProperty("--zoom", String(zoom));
    stage.scrollTo(left * factor - x, top * factor - y);
    byId("zoom-reset").textContent = `${Math.round(100 * zoom)}%`;
    byId("zoom-reset").ariaLabel = `Zoom ${Math.round(100 * zoom)}%: fit the page`;
    byId("zoom-out").disabled = zoom === 1;
    byId("zoom-in").disabled = zoom === MOST_ZOOM;
  }

  function release() {
    controller.abort();
    controller = new AbortController();
    if (url) URL.revokeObjectURL(url);
    url = null;
  }

  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    "+": () => setZoom(zoom * ZOOM_STEP),
    "=": () => setZoom(zoom * ZOOM_STEP), // where + needs Shift
    "-": () => setZoom(zoom / ZOOM_STEP),
    0: () => setZoom(1),
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const { left, top } = stage.getBoundingClientRect();
      setZoom(zoom * Math.exp(-event.deltaY / 300), event.clientX - left, event.clientY - top);
    },
    { passive: false },
  );
  dialog.addEventListener("close", () => {
    release();
    stage.replaceChildren();
    opened.cards[place].node.focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // its backdrop
  });
  toggle.addEventListener("change", draw);
  byId("previous").addEventListener("click", keys.ArrowLeft);
  byId("next").addEventListener("click", keys.ArrowRight);
  byId("zoom-in").addEventListener("click", keys["+"]);
  byId("zoom-out").addEventListener("click", keys["-"]);
  byId("zoom-reset").addEventListener("click", keys[0]);
  byId("viewer-close").addEventListener("click", () => dialog.close());

  return { open, close: () => dialog.close() };
}
