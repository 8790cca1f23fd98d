// Calls of the gateway, in the name of the key that this tab has.

const KEY = "warmline.key";

/** The API key; it is gone when the tab is closed. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** What a route answers, or null where there is no such route; throws an Error with the reason. */
export async function ask(path) {
  const headers = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(15_000) });
  if (answer.status === 404) return null;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error?.message ?? `${answer.status}`);
  return body;
}
