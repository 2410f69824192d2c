// What a person may set: how the model answers, how the page looks, the key.

const NAME = "tercel.settings";
const KEY = "tercel.key";

/** The numbers that a request may carry. An empty one is left to the model. */
export const NUMBERS = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the likeliest word", min: 0, max: 2 },
  { name: "top_p", label: "Top p", hint: "share of the likely words", min: 0.01, max: 1 },
  { name: "top_k", label: "Top k", hint: "number of likely words, 0 for all", min: 0, max: 100000, isWhole: true },
  { name: "max_tokens", label: "Max tokens", hint: "length of a reply", min: 1, max: 1000000, isWhole: true },
  { name: "seed", label: "Seed", hint: "same seed, same reply", min: 0, max: Number.MAX_SAFE_INTEGER, isWhole: true },
];

const DEFAULTS = { model: "", system: "", theme: "auto" };

/** Settings as they were left; `session` keeps a key that is not to be remembered. */
export class Settings {
  #local;
  #session;
  /** Sent with every request; empty where the server wants none. */
  key;
  values;

  constructor(local, session) {
    this.#local = local;
    this.#session = session;
    this.values = { ...DEFAULTS, ...parsed(local?.getItem(NAME)) };
    this.key = session?.getItem(KEY) ?? local?.getItem(KEY) ?? "";
  }

  set(name, value) {
    this.values[name] = value;
    put(this.#local, NAME, JSON.stringify(this.values));
  }

  get isKeyKept() {
    return Boolean(this.#local?.getItem(KEY));
  }

  /** Takes a key for this tab, or for good. An empty one is forgotten. */
  setKey(key, isKept) {
    this.key = key;
    this.#local?.removeItem(KEY);
    this.#session?.removeItem(KEY);
    if (key) put(isKept ? this.#local : this.#session, KEY, key);
  }

  /** The numbers that are set, as the fields of a request. */
  parameters() {
    const found = {};
    for (const number of NUMBERS) {
      const text = this.values[number.name] ?? "";
      if (text !== "" && problem(number, text) === "") found[number.name] = Number(text);
    }
    return found;
  }

  /** The first number that cannot be sent. */
  wrong() {
    return NUMBERS.find((number) => problem(number, this.values[number.name] ?? "") !== "");
  }
}

/** What is wrong with a number as it was typed, or nothing. */
export function problem(number, text) {
  const trimmed = String(text).trim();
  if (trimmed === "") return "";
  const value = Number(trimmed);
  const range = `${number.min} to ${number.max}`;
  if (!Number.isFinite(value)) return `must be a number from ${range}`;
  if (value < number.min || value > number.max) return `must be from ${range}`;
  if (number.isWhole && !Number.isInteger(value)) return "must be a whole number";
  return "";
}

function parsed(text) {
  let values;
  try {
    values = JSON.parse(text ?? "{}");
  } catch {
    return {};
  }
  const known = Object.entries(values ?? {}).filter(([name, value]) => {
    const isKnown = name in DEFAULTS || NUMBERS.some((number) => number.name === name);
    return isKnown && typeof value === "string";
  });
  return Object.fromEntries(known);
}

function put(storage, name, value) {
  try {
    storage?.setItem(name, value);
  } catch {
    // No room, or not allowed: it holds until the page is left.
  }
}
