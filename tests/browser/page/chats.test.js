// What a person does with chats; the replies are the test's.
import assert from "node:assert/strict";
import fs from "node:fs";
import test from "node:test";
import { answer, ended, feed, lastReply, launch, open, reply, send, withPage } from "./browser.js";

const browser = await launch();
test.after(() => browser.close());

test("the keyboard sends, begins lines and edits", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    const asked = [];
    page.on("request", (request) => request.postData() && asked.push(request.postDataJSON()));
    await answer(page, reply("One."));
    const prompt = page.locator("#prompt");
    assert.ok(await page.locator("#send").isDisabled());
    await prompt.pressSequentially("first");
    await page.keyboard.press("Shift+Enter");
    await prompt.pressSequentially("second");
    await page.keyboard.press("Enter");
    await ended(page);
    assert.equal(await page.locator(".bubble").innerText(), "first\nsecond");
    assert.equal(await prompt.inputValue(), "");

    await answer(page, reply("Two."));
    await lastReply(page).getByRole("button", { name: "Try again" }).click();
    await lastReply(page).getByText("Two.").waitFor();
    assert.equal(await page.locator(".message").count(), 2);

    await page.locator(".user").hover();
    await page.getByRole("button", { name: "Edit" }).click();
    await page.getByLabel("Edit the message").fill("changed");
    await page.keyboard.press("Control+Enter");
    await ended(page);
    assert.equal(await page.locator(".bubble").innerText(), "changed");
    assert.equal(await page.locator(".message").count(), 2);

    assert.deepEqual(asked.map(({ messages }) => messages.map(({ content }) => content)), [["first\nsecond"], ["first\nsecond"], ["changed"]]);
    assert.ok(asked.every((body) => body.stream && body.stream_options.include_usage));
  }));

test("settings go with the request, and wrong ones do not", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    let body;
    page.on("request", (request) => (body = request.postData() ? request : body));
    await answer(page, reply("Yes."));
    await page.locator("#settings-open").click();
    for (const [id, value] of Object.entries({ system: "Be brief.", temperature: "0.3", top_p: "0.8", top_k: "7", max_tokens: "50", seed: "9", key: "secret" })) {
      await page.locator(`#${id}`).fill(value);
    }
    await page.locator("#settings-close").click();
    await send(page, "Is it?");
    await ended(page);
    const sent = body.postDataJSON();
    assert.deepEqual(sent.messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "Is it?" }]);
    const { temperature, top_p, top_k, max_tokens, seed } = sent;
    assert.deepEqual({ temperature, top_p, top_k, max_tokens, seed }, { temperature: 0.3, top_p: 0.8, top_k: 7, max_tokens: 50, seed: 9 });
    assert.equal(body.headers().authorization, "Bearer secret");

    body = undefined;
    await page.locator("#settings-open").click();
    await page.locator("#temperature").fill("hot");
    assert.equal(await page.locator("#temperature").getAttribute("aria-invalid"), "true");
    await page.keyboard.press("Escape");
    await send(page, "Again?");
    await page.locator("#settings[open]").waitFor();
    assert.ok(await page.locator("#temperature").evaluate((node) => node === document.activeElement));
    assert.equal(body, undefined);
    await page.getByRole("button", { name: "Reset" }).click();
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#prompt").inputValue(), "Again?");
  }));

test("chats are listed, renamed, exported, deleted and had back", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await answer(page, reply("Fine."));
    for (const text of ["The first one", "The second one"]) {
      await page.locator("#new-chat").click();
      await send(page, text);
      await ended(page);
    }
    const titles = page.locator("#chats .open");
    assert.deepEqual(await titles.allInnerTexts(), ["The second one", "The first one"]);
    await titles.nth(1).click();
    assert.equal(await page.locator(".bubble").innerText(), "The first one");

    await page.getByRole("button", { name: "Rename: The first one" }).click();
    await page.keyboard.type("Renamed");
    await page.keyboard.press("Enter");
    assert.deepEqual(await titles.allInnerTexts(), ["The second one", "Renamed"]);

    await titles.nth(1).focus();
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export: Renamed" }).click()]);
    assert.equal(file.suggestedFilename(), "tercel-Renamed.json");
    const exported = JSON.parse(fs.readFileSync(await file.path(), "utf8"));
    assert.deepEqual(exported.chats[0].messages.map(({ content }) => content), ["The first one", "Fine."]);

    await titles.nth(1).focus();
    await page.getByRole("button", { name: "Delete: Renamed" }).click();
    assert.deepEqual(await titles.allInnerTexts(), ["The second one"]);
    await page.getByRole("button", { name: "Undo" }).click();
    assert.deepEqual(await titles.allInnerTexts(), ["The second one", "Renamed"]);
    await page.reload();
    assert.deepEqual(await titles.allInnerTexts(), ["The second one", "Renamed"]);

    await page.locator("#settings-open").click();
    await page.getByRole("button", { name: "Delete all" }).click();
    assert.equal(await titles.count(), 2);
    await page.getByRole("button", { name: "Really delete all?" }).click();
    assert.equal(await titles.count(), 0);
    await page.reload();
    assert.equal(await titles.count(), 0);
  }));

test("two chats are answered at once, each in its place", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    const first = await feed(page);
    await send(page, "one");
    await first({ content: "to the first" });
    const end = await page.evaluateHandle(() => window.feedEnd);
    await page.locator("#new-chat").click();
    assert.ok(await page.locator("#send").isVisible());
    await send(page, "two");
    await first({ content: "to the second" });
    await lastReply(page).getByText("to the second").waitFor();
    assert.equal(await page.locator("#chats .dot").count(), 2);
    await page.locator("#chats .open", { hasText: "one" }).click();
    await lastReply(page).getByText("to the first").waitFor();
    await end.evaluate((close) => close());
    await ended(page);
    assert.equal(await page.locator("#chats .dot").count(), 1);
    await page.locator("#chats .open", { hasText: "two" }).click();
    await page.keyboard.press("Escape");
    await ended(page);
    assert.equal(await page.locator("#chats .dot").count(), 0);
  }));
