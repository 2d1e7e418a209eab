// OpenAI's client for Node.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { toFile } from "openai";

import { isPng, pixelsOf, png, prompt, requestsOf, token, url } from "./server.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: token });

test("generates within a budget", async () => {
  const found = await client.images.generate({ model: "gpt-image-1", prompt, size: "auto", quality: "auto", max_ms: 60_000, seed: 3 });
  assert.ok(isPng(found.data[0].b64_json));
  assert.equal(found.costroute.max_ms, 60_000);
  assert.equal(found.costroute.seed, 3);
  assert.equal(found.costroute.met, true);
});

test("is answered with an address for dall-e", async () => {
  const found = await client.images.generate({ model: "dall-e-3", prompt, n: 1, size: "1024x1024" });
  const answer = await fetch(found.data[0].url);
  assert.equal(answer.headers.get("content-type"), "image/png");
  assert.ok(isPng(await answer.arrayBuffer()));
});

test("streams partial images", async () => {
  const events = [];
  for await (const event of await client.images.generate({ prompt, stream: true, partial_images: 2, seed: 3 })) events.push(event);
  assert.deepEqual(
    events.map((event) => event.type),
    ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"],
  );
  assert.deepEqual(events.slice(0, 2).map((event) => event.partial_image_index), [0, 1]);
  assert.ok(events.every((event) => isPng(event.b64_json)));
  assert.ok(events[0].ms_to_go > events[1].ms_to_go);
  assert.equal(events[2].usage.total_tokens, 0);
  const whole = await client.images.generate({ prompt, seed: 3 });
  assert.equal(pixelsOf(whole.data[0].b64_json), pixelsOf(events[2].b64_json));
});

test("edits one image and several", async () => {
  const image = await toFile(png, "image.png", { type: "image/png" });
  const one = await client.images.edit({ image, prompt, n: 2, strength: 0.5, max_ms: 60_000 });
  assert.equal(one.data.length, 2);
  assert.ok(isPng(one.data[1].b64_json));
  assert.equal(one.costroute.max_ms, 60_000);
  const several = await client.images.edit({ image: [image, await toFile(png, "other.png", { type: "image/png" })], prompt });
  assert.match(several.costroute.notes[0], /first of 2/);
  const events = [];
  for await (const event of await client.images.edit({ image, prompt, stream: true, partial_images: 1 })) events.push(event.type);
  assert.deepEqual(events, ["image_edit.partial_image", "image_edit.completed"]);
});

test("lists models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.equal(names[0], "auto");
  assert.ok(names.includes("turbo@1"));
});

test("a refusal is one request", async () => {
  for (const stream of [false, true]) {
    const before = await requestsOf("generations");
    await assert.rejects(client.images.generate({ prompt, stream, max_ms: 5 }), (error) => {
      assert.ok(error instanceof OpenAI.UnprocessableEntityError);
      assert.deepEqual([error.code, error.param, error.type], ["max_ms_too_small", "max_ms", "invalid_request_error"]);
      assert.match(error.message, /ms/);
      return true;
    });
    assert.equal(await requestsOf("generations"), before + 1);
  }
});

test("a wrong key is an authentication error", async () => {
  const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "a-wrong-token-here" });
  await assert.rejects(stranger.images.generate({ prompt }), OpenAI.AuthenticationError);
});
