// Emphasis, code, links: what stands inside a line of Markdown. Everything else is text.
//
// The result is a list of strings and of nodes `{ type, nodes?, text?, href? }`. What was opened
// and never closed is text, unless the line is still being written.

// Deeper marks are text: what the work costs stays in proportion to the length.
const DEEPEST = 24;
const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&nbsp;": "\u00a0" };
const PLAIN = /[^\\`*_~[\]!<\n&:]+/y;
const BREAK = /<br\s?\/?>/iy;
const ENTITY = /&(?:amp|lt|gt|quot|nbsp);/y;
const ADDRESS = /[^\s<>`[\]]{1,2000}/y;
const TARGET = /\(\s{0,9}(?:<([^<>\n]{0,2000})>|((?:[^\s()]|\([^\s()]{0,500}\)){0,2000}))(?:\s{1,9}(?:"[^"]{0,500}"|'[^']{0,500}'))?\s{0,9}\)/y;

/** The address if it is one that may be followed, or `null`. */
export function safeAddress(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
}

/** Parses the text of a paragraph. `open` says that more of it may come. */
export function parseInline(text, open = false) {
  const root = { nodes: [], literal: "" };
  const stack = [root];
  const missing = new Set();
  const top = () => stack[stack.length - 1];
  const add = (node) => push(top().nodes, node);
  const at = (pattern, index) => {
    pattern.lastIndex = index;
    return pattern.exec(text);
  };
  /** Gives the marks above this frame back to the text. */
  const flattenTo = (frame) => {
    while (top() !== frame) {
      const lost = stack.pop();
      add(lost.literal);
      for (const node of lost.nodes) add(node);
    }
  };

  let i = 0;
  while (i < text.length) {
    const plain = at(PLAIN, i);
    if (plain) {
      add(plain[0]);
      i += plain[0].length;
      continue;
    }
    const c = text[i];
    if (c === "\\" && /[!-/:-@[-`{-~]/.test(text[i + 1] ?? "")) {
      add(text[i + 1]);
      i += 2;
    } else if (c === "\n") {
      const nodes = top().nodes;
      const last = nodes.length - 1;
      if (typeof nodes[last] === "string") nodes[last] = nodes[last].replace(/(?: {1,99}|\\)$/, "");
      add({ type: "break" });
      i += 1;
    } else if (c === "`") {
      i = code(i);
    } else if (c === "*" || c === "_" || c === "~") {
      i = marks(i);
    } else if (c === "[" || (c === "!" && text[i + 1] === "[")) {
      const literal = c === "[" ? c : "![";
      if (stack.length <= DEEPEST) stack.push({ mark: "[", literal, nodes: [] });
      else add(literal);
      i += literal.length;
    } else if (c === "]") {
      i = bracket(i);
    } else if (c === "<" && at(BREAK, i)) {
      add({ type: "break" });
      i += at(BREAK, i)[0].length;
    } else if (c === "&" && at(ENTITY, i)) {
      const entity = at(ENTITY, i)[0];
      add(ENTITIES[entity]);
      i += entity.length;
    } else if (c === ":" && text.startsWith("://", i)) {
      i = bare(i);
    } else {
      add(c);
      i += 1;
    }
  }
  while (stack.length > 1) {
    const frame = stack.pop();
    const isShown = open && frame.mark !== "[";
    if (!isShown) add(frame.literal);
    if (isShown && frame.nodes.length > 0) add({ type: TYPES[frame.mark], nodes: frame.nodes });
    else for (const node of frame.nodes) add(node);
  }
  return root.nodes;

  function code(start) {
    const run = at(/`+/y, start)[0];
    const from = start + run.length;
    const end = closing(run, from);
    if (end < 0 && !open) {
      add(run);
      return from;
    }
    let content = text.slice(from, end < 0 ? text.length : end).replace(/\n/g, " ");
    if (/^ .*[^ ].* $/.test(content)) content = content.slice(1, -1);
    if (content !== "") add({ type: "code", text: content });
    return end < 0 ? text.length : end + run.length;
  }

  /** Where the run that ends this code begins, or -1. */
  function closing(run, from) {
    let end = missing.has(run.length) ? -1 : text.indexOf(run, from);
    while (end >= 0) {
      const found = at(/`+/y, end)[0].length;
      if (found === run.length) return end;
      end = text.indexOf(run, end + found);
    }
    missing.add(run.length);
    return -1;
  }

  function marks(start) {
    const c = text[start];
    let end = start;
    while (text[end] === c) end += 1;
    let count = end - start;
    const before = text[start - 1] ?? " ";
    const after = text[end] ?? " ";
    const isSpace = (it) => /\s/.test(it);
    const isMark = (it) => /[\p{P}\p{S}]/u.test(it);
    const left = !isSpace(after) && (!isMark(after) || isSpace(before) || isMark(before));
    const right = !isSpace(before) && (!isMark(before) || isSpace(after) || isMark(after));
    const canOpen = c === "_" ? left && (!right || isMark(before)) : left;
    const canClose = c === "_" ? right && (!left || isMark(after)) : right;
    if (count > 3 || (c === "~" && count !== 2)) {
      add(text.slice(start, end));
      return end;
    }
    while (canClose && count > 0) {
      const fits = (it) => it.mark?.[0] === c && it.mark.length <= count;
      const frame = stack.findLast((it) => it.mark === c.repeat(count)) ?? stack.findLast(fits);
      if (!frame) break;
      flattenTo(frame);
      stack.pop();
      add({ type: TYPES[frame.mark], nodes: frame.nodes });
      count -= frame.mark.length;
    }
    while (canOpen && count > 0 && stack.length <= DEEPEST) {
      const mark = c.repeat(count >= 2 ? 2 : 1);
      stack.push({ mark, literal: mark, nodes: [] });
      count -= mark.length;
    }
    // While it is being written, a mark at the end may be half of one that closes.
    if (count > 0 && !(open && end === text.length)) add(c.repeat(count));
    return end;
  }

  function bracket(start) {
    const frame = stack.findLast((it) => it.mark === "[");
    if (!frame) {
      add("]");
      return start + 1;
    }
    const target = text[start + 1] === "(" ? at(TARGET, start + 1) : null;
    const isAtEnd = open && !target && text[start + 1] === "(" && text.length - start < 2000;
    const isOpen = isAtEnd && !/[\s)]/.test(text.slice(start + 2));
    const href = target && safeAddress(target[1] ?? target[2]);
    if (href) {
      flattenTo(frame);
      stack.pop();
      add({ type: "link", href, nodes: frame.nodes.length > 0 ? frame.nodes : [href] });
      return start + 1 + target[0].length;
    }
    if (isOpen) frame.literal = "";
    flattenTo(stack[stack.indexOf(frame) - 1]);
    // The address of a link is not shown piece by piece.
    if (isOpen) return text.length;
    add("]");
    return start + 1;
  }

  /** An address that stands there as it is. */
  function bare(start) {
    const nodes = top().nodes;
    const before = nodes[nodes.length - 1];
    const scheme = typeof before === "string" && /(?:^|[^a-z\d])(https?)$/i.exec(before.slice(-6))?.[1];
    let rest = scheme ? at(ADDRESS, start)[0].replace(/[.,;:!?'"*_~]+$/, "") : "";
    // A bracket at the end belongs to the address only if it was opened in it.
    if (rest.endsWith(")") && !rest.includes("(")) rest = rest.replace(/[).,;:!?]+$/, "");
    const href = rest.length > 3 && safeAddress(scheme + rest);
    if (!href) {
      add(":");
      return start + 1;
    }
    nodes[nodes.length - 1] = before.slice(0, -scheme.length);
    add({ type: "link", href, nodes: [scheme + rest] });
    return start + rest.length;
  }
}

const TYPES = {
  "*": "emphasis",
  "**": "strong",
  _: "emphasis",
  __: "strong",
  "~~": "strike",
};

/** Adds a node; text joins the text before it. */
function push(nodes, node) {
  const last = nodes.length - 1;
  if (node === "") return;
  if (typeof node === "string" && typeof nodes[last] === "string") nodes[last] += node;
  else nodes.push(node);
}
