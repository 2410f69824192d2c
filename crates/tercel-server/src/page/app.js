// The page: one chat is shown, several may be answered at once.
import { models as fetchModels } from "./api.js";
import { Composer } from "./composer.js";
import { byId, download, h, setText } from "./dom.js";
import { drawIcons } from "./icons.js";
import { showMeter } from "./meter.js";
import { Run } from "./run.js";
import { Settings } from "./settings.js";
import { Sheet } from "./sheet.js";
import { Sidebar } from "./sidebar.js";
import { Store, conversation, exported } from "./store.js";
import { Thread } from "./thread.js";

const SHOW_EVERY_MS = 60;
const SAVE_EVERY_MS = 2000;

const storage = (name) => {
  try {
    return window[name];
  } catch {
    return null;
  }
};

drawIcons(document);
const store = new Store(storage("localStorage"));
const settings = new Settings(storage("localStorage"), storage("sessionStorage"));
/** Replies that are being written, and what went wrong last, by the id of the chat. */
const runs = new Map();
const problems = new Map();
let models = [];
let modelsProblem = null;
let current = store.find(location.hash.slice(1)) ?? store.create();
let toastTimer = 0;

const sheet = new Sheet(settings, { keyChanged: loadModels, exportAll, removeAll });
const composer = new Composer({ send, stop: () => runs.get(current.id)?.stop() });
const thread = new Thread(byId("thread"), byId("messages"), {
  retry,
  edit,
  newChat: () => open(store.create()),
  askKey: () => sheet.open("key"),
  openSettings: () => sheet.open(),
  suggest: send,
  redraw: draw,
});
const sidebar = new Sidebar({
  newChat: () => open(store.create()),
  open: (id) => open(store.find(id) ?? current),
  rename: (id, title) => {
    store.rename(id, title);
    drawList();
  },
  export: (id) => exportChats([store.find(id)]),
  remove,
});

byId("model").addEventListener("change", (event) => {
  settings.set("model", event.target.value);
  drawMeter();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || byId("settings").open) return;
  if (sidebar.isOpen) sidebar.setOpen(false);
  else runs.get(current.id)?.stop();
});
addEventListener("hashchange", () => {
  const chat = store.find(location.hash.slice(1));
  if (chat && chat.id !== current.id) open(chat);
});
addEventListener("storage", () => {
  store.reload();
  current = store.find(current.id) ?? current;
  if (!runs.has(current.id)) draw();
  else drawList();
});
// A reply that is still being written is kept as far as it came.
addEventListener("pagehide", () => {
  for (const id of runs.keys()) {
    const chat = store.find(id);
    if (chat) store.save(chat);
  }
});

draw();
composer.focus();
loadModels();

async function loadModels() {
  let isNews = modelsProblem !== null;
  try {
    models = await fetchModels(settings.key);
    modelsProblem = null;
    // A key that is there now may be the way out of what failed.
    for (const [id, problem] of problems) {
      if (problem.status !== 401) continue;
      problems.delete(id);
      isNews = true;
    }
  } catch (error) {
    modelsProblem = error;
    isNews = true;
  }
  drawModels();
  if (isNews && !runs.has(current.id)) draw();
  else drawMeter();
}

function send(text) {
  const wrong = settings.wrong();
  if (wrong) {
    sheet.open(wrong.name);
    return false;
  }
  current.messages.push({ role: "user", content: text });
  begin(current);
  return true;
}

function retry() {
  const { messages } = current;
  if (messages.length === 0) {
    loadModels();
    return;
  }
  if (messages[messages.length - 1].role === "assistant") messages.pop();
  begin(current);
}

function edit(index, text) {
  current.messages.splice(index, Infinity, { role: "user", content: text });
  begin(current);
}

/** Asks for the reply to the last message of a chat. */
function begin(chat) {
  if (runs.has(chat.id)) return;
  problems.delete(chat.id);
  const model = settings.values.model || models[0]?.id;
  const body = {
    ...(model ? { model } : {}),
    messages: conversation(chat.messages, settings.values.system),
    ...settings.parameters(),
  };
  const reply = { role: "assistant", content: "", ...(model ? { model } : {}) };
  chat.messages.push(reply);
  const run = new Run(reply);
  runs.set(chat.id, run);
  keep(chat);
  if (chat === current) history.replaceState(null, "", `#${chat.id}`);
  draw();
  composer.toEnd();
  setText(byId("status"), "Waiting for the reply");

  let shown = 0;
  let saved = performance.now();
  const show = () => {
    shown = 0;
    if (chat.id === current.id) {
      thread.refresh();
      composer.follow();
    }
  };
  const changed = () => {
    if (shown === 0) shown = setTimeout(show, SHOW_EVERY_MS);
    if (performance.now() - saved < SAVE_EVERY_MS || !store.find(chat.id)) return;
    saved = performance.now();
    keep(chat);
  };
  run.start(body, settings.key, changed, (problem) => {
    clearTimeout(shown);
    runs.delete(chat.id);
    ended(chat, reply, problem);
  });
}

function ended(chat, reply, problem) {
  // What failed before a word leaves no empty reply behind.
  if (problem && reply.content === "" && !reply.thinking) chat.messages.pop();
  if (problem) problems.set(chat.id, problem);
  // It may have been deleted meanwhile.
  if (store.find(chat.id)) keep(chat);
  if (chat.id === current.id) draw();
  else drawList();
  const text = reply.content.length > 600 ? `${reply.content.slice(0, 600)}\u2026` : reply.content;
  setText(byId("status"), problem ? "" : `Reply: ${text}`);
  // A model that was loaded for this reply can tell its context length now.
  const isKnown = models.some((model) => model.id === reply.model && model.contextLength > 0);
  if (!problem && !isKnown) loadModels();
}

function keep(chat) {
  if (!store.save(chat)) toast("This browser has no room for the chat. Delete or export some.");
}

function open(chat) {
  current = chat;
  const isKept = store.find(chat.id) !== undefined;
  history.replaceState(null, "", isKept ? `#${chat.id}` : location.pathname);
  draw();
  composer.toEnd();
  composer.focus();
}

function remove(id) {
  const chat = store.find(id);
  if (!chat) return;
  runs.get(id)?.stop();
  store.remove(id);
  if (id === current.id) open(store.list()[0] ?? store.create());
  else drawList();
  toast(`Deleted \u201c${chat.title}\u201d.`, "Undo", () => {
    store.restore(chat);
    open(chat);
  });
}

function removeAll() {
  for (const run of runs.values()) run.stop();
  for (const chat of store.list()) store.remove(chat.id);
  open(store.create());
  toast("All chats are deleted.");
}

function exportAll() {
  exportChats(store.list());
}

function exportChats(chats) {
  const name = chats.length === 1 ? chats[0].title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") : "chats";
  download(`tercel-${name || "chat"}.json`, exported(chats));
}

function draw() {
  const run = runs.get(current.id);
  const problem = problems.get(current.id) ?? (current.messages.length === 0 ? modelsProblem : null);
  thread.show(current, run, problem);
  composer.setRunning(run !== undefined);
  composer.follow();
  document.title = current.title ? `${current.title} \u2013 Tercel` : "Tercel";
  drawMeter();
  drawList();
}

function drawList() {
  sidebar.show(store.list(), current.id, (id) => runs.has(id));
}

function drawModels() {
  const select = byId("model");
  const names = models.map((model) => model.id);
  select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  select.disabled = names.length === 0;
  if (names.length === 0) select.append(h("option", {}, modelsProblem ? "No models" : "Loading\u2026"));
  else if (!names.includes(settings.values.model)) settings.set("model", names[0]);
  if (names.length > 0) select.value = settings.values.model;
}

function drawMeter() {
  const last = current.messages.findLast((message) => message.prompt_tokens > 0);
  const used = last ? last.prompt_tokens + (last.tokens ?? 0) : 0;
  const length = models.find((model) => model.id === settings.values.model)?.contextLength ?? 0;
  showMeter(byId("meter"), used, length);
}

function toast(text, label, action) {
  const node = byId("toast");
  const hide = () => {
    node.hidden = true;
  };
  const button = label && h("button", { type: "button", class: "quiet", onclick: () => (hide(), action()) }, label);
  node.replaceChildren(...[h("span", {}, text), button].filter(Boolean));
  node.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(hide, 7000);
}
