// The server, as the page speaks to it.
import { SseParser } from "./sse.js";

/** What went wrong. `status` is 0 where the server could not be reached. */
export class ServerError extends Error {
  constructor(message, { status = 0, code = "", param = "", retryAfter = 0 } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    /** Seconds after which it is worth another try. */
    this.retryAfter = retryAfter;
  }
}

/** The models, `{ id, contextLength? }` each, in the server's order. */
export async function models(key) {
  const response = await ask("/v1/models", { headers: headers(key) });
  const { data } = await response.json();
  return data.map((model) => ({ id: model.id, contextLength: model.tercel?.context_length ?? 0 }));
}

/**
 * Asks for a reply and yields what comes of it: `{ thinking }`, `{ text }`, and at the end
 * `{ usage }` and `{ finish, tercel }`. Aborting the signal ends the reply on the server too.
 */
export async function* chat(body, key, signal) {
  const request = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { ...headers(key), "content-type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  const parser = new SseParser();
  let isWhole = false;
  for await (const text of pieces(response, signal)) {
    for (const event of parser.push(text)) {
      if (event.data === "[DONE]") return;
      const chunk = parsed(event.data);
      if (chunk.error) throw told(chunk.error, 200, 0);
      const choice = chunk.choices?.[0];
      if (choice?.delta?.reasoning_content) yield { thinking: choice.delta.reasoning_content };
      if (choice?.delta?.content) yield { text: choice.delta.content };
      if (choice?.finish_reason) {
        isWhole = true;
        yield { finish: choice.finish_reason, tercel: chunk.tercel ?? null };
      }
      if (chunk.usage) yield { usage: chunk.usage };
    }
  }
  if (!isWhole) throw new ServerError("The connection ended before the reply did.");
}

function headers(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ServerError("The server does not answer.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("retry-after"));
  const error = body.error ?? { message: `The server answered with status ${response.status}.` };
  throw told(error, response.status, Number.isFinite(seconds) ? seconds : 0);
}

async function* pieces(response, signal) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ServerError("The connection to the server was lost.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ServerError("The server sent something that cannot be read.", { status: 200 });
  }
}

function told(error, status, retryAfter) {
  const message = typeof error === "string" ? error : (error.message ?? "unknown error");
  const { code = "", param = "" } = typeof error === "string" ? {} : error;
  return new ServerError(message, { status, code, param: param ?? "", retryAfter });
}
