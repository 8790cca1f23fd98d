// Markdown as DOM nodes. What is not understood is shown as it is; nothing is ever read as HTML.

const DEEPEST = 10;
const ITEM = /^( {0,20})([-*+]|\d{1,9}[.)])(?: +(.*))?$/;
const HEADING = /^ {0,3}(#{1,6})(?: +(.*))?$/;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const RULE = /^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$/;
const LINK = /\[([^[\]\n]{1,500})\]\(([^()\s<>]{1,2000}(?:\([^()\s<>]{0,500}\)[^()\s<>]{0,500})?)(?: +"[^"\n]{0,300}")?\)/y;
const ADDRESS = /https?:\/\/[^\s<>"'`|]{1,2000}/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

/** A text as a fragment of the page. */
export function markdown(text) {
  const out = document.createDocumentFragment();
  blocks(out, text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"), 0);
  return out;
}

/** An element with properties and children; strings are text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function blocks(out, lines, depth) {
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const taken =
      fence(out, lines, at) ||
      heading(out, lines, at, depth) ||
      (RULE.test(lines[at]) && (out.append(element("hr")), 1)) ||
      (depth < DEEPEST && (quote(out, lines, at, depth) || list(out, lines, at, depth))) ||
      table(out, lines, at, depth) ||
      paragraph(out, lines, at, depth);
    at += taken;
  }
}

function fence(out, lines, at) {
  const opening = FENCE.exec(lines[at]);
  if (!opening) return 0;
  const [, mark, info] = opening;
  let end = at + 1;
  const closes = (line) => line.trim().length >= mark.length && !line.trim().replaceAll(mark[0], "");
  while (end < lines.length && !closes(lines[end])) end += 1;
  out.append(codeBlock(lines.slice(at + 1, end).join("\n"), info.trim().split(/\s/)[0]));
  return end - at + 1;
}

/** Code, with the name of its language and a button that copies it. */
export function codeBlock(text, language = "") {
  const head = element("div", { className: "code-head" }, element("span", {}, language || "text"));
  if (navigator.clipboard) {
    const copy = element("button", { type: "button", className: "quiet" }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    });
    head.append(copy);
  }
  const code = element("pre", { tabIndex: 0 }, element("code", {}, text));
  return element("div", { className: "code" }, head, code);
}

function heading(out, lines, at, depth) {
  const match = HEADING.exec(lines[at]);
  if (!match) return 0;
  // The page's own headings are above those of an answer.
  const made = element(`h${Math.min(6, match[1].length + 2)}`);
  inline(made, (match[2] ?? "").trim(), depth);
  out.append(made);
  return 1;
}

function quote(out, lines, at, depth) {
  let end = at;
  while (end < lines.length && /^ {0,3}>/.test(lines[end])) end += 1;
  if (end === at) return 0;
  const made = element("blockquote");
  blocks(made, lines.slice(at, end).map((line) => line.replace(/^ {0,3}> ?/, "")), depth + 1);
  out.append(made);
  return end - at;
}

function list(out, lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  if (!first) return 0;
  const ordered = /\d/.test(first[2]);
  const made = element(ordered ? "ol" : "ul");
  if (ordered) made.start = parseInt(first[2], 10);
  let end = at;
  while (end < lines.length) {
    const match = ITEM.exec(lines[end]);
    const same = match && /\d/.test(match[2]) === ordered && match[1].length <= first[1].length + 1;
    if (!same || RULE.test(lines[end])) break;
    const size = itemLength(lines, end, match);
    const inner = match[1].length + match[2].length + 1;
    const rest = lines.slice(end + 1, end + size).map((line) => dedented(line, inner));
    made.append(listItem([match[3] ?? "", ...rest], depth));
    end += size;
  }
  out.append(made);
  return end - at;
}

function itemLength(lines, at, match) {
  const inner = match[1].length + 2;
  let end = at + 1;
  while (end < lines.length) {
    const line = lines[end];
    const next = lines[end + 1] ?? "";
    const indented = line.search(/\S/) >= inner;
    const goesOn = line.trim()
      ? indented || (lines[end - 1].trim() && !begins(line))
      : next.search(/\S/) >= inner || (ITEM.test(next) && match[1].length === next.search(/\S/));
    if (!goesOn) break;
    end += 1;
    // The next item of the same list, after an empty line.
    if (!line.trim() && next.search(/\S/) < inner) break;
  }
  return end - at;
}

function dedented(line, most) {
  const spaces = line.search(/\S/);
  return spaces < 0 ? "" : line.slice(Math.min(spaces, most));
}

function listItem(lines, depth) {
  const made = element("li");
  blocks(made, lines, depth + 1);
  const only = made.firstElementChild;
  if (only?.tagName === "P") only.replaceWith(...only.childNodes);
  return made;
}

const begins = (line) =>
  ITEM.test(line) || HEADING.test(line) || FENCE.test(line) || RULE.test(line) || /^ {0,3}>/.test(line);

function table(out, lines, at, depth) {
  if (!lines[at].includes("|") || !isRuler(lines[at + 1] ?? "")) return 0;
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const head = element("tr");
  for (const cell of cells(lines[at])) head.append(inline(element("th", { scope: "col" }), cell, depth));
  const body = element("tbody");
  for (const line of lines.slice(at + 2, end)) {
    const row = element("tr");
    for (const cell of cells(line)) row.append(inline(element("td"), cell, depth));
    body.append(row);
  }
  const made = element("table", {}, element("thead", {}, head), body);
  out.append(element("div", { className: "wide", tabIndex: 0 }, made));
  return end - at;
}

const cells = (line) => line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map((cell) => cell.trim());
const isRuler = (line) => line.includes("-") && cells(line).every((cell) => /^:?-+:?$/.test(cell));

function paragraph(out, lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !begins(lines[end])) end += 1;
  const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n");
  out.append(inline(element("p"), text, depth));
  return end - at;
}

/** Append a text with what is emphasised, linked or code in it. */
function inline(out, text, depth) {
  // Marks that nothing closes: looking for their ends again and again would take for ever.
  const unclosed = new Set();
  let plain = "";
  let at = 0;
  while (at < text.length) {
    const found = depth < DEEPEST ? special(text, at, depth, unclosed) : null;
    if (found) {
      out.append(plain, found.node);
      plain = "";
      at = found.end;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  out.append(plain);
  return out;
}

function special(text, at, depth, unclosed) {
  switch (text[at]) {
    case "\\":
      return PUNCTUATION.test(text[at + 1] ?? "") ? { node: text[at + 1], end: at + 2 } : null;
    case "`":
      return codeSpan(text, at, unclosed);
    case "[":
      return link(text, at, depth);
    case "h":
      return address(text, at);
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, depth, unclosed);
    case " ":
      return text.startsWith("  \n", at) ? { node: element("br"), end: at + 3 } : null;
    default:
      return null;
  }
}

function codeSpan(text, at, unclosed) {
  let end = at;
  while (text[end] === "`") end += 1;
  const mark = text.slice(at, end);
  const whole = { node: mark, end };
  if (unclosed.has(mark)) return whole;
  let close = text.indexOf(mark, end);
  while (close >= 0 && text[close + mark.length] === "`") {
    while (text[close] === "`") close += 1;
    close = text.indexOf(mark, close);
  }
  if (close < 0) {
    unclosed.add(mark);
    return whole;
  }
  return { node: element("code", {}, text.slice(end, close).trim()), end: close + mark.length };
}

function link(text, at, depth) {
  LINK.lastIndex = at;
  const match = LINK.exec(text);
  if (!match || !isWeb(match[2])) return null;
  const made = anchor(match[2]);
  inline(made, match[1], depth + 1);
  return { node: made, end: at + match[0].length };
}

function address(text, at) {
  ADDRESS.lastIndex = at;
  const match = WORD.test(text[at - 1] ?? "") ? null : ADDRESS.exec(text);
  if (!match) return null;
  const url = match[0].replace(/[.,;:!?*_~)\]]+$/, "");
  if (!isWeb(url)) return null;
  const made = anchor(url);
  made.append(url);
  return { node: made, end: at + url.length };
}

function isWeb(url) {
  return /^https?:\/\//i.test(url) && URL.canParse(url);
}

const anchor = (href) => element("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" });

function emphasis(text, at, depth, unclosed) {
  const mark = text[at + 1] === text[at] ? text.slice(at, at + 2) : text[at];
  const start = at + mark.length;
  const inWord = mark[0] === "_" && WORD.test(text[at - 1] ?? "");
  if (mark === "~" || inWord || unclosed.has(mark) || !(text[start] ?? " ").trim()) {
    return mark.length > 1 ? { node: mark, end: start } : null;
  }
  let close = text.indexOf(mark, start + 1);
  while (close >= 0 && !closes(text, close, mark)) close = text.indexOf(mark, close + mark.length);
  if (close < 0) {
    unclosed.add(mark);
    return { node: mark, end: start };
  }
  const made = element(mark === "~~" ? "del" : mark.length > 1 ? "strong" : "em");
  inline(made, text.slice(start, close), depth + 1);
  return { node: made, end: close + mark.length };
}

function closes(text, at, mark) {
  const after = text[at + mark.length] ?? "";
  if (!text[at - 1].trim()) return false;
  if (mark[0] === "_" && WORD.test(after)) return false;
  return mark.length > 1 || (after !== mark && text[at - 1] !== mark);
}
