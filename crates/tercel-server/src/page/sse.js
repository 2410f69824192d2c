// Server-sent events from a text that comes in pieces of any length.

/** Collects pieces of a stream; `push` returns the events that are complete. */
export class SseParser {
  #rest = "";
  #data = [];
  #name = "";

  /** Takes the next piece of text and returns `{ name, data }` of each event that ends in it. */
  push(text) {
    const events = [];
    this.#rest += text;
    let from = 0;
    for (;;) {
      const end = lineEnd(this.#rest, from);
      if (!end) break;
      this.#line(this.#rest.slice(from, end.at), events);
      from = end.next;
    }
    this.#rest = this.#rest.slice(from);
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length > 0) events.push({ name: this.#name, data: this.#data.join("\n") });
      this.#data = [];
      this.#name = "";
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    // A line that begins with a colon has an empty field: a comment, which keeps the line alive.
    if (field === "data") this.#data.push(value);
    if (field === "event") this.#name = value;
  }
}

/** Where the next line ends; a carriage return at the very end may be half of a line break. */
function lineEnd(text, from) {
  const match = /\r\n|\n|\r(?!$)/g;
  match.lastIndex = from;
  const found = match.exec(text);
  return found && { at: found.index, next: match.lastIndex };
}
