// MCP's client for Node, which starts the server as its child.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import { isPng, prompt } from "./server.mjs";

const [command, ...args] = JSON.parse(process.env.COSTROUTE_COMMAND);

test("an image with its progress, and a refusal", async () => {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StdioClientTransport({ command, args, env: process.env }));
  try {
    assert.equal(client.getServerVersion().name, "costroute-rt");
    const { tools } = await client.listTools();
    assert.deepEqual(tools.map((tool) => tool.name), ["generate_image"]);
    assert.deepEqual(tools[0].inputSchema.required, ["prompt"]);
    const progress = [];
    const call = { name: "generate_image", arguments: { prompt, max_ms: 60_000, candidate: "tiny-turbo@2" } };
    const found = await client.callTool(call, undefined, { onprogress: (each) => progress.push([each.progress, each.total]) });
    assert.deepEqual(found.content.map((each) => each.type), ["text", "image"]);
    assert.equal(found.content[1].mimeType, "image/png");
    assert.ok(isPng(found.content[1].data));
    assert.deepEqual(progress, [[1, 2], [2, 2]]);
    const refused = await client.callTool({ name: "generate_image", arguments: { prompt, max_ms: 0.001 } });
    assert.equal(refused.isError, true);
    assert.match(refused.content[0].text, /0 ms|0.001/);
    await client.ping();
  } finally {
    await client.close();
  }
});

test("a call that is aborted ends, and the next is answered", async () => {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StdioClientTransport({ command, args, env: process.env }));
  try {
    const abort = new AbortController();
    const call = { name: "generate_image", arguments: { prompt, candidate: "tiny-base@8", count: 10 } };
    const running = client.callTool(call, undefined, { signal: abort.signal, onprogress: () => abort.abort() });
    await assert.rejects(running);
    const found = await client.callTool({ name: "generate_image", arguments: { prompt, candidate: "tiny-turbo@1" } });
    assert.equal(found.content[1].type, "image");
  } finally {
    await client.close();
  }
});
