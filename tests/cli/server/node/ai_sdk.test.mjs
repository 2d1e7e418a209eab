// Vercel's AI SDK, with both providers that can be pointed at another server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";

import { isPng, pixelsOf, png, prompt, requestsOf, token, url } from "./server.mjs";

const compatible = createOpenAICompatible({ name: "local", baseURL: `${url}/v1`, apiKey: token });

test("the compatible provider sends max_ms and other keys", async () => {
  const found = await generateImage({
    model: compatible.imageModel("turbo@1"),
    prompt,
    size: "1024x1024",
    n: 2,
    providerOptions: { local: { max_ms: 60_000, seed: 7 } },
  });
  assert.equal(found.images.length, 2);
  assert.ok(found.images.every((image) => isPng(image.uint8Array) && image.mediaType === "image/png"));
  const again = await generateImage({ model: compatible.imageModel("turbo@1"), prompt, providerOptions: { local: { seed: 7 } } });
  assert.equal(pixelsOf(again.image.base64), pixelsOf(found.images[0].base64));
});

test("the compatible provider edits", async () => {
  const found = await generateImage({
    model: compatible.imageModel("auto"),
    prompt: { images: [png], text: prompt },
    providerOptions: { local: { max_ms: 60_000, strength: 0.5 } },
  });
  assert.ok(isPng(found.image.uint8Array));
});

test("a refusal is one request, with our message", async () => {
  const before = await requestsOf("generations");
  await assert.rejects(
    generateImage({ model: compatible.imageModel("auto"), prompt, providerOptions: { local: { max_ms: 5 } } }),
    (error) => {
      assert.equal(error.statusCode, 422);
      assert.equal(error.isRetryable, false);
      assert.equal(error.data.error.code, "max_ms_too_small");
      assert.match(error.message, /ms/);
      return true;
    },
  );
  assert.equal(await requestsOf("generations"), before + 1);
});

test("OpenAI's provider generates and edits with every name of a model", async () => {
  const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: token });
  for (const name of ["gpt-image-1", "dall-e-3", "auto"]) {
    const found = await generateImage({ model: openai.image(name), prompt, size: "1024x1024" });
    assert.ok(isPng(found.image.uint8Array), name);
    assert.equal(found.providerMetadata.openai.images[0].outputFormat, "png");
  }
  const edited = await generateImage({ model: openai.image("gpt-image-1"), prompt: { images: [png], text: prompt } });
  assert.ok(isPng(edited.image.uint8Array));
});

test("OpenAI's provider sends max_ms by a fetch of one's own", async () => {
  const openai = createOpenAI({
    baseURL: `${url}/v1`,
    apiKey: token,
    fetch: (address, options) => fetch(address, { ...options, body: JSON.stringify({ ...JSON.parse(options.body), max_ms: 5 }) }),
  });
  await assert.rejects(generateImage({ model: openai.image("gpt-image-1"), prompt }), (error) => error.statusCode === 422);
});
