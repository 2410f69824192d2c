// How replies look: Markdown, thoughts, hostile texts; on a desktop, on a phone, in the dark.
import assert from "node:assert/strict";
import test from "node:test";
import { DESKTOP, PHONE, answer, ended, feed, fits, lastReply, launch, open, picture, reply, send, withPage } from "./browser.js";

const THOUGHT = "The user wants a comparison. A table is best, then a short example in code.";
const RICH = `A **heat pump** moves heat instead of making it. For each kilowatt-hour of electricity it delivers *three to four* of heat.

### How it works

1. A fluid evaporates outside and takes up heat.
2. A compressor raises its pressure, and with it its temperature.
3. It condenses inside and gives the heat back.

| Source | Output | Cost per kWh |
|---|--:|--:|
| Gas boiler | 0.95 | 0.11 |
| Heat pump | 3.60 | 0.08 |

The coefficient is \`output / input\`:

\`\`\`python
def coefficient(output_kwh: float, input_kwh: float) -> float:
    """How much heat comes of one kilowatt-hour of electricity, over a whole season."""
    return output_kwh / input_kwh

print(coefficient(3.6, 1.0))
\`\`\`

- [x] Insulate the roof
- [ ] Ask for two offers

> Below -10 degrees the output falls; see [the field study](https://example.org/study).`;

const HOSTILE = `<script>window.hit = 1</script>

<img src=x onerror="window.hit = 2"> <svg onload="window.hit = 3"> <iframe src="javascript:window.hit = 4"></iframe>

[a](javascript:window.hit=5) [b](JAVASCRIPT:window.hit=6) [c](data:text/html,<script>window.hit=7</script>) [d](vbscript:x) [e]( java
script:window.hit=8)

![pixel](https://tracker.example/p.png) <a href="javascript:window.hit=9" onclick="window.hit=10">x</a>

<style>body { display: none }</style> <form action="https://tracker.example"><button>send</button></form>

\`\`\`html"><script>window.hit = 11</script>
</code></pre><script>window.hit = 12</script>
\`\`\`

| <b onmouseover="window.hit = 13">x</b> | [y](https://ok.example/"onmouseover="window.hit=14) |
|---|---|
| <base href="https://tracker.example/"> | <meta http-equiv="refresh" content="0;url=https://tracker.example"> |

# <script>window.hit = 15</script>

[good](https://ok.example/) <https://ok.example/two> me@ok.example [mail](mailto:me@ok.example)
`;

const browser = await launch();
test.after(() => browser.close());

async function talk(page) {
  await answer(page, reply("It is a machine that moves heat from a cold place to a warm one.", ""));
  await send(page, "What is a heat pump?");
  await ended(page);
  await answer(page, reply(RICH, THOUGHT));
  await send(page, "Compare it with a gas boiler, and show me how the coefficient is computed.");
  await ended(page);
  await lastReply(page).locator("blockquote").waitFor();
}

test("Markdown becomes elements", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await talk(page);
    const prose = lastReply(page).locator(".prose");
    for (const [selector, count] of Object.entries({ strong: 1, em: 1, h5: 1, "ol > li": 3, "tbody tr": 2, "figure.code": 1, "li.task": 2, "blockquote a": 1 })) {
      assert.equal(await prose.locator(selector).count(), count, selector);
    }
    const code = /```python\n([^]*?)\n```/.exec(RICH)[1];
    assert.equal(await prose.locator("figure code").textContent(), code);
    await prose.getByRole("button", { name: "Copy code" }).click();
    await prose.getByText("Copied").waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), code);
    const link = prose.locator("blockquote a");
    assert.equal(await link.getAttribute("rel"), "noopener noreferrer");
    assert.equal(await lastReply(page).locator(".figures").innerText(), "87.3 tokens/s \u00b7 236 tokens \u00b7 first after 0.14 s");
  }));

test("a thought is folded away, and code that is being written is a block in progress", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    const add = await feed(page);
    await send(page, "Think");
    await page.getByText("Reading the prompt").waitFor();
    await add({ reasoning_content: "Let me see." });
    const details = lastReply(page).locator("details");
    await details.getByText("Thinking").waitFor();
    assert.equal(await details.getAttribute("open"), null);
    assert.ok(!(await details.getByText("Let me see.").isVisible()));
    await details.locator("summary").click();
    assert.ok(await details.getByText("Let me see.").isVisible());
    await page.waitForTimeout(150);
    await add({ content: "Here:\n\n```py" });
    await details.getByText(/Thought for 0\.\d s/).waitFor();
    await add({ content: "thon\nprint('<b>')\n``" });
    const figure = lastReply(page).locator("figure.code");
    await figure.getByText("writing").waitFor();
    await page.waitForFunction(() => document.querySelector("figure code").textContent.includes("<b>"));
    assert.equal(await figure.locator("code").textContent(), "print('<b>')");
    assert.equal(await figure.getByRole("button").count(), 0);
    await picture(page, "writing");
    await add({ content: "`\nDone." });
    await lastReply(page).getByText("Done.").waitFor();
    assert.equal(await figure.getByRole("button", { name: "Copy code" }).count(), 1);
    await page.keyboard.press("Escape");
    await ended(page);
  }));

test("hostile texts are texts", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await answer(page, reply(HOSTILE, HOSTILE));
    await send(page, HOSTILE);
    await ended(page);
    await page.reload();
    await page.locator("#model:enabled").waitFor();
    await lastReply(page).locator("summary").click();
    const messages = page.locator("#messages");
    assert.equal(await messages.locator("script, img, svg:not(.icon), iframe, style, form, base, meta, object, embed, b").count(), 0);
    const bad = await messages.evaluate((root) =>
      [...root.querySelectorAll("*")].flatMap((node) =>
        [...node.attributes].filter(({ name, value }) => name.startsWith("on") || /^\s*(javascript|data|vbscript):/i.test(value)).map(({ name }) => name),
      ),
    );
    assert.deepEqual(bad, []);
    const links = await messages.locator(".prose a").evaluateAll((all) => all.map((node) => [new URL(node.href).protocol, node.rel]));
    assert.ok(links.length >= 3);
    for (const [protocol, rel] of links) {
      assert.match(protocol, /^(https?|mailto):$/);
      assert.match(rel, /noopener/);
    }
    for (const node of await messages.locator(".prose td, .prose th, .prose h3, .prose p").all()) await node.hover();
    assert.equal(await page.evaluate(() => window.hit), undefined);
    assert.match(await lastReply(page).innerText(), /<script>window\.hit = 1<\/script>/);
  }));

test("it fits a desktop, light and dark", () =>
  withPage(browser, { ...DESKTOP, colorScheme: "light" }, async (page) => {
    await open(page);
    await picture(page, "desktop-empty");
    await talk(page);
    await page.locator("#thread").evaluate((node) => node.scrollTo(0, 140));
    await page.mouse.move(640, 5);
    await picture(page, "desktop");
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await ground();
    assert.notEqual(dark, light);
    await picture(page, "dark");
    // The button overrules the system, and that stays.
    await page.locator("#theme").click();
    assert.equal(await ground(), light);
    await page.reload();
    assert.equal(await ground(), light);
    await page.emulateMedia({ colorScheme: "light" });
    await page.locator("#theme").click();
    await page.locator("#theme").click();
    assert.equal(await ground(), dark);
    await page.locator("#settings-open").click();
    await picture(page, "dark-settings");
  }));

test("it fits a phone", () =>
  withPage(browser, { ...PHONE, colorScheme: "light" }, async (page) => {
    await open(page);
    await picture(page, "phone-empty");
    await page.locator("#prompt").fill("Hi");
    await page.keyboard.press("Enter");
    assert.equal(await page.locator(".message").count(), 0, "on a phone the key begins a line");
    await page.locator("#prompt").fill("");
    const long = `${"word".repeat(60)} https://ok.example/${"a".repeat(200)} \`${"c".repeat(200)}\``;
    await answer(page, reply(`${long}\n\n| ${"wide ".repeat(10)} | b | c | d | e |\n|-|-|-|-|-|\n| 1 | 2 | 3 | 4 | 5 |\n\n\`\`\`\n${"x".repeat(300)}\n\`\`\``));
    await page.locator("#prompt").fill(long);
    await page.locator("#send").tap();
    await ended(page);
    await fits(page, "a long reply");
    await page.locator("#sidebar-open").tap();
    await page.locator("#new-chat").tap();
    await answer(page, reply(RICH, THOUGHT));
    await page.locator("#prompt").fill("Compare a heat pump with a gas boiler.");
    await page.locator("#send").tap();
    await ended(page);
    await page.locator("#thread").evaluate((node) => node.scrollTo(0, 0));
    for (const width of [320, 360, 390]) {
      await page.setViewportSize({ width, height: 844 });
      await fits(page, `${width} pixels`);
    }
    await picture(page, "phone");
    await page.locator("#settings-open").tap();
    await fits(page, "settings");
    const sizes = await page.locator("input:not([type=checkbox]), textarea, select").evaluateAll((all) => all.map((node) => Number.parseFloat(getComputedStyle(node).fontSize)));
    assert.ok(sizes.every((size) => size >= 16), `${sizes}`);
    await picture(page, "phone-settings");
    await page.locator("#settings-close").tap();
    await page.locator("#sidebar-open").tap();
    await page.locator("#chats .open").first().waitFor();
    await page.waitForTimeout(300);
    await picture(page, "phone-chats");
    await page.keyboard.press("Escape");
    await page.locator("#sidebar").waitFor({ state: "hidden" });
  }));

test("every control has a name", () =>
  withPage(browser, {}, async (page) => {
    await open(page);
    await talk(page);
    await page.locator("#settings-open").click();
    const nameless = await page.locator("button, input, select, textarea, pre, details:not([hidden]) summary").evaluateAll((all) =>
      all.filter((node) => !(node.ariaLabel || node.labels?.length || node.textContent.trim() || node.title)).map((node) => node.outerHTML),
    );
    assert.deepEqual(nameless, []);
  }));
