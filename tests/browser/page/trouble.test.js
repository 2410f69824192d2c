// What goes wrong is said, with a way out.
import assert from "node:assert/strict";
import test from "node:test";
import { answer, ended, error, feed, lastReply, launch, open, reply, send, url, withPage } from "./browser.js";

const browser = await launch();
test.after(() => browser.close());

const problem = (page) => page.getByRole("alert");

test("without a key the page asks for one", () =>
  withPage(browser, {}, async (page) => {
    const refused = error(401, "unauthorized", "a key is needed");
    const isRight = (request) => request.headers().authorization === "Bearer right";
    await page.route("**/v1/**", (route) => {
      if (!isRight(route.request())) return route.fulfill(refused);
      return route.request().url().endsWith("/models") ? route.continue() : route.fulfill(reply("Welcome."));
    });
    await page.goto(`${url}/`);
    await problem(page).getByText("This server wants a key").waitFor();
    await problem(page).getByRole("button", { name: "Enter a key" }).click();
    await page.keyboard.type("right");
    await page.keyboard.press("Enter");
    await page.locator("#model:enabled").waitFor();
    assert.equal(await problem(page).count(), 0);
    await send(page, "Hello?");
    await lastReply(page).getByText("Welcome.").waitFor();
    await page.reload();
    await page.locator("#model:enabled").waitFor();
    await page.evaluate(() => sessionStorage.clear());
    await page.reload();
    await page.locator("#model").getByText("No models").waitFor({ state: "attached" });
  }));

test("a busy server says when, and the button waits for it", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await answer(page, error(429, "queue_full", "the queue is full", { "retry-after": "2" }));
    await send(page, "Hello?");
    await problem(page).getByText("The server is busy; try again in 2 s").waitFor();
    assert.match(await problem(page).innerText(), /the queue is full/);
    const again = problem(page).getByRole("button", { name: /^Try again/ });
    assert.ok(await again.isDisabled());
    await answer(page, reply("Now."));
    await again.click();
    await lastReply(page).getByText("Now.").waitFor();
    assert.equal(await page.locator(".message").count(), 2);
  }));

test("when the server is gone the message stays, and can be sent again", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await answer(page, null);
    await send(page, "Are you there?");
    await problem(page).getByText("The server does not answer.").waitFor();
    assert.equal(await page.locator(".message").count(), 1);
    await page.reload();
    await page.getByText("No reply came.").waitFor();
    await answer(page, reply("Here."));
    await page.getByRole("button", { name: "Get a reply" }).click();
    await lastReply(page).getByText("Here.").waitFor();
    assert.equal(await page.locator(".message").count(), 2);
  }));

test("without its models the page offers another try", () =>
  withPage(browser, {}, async (page) => {
    await page.route("**/v1/models", (route) => route.abort());
    await page.goto(`${url}/`);
    await problem(page).getByText("The server does not answer.").waitFor();
    await page.unroute("**/v1/models");
    await problem(page).getByRole("button", { name: "Try again" }).click();
    await page.locator("#model:enabled").waitFor();
    assert.equal(await problem(page).count(), 0);
  }));

test("a reply that breaks off is kept and marked", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    const add = await feed(page);
    await send(page, "Go on");
    await add({ content: "It was a dark" });
    await add(null);
    await problem(page).getByText("The connection ended before the reply did.").waitFor();
    await ended(page);
    assert.match(await lastReply(page).innerText(), /It was a dark[^]*The reply broke off/);
  }));

test("the server's own words are shown, as text", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    for (const [status, code, message, button] of [
      [400, "context_overflow", "the prompt has 5,000 tokens, the context holds 2,048", "New chat"],
      [500, "internal", "<b>broken</b><img src=x onerror=alert(1)>", "Try again"],
      [503, "model_not_ready", "the model is loading", "Try again"],
    ]) {
      await answer(page, error(status, code, message));
      await send(page, "Hello?");
      await problem(page).getByText(message, { exact: true }).waitFor();
      await problem(page).getByRole("button", { name: button }).waitFor();
    }
    await answer(page, { status: 502, body: "<html>" });
    await send(page, "Hello?");
    await problem(page).getByText("The server answered with status 502.").waitFor();
  }));

test("an error in the stream ends the reply", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    const body = 'data: {"choices":[{"delta":{"content":"So"}}]}\n\ndata: {"error":{"message":"out of memory","code":"oom_kv_cache"}}\n\n';
    await answer(page, { status: 200, headers: { "content-type": "text/event-stream" }, body });
    await send(page, "Hello?");
    await problem(page).getByText("out of memory").waitFor();
    assert.match(await lastReply(page).innerText(), /So[^]*broke off/);
  }));
