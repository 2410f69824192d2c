// The chats of this browser, each under a key of its own, so that two tabs do not overwrite each
// other's.

const PREFIX = "tercel.chat.";
const VERSION = 1;
const TITLE_LENGTH = 60;

/** Chats in a storage such as `localStorage`; `null` where the browser refuses one. */
export class Store {
  #storage;
  #now;
  #chats = new Map();

  constructor(storage, now = Date.now) {
    this.#storage = storage;
    this.#now = now;
    this.reload();
  }

  /** Reads again what another tab may have written. Chats that cannot be read are left alone. */
  reload() {
    const known = this.#chats;
    this.#chats = new Map();
    for (const key of this.#keys()) {
      const chat = parseChat(this.#storage.getItem(key));
      if (chat && key === PREFIX + chat.id) this.#chats.set(chat.id, chat);
    }
    // The object of a chat that did not change stays the same: a reply may be written into it.
    for (const [id, chat] of known) {
      if (this.#chats.get(id)?.updated === chat.updated) this.#chats.set(id, chat);
    }
  }

  /** All chats, the newest first. */
  list() {
    return [...this.#chats.values()].sort((a, b) => b.updated - a.updated || (a.id < b.id ? 1 : -1));
  }

  find(id) {
    return this.#chats.get(id);
  }

  /** A chat that is kept once it is saved. */
  create() {
    const now = this.#now();
    const id = now.toString(36) + Math.random().toString(36).slice(2, 8);
    return { version: VERSION, id, title: "", created: now, updated: now, messages: [] };
  }

  /** Keeps a chat; false where the browser has no room for it. It is in the list all the same. */
  save(chat) {
    chat.updated = Math.max(this.#now(), chat.updated + 1);
    if (!chat.title) chat.title = titleOf(chat);
    return this.restore(chat);
  }

  rename(id, title) {
    const chat = this.find(id);
    const clean = oneLine(title);
    if (!chat || !clean) return false;
    chat.title = clean;
    return this.restore(chat);
  }

  remove(id) {
    this.#chats.delete(id);
    this.#storage?.removeItem(PREFIX + id);
  }

  /** Keeps a chat as it is, such as one that was removed. */
  restore(chat) {
    this.#chats.set(chat.id, chat);
    try {
      this.#storage.setItem(PREFIX + chat.id, JSON.stringify(chat));
      return true;
    } catch {
      return false;
    }
  }

  #keys() {
    const count = this.#storage?.length ?? 0;
    const keys = Array.from({ length: count }, (_, index) => this.#storage.key(index));
    return keys.filter((key) => key?.startsWith(PREFIX));
  }
}

/** The text of a file with these chats. */
export function exported(chats) {
  return JSON.stringify({ format: "tercel-chats", version: VERSION, chats }, null, 2);
}

/** What the server gets of a chat: no empty turns, and never two of one side in a row. */
export function conversation(messages, system = "") {
  const turns = [];
  for (const { role, content } of messages) {
    if (content.trim() === "") continue;
    const last = turns[turns.length - 1];
    if (last?.role === role) last.content += `\n\n${content}`;
    else turns.push({ role, content });
  }
  if (system.trim() !== "") turns.unshift({ role: "system", content: system });
  return turns;
}

function parseChat(text) {
  let chat;
  try {
    chat = JSON.parse(text);
  } catch {
    return null;
  }
  const isChat =
    chat?.version === VERSION &&
    typeof chat.id === "string" &&
    typeof chat.title === "string" &&
    Number.isFinite(chat.updated) &&
    Array.isArray(chat.messages) &&
    chat.messages.every(isMessage);
  return isChat ? chat : null;
}

function isMessage(message) {
  const isRole = message?.role === "user" || message?.role === "assistant";
  return isRole && typeof message.content === "string";
}

function titleOf(chat) {
  const first = chat.messages.find((message) => message.role === "user");
  return oneLine(first?.content ?? "") || "New chat";
}

function oneLine(text) {
  const clean = text.replace(/\s+/g, " ").trim();
  const letters = Array.from(clean);
  if (letters.length <= TITLE_LENGTH) return clean;
  return `${letters.slice(0, TITLE_LENGTH - 1).join("").trimEnd()}\u2026`;
}
