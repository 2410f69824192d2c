// The messages of a chat.
import { copy, h, setText } from "./dom.js";
import { icon } from "./icons.js";
import { Prose } from "./render.js";
import { waysOut } from "./trouble.js";

const SUGGESTIONS = [
  "Explain how a heat pump works, in five sentences.",
  "Write a Python function that finds the longest word in a text.",
  "Plan a weekend in Lisbon as a table.",
];

const ENDS = {
  stopped: "Stopped.",
  cancelled: "Stopped.",
  broken: "The reply broke off.",
  length: "Cut off at the limit of tokens.",
  max_new_tokens: "Cut off at the limit of tokens.",
  context_full: "The context is full. A new chat has room again.",
  timeout: "Cut off: it took longer than the server allows.",
  resource_limit: "Cut off: the server ran out of memory for it.",
  guarded: "A filter of the server changed this reply.",
  content_filter: "A filter of the server changed this reply.",
};

/** Shows one chat; `actions` are what its buttons do. */
export class Thread {
  #root;
  #list;
  #actions;
  #live = null;
  #timer = 0;

  constructor(root, list, actions) {
    this.#root = root;
    this.#list = list;
    this.#actions = actions;
  }

  /** Shows a chat as it is now; `run` writes its last message, `problem` is what went wrong. */
  show(chat, run, problem) {
    clearInterval(this.#timer);
    this.#live = null;
    const { messages } = chat;
    const last = messages.length - 1;
    const isRunning = run !== undefined;
    const views = messages.map((message, index) => {
      if (message.role === "user") {
        const isLast = index >= last - 1 && !isRunning;
        return this.#question(message, isLast && (() => this.#edit(index)));
      }
      const view = new Reply(message, index === last ? run : undefined, {
        retry: index === last && !isRunning && this.#actions.retry,
      });
      if (index === last && run) this.#live = view;
      return view.element;
    });
    if (messages.length === 0 && !problem) views.push(this.#welcome());
    if (problem) views.push(this.#problem(problem));
    else if (messages[last]?.role === "user" && !run) views.push(this.#unanswered());
    this.#list.replaceChildren(...views);
    if (this.#live) this.#timer = setInterval(() => this.#live?.update(), 500);
  }

  /** Shows what was added to the reply that is being written. */
  refresh() {
    this.#live?.update();
  }

  #question(message, edit) {
    return h(
      "article",
      { class: "message user", "aria-label": "You" },
      h("div", { class: "bubble", dir: "auto" }, message.content),
      h("div", { class: "tools" }, copyButton(() => message.content), edit && tool("edit", "Edit", edit)),
    );
  }

  #edit(index) {
    const article = this.#list.children[index];
    const before = article.querySelector(".bubble").textContent;
    const area = h("textarea", { "aria-label": "Edit the message", rows: "3" });
    area.value = before;
    const cancel = () => this.#actions.redraw();
    const form = h(
      "form",
      { class: "editor" },
      area,
      h("div", { class: "row end" }, h("button", { type: "button", class: "plain small", onclick: cancel }, "Cancel"), h("button", { class: "primary small" }, "Send")),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (area.value.trim() !== "") this.#actions.edit(index, area.value.trim());
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    article.replaceChildren(form);
    area.focus();
  }

  #welcome() {
    const chips = SUGGESTIONS.map((text) =>
      h("button", { type: "button", class: "plain", onclick: () => this.#actions.suggest(text) }, text),
    );
    return h(
      "div",
      { class: "welcome" },
      h("img", { src: "/page/icon.svg", alt: "", width: "56", height: "56" }),
      h("h1", {}, "What shall it be?"),
      h("p", {}, "Ask the model of this server. It answers here, and your chats stay in this browser."),
      h("div", { class: "suggestions" }, ...chips),
    );
  }

  #unanswered() {
    const retry = h("button", { type: "button", class: "plain small", onclick: this.#actions.retry }, icon("retry"), "Get a reply");
    return h("div", { class: "notice" }, h("span", {}, "No reply came."), retry);
  }

  #problem(problem) {
    const { title, text, buttons } = waysOut(problem, this.#actions);
    return h(
      "div",
      { class: "problem", role: "alert" },
      icon("alert"),
      h("div", {}, h("strong", {}, title), text && h("p", {}, text), h("div", { class: "row start" }, ...buttons)),
    );
  }
}

/** A reply: the thought folded away, the text, how it ended. */
class Reply {
  #message;
  #run;
  #prose = new Prose();
  #summary = h("span");
  #thought = h("div", { class: "thought" });
  #details = h("details", { class: "thinking", hidden: true }, h("summary", {}, this.#summary), this.#thought);
  #wait = h("p", { class: "waiting", hidden: true });
  #notice = h("p", { class: "notice", hidden: true });
  #figures = h("span", { class: "figures" });
  element;

  constructor(message, run, { retry }) {
    this.#message = message;
    this.#run = run;
    const tools = run ? [] : [copyButton(() => message.content), retry && tool("retry", "Try again", retry)];
    this.element = h(
      "article",
      { class: "message assistant", "aria-label": message.model ? `Reply of ${message.model}` : "Reply" },
      h("div", { class: "name" }, message.model ?? "Reply"),
      this.#details,
      this.#wait,
      this.#prose.element,
      this.#notice,
      h("div", { class: "tools" }, ...tools.filter(Boolean), this.#figures),
    );
    this.#prose.element.dir = "auto";
    this.update();
  }

  update() {
    const message = this.#message;
    const isOpen = this.#run !== undefined && !this.#run.isOver;
    this.element.setAttribute("aria-busy", String(isOpen));
    this.#details.hidden = !message.thinking;
    if (message.thinking) {
      setText(this.#thought, message.thinking.trim());
      setText(this.#summary, thinkingText(message, isOpen && this.#run.isThinking));
      this.#details.classList.toggle("active", isOpen && this.#run.isThinking);
    }
    this.#wait.hidden = !(isOpen && this.#run.isWaiting);
    if (!this.#wait.hidden) {
      const seconds = Math.floor(this.#run.seconds);
      const long = `Reading the prompt, or loading the model\u2026 ${seconds} s`;
      setText(this.#wait, seconds < 2 ? "Reading the prompt\u2026" : long);
    }
    this.#prose.show(message.content, isOpen);
    this.#prose.element.classList.toggle("growing", isOpen && !this.#run.isWaiting && !this.#run.isThinking);
    const end = isOpen ? "" : endText(message);
    this.#notice.hidden = end === "";
    setText(this.#notice, end);
    const figures = isOpen ? [rateText(this.#run.rate)] : figuresOf(message);
    setText(this.#figures, figures.filter(Boolean).join(" \u00b7 "));
    this.#figures.title = isOpen ? "" : detailsOf(message);
  }
}

function thinkingText(message, isThinking) {
  if (isThinking) return "Thinking\u2026";
  const seconds = (message.thinking_ms ?? 0) / 1000;
  return seconds >= 0.1 ? `Thought for ${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : "Thought";
}

/** How a reply ended, where that is not plain. One without an end was left while it was written. */
function endText(message) {
  const text = ENDS[message.end ?? "broken"] ?? "";
  return message.rule ? `${text} (${message.rule})` : text;
}

function figuresOf(message) {
  const first = message.first_ms > 0 ? `first after ${(message.first_ms / 1000).toFixed(2)} s` : "";
  const tokens = message.tokens > 0 ? `${message.tokens.toLocaleString("en")} tokens` : "";
  return [rateText(message.rate), tokens, first];
}

function detailsOf(message) {
  const lines = [
    message.prompt_tokens > 0 && `prompt: ${message.prompt_tokens} tokens`,
    message.cached_tokens > 0 && `of these remembered: ${message.cached_tokens}`,
    message.backend && `backend: ${message.backend}`,
    message.seed !== undefined && `seed: ${message.seed}`,
  ];
  return lines.filter(Boolean).join("\n");
}

function rateText(rate) {
  return rate > 0 ? `${rate.toFixed(1)} tokens/s` : "";
}

function tool(name, label, action) {
  return h("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick: action }, icon(name));
}

function copyButton(text) {
  const button = tool("copy", "Copy", async () => {
    const isCopied = await copy(text());
    button.replaceChildren(icon(isCopied ? "check" : "alert"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}
