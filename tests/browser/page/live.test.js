// With the replies of the server's own model.
import assert from "node:assert/strict";
import test from "node:test";
import { ended, lastReply, launch, open, send, url, withPage } from "./browser.js";

const STORY = "Write a long story about a falcon that crosses the sea.";
const browser = await launch();
test.after(() => browser.close());

async function text(page) {
  return (await lastReply(page).locator(".prose").textContent()) ?? "";
}

/** Sets the length of replies, so that the tests stay short. */
async function setLength(page, tokens) {
  await page.locator("#settings-open").click();
  await page.locator("#max_tokens").fill(String(tokens));
  await page.locator("#temperature").fill("0");
  await page.keyboard.press("Escape");
}

/** Requests that the server says are running. */
async function inFlight() {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  const line = /^tercel_requests_in_flight(?:\{.*\})? (\d+)$/m.exec(metrics);
  assert.ok(line, "the metrics have the requests in flight");
  return Number(line[1]);
}

test("a reply streams, its figures show, and it is there after a reload", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await setLength(page, 60);
    await send(page, STORY);
    const lengths = new Set();
    const until = Date.now() + 15_000;
    while (Date.now() < until && (await page.locator("#stop").isVisible())) {
      lengths.add((await text(page)).length);
      await page.waitForTimeout(20);
    }
    lengths.delete(0);
    assert.ok(lengths.size >= 3, `the text grew in ${lengths.size} steps`);
    const written = await text(page);
    const figures = (await lastReply(page).locator(".figures").textContent()) ?? "";
    assert.match(figures, /\d tokens\/s \u00b7 \d+ tokens \u00b7 first after \d/);
    assert.match(await page.locator("#meter").innerText(), /^[\d,]+ (\/ [\d,]+|tokens)$/);

    await page.reload();
    await page.locator("#model:enabled").waitFor();
    assert.equal(await text(page), written);
    assert.equal(await page.locator(".bubble").innerText(), STORY);
    assert.equal(await lastReply(page).locator(".figures").textContent(), figures);
    assert.equal(await page.locator("#chats .open").count(), 1);
  }));

test("stopping ends the run on the server and keeps what was written", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await setLength(page, 2000);
    for (const stop of [() => page.locator("#stop").click(), () => page.keyboard.press("Escape")]) {
      await send(page, STORY);
      await page.waitForFunction(() => {
        const replies = document.querySelectorAll(".message.assistant");
        return replies[replies.length - 1]?.querySelector(".prose").textContent.length > 20;
      });
      assert.equal(await inFlight(), 1);
      await stop();
      await ended(page);
      const written = await text(page);
      const until = Date.now() + 2000;
      while ((await inFlight()) > 0 && Date.now() < until) await page.waitForTimeout(20);
      assert.equal(await inFlight(), 0);
      assert.equal(await text(page), written);
      assert.match((await lastReply(page).locator(".notice").textContent()) ?? "", /Stopped/);
    }
    await setLength(page, 4);
    await send(page, "And now?");
    await ended(page);
    assert.notEqual(await text(page), "");
    assert.match((await lastReply(page).locator(".notice").textContent()) ?? "", /limit of tokens/);
  }));

test("leaving the page ends the run and keeps what was written", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await setLength(page, 2000);
    await send(page, STORY);
    await page.waitForFunction(() => document.querySelector(".prose")?.textContent.length > 20);
    await page.reload();
    await page.locator("#model:enabled").waitFor();
    assert.ok((await text(page)).length > 20);
    assert.match((await lastReply(page).locator(".notice").textContent()) ?? "", /broke off/);
    const until = Date.now() + 2000;
    while ((await inFlight()) > 0 && Date.now() < until) await page.waitForTimeout(20);
    assert.equal(await inFlight(), 0);
  }));
