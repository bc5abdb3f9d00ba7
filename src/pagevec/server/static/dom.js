/** Small helpers to build what the page shows. Strangers' text only ever becomes text nodes. */

/**
 * Return the element with this id, which index.html promises.
 * @param {string} id
 * @returns {HTMLElement}
 */
export const byId = (id) => document.getElementById(id);

/**
 * Build an element.
 * @param {string} name of the element.
 * @param {object} properties of the element; `dataset` is merged.
 * @param {...(Node|string)} children strings become text.
 * @returns {HTMLElement}
 */
export function element(name, { dataset = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

/**
 * Show `text` in `node`, or hide the node where there is none.
 * @param {HTMLElement} node
 * @param {?string} text
 */
export function setOptional(node, text) {
  node.textContent = text ?? "";
  node.hidden = !text;
}

/**
 * Set the text of a live region only where it changes: each change is read out.
 * @param {HTMLElement} node
 * @param {string} text
 */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Return "1 page", "3 pages", "1,204 pages".
 * @param {number} number
 * @param {string} noun in the singular.
 */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/**
 * Return what the service says as a sentence: it says it in lower case, and without a full stop.
 * A first word with other signs, such as a file's name, stays as it is.
 * @param {string} words
 */
export function sentence(words) {
  const ended = /[.!?]$/.test(words) ? words : `${words}.`;
  return ended.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase());
}

/**
 * Build a document's name, its folders set off from its file name.
 * Each part is isolated, so that no character of a name turns the text around it.
 * @param {string} name
 * @returns {HTMLElement}
 */
export function documentName(name) {
  const cut = name.lastIndexOf("/") + 1;
  return element(
    "span",
    { className: "name", title: name },
    element("bdi", { className: "folders" }, name.slice(0, cut)),
    element("bdi", {}, name.slice(cut)),
  );
}

/**
 * Make `list` hold exactly `nodes`, moving only what stands elsewhere: a moved node loses focus.
 * @param {HTMLElement} list
 * @param {HTMLElement[]} nodes
 */
export function arrange(list, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...list.children]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, place) => {
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
  });
}
