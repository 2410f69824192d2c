// The list of chats.
import { byId, h, setAttribute } from "./dom.js";
import { icon } from "./icons.js";

const DAY = 24 * 60 * 60 * 1000;

/** The list, and the drawer that it is on a narrow screen. */
export class Sidebar {
  #list = byId("chats");
  #actions;

  constructor(actions) {
    this.#actions = actions;
    byId("new-chat").addEventListener("click", () => this.#leave(actions.newChat));
    byId("sidebar-open").addEventListener("click", () => this.setOpen(true));
    byId("sidebar-close").addEventListener("click", () => this.setOpen(false));
    byId("scrim").addEventListener("click", () => this.setOpen(false));
    matchMedia("(min-width: 50rem)").addEventListener("change", () => this.setOpen(false));
  }

  get isOpen() {
    return document.body.classList.contains("drawer");
  }

  setOpen(isOpen) {
    if (isOpen === this.isOpen) return;
    document.body.classList.toggle("drawer", isOpen);
    byId("main").inert = isOpen;
    setAttribute(byId("sidebar-open"), "aria-expanded", String(isOpen));
    byId(isOpen ? "sidebar-close" : "sidebar-open").focus();
  }

  /** Shows the chats, the newest first, in groups of days. */
  show(chats, currentId, isRunning) {
    const today = new Date().setHours(0, 0, 0, 0);
    const groups = new Map();
    for (const chat of chats) {
      const name = groupOf(chat.updated, today);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(this.#row(chat, chat.id === currentId, isRunning(chat.id)));
    }
    const parts = [...groups].flatMap(([name, rows]) => [h("h2", {}, name), h("ul", {}, ...rows)]);
    this.#list.replaceChildren(...parts);
  }

  #row(chat, isCurrent, isRunning) {
    const open = h(
      "button",
      { type: "button", class: "open", title: chat.title, "aria-current": isCurrent ? "page" : null },
      h("span", {}, chat.title),
      isRunning && h("span", { class: "dot", role: "img", "aria-label": "is being answered" }),
    );
    open.addEventListener("click", () => this.#leave(() => this.#actions.open(chat.id)));
    const row = h("li", { class: isCurrent ? "current" : null }, open);
    const rename = () => this.#rename(row, chat);
    const tool = (name, label, action) =>
      h("button", { type: "button", class: "quiet", "aria-label": `${label}: ${chat.title}`, title: label, onclick: action }, icon(name));
    row.append(
      h(
        "div",
        { class: "tools" },
        tool("edit", "Rename", rename),
        tool("download", "Export", () => this.#actions.export(chat.id)),
        tool("trash", "Delete", () => this.#actions.remove(chat.id)),
      ),
    );
    return row;
  }

  #rename(row, chat) {
    const input = h("input", { "aria-label": "Name of the chat", maxlength: "200" });
    input.value = chat.title;
    let isOver = false;
    const end = (title) => {
      if (isOver) return;
      isOver = true;
      this.#actions.rename(chat.id, title);
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(input.value);
      if (event.key === "Escape") {
        event.stopPropagation();
        end(chat.title);
      }
    });
    input.addEventListener("blur", () => end(input.value));
    row.replaceChildren(input);
    input.focus();
    input.select();
  }

  #leave(action) {
    this.setOpen(false);
    action();
  }
}

function groupOf(time, today) {
  if (time >= today) return "Today";
  if (time >= today - DAY) return "Yesterday";
  return time >= today - 7 * DAY ? "This week" : "Earlier";
}
