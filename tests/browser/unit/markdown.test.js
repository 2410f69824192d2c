import assert from "node:assert/strict";
import test from "node:test";
import { parseInline, safeAddress } from "../../../crates/tercel-server/src/page/inline.js";
import { parse } from "../../../crates/tercel-server/src/page/markdown.js";
import { random } from "./random.js";

/** A tree as a short text: what a reader of the tests can compare. */
function inline(nodes) {
  const names = { strong: "b", emphasis: "i", strike: "s" };
  return nodes
    .map((node) => {
      if (typeof node === "string") return node;
      if (node.type === "break") return "<br>";
      if (node.type === "code") return `<c>${node.text}</c>`;
      if (node.type === "link") return `<a ${node.href}>${inline(node.nodes)}</a>`;
      return `<${names[node.type]}>${inline(node.nodes)}</${names[node.type]}>`;
    })
    .join("");
}

function show(block) {
  switch (block.type) {
    case "heading":
      return `h${block.level}(${inline(block.nodes)})`;
    case "code":
      return `code${block.open ? "..." : ""}[${block.language}](${block.text})`;
    case "quote":
      return `quote(${block.blocks.map(show).join(" ")})`;
    case "list": {
      const name = block.ordered ? `ol${block.start}` : "ul";
      const box = (item) => (item.done === undefined ? "" : item.done ? "[x]" : "[ ]");
      const items = block.items.map((item) => box(item) + item.blocks.map(show).join(" "));
      return `${name}${block.loose ? "~" : ""}(${items.join("; ")})`;
    }
    case "table": {
      const row = (cells) => cells.map(inline).join(" | ");
      return `table[${block.align.join(" ")}](${[block.head, ...block.rows].map(row).join(" / ")})`;
    }
    case "rule":
      return "rule";
    default:
      return `p(${inline(block.nodes)})`;
  }
}

const shown = (text, open = false) => parse(text, open).map(show).join(" ");

test("lines", () => {
  for (const [text, expected] of [
    ["plain", "plain"],
    ["**b** and *i* and __b__ _i_ ~~s~~", "<b>b</b> and <i>i</i> and <b>b</b> <i>i</i> <s>s</s>"],
    ["***both***", "<b><i>both</i></b>"],
    ["**a *b* c**", "<b>a <i>b</i> c</b>"],
    ["**a*b**", "<b>a*b</b>"],
    ["snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"],
    ["`a **b**` ``c ` d`` ` e", "<c>a **b**</c> <c>c ` d</c> ` e"],
    ["\\*not\\* \\\\", "*not* \\"],
    ["**open and *never closed", "**open and *never closed"],
    ["[t](https://a.example/x_(y)) end", "<a https://a.example/x_(y)>t</a> end"],
    ["[**t**](<https://a.example/b c> \"title\")", "<a https://a.example/b%20c><b>t</b></a>"],
    ["![alt](https://a.example/i.png)", "<a https://a.example/i.png>alt</a>"],
    ["see https://a.example/b_c_d. (http://c.example)", "see <a https://a.example/b_c_d>https://a.example/b_c_d</a>. (<a http://c.example/>http://c.example</a>)"],
    ["https://a.example/Rust_(language)", "<a https://a.example/Rust_(language)>https://a.example/Rust_(language)</a>"],
    ["<https://a.example>", "<<a https://a.example/>https://a.example</a>>"],
    ["[m](mailto:me@a.example)", "<a mailto:me@a.example>m</a>"],
    ["[x] [y][1] array[0](1)", "[x] [y][1] array[0](1)"],
    ["a  \nb\nc", "a<br>b<br>c"],
    ["&lt;b&gt; &amp; &copy;", "<b> & &copy;"],
    ["a<br>b<br/>c", "a<br>b<br>c"],
    ["key: value :// x", "key: value :// x"],
  ]) {
    assert.equal(inline(parseInline(text)), expected, text);
  }
});

test("hostile lines are text", () => {
  for (const [text, expected] of [
    ["<script>alert(1)</script>", "<script>alert(1)</script>"],
    ["<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"],
    ["[x](javascript:alert(1))", "[x](javascript:alert(1))"],
    ["[x](JaVaScRiPt:alert(1))", "[x](JaVaScRiPt:alert(1))"],
    ["[x](data:text/html,<script>1</script>)", "[x](data:text/html,<script>1</script>)"],
    ["[x](vbscript:x) [y](file:///etc/passwd) [z](/local) [w](//a.example)", "[x](vbscript:x) [y](file:///etc/passwd) [z](/local) [w](//a.example)"],
    ["<javascript:alert(1)>", "<javascript:alert(1)>"],
    ["[x](https://a.example\"onmouseover=\"alert(1))", "<a https://a.example\"onmouseover=\"alert(1)>x</a>"],
  ]) {
    const found = inline(parseInline(text));
    const href = /<a ([^>]*)>/.exec(found)?.[1];
    if (href) assert.match(href, /^(https?|mailto):/, text);
    else assert.equal(found, expected, text);
  }
  for (const bad of ["javascript:x", " javascript:x", "java\nscript:x", "data:,x", "blob:x", "x", ""]) {
    assert.equal(safeAddress(bad), null, bad);
  }
});

test("blocks", () => {
  for (const [text, expected] of [
    ["# One\n\n### Three ###\ntext", "h1(One) h3(Three) p(text)"],
    ["#no heading", "p(#no heading)"],
    ["a\nb\n\nc", "p(a<br>b) p(c)"],
    ["```python\nprint(1)\n```\nDone.", "code[python](print(1)) p(Done.)"],
    ["~~~\n```\n~~~", "code[](```)"],
    ["````md\n```js\n1\n```\n````", "code[md](```js\n1\n```)"],
    ["```make\nall:\n\techo 1\n```", "code[make](all:\n\techo 1)"],
    ["```\nnever closed", "code[](never closed)"],
    ["- a\n- b\n  - c\n    - d\n- e", "ul(p(a); p(b) ul(p(c) ul(p(d))); p(e))"],
    ["1. a\n  - b\n2. c", "ol1(p(a) ul(p(b)); p(c))"],
    ["3) a\n4) b", "ol3(p(a); p(b))"],
    ["- a\n\n- b\n\ntext", "ul~(p(a); p(b)) p(text)"],
    ["- a\n\n  more\n- b", "ul~(p(a) p(more); p(b))"],
    ["1. Do:\n\n   ```sh\n   ls\n   ```\n2. Next", "ol1~(p(Do:) code[sh](ls); p(Next))"],
    ["- [x] done\n- [ ] to do", "ul([x]p(done); [ ]p(to do))"],
    ["\t- tabbed", "ul(p(tabbed))"],
    ["- a\n\t- b", "ul(p(a) ul(p(b)))"],
    ["- a\nlazy", "ul(p(a<br>lazy))"],
    ["text\n- a", "p(text) ul(p(a))"],
    ["In 2024\n1986. was", "p(In 2024<br>1986. was)"],
    ["> a\n> > b\n\nc", "quote(p(a) quote(p(b))) p(c)"],
    ["a\n\n---\n\nb\n* * *", "p(a) rule p(b) rule"],
    ["| a | b |\n|---|--:|\n| 1 | `x|y` |\n| 2 |", "table[left right](a | b / 1 | <c>x|y</c> / 2 | )"],
    ["a | b\n:-: | -\nc \\| d | e\n\nf", "table[center left](a | b / c | d | e) p(f)"],
    ["a | b\nno table", "p(a | b<br>no table)"],
    ['{"a": [1, 2]}', 'code[json]({"a": [1, 2]})'],
    ["{braces} are not JSON", "p({braces} are not JSON)"],
    ["", ""],
    ["\r\na\r\nb", "p(a<br>b)"],
  ]) {
    assert.equal(shown(text).replace(/p\(\) ?/g, ""), expected.replace(/p\(\) ?/g, ""), text);
  }
});

test("a text that is being written shows no halves of marks", () => {
  for (const [text, expected] of [
    ["Plan:\n1. Run\n", "p(Plan:) ol1(p(Run))"],
    ["Example:\n```python\nprint(1)", "p(Example:) code...[python](print(1))"],
    ["Example:\n```python\nprint(1)\n``", "p(Example:) code...[python](print(1))"],
    ["Example:\n```python\nprint(1)\n```", "p(Example:) code[python](print(1))"],
    ["Example:\n``", "p(Example:)"],
    ["so **bol", "p(so <b>bol</b>)"],
    ["so **bold*", "p(so <b>bold</b>)"],
    ["so **", "p(so )"],
    ["so `cod", "p(so <c>cod</c>)"],
    ["see [the page](https://a.exam", "p(see the page)"],
    ['{"a": [1,', 'code...[json]({"a": [1,)'],
  ]) {
    assert.equal(shown(text, true), expected, text);
  }
});

test("blocks that are whole stay as they are while more is written", () => {
  const text = "# T\n\none **two**\n\n```js\nf()\n```\n\n- a\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nend";
  const whole = parse(text);
  for (let length = 0; length < text.length; length += 1) {
    const open = parse(text.slice(0, length), true);
    for (const [index, block] of open.slice(0, -1).entries()) {
      assert.equal(block.source, whole[index].source, `${length}`);
      assert.equal(show(block), show(whole[index]), `${length}`);
    }
  }
});

test("no text is lost, nothing throws, and the time stays in proportion", () => {
  const next = random(7);
  const parts = ["*", "**", "_", "`", "```", "\n", "\n\n", "- ", "1. ", "> ", "# ", "|", "|-|", "[", "](", ")", "<", "a", " ", "https://a.b", "~~", "\\", "&lt;", "\t", "{", "}", '"', "\u{1f985}"];
  for (let round = 0; round < 3000; round += 1) {
    const count = 1 + Math.floor(next() * 40);
    const text = Array.from({ length: count }, () => parts[Math.floor(next() * parts.length)]).join("");
    for (const open of [false, true]) parse(text, open);
    // A word behind a fence, a cell too many and the address of a link are not shown as text.
    if (/```|\||\]\(/.test(text)) continue;
    const birds = (it) => it.match(/\u{1f985}/gu)?.length ?? 0;
    assert.ok(birds(shown(text)) >= birds(text), JSON.stringify(text));
  }
  for (const part of ["*a ", "**a", "_a_", "`", "`` ` ", "[", "[](", "[a](b", "![", "> ", "- ", "|-", "|", "a|b\n-|-\n", "<", "://", "http://a.,.,", "\n", "(", " ", "~~~\n", "&", "1. a\n", "  - a\n"]) {
    const text = part.repeat(Math.ceil(60000 / part.length));
    const started = performance.now();
    for (const open of [false, true]) parse(text, open);
    const spent = performance.now() - started;
    assert.ok(spent < 2000, `${JSON.stringify(part)}: ${spent.toFixed(0)} ms`);
  }
});
