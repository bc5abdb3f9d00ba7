/** Wires the parts of the page together. */

import { listen, listDocuments } from "./api.js";
import { createDocuments } from "./documents.js";
import { byId, count, element, say, setOptional } from "./dom.js";
import { chosenFiles, droppedFiles } from "./dropped.js";
import { createFoot } from "./foot.js";
import { createSearch } from "./search.js";
import { createSignIn } from "./sign_in.js";
import { createUploads } from "./uploads.js";
import { createViewer } from "./viewer.js";

const EXAMPLES = ["parcels and punctuality", "total of the receipt", "night route passengers"];
const EXAMPLES_FOLDER = "examples/";
const WIDE = matchMedia("(min-width: 60rem)");

const viewer = createViewer();
const signIn = createSignIn(start);
const documents = createDocuments({
  onChange: showInvitation,
  onSelect: applyFilter,
  onRemoving: () => search.stop(),
  onRemoved: applyFilter, // the results may have pages of what was removed
  onError: showError,
});
const search = createSearch({
  selection: documents.selection,
  open: viewer.open,
  onError: showError,
});
const uploads = createUploads(documents.add);
const foot = createFoot(() => documents.reload());
let isSignedIn = false;
let mayWrite = false;
let examples = { total: 0, isThere: false }; // among so many documents

listen({
  signedOut: (reason) => stop(`The service asks for your key again. ${reason}`),
  waiting: (reason) => say(byId("waiting"), reason ? `${reason} Waiting…` : ""),
});

/** Show the page's parts once the key is known. */
async function start() {
  isSignedIn = true;
  setSignedIn();
  foot.follow();
  showQuery();
  byId("query").focus();
  await documents.reload();
}

function stop(reason) {
  isSignedIn = false;
  if (byId("viewer").open) viewer.close();
  search.clear();
  documents.clear();
  uploads.clear();
  foot.stop();
  setSignedIn();
  signIn.show(reason);
}

function setSignedIn() {
  for (const id of ["ask", "aside"]) byId(id).hidden = !isSignedIn;
  byId("filter").hidden = true; // nothing is selected yet
  byId("columns").classList.toggle("alone", !isSignedIn);
  if (!isSignedIn) for (const id of ["welcome", "found"]) byId(id).hidden = true;
}

async function loadInfo() {
  try {
    const info = await foot.load();
    mayWrite = info.documents === "write";
    documents.allowRemoval(mayWrite);
    byId("drop").hidden = !mayWrite;
    byId("read-only").hidden = mayWrite;
    if (isSignedIn) documents.reload();
  } catch (error) {
    showError(error);
  }
}

/** The query stands in the fragment, so that it can be shared and no server's log sees it. */
function readFragment() {
  const parts = location.hash.slice(1).split("&").map((part) => part.split("="));
  return Object.fromEntries(parts.map(([name, value = ""]) => [name, decode(value)]));
}

function decode(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value; // cut off within a character
  }
}

function takeToken() {
  const { token } = readFragment();
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

function go(query) {
  const fragment = query ? `#q=${encodeURIComponent(query)}` : "";
  if (location.hash === fragment) showQuery();
  else location.hash = fragment; // hashchange does the rest
}

function showQuery() {
  const query = readFragment().q ?? "";
  if (byId("viewer").open) viewer.close();
  byId("query").value = query;
  byId("welcome").hidden = query !== "";
  byId("found").hidden = query === "";
  document.title = query ? `${query} – pagevec` : "pagevec";
  if (query) search.run(query);
  else search.clear();
}

async function showInvitation({ total }) {
  if (total !== examples.total) examples = { total, isThere: total > 0 && (await findExamples()) };
  const hasExamples = examples.isThere;
  byId("examples").hidden = !hasExamples;
  byId("invitation").textContent = invite(total, hasExamples);
}

function invite(total, hasExamples) {
  if (hasExamples) return "Ask your documents. Or start with a question about the examples:";
  if (total > 0) return "Ask your documents: an answer is a page, and the place on it.";
  if (mayWrite) return "Drop a PDF, a picture, a text or a folder on this page, then ask.";
  return "This store has no documents yet.";
}

async function findExamples() {
  try {
    const found = await listDocuments({ limit: 50, search: EXAMPLES_FOLDER });
    return found.documents.some(({ name }) => name.startsWith(EXAMPLES_FOLDER));
  } catch {
    return false; // the list, asked for next, says what is wrong
  }
}

function applyFilter() {
  const { length } = documents.selection();
  setOptional(byId("filter-text"), length > 0 ? `Only in ${count(length, "document")}` : null);
  byId("filter").hidden = length === 0;
  const { q } = readFragment();
  if (q && isSignedIn) search.run(q);
}

function showError(error) {
  if (error?.status === 401) return; // the sign-in says it
  byId("message").textContent = error?.message ?? "";
  byId("message-bar").hidden = !error;
}

function addFiles(files) {
  if (files.length === 0) return;
  byId("panel").open = true;
  uploads.add(files);
}

function wireDrops() {
  const curtain = byId("curtain");
  const hasFiles = (event) => event.dataTransfer.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // else the browser would open the file
    curtain.hidden = !(isSignedIn && mayWrite);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) curtain.hidden = true; // it left the window
  });
  document.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    curtain.hidden = true;
    if (!isSignedIn) return;
    if (!mayWrite) {
      showError(new Error("Nothing can be added: the service was started without --uploads."));
      return;
    }
    try {
      addFiles(await droppedFiles(event.dataTransfer));
    } catch (error) {
      showError(error);
    }
  });
}

function wireChoices() {
  for (const id of ["files", "folder"]) {
    const input = byId(id);
    byId(`choose-${id}`).addEventListener("click", () => input.click());
    input.addEventListener("change", () => addFiles(chosenFiles(input)));
  }
}

function wire() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    go(byId("query").value.trim());
  });
  addEventListener("hashchange", () => {
    const token = takeToken();
    if (token && !isSignedIn) signIn.withToken(token);
    else if (isSignedIn) showQuery();
  });
  byId("filter-clear").addEventListener("click", documents.clearSelection);
  byId("message-close").addEventListener("click", () => showError(null));
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the fragment holds the query
    byId("main").focus();
  });
  for (const question of EXAMPLES) {
    const button = element("button", { type: "button" }, question);
    button.addEventListener("click", () => go(question));
    byId("examples").append(button);
  }
  const fitPanel = () => {
    byId("panel").open = WIDE.matches;
  };
  WIDE.addEventListener("change", fitPanel);
  fitPanel();
  wireDrops();
  wireChoices();
}

wire();
setSignedIn();
loadInfo();
const token = takeToken();
if (token) signIn.withToken(token);
else signIn.show();
