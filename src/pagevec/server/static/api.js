/** Everything that goes over HTTP: the key, the requests, and their errors. */

import { sentence } from "./dom.js";

const LONGEST_PAUSE_SECONDS = 30;
const USUAL_PAUSE_SECONDS = 5;

// The key lives here and nowhere else, so that closing or reloading the page forgets it.
let key = null;
let whenSignedOut = () => {};
let whenWaiting = () => {};
const waiting = new Set();

/** An answer that is not the one asked for; its message is a sentence to show. */
export class ServiceError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string, retryAfter?: number}} details
   */
  constructor(message, { status = 0, code = "", retryAfter = USUAL_PAUSE_SECONDS } = {}) {
    super(message);
    this.name = "ServiceError";
    Object.assign(this, { status, code, retryAfter });
  }
}

/**
 * Set who is told what happens to requests in general.
 * @param {{signedOut: function(string): void, waiting: function(?string): void}} listeners
 *   `signedOut` gets the reason when the key is refused; `waiting` gets why requests wait for the
 *   service, and null when none does any longer.
 */
export function listen(listeners) {
  whenSignedOut = listeners.signedOut;
  whenWaiting = listeners.waiting;
}

/**
 * Exchange the token of a printed address for the key.
 * @param {string} token
 */
export async function signInWithToken(token) {
  const answer = await patiently(() => send("sign-in", { method: "POST", json: { token } }));
  key = (await answer.json()).key;
}

/**
 * Keep `candidate` as the key if the service accepts it.
 * @param {string} candidate
 */
export async function signInWithKey(candidate) {
  // A header cannot carry anything else, and fetch() would only say so in words for programmers.
  if (!/^[\x21-\x7e]+$/.test(candidate)) {
    throw new ServiceError("A key has no spaces and only plain letters, digits and signs.");
  }
  await patiently(() => send("status", { bearer: candidate }));
  key = candidate;
}

/** Return the model and what the service allows. */
export const readInfo = () => askJson("info");

/** Return the queue and the size of the store. */
export const readStatus = () => askJson("status");

/**
 * Return some documents by name.
 * @param {{limit: number, after?: ?string, search?: string}} which
 */
export function listDocuments({ limit, after = null, search = "" }) {
  const query = new URLSearchParams({ limit });
  if (after) query.set("after", after);
  if (search) query.set("search", search);
  return askJson(`documents?${query}`);
}

/**
 * Return one document.
 * @param {string} id
 */
export const readDocument = (id) => askJson(`documents/${encodeURIComponent(id)}`);

/**
 * Remove a document and its pages.
 * @param {string} id
 */
export const removeDocument = (id) =>
  askJson(`documents/${encodeURIComponent(id)}`, { method: "DELETE" });

/**
 * Search pages.
 * @param {object} json the body of POST /search.
 * @param {AbortSignal} signal
 */
export const searchPages = (json, signal) => askJson("search", { method: "POST", json, signal });

/**
 * Return a page's text and facts.
 * @param {string} url from a hit.
 * @param {AbortSignal} signal
 */
export const readPage = (url, signal) => askJson(url, { signal });

/**
 * Fetch the picture of a page. Whoever calls revokes the URL.
 * @param {string} url from a hit.
 * @param {number} width in pixels.
 * @param {AbortSignal} signal
 * @returns {Promise<{url: string, reason: ?string}>} reason: why it is only the small picture.
 */
export async function fetchPicture(url, width, signal) {
  const answer = await ask(`${url}?width=${width}`, { signal });
  const isSmall = answer.headers.get("Pagevec-Image") === "thumbnail";
  const reason = answer.headers.get("Pagevec-Image-Reason") ?? "its file cannot be read";
  return { url: URL.createObjectURL(await answer.blob()), reason: isSmall ? reason : null };
}

/**
 * Upload one file.
 * @param {File} file
 * @param {string} name its path within the folder that it comes from.
 * @param {function(number): void} onProgress gets the share of bytes that are sent.
 * @returns {Promise<object>} the document.
 */
export async function uploadFile(file, name, onProgress) {
  const passes = (error) => error.code === "not_ready" || error.status === 429;
  const answer = await patiently(() => sendFile(file, name, onProgress), { passes });
  return answer.documents[0];
}

async function askJson(path, options) {
  return (await ask(path, options)).json();
}

async function ask(path, options = {}) {
  const bearer = key;
  try {
    return await patiently(() => send(path, { ...options, bearer }), options);
  } catch (error) {
    forgetIfRefused(error, bearer);
    throw error;
  }
}

function forgetIfRefused(error, bearer) {
  // Several requests may be refused at once, some after the next sign-in.
  if (error.status !== 401 || key === null || key !== bearer) return;
  key = null;
  whenSignedOut(error.message);
}

async function patiently(attempt, { signal, passes = (error) => error.code === "not_ready" } = {}) {
  try {
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof ServiceError && passes(error))) throw error;
        waiting.add(attempt);
        whenWaiting(error.message);
        await pause(error.retryAfter, signal);
      }
    }
  } finally {
    if (waiting.delete(attempt) && waiting.size === 0) whenWaiting(null);
  }
}

async function send(path, { method = "GET", json, signal, bearer = null }) {
  const headers = { Accept: "application/json, image/jpeg" };
  if (bearer !== null) headers.Authorization = `Bearer ${bearer}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, cache: "no-cache" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServiceError("The service cannot be reached. It may have stopped.");
  }
  if (answer.ok) return answer;
  throw failure(answer.status, await answer.text(), answer.headers.get("Retry-After"));
}

// Not fetch(), which tells no progress of what it sends.
function sendFile(file, name, onProgress) {
  const form = new FormData();
  form.append("file", file, name);
  const bearer = key;
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "documents");
    request.setRequestHeader("Authorization", `Bearer ${bearer}`);
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onload = () => {
      const { status, responseText } = request;
      if (status < 300) {
        resolve(JSON.parse(responseText));
        return;
      }
      const error = failure(status, responseText, request.getResponseHeader("Retry-After"));
      forgetIfRefused(error, bearer);
      reject(error);
    };
    request.onerror = () =>
      reject(new ServiceError("The connection broke: the file changed, or the service stopped."));
    request.send(form);
  });
}

function failure(status, text, retryAfter) {
  const seconds = Number.parseFloat(retryAfter ?? "");
  const details = { status, retryAfter: Number.isNaN(seconds) ? USUAL_PAUSE_SECONDS : seconds };
  try {
    const { error, code } = JSON.parse(text);
    return new ServiceError(sentence(error), { ...details, code });
  } catch {
    return new ServiceError(`The service answered with status ${status}.`, details);
  }
}

function pause(seconds, signal) {
  const milliseconds = 1000 * Math.min(Math.max(seconds, 0.5), LONGEST_PAUSE_SECONDS);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}
