// One reply that is being written, into a message of a chat.
import { chat } from "./api.js";

/** A run tells `changed` of every piece, and `ended` once, with what went wrong or `null`. */
export class Run {
  #controller = new AbortController();
  #started = performance.now();
  #pieces = 0;
  #first = 0;
  #textAt = 0;
  reply;
  isOver = false;

  constructor(reply) {
    this.reply = reply;
  }

  /** Tokens a second so far, of pieces after the first; a piece is a token, more or less. */
  get rate() {
    const seconds = (performance.now() - this.#first) / 1000;
    return this.#pieces > 1 && seconds > 0.25 ? (this.#pieces - 1) / seconds : 0;
  }

  /** Seconds since it was asked for. */
  get seconds() {
    return (performance.now() - this.#started) / 1000;
  }

  /** Whether nothing has come yet. */
  get isWaiting() {
    return this.#pieces === 0;
  }

  get isThinking() {
    return this.#pieces > 0 && this.#textAt === 0;
  }

  stop() {
    this.#controller.abort();
  }

  async start(body, key, changed, ended) {
    const { reply } = this;
    let problem = null;
    try {
      for await (const event of chat(body, key, this.#controller.signal)) {
        this.#take(event);
        changed();
      }
      reply.end ??= "stop";
    } catch (error) {
      const isStopped = this.#controller.signal.aborted;
      reply.end = isStopped ? "stopped" : "broken";
      if (!isStopped) problem = error;
    }
    if (reply.rate === undefined && this.rate > 0) reply.rate = this.rate;
    this.#endThought();
    this.isOver = true;
    ended(problem);
  }

  #take(event) {
    const { reply } = this;
    if (event.thinking || event.text) {
      this.#pieces += 1;
      if (this.#pieces === 1) this.#first = performance.now();
    }
    if (event.thinking) reply.thinking = (reply.thinking ?? "") + event.thinking;
    if (event.text) {
      this.#endThought();
      reply.content += event.text;
    }
    if (event.finish) {
      const { tercel } = event;
      reply.end = tercel?.guarded_by ? "guarded" : (tercel?.stop_reason ?? event.finish);
      if (tercel?.guarded_by) reply.rule = tercel.guarded_by;
      if (tercel?.timings) {
        reply.rate = tercel.timings.tokens_per_second;
        reply.first_ms = tercel.timings.time_to_first_token_ms;
      }
      if (tercel?.backend) reply.backend = tercel.backend;
      if (tercel?.seed !== undefined) reply.seed = String(tercel.seed);
      if (tercel?.cached_tokens) reply.cached_tokens = tercel.cached_tokens;
    }
    if (event.usage) {
      reply.prompt_tokens = event.usage.prompt_tokens;
      reply.tokens = event.usage.completion_tokens;
    }
  }

  #endThought() {
    if (this.#textAt > 0) return;
    this.#textAt = performance.now();
    if (this.reply.thinking) this.reply.thinking_ms = Math.round(this.#textAt - this.#first);
  }
}
