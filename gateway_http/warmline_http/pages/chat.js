// The chat page: joins the connection, the transcript, the list of sessions and the form.

import { ask, key } from "./api.js";
import { Connection } from "./connection.js";
import { element } from "./markdown.js";
import { Transcript } from "./transcript.js";

const find = (id) => document.getElementById(id);
const [log, form, message] = [find("log"), find("form"), find("message")];
const [stop, state, again] = [find("stop"), find("state"), find("again")];
const SAY_STATE = {
  connecting: () => "Connecting…",
  open: () => "Connected",
  waiting: ({ seconds }) => `Not connected; next try in ${seconds} s. Nothing is lost.`,
  elsewhere: () => "This chat is open somewhere else.",
  refused: ({ error }) => error.message,
};

let connection = null;
let transcript = null;

function announce(text) {
  find("announcer").textContent = text;
}

function showState(name, detail = {}) {
  state.dataset.state = name;
  state.textContent = SAY_STATE[name]?.(detail) ?? "";
  again.hidden = name !== "elsewhere";
  if (name === "refused") takeBack(detail.error);
}

// What the service will not take as things are can be sent again when they are different.
function takeBack(error) {
  if (error.status === 401) find("settings").open = true;
  for (const [key, text] of connection.unsent) {
    transcript.unsay(key);
    message.value = [message.value, text].filter(Boolean).join("\n");
  }
  showButtons();
}

/** Go to a session; empty: a new one, which begins with its first message. */
function goTo(sessionId) {
  connection?.close();
  connection = null;
  transcript = new Transcript(log, { announce, again: say, changed: showButtons, decide });
  history.replaceState(null, "", sessionId ? `#${sessionId}` : location.pathname);
  showState("");
  if (sessionId) connect(sessionId);
  showButtons();
  showSessions();
  message.focus();
}

function connect(sessionId = "") {
  const model = find("model").value.trim();
  const config = { approvals: { mode: "MODE_STREAM" }, ...(model && { model }) };
  connection = new Connection({ sessionId, config, key: key.get(), told, changed: showState });
}

function told(event, kind, body) {
  if (kind === "sessionOpened" && location.hash !== `#${body.sessionId}`) {
    history.replaceState(null, "", `#${body.sessionId}`);
  }
  transcript.take(event, kind, body);
  if (kind === "turnQueued") showSessions();
}

function decide(approvalId, decision) {
  connection?.decide(approvalId, decision);
}

function say(text) {
  if (!connection || state.dataset.state === "refused") {
    const sessionId = connection?.sessionId ?? "";
    connection?.close();
    connect(sessionId);
  }
  transcript.say(connection.send(text), text);
}

function showButtons() {
  stop.disabled = !transcript.running;
}

// One at a time, and the last that was asked for: turns begin faster than lists come.
let listing = null;
let listAgain = false;

function showSessions() {
  listAgain = listing !== null;
  listing ??= listSessions().finally(() => {
    listing = null;
    if (listAgain) showSessions();
  });
}

async function listSessions() {
  const list = find("sessions");
  try {
    const page = await ask("/v1/sessions?page_size=50");
    list.hidden = page === null;
    list.replaceChildren(...(page?.sessions ?? []).map(entry));
    find("no-sessions").textContent = "";
  } catch (error) {
    find("no-sessions").textContent = error.message;
  }
}

function entry(session) {
  const button = element("button", { type: "button", className: "quiet" }, session.title || "Untitled");
  if (location.hash === `#${session.id}`) button.setAttribute("aria-current", "page");
  button.addEventListener("click", () => goTo(session.id));
  return element("li", {}, button);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = message.value;
  if (!text.trim()) return;
  message.value = "";
  say(text);
});
message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
stop.addEventListener("click", () => {
  connection?.interrupt(transcript.running);
  message.focus();
});
again.addEventListener("click", () => connection?.takeOver());
find("new").addEventListener("click", () => goTo(""));
find("key").value = key.get();
find("key").addEventListener("change", () => {
  key.set(find("key").value.trim());
  goTo(location.hash.slice(1));
});
addEventListener("hashchange", () => goTo(location.hash.slice(1)));
goTo(location.hash.slice(1));
