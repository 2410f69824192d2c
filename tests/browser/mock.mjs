import http from "node:http"; import fs from "node:fs"; import path from "node:path";
const root = path.resolve(import.meta.dirname, "../../crates/tercel-server/src/page");
const types = { ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml" };
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
let running = 0;
http.createServer(async (req, res) => {
  const url = new URL(req.url, "http://x");
  if (url.pathname === "/" || url.pathname.startsWith("/page/")) {
    const file = path.join(root, url.pathname === "/" ? "index.html" : url.pathname.slice(6));
    if (!fs.existsSync(file)) { res.writeHead(404).end(); return; }
    res.writeHead(200, { "content-type": types[path.extname(file)], "content-security-policy": csp, "x-content-type-options": "nosniff", "cache-control": "no-cache" });
    res.end(fs.readFileSync(file)); return;
  }
  if (url.pathname === "/v1/models") { res.writeHead(200, { "content-type": "application/json" }); res.end(JSON.stringify({ object: "list", data: [{ id: "smollm2:135m", object: "model", tercel: { context_length: 2048 } }, { id: "qwen3:0.6b", object: "model" }] })); return; }
  if (url.pathname === "/metrics") { res.writeHead(200, { "content-type": "text/plain" }); res.end(`# TYPE x gauge\ntercel_requests_in_flight ${running}\n`); return; }
  if (url.pathname === "/v1/chat/completions") {
    let body = ""; for await (const c of req) body += c;
    res.writeHead(200, { "content-type": "text/event-stream" });
    running += 1; let open = true; res.on("close", () => { if (open) { running -= 1; open = false; } });
    const send = (o) => res.write(`data: ${JSON.stringify({ id: "a", object: "chat.completion.chunk", ...o })}\n\n`);
    send({ choices: [{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }] });
    const wait = (ms) => new Promise((r) => setTimeout(r, ms));
    await wait(150);
    const n = Math.min(JSON.parse(body).max_tokens ?? 300, 300);
    for (let i = 0; i < n && open; i++) { send({ choices: [{ index: 0, delta: { content: `word${i} ` + (i % 40 === 39 ? "\n\n" : "") }, finish_reason: null }] }); await wait(15); }
    if (!open) return;
    send({ choices: [{ index: 0, delta: {}, finish_reason: n < 300 ? "length" : "stop" }], tercel: { stop_reason: n < 300 ? "max_new_tokens" : "eos", seed: 42, backend: "cpu-avx512", cached_tokens: 3, guarded_by: null, timings: { tokens_per_second: 66.6, time_to_first_token_ms: 150 } } });
    send({ choices: [], usage: { prompt_tokens: 36, completion_tokens: n, total_tokens: 36 + n } });
    res.write("data: [DONE]\n\n"); open = false; running -= 1; res.end(); return;
  }
  res.writeHead(404, { "content-type": "application/json" }).end('{"error":{"message":"there is no such path"}}');
}).listen(Number(process.env.PORT ?? 18431), "127.0.0.1");
setTimeout(() => process.exit(0), 40 * 60 * 1000);
