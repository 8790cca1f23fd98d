// A session over a WebSocket that comes and goes: each event is told once and in its order, and each
// message runs once, whatever the network does.

const FIRST_WAIT = 250;
const LONGEST_WAIT = 10_000;
const OPENING = 15_000;
// So many heartbeats may be missed, and no fewer milliseconds pass.
const MISSED = 3;
const SHORTEST_SILENCE = 2_000;
// Before the first heartbeat nobody knows how often they come.
const LONGEST_SILENCE = 60_000;
// A page that was loaded again finds its own stream still there for a moment.
const BUSY_TRIES = 4;

/**
 * `told(event)` gets each event; `changed(state, detail)` how the connection is: `connecting`, `open`,
 * `waiting` (`detail.seconds`), `elsewhere` (another client has the session) or `refused` (`detail.error`).
 */
export class Connection {
  #options;
  #sessionId;
  #cursor = { epoch: 0, seq: 0 };
  #openKey = crypto.randomUUID();
  #socket = null;
  #attached = false;
  #wasAttached = false;
  #ended = false;
  // By their keys: until the service says that they have arrived.
  #messages = new Map();
  #answers = new Map();
  #stopping = "";
  #wait = FIRST_WAIT;
  #busy = 0;
  #error = null;
  #timer = 0;
  #watchdog = 0;
  #heard = 0;
  #silence = LONGEST_SILENCE;

  constructor(options) {
    this.#options = options;
    this.#sessionId = options.sessionId ?? "";
    addEventListener("online", this.#online);
    addEventListener("offline", this.#offline);
    this.#connect();
  }

  get sessionId() {
    return this.#sessionId;
  }

  /** What the service has not taken yet, by its keys. */
  get unsent() {
    return [...this.#messages].map(([key, frame]) => [key, frame.message.text]);
  }

  /** Say something; it is sent again until the service has it, and runs once. Gives its key. */
  send(text, key = crypto.randomUUID()) {
    const frame = { message: { text, idempotencyKey: key } };
    this.#messages.set(key, frame);
    this.#write(frame);
    return key;
  }

  /** Answer an approval; `decision` is `{allow: {...}}` or `{deny: {...}}`. */
  decide(approvalId, decision) {
    const frame = { approvalDecision: { approvalId, ...decision } };
    this.#answers.set(approvalId, frame);
    this.#write(frame);
  }

  /** Stop a turn. */
  interrupt(turnId) {
    this.#stopping = turnId;
    this.#write({ interrupt: {} });
  }

  /** Have the session here, whoever has it. */
  takeOver() {
    this.#wasAttached = true;
    this.#ended = false;
    this.#connect();
  }

  /** Give it up; what runs goes on. */
  close() {
    this.#ended = true;
    removeEventListener("online", this.#online);
    removeEventListener("offline", this.#offline);
    this.#drop();
  }

  #online = () => {
    if (!this.#socket && !this.#ended) this.#connect();
  };

  #offline = () => {
    if (this.#socket && !this.#ended) this.#lost();
  };

  #connect() {
    this.#drop();
    this.#options.changed("connecting", {});
    const address = new URL("/v1/chat/ws", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address, ["warmline.v1", ...named(this.#options.key)]);
    this.#socket = socket;
    this.#error = null;
    this.#timer = setTimeout(() => this.#lost(), OPENING);
    socket.onopen = () => socket.send(JSON.stringify({ open: this.#opening() }));
    socket.onmessage = (message) => this.#hear(JSON.parse(message.data));
    socket.onclose = (closed) => this.#closed(closed.code);
  }

  #opening() {
    const takeover = this.#wasAttached;
    if (!this.#sessionId) {
      return { config: this.#options.config, idempotencyKey: this.#openKey, takeover };
    }
    return { sessionId: this.#sessionId, after: this.#cursor, takeover };
  }

  #hear(frame) {
    const now = performance.now();
    if (!frame.events && !frame.error) {
      const missed = Math.max(SHORTEST_SILENCE, MISSED * (now - this.#heard));
      this.#silence = Math.min(this.#silence, missed);
    }
    this.#heard = now;
    this.#watch();
    if (frame.error) this.#error = frame.error;
    for (const event of frame.events ?? []) this.#take(event);
  }

  // A network that has gone says nothing.
  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lost(), this.#silence);
  }

  #take(event) {
    const [kind, body] = kindOf(event);
    this.#settle(kind, body);
    if (kind === "sessionOpened") this.#attach(body);
    const seq = Number(event.seq ?? 0);
    // A turn that a message is attached to is told from its beginning.
    if (seq && seq <= this.#cursor.seq) return;
    if (seq) this.#cursor = { epoch: Number(event.epoch), seq };
    if (event.turnId === this.#stopping && (kind === "turnCompleted" || kind === "turnFailed")) {
      this.#stopping = "";
    }
    this.#options.told(event, kind, body);
    if (kind === "notice" && body.kind === "KIND_TAKEN_OVER") this.#elsewhere();
  }

  #settle(kind, body) {
    this.#messages.delete(body.idempotencyKey);
    if (kind === "approvalResolved") this.#answers.delete(body.approvalId);
    if (kind === "notice") this.#answers.delete(body.metadata?.approvalId);
    if (kind === "interruptResult") this.#stopping = "";
  }

  #attach(opened) {
    clearTimeout(this.#timer);
    this.#sessionId = opened.sessionId;
    this.#attached = true;
    this.#wasAttached = true;
    this.#wait = FIRST_WAIT;
    this.#busy = 0;
    this.#options.changed("open", {});
    for (const frame of [...this.#messages.values(), ...this.#answers.values()]) this.#write(frame);
    if (this.#stopping && this.#stopping === opened.runningTurnId) this.#write({ interrupt: {} });
  }

  #write(frame) {
    if (this.#attached) this.#socket.send(JSON.stringify(frame));
  }

  #closed(code) {
    const error = this.#error;
    const busy = error?.reason === "SESSION_BUSY";
    if (busy && ++this.#busy >= BUSY_TRIES) {
      this.#elsewhere();
    } else if (error && !busy && code >= 1007 && code <= 1009) {
      this.#ended = true;
      this.#drop();
      this.#options.changed("refused", { error });
    } else {
      this.#lost(error?.retry_after);
    }
  }

  #elsewhere() {
    this.#ended = true;
    this.#drop();
    this.#options.changed("elsewhere", {});
  }

  #lost(seconds = 0) {
    this.#drop();
    // Not all at once, when a service comes back.
    const wait = Math.max(seconds * 1000, this.#wait) * (0.75 + Math.random() / 2);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#options.changed("waiting", { seconds: Math.ceil(wait / 1000) });
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    this.#attached = false;
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }
}

/** The name and the value of what an event is. */
export function kindOf(event) {
  const found = Object.entries(event).find(([name]) => !COMMON.has(name));
  return found ?? ["unknown", {}];
}

const COMMON = new Set(["sessionId", "turnId", "epoch", "seq", "time", "parentToolCallId"]);

// A browser can put a key nowhere else.
function named(key) {
  if (!key) return [];
  const bytes = String.fromCharCode(...new TextEncoder().encode(key));
  const text = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return [`warmline.key.${text}`];
}
