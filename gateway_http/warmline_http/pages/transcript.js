// What a session tells, as a page: one article for each turn.

import { codeBlock, element, markdown } from "./markdown.js";
import { approvalCard, settled } from "./approvals.js";

const SHORT = 90;
// More text than can be drawn anew in every frame, and how often it is.
const LONG = 20_000;
const SELDOM = 300;

/**
 * Fills `root`. `decide(approvalId, decision)` is called for an answer, `announce(text)` for what people who do
 * not see should hear, `changed()` when a turn has begun or ended, `again(text)` to say a message once more.
 */
export class Transcript {
  #root;
  #actions;
  #turns = new Map();
  // By their keys: messages that the service has not taken yet.
  #waiting = new Map();

  constructor(root, actions) {
    this.#root = root;
    this.#actions = actions;
    root.replaceChildren();
  }

  /** The turn that runs or waits, the oldest first; empty where there is none. */
  get running() {
    return [...this.#turns.values()].find((turn) => !turn.ended)?.id ?? "";
  }

  /** Show what was said, before the service has it. */
  say(key, text) {
    const turn = new Turn(this.#actions);
    turn.say(text);
    this.#waiting.set(key, turn);
    this.#root.append(turn.article);
    turn.article.scrollIntoView({ block: "end" });
    this.#actions.changed();
  }

  /** Take back what was said and is not to be sent. */
  unsay(key) {
    this.#waiting.get(key)?.article.remove();
    this.#waiting.delete(key);
  }

  take(event, kind, body) {
    const below = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < 80;
    if (event.turnId) this.#turn(event, body).take(event, kind, body);
    else if (kind === "notice" || kind === "credentialRequired") this.#root.append(note(body.message));
    if (BOUNDS.has(kind)) this.#actions.changed();
    if (below) this.#root.scrollTop = this.#root.scrollHeight;
  }

  #turn(event, body) {
    let turn = this.#turns.get(event.turnId);
    if (!turn) {
      turn = this.#waiting.get(body.idempotencyKey) ?? new Turn(this.#actions);
      this.#waiting.delete(body.idempotencyKey);
      turn.id = event.turnId;
      this.#turns.set(event.turnId, turn);
      if (!turn.article.isConnected) this.#root.append(turn.article);
    }
    return turn;
  }
}

const BOUNDS = new Set(["turnQueued", "turnCompleted", "turnFailed", "turnAttached"]);

class Turn {
  id = "";
  ended = false;
  #actions;
  #said = "";
  #body = element("div", { className: "answer" });
  #state = element("p", { className: "state" }, "sending…");
  #lanes = new Map();
  #tools = new Map();
  #cards = new Map();

  constructor(actions) {
    this.#actions = actions;
    this.article = element("article", { className: "turn" }, this.#body, this.#state);
    this.#lanes.set("", new Lane(this.#body));
  }

  say(text) {
    if (this.#said) return;
    this.#said = text;
    this.article.prepend(
      element("h2", { className: "hidden" }, "You"),
      element("div", { className: "said" }, text),
    );
  }

  take(event, kind, body) {
    const lane = this.#lane(event.parentToolCallId ?? "");
    const handlers = {
      turnQueued: () => this.#queued(body),
      turnStarted: () => this.#tell("working…"),
      textDelta: () => lane.text(body),
      thinkingDelta: () => lane.think(body),
      toolInputDelta: () => lane.toolInput(body),
      toolCall: () => this.#tools.set(body.id, lane.tool(body)),
      toolResult: () => this.#tools.get(body.toolCallId)?.result(body),
      message: () => lane.whole(body.content ?? []),
      agentEvent: () => this.#tools.get(body.toolCallId)?.agent(body),
      approvalRequested: () => this.#ask(body),
      approvalResolved: () => settled(this.#cards.get(body.approvalId), body.outcome),
      clientToolCalled: () => lane.add(note(`Waits for a tool of another client: ${body.name}`)),
      notice: () => lane.add(note(body.message || body.code)),
      credentialRequired: () => lane.add(note(body.message)),
      turnCompleted: () => this.#complete(body),
      turnFailed: () => this.#fail(body),
    };
    handlers[kind]?.();
  }

  #queued(body) {
    this.say(body.text ?? "");
    this.#tell(body.position ? `waits behind ${body.position}` : "waits for a process…");
  }

  #tell(text) {
    this.#state.textContent = text;
  }

  #lane(parent) {
    if (!this.#lanes.has(parent)) {
      const within = this.#tools.get(parent)?.within ?? this.#body;
      this.#lanes.set(parent, new Lane(within));
    }
    return this.#lanes.get(parent);
  }

  #ask(body) {
    const card = approvalCard(body, (decision) => this.#actions.decide(body.approvalId, decision));
    this.#cards.set(body.approvalId, card);
    this.#body.append(card);
    this.#actions.announce(`An answer is needed: ${card.querySelector("h3").textContent}`);
  }

  #end() {
    this.ended = true;
    for (const lane of this.#lanes.values()) lane.finish();
    for (const card of this.#cards.values()) settled(card, "OUTCOME_WITHDRAWN");
  }

  #complete(body) {
    this.#end();
    const parts = [];
    if (body.stopReason === "STOP_REASON_INTERRUPTED") parts.push("stopped");
    else if (body.stopReason !== "STOP_REASON_END_TURN") parts.push(word(body.stopReason, "STOP_REASON_"));
    if (body.usage?.outputTokens) parts.push(`${body.usage.outputTokens} tokens`);
    const total = parseFloat(body.latency?.total);
    if (total) parts.push(`${total.toFixed(1)} s`);
    if (body.latency?.start) parts.push(word(body.latency.start, "START_KIND_"));
    this.#tell(parts.join(" · "));
    this.#actions.announce(`The answer: ${body.result ?? ""}`.slice(0, 1000));
  }

  #fail(body) {
    this.#end();
    const reason = body.status?.details?.find((detail) => detail.reason)?.reason ?? "";
    const text = body.status?.message || "The turn failed.";
    const card = element("div", { className: "failure" }, element("p", {}, text));
    if (this.#said) {
      const again = element("button", { type: "button" }, "Say it again");
      again.addEventListener("click", () => this.#actions.again(this.#said));
      card.append(again);
    }
    this.#body.append(card);
    this.#tell(reason);
    this.#actions.announce(text);
  }
}

/** What one agent writes: its own, or a sub-agent's below its call. */
class Lane {
  #out;
  // Of the message that is being written, by their numbers.
  #blocks = new Map();
  #unnamed = [];

  constructor(out) {
    this.#out = out;
  }

  add(node) {
    this.#out.append(node);
  }

  text(body) {
    this.#block(body, Text).more(body.text ?? "");
  }

  think(body) {
    this.#block(body, Thinking).more(body.text ?? "");
  }

  toolInput(body) {
    const known = this.#blocks.has(body.blockIndex ?? 0);
    const tool = this.#block(body, Tool);
    if (!known) this.#unnamed.push(tool);
    tool.more(body.partialJson ?? "");
  }

  tool(body) {
    const tool = this.#unnamed.shift() ?? new Tool(this.#out);
    tool.name(body);
    return tool;
  }

  /** A whole message: what was not told in pieces is added, and the next message begins. */
  whole(content) {
    content.forEach((part, blockIndex) => {
      if (part.text) this.#block({ blockIndex }, Text).all(part.text);
      if (part.thinking?.text) this.#block({ blockIndex }, Thinking).all(part.thinking.text);
    });
    this.#blocks.clear();
  }

  finish() {
    for (const block of this.#blocks.values()) block.draw();
    this.#blocks.clear();
    this.#unnamed = [];
  }

  #block({ blockIndex = 0 }, Kind) {
    if (!(this.#blocks.get(blockIndex) instanceof Kind)) this.#blocks.set(blockIndex, new Kind(this.#out));
    return this.#blocks.get(blockIndex);
  }
}

/** Drawn once a frame at most, however fast it comes; what is long more seldom. */
class Growing {
  #asked = false;
  content = "";

  more(text) {
    this.content += text;
    if (this.#asked) return;
    this.#asked = true;
    if (this.content.length < LONG) requestAnimationFrame(() => this.draw());
    else setTimeout(() => this.draw(), SELDOM);
  }

  all(text) {
    this.content = text;
    this.draw();
  }

  draw() {
    this.#asked = false;
    this.show();
  }
}

class Text extends Growing {
  #element = element("div", { className: "text" });

  constructor(out) {
    super();
    out.append(this.#element);
  }

  show() {
    this.#element.replaceChildren(markdown(this.content));
  }
}

class Thinking extends Growing {
  #text = element("div", { className: "thinking" });

  constructor(out) {
    super();
    out.append(element("details", {}, element("summary", {}, "Thinking"), this.#text));
  }

  show() {
    this.#text.textContent = this.content;
  }
}

class Tool extends Growing {
  #summary = element("summary", {}, "Tool");
  #input = element("pre", { tabIndex: 0 });
  #result = element("div");
  #state = element("span", { className: "tool-state" });
  within = element("div", { className: "within" });

  constructor(out) {
    super();
    const all = [this.#summary, this.#input, this.within, this.#result];
    out.append(element("details", { className: "tool" }, ...all));
  }

  name(body) {
    const input = body.input ?? {};
    const hint = Object.values(input).find((value) => typeof value === "string") ?? "";
    this.#summary.replaceChildren(element("b", {}, body.name), " ", short(hint), " ", this.#state);
    this.all(JSON.stringify(input, null, 2));
  }

  result(body) {
    this.#result.replaceChildren(codeBlock(body.text ?? "", body.isError ? "error" : "result"));
    this.#state.textContent = body.isError ? "failed" : "done";
  }

  agent(body) {
    const count = body.toolCalls ? `, ${body.toolCalls} tools` : "";
    this.#state.textContent = `${body.agent ?? "agent"} ${word(body.state, "STATE_")}${count}`;
  }

  show() {
    this.#input.textContent = this.content;
  }
}

const note = (text) => element("p", { className: "note" }, text ?? "");
const word = (name = "", prefix = "") => name.replace(prefix, "").replaceAll("_", " ").toLowerCase();
const short = (text) => (text.length > SHORT ? `${text.slice(0, SHORT)}…` : text);
