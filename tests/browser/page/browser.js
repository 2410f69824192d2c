// A browser at the page of the server that `TERCEL_URL` names.
import assert from "node:assert/strict";
import path from "node:path";
import { chromium } from "playwright-core";

export const url = process.env.TERCEL_URL?.replace(/\/$/, "");
assert.ok(url, "TERCEL_URL must name a running server");

export const DESKTOP = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // Where tests run, the sandbox often may not be had: in containers, as root.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
}

/**
 * Calls `body` with a fresh page, and checks afterwards that nothing failed in it, that nothing
 * was forbidden by its policy, and that it asked nobody but the server.
 */
export async function withPage(browser, options, body) {
  const context = await browser.newContext({ ...DESKTOP, locale: "en", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("console", (message) => {
    const isAnswer = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !isAnswer) wrong.push(message.text());
  });
  page.on("request", (request) => {
    const isOwn = request.url().startsWith(`${url}/`) || request.url().startsWith("blob:");
    if (!isOwn) wrong.push(`asked ${request.url()}`);
  });
  try {
    await body(page);
    assert.deepEqual(wrong, []);
  } finally {
    await context.close();
  }
}

/** Opens the page and waits for its models. */
export async function open(page) {
  await page.goto(`${url}/`);
  await page.locator("#model:enabled").waitFor();
}

/** Types a message and sends it. */
export async function send(page, text) {
  await page.locator("#prompt").fill(text);
  await page.keyboard.press("Enter");
}

/** Waits until nothing is being written. */
export async function ended(page) {
  await page.locator("#stop").waitFor({ state: "hidden" });
}

export function lastReply(page) {
  return page.locator(".message.assistant").last();
}

/** The server's answer to the next requests for replies is `fulfil`'s argument. */
export async function answer(page, fulfil) {
  await page.unroute("**/v1/chat/completions");
  await page.route("**/v1/chat/completions", (route) => (fulfil ? route.fulfill(fulfil) : route.abort()));
}

/** An error of the server. */
export function error(status, code, message, headers = {}) {
  const body = JSON.stringify({ error: { message, type: "x", param: null, code } });
  return { status, headers: { "content-type": "application/json", ...headers }, body };
}

/** A whole reply as the server would stream it. */
export function reply(text, thinking = "") {
  const chunk = (delta, more = {}) => ({ choices: [{ index: 0, delta, finish_reason: null }], ...more });
  const timings = { tokens_per_second: 87.25, time_to_first_token_ms: 143.2 };
  const finish = { choices: [{ index: 0, delta: {}, finish_reason: "stop" }], tercel: { stop_reason: "eos", seed: 7, backend: "cpu-avx512", cached_tokens: 12, timings } };
  const chunks = [
    chunk({ role: "assistant", content: "" }),
    ...(thinking ? [chunk({ reasoning_content: thinking })] : []),
    ...(text.match(/[^]{1,9}/gu) ?? []).map((content) => chunk({ content })),
    finish,
    { choices: [], usage: { prompt_tokens: 412, completion_tokens: 236, total_tokens: 648 } },
  ];
  const body = chunks.map((it) => `data: ${JSON.stringify(it)}\n\n`).join("");
  return { status: 200, headers: { "content-type": "text/event-stream" }, body: `${body}data: [DONE]\n\n` };
}

/**
 * Replies come from the test: the function it gets back adds a delta to the reply, or ends it where
 * there is none.
 */
export async function feed(page) {
  await page.evaluate(() => {
    const fetch = window.fetch;
    window.fetch = (target, options) => {
      if (!String(target).includes("/chat/completions")) return fetch(target, options);
      const body = new ReadableStream({
        start(controller) {
          window.feed = (text) => controller.enqueue(new TextEncoder().encode(text));
          window.feedEnd = () => controller.close();
          options.signal.addEventListener("abort", () => controller.error(options.signal.reason));
        },
      });
      return Promise.resolve(new Response(body));
    };
  });
  return (delta) =>
    page.evaluate((it) => {
      if (!it) return window.feedEnd();
      return window.feed(`data: ${JSON.stringify({ choices: [{ index: 0, delta: it }] })}\n\n`);
    }, delta);
}

/** Keeps a picture where `TERCEL_SCREENSHOTS` names a folder. */
export async function picture(page, name) {
  const folder = process.env.TERCEL_SCREENSHOTS;
  if (folder) await page.screenshot({ path: path.join(folder, `${name}.png`) });
}

/** Fails where the page is wider than its window. */
export async function fits(page, what) {
  const wider = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const scrolls = (node) => node.closest(".table, pre, .sheet:not([open]), .sidebar, .visually-hidden");
    const wide = [...document.body.querySelectorAll("*")].filter((node) => {
      const box = node.getBoundingClientRect();
      return box.width > 0 && (box.right > width + 1 || box.left < -1) && !scrolls(node);
    });
    const isScrolled = document.documentElement.scrollWidth > width || document.getElementById("thread").scrollWidth > document.getElementById("thread").clientWidth;
    return [...wide.map((node) => `${node.tagName}.${node.className}`), ...(isScrolled ? ["scrolls"] : [])];
  });
  assert.deepEqual(wider, [], what);
}
