// The blocks of Markdown as a tree: headings, paragraphs, code, lists, tables, quotes, rules.
//
// A text that is still being written (`open`) is shown safely: code that is not closed is a block
// in progress, and what may become a mark waits for its next letter. The tree depends on the text
// alone, not on the pieces in which it came.
import { parseInline } from "./inline.js";

const DEEPEST = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( +)(.*)|)$/;

/** Parses a text into blocks; each of the outermost has its `source`. */
export function parse(text, open = false) {
  const clean = text.replace(/\r\n?/g, "\n");
  if (/^\s*\{\s*(?:["}]|$)/.test(clean)) {
    const json = wholeJson(clean, open);
    if (json) return [json];
  }
  let lines = withoutTabs(clean.split("\n"));
  // One or two of the marks that begin a fence are not text yet, nor those that end it.
  if (open && /^ {0,3}(`{1,2}|~{1,2})$/.test(lines[lines.length - 1])) lines = lines.slice(0, -1);
  return blocks(lines, 0, open, true);
}

/** A reply that is one JSON value: shown as code, and only as such once it is whole. */
function wholeJson(text, open) {
  if (!open) {
    try {
      JSON.parse(text);
    } catch {
      return null;
    }
  }
  return { type: "code", language: "json", text: text.trim(), open, source: text };
}

/** Tabs before a text indent by four; those of code stay. */
function withoutTabs(lines) {
  let inCode = false;
  return lines.map((line) => {
    if (/^\s*(?:```|~~~)/.test(line)) inCode = !inCode;
    return inCode ? line : line.replace(/^\s+/, (space) => space.replaceAll("\t", "    "));
  });
}

function blocks(lines, depth, open, isOutermost = false) {
  const found = [];
  let i = 0;
  while (i < lines.length) {
    if (lines[i].trim() === "") {
      i += 1;
      continue;
    }
    const from = i;
    const [block, next] = one(lines, i, depth, open);
    i = next;
    if (isOutermost) block.source = lines.slice(from, i).join("\n");
    found.push(block);
  }
  return found;
}

/** The block that begins in line `i`, and the line behind it. */
function one(lines, i, depth, open) {
  const line = lines[i];
  const isDeep = depth >= DEEPEST;
  let match;
  if ((match = FENCE.exec(line))) return fence(lines, i, match, open);
  if ((match = HEADING.exec(line))) {
    const title = (match[2] ?? "").replace(/\s#+\s*$/, "").trim();
    const nodes = parseInline(title, open && i === lines.length - 1);
    return [{ type: "heading", level: match[1].length, nodes }, i + 1];
  }
  if (RULE.test(line)) return [{ type: "rule" }, i + 1];
  if (!isDeep && QUOTE.test(line)) return quote(lines, i, depth, open);
  if (!isDeep && ITEM.test(line)) return list(lines, i, depth, open);
  if (isTable(lines, i)) return table(lines, i, open);
  let end = i + 1;
  while (end < lines.length && !interrupts(lines, end)) end += 1;
  const text = lines.slice(i, end).map((it) => it.replace(/^ +/, "")).join("\n").trimEnd();
  return [{ type: "paragraph", nodes: parseInline(text, open && end === lines.length) }, end];
}

/** Whether a paragraph ends before this line. */
function interrupts(lines, i) {
  const line = lines[i];
  if (line.trim() === "" || FENCE.test(line) || HEADING.test(line) || RULE.test(line)) return true;
  if (QUOTE.test(line) || isTable(lines, i)) return true;
  const item = ITEM.exec(line);
  return item !== null && item[4] !== undefined && !/^(?!1[.)])\d/.test(item[2]);
}

function fence(lines, i, match, open) {
  const [, marks, info] = match;
  const indent = lines[i].search(/\S/);
  const closing = new RegExp(`^ {0,3}${marks[0]}{${marks.length},} *$`);
  let end = i + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const isClosed = end < lines.length;
  const content = lines.slice(i + 1, end).map((it) => it.replace(new RegExp(`^ {0,${indent}}`), ""));
  const isOpen = open && !isClosed;
  const language = /^[\w+#.-]{1,30}/.exec(info.trim())?.[0] ?? "";
  const block = { type: "code", language, text: content.join("\n"), open: isOpen };
  return [block, isClosed ? end + 1 : end];
}

function quote(lines, i, depth, open) {
  const content = [];
  let end = i;
  while (end < lines.length && (QUOTE.test(lines[end]) || (end > i && !interrupts(lines, end)))) {
    content.push(lines[end].replace(QUOTE, ""));
    end += 1;
  }
  const inner = blocks(content, depth + 1, open && end === lines.length);
  return [{ type: "quote", blocks: inner }, end];
}

function list(lines, i, depth, open) {
  const [, space, marker] = ITEM.exec(lines[i]);
  const base = space.length;
  const kind = marker.slice(-1);
  const ordered = /\d/.test(marker);
  const items = [];
  let isLoose = false;
  let end = i;
  while (end < lines.length) {
    const match = ITEM.exec(lines[end]);
    if (!match || match[1].length > base + 1 || match[1].length < base) break;
    if (match[2].slice(-1) !== kind || RULE.test(lines[end])) break;
    const width = base + match[2].length + Math.min(match[3]?.length ?? 1, 4);
    const content = [match[4] ?? ""];
    end += 1;
    let blank = 0;
    while (end < lines.length) {
      const next = lines[end];
      const indent = next.search(/\S/);
      if (indent < 0) {
        blank += 1;
      } else if (indent >= base + 2) {
        // Two spaces are enough, though the text of `1. ` begins after three.
        if (blank > 0) isLoose = true;
        for (; blank > 0; blank -= 1) content.push("");
        content.push(next.slice(Math.min(indent, width)));
      } else if (blank > 0 || interrupts(lines, end) || ITEM.test(next)) {
        break;
      } else {
        content.push(next.slice(indent));
      }
      end += 1;
    }
    const goesOn = end < lines.length && ITEM.exec(lines[end])?.[1].length === base;
    if (blank > 0 && goesOn) isLoose = true;
    items.push(item(content, depth, open && end === lines.length));
  }
  const block = { type: "list", ordered, loose: isLoose, items };
  if (ordered) block.start = Number.parseInt(marker, 10);
  return [block, end];
}

function item(content, depth, open) {
  const task = /^\[([ xX])\] /.exec(content[0]);
  if (task) content[0] = content[0].slice(4);
  const parsed = { blocks: blocks(content, depth + 1, open) };
  if (task) parsed.done = task[1] !== " ";
  return parsed;
}

function isTable(lines, i) {
  if (!lines[i].includes("|") || i + 1 >= lines.length || !lines[i + 1].includes("-")) return false;
  const marks = cells(lines[i + 1]);
  const isRuled = marks.every((cell) => /^:?-+:?$/.test(cell));
  return isRuled && lines[i + 1].includes("|") && marks.length === cells(lines[i]).length;
}

function table(lines, i, open) {
  const align = cells(lines[i + 1]).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return "left";
  });
  let end = i + 2;
  while (end < lines.length && lines[end].trim() !== "" && lines[end].includes("|")) end += 1;
  const row = (index) => {
    const texts = cells(lines[index]);
    const isOpen = open && index === lines.length - 1;
    return align.map((_, column) => parseInline(texts[column] ?? "", isOpen && column === texts.length - 1));
  };
  const rows = [];
  for (let index = i + 2; index < end; index += 1) rows.push(row(index));
  return [{ type: "table", align, head: row(i), rows }, end];
}

/** The cells of a row; a bar behind a backslash, or in code, is none. */
function cells(text) {
  const found = [""];
  let inCode = false;
  const inner = text.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  for (let i = 0; i < inner.length; i += 1) {
    const c = inner[i];
    if (c === "`") inCode = !inCode;
    if (c === "\\" && inner[i + 1] === "|") {
      found[found.length - 1] += "|";
      i += 1;
    } else if (c === "|" && !inCode) {
      found.push("");
    } else {
      found[found.length - 1] += c;
    }
  }
  return found.map((cell) => cell.trim());
}
