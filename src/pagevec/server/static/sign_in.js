/** The sign-in: a token out of a printed address, or a key that is typed. */

import { signInWithKey, signInWithToken } from "./api.js";
import { byId } from "./dom.js";

/**
 * Manage the sign-in.
 * @param {function(): void} onSignedIn
 * @returns {{withToken: function(string): Promise<void>, show: function(string=): void}}
 *   show: takes the reason why a key is needed, where there is one to tell.
 */
export function createSignIn(onSignedIn) {
  const section = byId("sign-in");
  const field = byId("key");
  const reason = byId("sign-in-reason");
  const button = section.querySelector("button");

  function show(why = "") {
    section.hidden = false;
    reason.textContent = why;
    field.focus();
  }

  function finish() {
    section.hidden = true;
    reason.textContent = "";
    onSignedIn();
  }

  byId("sign-in-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const candidate = field.value.trim();
    button.disabled = true;
    try {
      await signInWithKey(candidate);
      field.value = "";
      finish();
    } catch (error) {
      show(error.status === 401 ? "The service does not accept this key." : error.message);
    }
    button.disabled = false;
  });

  return {
    show,
    withToken: async (token) => {
      try {
        await signInWithToken(token);
        finish();
      } catch (error) {
        show(`The address did not sign you in. ${error.message} Enter the key instead.`);
      }
    },
  };
}
