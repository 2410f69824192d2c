import assert from "node:assert/strict";
import test from "node:test";
import { Settings, NUMBERS, problem } from "../../../crates/tercel-server/src/page/settings.js";
import { Store, conversation, exported } from "../../../crates/tercel-server/src/page/store.js";

/** A storage as browsers have it, with room for so many characters. */
class Storage {
  map = new Map();
  room;
  constructor(room = Infinity) {
    this.room = room;
  }
  get length() {
    return this.map.size;
  }
  key(index) {
    return [...this.map.keys()][index] ?? null;
  }
  getItem(key) {
    return this.map.get(key) ?? null;
  }
  setItem(key, value) {
    if (value.length > this.room) throw new Error("QuotaExceededError");
    this.map.set(key, value);
  }
  removeItem(key) {
    this.map.delete(key);
  }
}

const ask = (content) => ({ role: "user", content });
const tell = (content) => ({ role: "assistant", content });

function saved(store, ...contents) {
  const chat = store.create();
  chat.messages.push(...contents.map(ask));
  assert.equal(store.save(chat), true);
  return chat;
}

test("chats are there again, the newest first", () => {
  const storage = new Storage();
  let time = 1000;
  const store = new Store(storage, () => (time += 10));
  const first = saved(store, "  The first\nquestion  ");
  const second = saved(store, "x".repeat(200));
  assert.equal(first.title, "The first question");
  assert.equal(second.title.length, 60);
  const again = new Store(storage);
  assert.deepEqual(again.list().map(({ id }) => id), [second.id, first.id]);
  assert.deepEqual(again.find(first.id), first);
  store.save(first);
  assert.deepEqual(store.list().map(({ id }) => id), [first.id, second.id]);
});

test("chats are renamed, deleted and restored", () => {
  const storage = new Storage();
  const store = new Store(storage);
  const chat = saved(store, "a");
  assert.equal(store.rename(chat.id, " b \n c "), true);
  assert.equal(store.rename(chat.id, "  "), false);
  assert.equal(new Store(storage).find(chat.id).title, "b c");
  store.remove(chat.id);
  assert.equal(storage.length, 0);
  assert.deepEqual(store.list(), []);
  store.restore(chat);
  assert.deepEqual(new Store(storage).list(), [chat]);
});

test("what cannot be read is left alone", () => {
  const storage = new Storage();
  const bad = ["{", "null", "[]", '{"version": 2, "id": "x"}', '{"version": 1, "id": "bad5", "title": "", "updated": 1, "messages": [{"role": "system"}]}'];
  for (const [index, text] of bad.entries()) storage.setItem(`tercel.chat.bad${index + 1}`, text);
  storage.setItem("other", "{}");
  const store = new Store(storage);
  assert.deepEqual(store.list(), []);
  assert.equal(storage.length, bad.length + 1);
});

test("without room, or without a storage, chats live as long as the page", () => {
  for (const storage of [new Storage(10), null]) {
    const store = new Store(storage);
    const chat = store.create();
    chat.messages.push(ask("a"));
    assert.equal(store.save(chat), false);
    assert.deepEqual(store.list(), [chat]);
  }
});

test("another tab's chats come in; those that did not change stay the same object", () => {
  const storage = new Storage();
  const store = new Store(storage);
  const mine = saved(store, "mine");
  const other = new Store(storage);
  const theirs = saved(other, "theirs");
  store.reload();
  assert.equal(store.find(mine.id), mine);
  assert.deepEqual(store.find(theirs.id), theirs);
  other.remove(mine.id);
  store.reload();
  assert.equal(store.find(mine.id), undefined);
});

test("a server gets turns that alternate", () => {
  for (const [messages, system, expected] of [
    [[ask("a")], "", ["user:a"]],
    [[ask("a")], " s ", ["system: s ", "user:a"]],
    [[ask("a"), tell(""), ask("b")], "", ["user:a\n\nb"]],
    [[ask("a"), { ...tell("b"), thinking: "t" }, ask("c")], "", ["user:a", "assistant:b", "user:c"]],
  ]) {
    const found = conversation(messages, system);
    assert.deepEqual(found.map(({ role, content }) => `${role}:${content}`), expected);
    for (const turn of found) assert.deepEqual(Object.keys(turn), ["role", "content"]);
  }
  const messages = [ask("a"), ask("b")];
  conversation(messages);
  assert.deepEqual(messages, [ask("a"), ask("b")]);
});

test("an export holds the chats whole", () => {
  const store = new Store(null);
  const chat = store.create();
  assert.deepEqual(JSON.parse(exported([chat])), { format: "tercel-chats", version: 1, chats: [chat] });
});

test("numbers are checked as they are typed", () => {
  const named = (name) => NUMBERS.find((number) => number.name === name);
  for (const [name, text, wrong] of [
    ["temperature", "", false],
    ["temperature", "0", false],
    ["temperature", "0.7", false],
    ["temperature", "2.1", true],
    ["temperature", "-1", true],
    ["temperature", "hot", true],
    ["temperature", "Infinity", true],
    ["top_p", "0", true],
    ["top_k", "1.5", true],
    ["max_tokens", "0", true],
    ["seed", "9007199254740991", false],
    ["seed", "9007199254740993", true],
  ]) {
    assert.equal(problem(named(name), text) !== "", wrong, `${name} ${text}`);
  }
});

test("settings are kept, and only those that are set are sent", () => {
  const local = new Storage();
  const settings = new Settings(local, new Storage());
  settings.set("temperature", "0.5");
  settings.set("seed", "7");
  settings.set("top_k", "");
  assert.deepEqual(settings.parameters(), { temperature: 0.5, seed: 7 });
  assert.equal(settings.wrong(), undefined);
  settings.set("top_p", "3");
  assert.deepEqual(settings.parameters(), { temperature: 0.5, seed: 7 });
  assert.equal(settings.wrong().name, "top_p");
  assert.equal(new Settings(local, null).values.temperature, "0.5");
  local.setItem("tercel.settings", '{"temperature": 1, "unknown": "x", "theme": "dark"}');
  assert.deepEqual(new Settings(local, null).parameters(), {});
  assert.equal(new Settings(local, null).values.theme, "dark");
});

test("a key stays in its tab unless it is to be remembered", () => {
  const [local, session] = [new Storage(), new Storage()];
  const settings = new Settings(local, session);
  settings.setKey("secret", false);
  assert.equal(new Settings(local, session).key, "secret");
  assert.equal(new Settings(local, new Storage()).key, "");
  settings.setKey("secret", true);
  assert.equal(new Settings(local, new Storage()).key, "secret");
  assert.equal(session.length, 0);
  settings.setKey("", true);
  assert.equal(local.length + session.length, 0);
  const refused = new Settings(new Storage(0), new Storage(0));
  refused.setKey("secret", true);
  assert.equal(refused.key, "secret");
});
