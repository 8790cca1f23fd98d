// What needs an answer: a tool call, or a question of the model's.

import { codeBlock, element } from "./markdown.js";

const OUTCOMES = {
  OUTCOME_ALLOWED: "Allowed",
  OUTCOME_DENIED: "Denied",
  OUTCOME_EXPIRED: "Nobody answered in time: denied",
  OUTCOME_WITHDRAWN: "Not asked any more",
};

/** A card with buttons; `decide` gets the answer. */
export function approvalCard(asked, decide) {
  const isQuestion = asked.toolName === "AskUserQuestion";
  const title = isQuestion ? "Claude has a question" : `Allow ${asked.toolName}?`;
  const name = `approval-${asked.approvalId}`;
  const card = element("section", { className: "approval" }, element("h3", { id: name }, title));
  card.setAttribute("aria-labelledby", name);
  if (asked.description) card.append(element("p", {}, asked.description));
  const questions = isQuestion ? (asked.input?.questions ?? []) : [];
  const fields = questions.map((question, number) => fieldOf(question, `${name}-${number}`));
  if (isQuestion) card.append(...fields.map((field) => field.element));
  else card.append(codeBlock(JSON.stringify(asked.input ?? {}, null, 2), "input"));
  const answers = () => Object.fromEntries(fields.map((field) => [field.question, field.answer()]));
  const buttons = isQuestion
    ? [["Answer", () => ({ allow: { answers: answers() } })]]
    : [
        ["Allow", () => ({ allow: {} })],
        ["Allow always", () => ({ allow: { remember: true } })],
      ];
  buttons.push([isQuestion ? "Do not answer" : "Deny", () => ({ deny: {} })]);
  card.append(row(card, buttons, decide));
  return card;
}

/** Show what became of it; the first outcome stays. */
export function settled(card, outcome) {
  if (!card || card.dataset.outcome) return;
  card.dataset.outcome = outcome;
  card.querySelector(".buttons").replaceChildren(element("p", {}, OUTCOMES[outcome] ?? outcome));
  for (const field of card.querySelectorAll("fieldset")) field.disabled = true;
}

function row(card, buttons, decide) {
  const made = element("div", { className: "buttons" });
  for (const [label, decision] of buttons) {
    const button = element("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      for (const each of made.children) each.disabled = true;
      decide(decision());
    });
    made.append(button);
  }
  return made;
}

function fieldOf(question, name) {
  const set = element("fieldset", {}, element("legend", {}, question.question));
  const type = question.multiSelect ? "checkbox" : "radio";
  for (const option of question.options ?? []) {
    const input = element("input", { type, name, value: option.label });
    set.append(element("label", {}, input, ` ${option.label}`, hint(option.description)));
  }
  const own = element("input", { type: "text", autocomplete: "off" });
  set.append(element("label", {}, "In your own words ", own));
  const chosen = () => [...set.querySelectorAll(":checked")].map((input) => input.value);
  const answer = () => own.value.trim() || chosen().join(", ");
  return { element: set, question: question.question, answer };
}

const hint = (text) => element("small", {}, text ? ` ${text}` : "");
