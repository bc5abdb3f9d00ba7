/** The list of stored documents: their states, which of them to search in, and removal. */

import { listDocuments, readDocument, removeDocument } from "./api.js";
import { arrange, byId, count, documentName, element, say, sentence, setOptional } from "./dom.js";

const AT_A_TIME = 50;
const SHORTEST_WAIT = 1000;
const LONGEST_WAIT = 8000;
const TYPING_PAUSE = 250;
const ASKED_ONE_BY_ONE = 8; // of the uploads that the list does not reach

/**
 * Manage the list of documents.
 * @param {{onChange: function({total: number}): void, onSelect: function(): void,
 *   onRemoving: function(): void, onRemoved: function(): void,
 *   onError: function(?Error): void}} listeners onRemoving, onRemoved: before and after a removal,
 *   failed or not; onError: gets null once the list can be read again.
 */
export function createDocuments({ onChange, onSelect, onRemoving, onRemoved, onError }) {
  const list = byId("documents");
  const search = byId("document-search");
  const items = new Map(); // by id: what is shown now
  const selected = new Map(); // names by id: they stay selected while a search hides them
  let fresh = []; // ids of what was uploaded here, the latest first, wherever its name is sorted
  let listed = [];
  let shown = AT_A_TIME;
  let mayRemove = false;
  let timer = null;
  let wait = SHORTEST_WAIT;
  let reading = 0;
  let hasFailed = false;

  async function reload() {
    const mine = (reading += 1);
    clearTimeout(timer);
    try {
      const answer = await readList();
      const others = await readFresh(answer.documents);
      if (mine !== reading) return;
      show(others, answer);
      if (hasFailed) onError(null);
      hasFailed = false;
    } catch (error) {
      if (mine !== reading) return;
      hasFailed = error.status !== 429; // else asking less often is all there is to do
      if (hasFailed) onError(error);
      wait = LONGEST_WAIT;
    }
    if (isBusy()) timer = setTimeout(reload, wait);
  }

  async function readList() {
    const documents = [];
    let after = null;
    let total = 0;
    do {
      const answer = await listDocuments({ limit: AT_A_TIME, after, search: search.value.trim() });
      documents.push(...answer.documents);
      ({ next: after, total } = answer);
    } while (after && documents.length < shown);
    return { documents, total, next: after };
  }

  /** Read the uploads that still change and are not among `known`. */
  async function readFresh(known) {
    const found = new Set(known.map(({ id }) => id));
    const changing = fresh.filter((id) => !found.has(id) && items.get(id).isBusy());
    const oldest = changing.slice(-ASKED_ONE_BY_ONE); // the service takes them in this order
    const answers = await Promise.all(oldest.map((id) => readDocument(id).catch(forgetAbsent(id))));
    return answers.filter((one) => one !== null);
  }

  const forgetAbsent = (id) => (error) => {
    if (error.status !== 404) throw error;
    forget(id);
    return null;
  };

  function forget(id) {
    fresh = fresh.filter((one) => one !== id);
    items.delete(id);
  }

  function show(others, { documents, total, next }) {
    const changes = [...others, ...documents].filter((one) => put(one)).length;
    wait = changes > 0 ? SHORTEST_WAIT : Math.min(1.5 * wait, LONGEST_WAIT);
    listed = documents.map(({ id }) => id);
    const kept = new Set([...listed, ...fresh]);
    for (const id of [...items.keys()]) if (!kept.has(id)) items.delete(id);
    draw();
    byId("document-count").textContent = total.toLocaleString("en");
    byId("more").hidden = !next;
    const sought = search.value.trim();
    const nothing = sought ? "No document's name has these words." : "No documents yet.";
    setOptional(byId("documents-empty"), list.children.length === 0 ? nothing : null);
    if (!sought) onChange({ total });
  }

  function put(document) {
    const before = items.get(document.id);
    if (!before) items.set(document.id, createItem(document, actions));
    return items.get(document.id).update(document, {
      mayRemove: mayRemove && document.is_upload,
      isSelected: selected.has(document.id),
    });
  }

  function draw() {
    const first = search.value.trim() ? [] : fresh;
    const order = new Set([...first, ...listed]);
    arrange(list, [...order].filter((id) => items.has(id)).map((id) => items.get(id).node));
  }

  const isBusy = () => [...items.values()].some((item) => item.isBusy());

  const actions = {
    select: ({ id, name }, isSelected) => {
      if (isSelected) selected.set(id, name);
      else selected.delete(id);
      onSelect();
    },
    remove: async (document) => {
      const nodes = [...list.children];
      const place = nodes.indexOf(items.get(document.id).node);
      onRemoving();
      try {
        await removeDocument(document.id);
        selected.delete(document.id);
      } finally {
        onRemoved();
      }
      say(byId("progress"), `${document.name} is removed`);
      const neighbour = nodes[place + 1] ?? nodes[place - 1];
      (neighbour?.querySelector("button, input") ?? search).focus();
      forget(document.id);
      draw();
      await reload();
    },
  };

  byId("more").addEventListener("click", async () => {
    const before = list.children.length;
    shown += AT_A_TIME;
    await reload();
    list.children[before]?.querySelector("input").focus();
  });
  search.addEventListener("input", () => {
    clearTimeout(timer);
    shown = AT_A_TIME;
    timer = setTimeout(reload, TYPING_PAUSE);
  });

  return {
    reload,
    /** Show an upload at the top, and follow it. */
    add: (document) => {
      fresh = [document.id, ...fresh.filter((id) => id !== document.id)];
      put(document);
      draw();
      wait = SHORTEST_WAIT;
      clearTimeout(timer);
      timer = setTimeout(reload, wait);
    },
    allowRemoval: (isAllowed) => {
      mayRemove = isAllowed;
    },
    /** Ids of the documents to search in; empty for all. */
    selection: () => [...selected.keys()],
    clearSelection: () => {
      selected.clear();
      for (const item of items.values()) item.deselect();
      onSelect();
    },
    /** Forget all of it, as the key is gone. */
    clear: () => {
      reading += 1;
      clearTimeout(timer);
      items.clear();
      selected.clear();
      [fresh, listed, shown] = [[], [], AT_A_TIME];
      search.value = "";
      list.replaceChildren();
    },
  };
}

function createItem(first, actions) {
  let document = first;
  let last = "";
  const box = element("input", { type: "checkbox" });
  const label = element("label", { className: "pick" }, box, documentName(first.name));
  const state = element("p", { className: "state" });
  const bar = element("progress", { ariaLabel: `Pages of ${first.name}` });
  const fault = element("p", { className: "reason", dir: "auto" });
  const removal = createRemoval(first.name, () => actions.remove(document));
  const head = element("div", { className: "row" }, label, removal);
  const node = element("li", { dataset: { id: first.id } }, head, state, bar, fault);
  box.addEventListener("change", () => actions.select(document, box.checked));

  function update(newer, { mayRemove, isSelected }) {
    document = newer;
    box.checked = isSelected;
    removal.hidden = !mayRemove;
    const now = JSON.stringify(newer);
    if (now === last) return false;
    const isEnd = last !== "" && node.dataset.state !== newer.state && !isBusy();
    last = now;
    node.dataset.state = newer.state;
    state.textContent = describe(newer);
    setOptional(fault, newer.error && sentence(newer.error));
    bar.hidden = !isBusy();
    if (newer.pages) Object.assign(bar, { max: newer.pages, value: newer.stored });
    else bar.removeAttribute("value");
    if (isEnd) say(byId("progress"), `${newer.name}: ${describe(newer)}`);
    return true;
  }

  const isBusy = () => document.state === "waiting" || document.state === "ingesting";
  return {
    node,
    update,
    isBusy,
    deselect: () => {
      box.checked = false;
    },
  };
}

function describe({ state, stored, pages }) {
  if (state === "waiting") return "Waiting for its turn";
  if (state === "failed") return "Failed";
  if (pages === null) return stored > 0 ? `${count(stored, "page")} so far` : "Reading its pages";
  if (state === "complete") return count(pages, "page");
  return `${stored} of ${count(pages, "page")}`;
}

/** A button that asks back in its own place. */
function createRemoval(name, remove) {
  const ask = element("button", { type: "button", className: "plain" }, "Remove");
  const yes = element("button", { type: "button", className: "plain danger" }, "Yes");
  const no = element("button", { type: "button", className: "plain" }, "No");
  ask.ariaLabel = `Remove ${name}`;
  yes.ariaLabel = `Yes, remove ${name}`;
  no.ariaLabel = `No, keep ${name}`;
  const question = element("span", { className: "question", hidden: true }, "Remove?", yes, no);
  const fault = element("span", { className: "reason", role: "alert" });
  const node = element("div", { className: "removal" }, ask, question, fault);
  const setAsking = (isAsking) => {
    ask.hidden = isAsking;
    question.hidden = !isAsking;
    (isAsking ? no : ask).focus();
  };
  ask.addEventListener("click", () => setAsking(true));
  no.addEventListener("click", () => setAsking(false));
  question.addEventListener("keydown", (event) => {
    if (event.key === "Escape") setAsking(false);
  });
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    try {
      await remove();
    } catch (error) {
      yes.disabled = false;
      setAsking(false);
      fault.textContent = error.message;
    }
  });
  return node;
}
