/** Uploads: a file a request, two at a time; what fails stays listed with its reason. */

import { uploadFile } from "./api.js";
import { byId, count, documentName, element, setOptional } from "./dom.js";

const AT_ONCE = 2;

/**
 * Manage the list of uploads.
 * @param {function(object): void} onUploaded gets each document that the service has received.
 * @returns {{add: function({file: File, name: string}[]): void, clear: function(): void}}
 */
export function createUploads(onUploaded) {
  const list = byId("uploads");
  const note = byId("uploads-waiting");
  let queue = [];
  let running = 0;

  function startNext() {
    while (running < AT_ONCE && queue.length > 0) upload(queue.shift());
    setOptional(note, queue.length > 0 ? `${count(queue.length, "more file")} to upload` : null);
  }

  async function upload({ file, name }) {
    running += 1;
    const row = createRow(file, name);
    list.append(row.node);
    try {
      onUploaded(await uploadFile(file, name, row.setSent));
      row.node.remove();
    } catch (error) {
      row.fail(error.message);
    }
    running -= 1;
    startNext();
  }

  return {
    add: (files) => {
      queue.push(...files);
      startNext();
    },
    clear: () => {
      queue = [];
      list.replaceChildren();
      startNext();
    },
  };
}

function createRow(file, name) {
  const bar = element("progress", { max: 1, value: 0, ariaLabel: `Upload of ${name}` });
  const state = element("p", { className: "state" }, `0 of ${bytes(file.size)}`);
  const node = element("li", {}, documentName(name), state, bar);
  return {
    node,
    setSent: (share) => {
      bar.value = share;
      const sent = `${bytes(share * file.size)} of ${bytes(file.size)}`;
      state.textContent = share < 1 ? sent : "Sent; the service is taking it in";
    },
    fail: (reason) => {
      const dismiss = element("button", { type: "button", className: "plain" }, "Dismiss");
      dismiss.ariaLabel = `Dismiss ${name}`;
      dismiss.addEventListener("click", () => {
        node.remove();
        byId("choose-files").focus();
      });
      const fault = element("p", { className: "reason", role: "alert" }, reason);
      node.replaceChildren(documentName(name), fault, dismiss);
    },
  };
}

function bytes(size) {
  if (size < 1e6) return `${Math.ceil(size / 1e3)} kB`;
  return `${(size / 1e6).toFixed(1)} MB`;
}
