import assert from "node:assert/strict";
import test from "node:test";
import { SseParser } from "../../../crates/tercel-server/src/page/sse.js";
import { pieces, random } from "./random.js";

const CASES = [
  ["data: a\n\n", [["", "a"]]],
  ["data:a\n\ndata: b\n\n", [["", "a"], ["", "b"]]],
  ["event: ping\ndata: {}\n\ndata: x\n\n", [["ping", "{}"], ["", "x"]]],
  ["data: a\ndata:\ndata:  b\n\n", [["", "a\n\n b"]]],
  [": alive\n\ndata: a\r\n\r\ndata: b\r\rdata: c\n\n", [["", "a"], ["", "b"], ["", "c"]]],
  ["id: 1\nretry: 5\ndata\n\n", [["", ""]]],
  ["event: lost\n\ndata: unfinished\n", []],
  ["data: \u{1f985} \u732b\n\n", [["", "\u{1f985} \u732b"]]],
];

test("events are read whatever the pieces", () => {
  const next = random(1);
  for (const [text, expected] of CASES) {
    for (let round = 0; round < 50; round += 1) {
      const parser = new SseParser();
      // A second break would end an empty event, which is none; it ends a last carriage return.
      const events = [...pieces(text, next)].flatMap((piece) => parser.push(piece));
      assert.deepEqual(events.map(({ name, data }) => [name, data]), expected, JSON.stringify(text));
    }
  }
});
