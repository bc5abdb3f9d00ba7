/** The foot of the page: the model, and how busy the service is. */

import { readInfo, readStatus } from "./api.js";
import { byId, element, sentence } from "./dom.js";

const BUSY_WAIT = 3000;
const IDLE_WAIT = 15000;
const REAL_MODEL = "make serve MODEL=tsystems/colqwen2.5-3b-multilingual-v1.0";

/**
 * Manage the foot.
 * @param {function(): void} onBusy is called while the service has documents to ingest.
 */
export function createFoot(onBusy) {
  let info = null;
  let timer = null;
  let isFollowing = false;

  function draw(status) {
    const facts = [...modelFacts(info), ...(status ? statusFacts(status) : [])];
    byId("facts").replaceChildren(
      ...facts.map(([name, value]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, value)),
      ),
    );
  }

  async function follow() {
    clearTimeout(timer);
    let wait = IDLE_WAIT;
    try {
      const status = await readStatus();
      if (!isFollowing) return;
      draw(status);
      if (status.ingesting > 0) onBusy();
      if (status.ingesting > 0 || status.queued_inputs > 0) wait = BUSY_WAIT;
    } catch {
      // Whatever is asked for next says what is wrong; the foot keeps what it has.
    }
    if (isFollowing && !document.hidden) timer = setTimeout(follow, wait);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else if (isFollowing) follow();
  });

  return {
    /** Read and show the model; return the answer of /info. */
    load: async () => {
      info = await readInfo();
      draw(null);
      showNotice(info);
      return info;
    },
    /** Follow the status, now and from now on. */
    follow: () => {
      isFollowing = true;
      follow();
    },
    stop: () => {
      isFollowing = false;
      clearTimeout(timer);
      draw(null);
    },
  };
}

function modelFacts(info) {
  if (!info) return [];
  return [
    ["Model", info.model],
    ["Device", info.device],
    ["Type", info.dtype],
  ];
}

function statusFacts(status) {
  const speed = status.pages_per_second;
  return [
    ["Documents", status.documents.toLocaleString("en")],
    ["Pages", status.pages.toLocaleString("en")],
    ["Queue", status.queued_inputs.toLocaleString("en")],
    ["Pages/s", speed === null ? "–" : speed.toFixed(1)],
  ];
}

function showNotice({ model, notice }) {
  const node = byId("model-notice");
  node.hidden = !notice;
  node.replaceChildren(notice ? sentence(notice) : "");
  if (model === "bundled") {
    node.append(" To serve a real one: ", element("code", {}, REAL_MODEL));
  }
}
