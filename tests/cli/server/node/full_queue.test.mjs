// A server that takes no more requests: what has a budget is sent once.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";
import OpenAI from "openai";

import { prompt, requestsOf, token, url } from "./server.mjs";

test("OpenAI's client sends a request with a budget once", async () => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: token });
  const before = await requestsOf("generations");
  await assert.rejects(client.images.generate({ prompt, max_ms: 60_000 }), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.code, "queue_full");
    return true;
  });
  assert.equal(await requestsOf("generations"), before + 1);
});

test("the AI SDK does so with maxRetries 0, else three times", async () => {
  const local = createOpenAICompatible({ name: "local", baseURL: `${url}/v1`, apiKey: token });
  const ask = (options) => generateImage({ model: local.imageModel("auto"), prompt, providerOptions: { local: { max_ms: 60_000 } }, ...options });
  const before = await requestsOf("generations");
  await assert.rejects(ask({ maxRetries: 0 }), (error) => {
    assert.equal(error.statusCode, 429);
    assert.equal(error.data.error.code, "queue_full");
    return true;
  });
  assert.equal(await requestsOf("generations"), before + 1);
  await assert.rejects(ask({}), { name: "AI_RetryError" });
  assert.equal(await requestsOf("generations"), before + 4);
});
