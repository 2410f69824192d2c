// OpenAI's own client for JavaScript, as it is. TERCEL_URL is where the server listens.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const model = "small";
const client = new OpenAI({
  baseURL: `${process.env.TERCEL_URL}/v1`,
  apiKey: "none",
  maxRetries: 0,
  timeout: 60_000,
});
const messages = [{ role: "user", content: "What is the capital of France?" }];
const settings = { model, messages, max_tokens: 16, temperature: 0 };

test("models are listed", async () => {
  const ids = [];
  for await (const one of client.models.list()) ids.push(one.id);
  assert.deepEqual(ids, [model]);
});

test("a chat is answered", async () => {
  const reply = await client.chat.completions.create(settings);
  assert.match(reply.choices[0].message.content, /Paris/);
  assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
  assert.ok(reply._request_id, "the header x-request-id");
});

test("a chat streams, with its usage when asked", async () => {
  const whole = await client.chat.completions.create(settings);
  const stream = await client.chat.completions.create({
    ...settings,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("the stream helper of the client accumulates", async () => {
  const runner = client.chat.completions.stream(settings);
  const final = await runner.finalChatCompletion();
  const whole = await client.chat.completions.create(settings);
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
});

test("a stream that is left ends, and the server goes on", async () => {
  const stream = await client.chat.completions.create({
    ...settings,
    max_tokens: 1000,
    stream: true,
  });
  for await (const _ of stream) break;
  assert.ok((await client.chat.completions.create(settings)).choices[0].message.content);
});

test("a text is continued", async () => {
  const reply = await client.completions.create({
    model,
    prompt: "One, two, three,",
    max_tokens: 8,
    temperature: 0,
  });
  assert.match(reply.choices[0].text, /four/);
});

test("responses are given whole and streamed", async () => {
  const asked = { model, input: messages[0].content, max_output_tokens: 16, temperature: 0 };
  const whole = await client.responses.create(asked);
  assert.match(whole.output_text, /Paris/);
  let text = "";
  let last;
  for await (const event of await client.responses.create({ ...asked, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event.type;
  }
  assert.equal(text, whole.output_text);
  assert.match(last, /^response\.(completed|incomplete)$/);
  const final = await client.responses.stream(asked).finalResponse();
  assert.equal(final.output_text, whole.output_text);
});

test("texts are embedded, in base64 and as numbers", async () => {
  const asked = { model, input: ["Hello", "world"] };
  const packed = await client.embeddings.create(asked);
  const plain = await client.embeddings.create({ ...asked, encoding_format: "float" });
  assert.equal(plain.data.length, 2);
  for (const [index, { embedding }] of plain.data.entries()) {
    const length = embedding.reduce((sum, x) => sum + x * x, 0);
    assert.ok(Math.abs(length - 1) < 1e-3, `${length}`);
    for (const [at, x] of embedding.entries()) {
      assert.ok(Math.abs(x - packed.data[index].embedding[at]) < 1e-6);
    }
  }
});

test("a refusal names the field", async () => {
  await assert.rejects(client.chat.completions.create({ ...settings, temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
  await assert.rejects(
    client.chat.completions.create({ ...settings, model: "absent" }),
    OpenAI.NotFoundError,
  );
});
