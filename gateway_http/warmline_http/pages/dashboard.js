// The dashboard: what /gateway/health and /gateway/metrics say, as tables, whatever names they have.

import { ask, key } from "./api.js";
import { element } from "./markdown.js";

const EVERY = 5_000;
const state = document.getElementById("state");

async function show(id, path) {
  const told = await ask(path);
  const place = document.getElementById(id);
  place.replaceChildren(told === null ? element("p", {}, "Not served here.") : viewOf(told));
}

async function refresh() {
  if (!document.hidden) {
    try {
      await Promise.all([show("health", "/gateway/health"), show("metrics", "/gateway/metrics")]);
      state.dataset.state = "open";
      state.textContent = `As of ${new Date().toLocaleTimeString()}`;
    } catch (error) {
      state.dataset.state = "waiting";
      state.textContent = `${error.message} The next try is in ${EVERY / 1000} s.`;
    }
  }
  setTimeout(refresh, EVERY);
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isTable = (value) => {
  const rows = value !== null && typeof value === "object" ? Object.values(value) : [];
  return rows.length > 0 && rows.every(isObject);
};

/** A list of objects, or an object of them, as a table; any other object as names and values. */
function viewOf(value) {
  if (isTable(value)) return tableOf(value);
  if (Array.isArray(value)) return element("span", {}, value.map(words).join(", "));
  if (!isObject(value)) return element("span", {}, words(value));
  const rows = Object.entries(value).map(([name, each]) => {
    const cell = element("td", {}, viewOf(each));
    return element("tr", {}, element("th", { scope: "row" }, label(name)), cell);
  });
  return element("table", {}, element("tbody", {}, ...rows));
}

function tableOf(value) {
  const rows = Object.entries(value);
  const names = [...new Set(rows.flatMap(([, row]) => Object.keys(row)))];
  const head = names.map((name) => element("th", { scope: "col" }, label(name)));
  const body = rows.map(([name, row]) => {
    const cells = names.map((each) => element("td", {}, viewOf(row[each])));
    return element("tr", {}, element("th", { scope: "row" }, name), ...cells);
  });
  const first = element("tr", {}, element("td"), ...head);
  const table = element("table", {}, element("thead", {}, first), element("tbody", {}, ...body));
  return element("div", { className: "wide", tabIndex: 0 }, table);
}

const label = (name) => name.replaceAll("_", " ");

function words(value) {
  if (value === undefined || value === null) return "–";
  if (typeof value === "number") return value.toLocaleString(undefined, { maximumFractionDigits: 4 });
  return isObject(value) ? JSON.stringify(value) : String(value);
}

const field = document.getElementById("key");
field.value = key.get();
field.addEventListener("change", () => key.set(field.value.trim()));
refresh();
