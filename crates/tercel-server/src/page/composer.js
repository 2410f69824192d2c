// The box a message is written in, and the end of the conversation that it keeps in sight.
import { byId } from "./dom.js";

const NEAR_PX = 60;

/** Calls `send` with a text, which says whether it took it, and `stop`. */
export class Composer {
  #prompt = byId("prompt");
  #send = byId("send");
  #stop = byId("stop");
  #thread = byId("thread");
  #toEnd = byId("to-end");
  #isAtEnd = true;
  #isRunning = false;

  constructor({ send, stop }) {
    const form = byId("composer");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.#prompt.value.trim();
      if (text === "" || this.#isRunning || !send(text)) return;
      this.#prompt.value = "";
      this.#resize();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      // On a phone the key begins a line; there is a button to send.
      const isPhone = matchMedia("(hover: none) and (pointer: coarse)").matches;
      const isEnter = event.key === "Enter" && !event.shiftKey && !event.isComposing;
      if (!isEnter || (isPhone && !event.ctrlKey)) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.#prompt.addEventListener("input", () => this.#resize());
    this.#stop.addEventListener("click", () => {
      stop();
      this.focus();
    });
    this.#toEnd.addEventListener("click", () => this.toEnd());
    this.#thread.addEventListener("scroll", () => this.#look(), { passive: true });
    new ResizeObserver(() => this.follow()).observe(this.#thread);
  }

  /** On a phone this would open the keyboard unasked. */
  focus() {
    if (matchMedia("(hover: hover)").matches) this.#prompt.focus();
  }

  setRunning(isRunning) {
    this.#isRunning = isRunning;
    const hadFocus = document.activeElement === this.#send || document.activeElement === this.#stop;
    this.#send.hidden = isRunning;
    this.#stop.hidden = !isRunning;
    if (hadFocus) (isRunning ? this.#stop : this.#prompt).focus();
    this.#resize();
  }

  /** Shows the newest text, and those that follow. */
  toEnd() {
    this.#isAtEnd = true;
    this.follow();
  }

  /** Keeps the end in sight unless the reader has left it. */
  follow() {
    if (this.#isAtEnd) this.#thread.scrollTop = this.#thread.scrollHeight;
    this.#look();
  }

  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.#thread;
    this.#isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.#toEnd.hidden = this.#isAtEnd;
  }

  #resize() {
    const { style } = this.#prompt;
    style.height = "auto";
    style.height = `${this.#prompt.scrollHeight}px`;
    this.#send.disabled = this.#prompt.value.trim() === "";
  }
}
