// The tree of a Markdown text as elements. Only texts of the tree get into the page, and only as
// text nodes; the one attribute that a text decides is the address of a link, which was checked.
import { copy, h } from "./dom.js";
import { icon } from "./icons.js";
import { parse } from "./markdown.js";

/** An element that shows a Markdown text and can show a longer one. */
export class Prose {
  #shown = [];
  element = h("div", { class: "prose" });

  /** Shows the text; blocks that are as they were keep their elements, and a selection in them. */
  show(text, open) {
    const tree = parse(text, open);
    const isLast = (index) => index === tree.length - 1;
    let same = 0;
    while (same < tree.length && same < this.#shown.length) {
      const known = this.#shown[same];
      // The last block of an open text may look different once it is whole.
      const isOpen = open && isLast(same);
      if (known.source !== tree[same].source || known.isOpen !== isOpen) break;
      same += 1;
    }
    for (const { element } of this.#shown.splice(same)) element.remove();
    for (let index = same; index < tree.length; index += 1) {
      const element = block(tree[index]);
      this.element.append(element);
      const isOpen = open && isLast(index);
      this.#shown.push({ source: tree[index].source, isOpen, element });
    }
  }
}

function block(it) {
  switch (it.type) {
    case "heading":
      // The page has headings of its own above those of a reply.
      return h(`h${Math.min(it.level + 2, 6)}`, { class: `h${it.level}` }, ...inline(it.nodes));
    case "code":
      return code(it);
    case "quote":
      return h("blockquote", {}, ...it.blocks.map(block));
    case "list":
      return list(it);
    case "table":
      return table(it);
    case "rule":
      return h("hr");
    default:
      return h("p", {}, ...inline(it.nodes));
  }
}

function code(it) {
  const button = h("button", { type: "button", class: "quiet", "aria-label": "Copy code" });
  const reset = () => button.replaceChildren(icon("copy"), "Copy");
  reset();
  button.addEventListener("click", async () => {
    const isCopied = await copy(it.text);
    button.replaceChildren(icon(isCopied ? "check" : "alert"), isCopied ? "Copied" : "Not allowed");
    setTimeout(reset, 1500);
  });
  const name = it.language || "code";
  const end = it.open ? h("span", { class: "writing" }, "writing\u2026") : button;
  return h(
    "figure",
    { class: it.open ? "code open" : "code" },
    h("figcaption", {}, h("span", {}, name), end),
    h("pre", { tabindex: "0", "aria-label": `Code, ${name}` }, h("code", {}, it.text)),
  );
}

function list(it) {
  const items = it.items.map((item) => {
    const isTask = item.done !== undefined;
    const box = isTask && h("span", { class: item.done ? "box done" : "box", role: "img", "aria-label": item.done ? "done" : "to do" });
    const content = item.blocks.flatMap((inner) => {
      const isPlain = inner.type === "paragraph" && !it.loose;
      return isPlain ? inline(inner.nodes) : [block(inner)];
    });
    return h("li", { class: isTask ? "task" : null }, box, ...content);
  });
  if (!it.ordered) return h("ul", {}, ...items);
  return h("ol", { start: it.start === 1 ? null : String(it.start) }, ...items);
}

function table(it) {
  const row = (tag, cells) =>
    h("tr", {}, ...cells.map((cell, column) => h(tag, { class: `to-${it.align[column]}` }, ...inline(cell))));
  const head = h("thead", {}, row("th", it.head));
  const body = h("tbody", {}, ...it.rows.map((cells) => row("td", cells)));
  const scroll = { class: "table", tabindex: "0", role: "region", "aria-label": "Table" };
  return h("div", scroll, h("table", {}, head, body));
}

const TAGS = { strong: "strong", emphasis: "em", strike: "s" };

function inline(nodes, inLink = false) {
  return nodes.flatMap((node) => {
    if (typeof node === "string") return [node];
    if (node.type === "break") return [h("br")];
    if (node.type === "code") return [h("code", {}, node.text)];
    if (node.type !== "link") return [h(TAGS[node.type], {}, ...inline(node.nodes, inLink))];
    if (inLink) return inline(node.nodes, true);
    const target = { href: node.href, target: "_blank", rel: "noopener noreferrer" };
    return [h("a", target, ...inline(node.nodes, true))];
  });
}
