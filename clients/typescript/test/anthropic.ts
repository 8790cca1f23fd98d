// What the official SDK makes of a Messages API at the address that is given: one JSON object.
import Anthropic from "@anthropic-ai/sdk";

declare const process: { argv: string[] };

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const model = "haiku";
const max_tokens = 1000;

const user = (content: Anthropic.MessageParam["content"]): Anthropic.MessageParam => ({
  role: "user",
  content,
});

const weather: Anthropic.Tool = {
  name: "weather",
  description: "Tells the weather",
  input_schema: { type: "object", properties: { city: { type: "string" } } },
};

const textOf = (content: Anthropic.ContentBlock[]): string =>
  content.map((block) => (block.type === "text" ? block.text : "")).join("");

async function text() {
  const told = await client.messages.create({ model, max_tokens, messages: [user("hello")] });
  return {
    text: textOf(told.content),
    stop: told.stop_reason,
    tokens: told.usage.output_tokens,
    request: told._request_id,
  };
}

async function stream() {
  const pieces: string[] = [];
  const kinds = new Set<string>();
  const streaming = client.messages
    .stream({ model, max_tokens, messages: [user("::text 20")] })
    .on("text", (piece) => pieces.push(piece))
    .on("streamEvent", (event) => kinds.add(event.type));
  const last = await streaming.finalMessage();
  return {
    pieces: pieces.length,
    whole: pieces.join("") === textOf(last.content),
    kinds: [...kinds],
    stop: last.stop_reason,
  };
}

async function tools() {
  const calls = '::tool mcp__client__weather {"city":"Basel"}\n::say done';
  const messages = [user(calls)];
  const cities: unknown[] = [];
  const sessions = new Set<string | null>();
  for (;;) {
    const { data: told, response } = await client.messages
      .create({ model, max_tokens, messages, tools: [weather] })
      .withResponse();
    sessions.add(response.headers.get("x-session-id"));
    if (told.stop_reason !== "tool_use") {
      return { cities, sessions: sessions.size, text: textOf(told.content) };
    }
    const used = told.content.filter((block) => block.type === "tool_use");
    cities.push(...used.map((call) => (call.input as { city: string }).city));
    messages.push({ role: "assistant", content: told.content });
    messages.push(
      user(used.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: "rain" }))),
    );
  }
}

async function error() {
  try {
    await client.messages.create({ model: "gpt-2", max_tokens, messages: [user("hello")] });
  } catch (caught) {
    if (!(caught instanceof Anthropic.APIError)) throw caught;
    const { status, type, requestID } = caught;
    return { name: caught.constructor.name, status, type, request: requestID };
  }
  return null;
}

async function streamError() {
  try {
    const streaming = client.messages.stream({
      model,
      max_tokens,
      messages: [user("::say before\n::error 400")],
    });
    await streaming.finalMessage();
  } catch (caught) {
    if (!(caught instanceof Anthropic.APIError)) throw caught;
    return { type: caught.type };
  }
  return null;
}

console.log(
  JSON.stringify({
    text: await text(),
    stream: await stream(),
    tools: await tools(),
    error: await error(),
    streamError: await streamError(),
  }),
);
