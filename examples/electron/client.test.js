// The client against a real server. COSTROUTE_TEST is JSON: {"command", "args"} of Costroute.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Costroute, CostrouteError } from "./client.js";

const { command = "costroute-rt", args = [] } = JSON.parse(process.env.COSTROUTE_TEST ?? "{}");
const prompt = "a red house by a lake";
let server;

before(() => (server = new Costroute({ command, args })));
after(() => server.close());

function isImage(base64, text) {
  return Buffer.from(base64, "base64").subarray(0, 16).toString("latin1").includes(text);
}

/** The packed pixels of a PNG file, without its settings, which name times. */
function pixelsOf(base64) {
  const bytes = Buffer.from(base64, "base64");
  return bytes.subarray(bytes.indexOf("IDAT")).toString("base64");
}

test("opens with progress, and says what it has", async () => {
  const progress = [];
  assert.deepEqual(await server.ready({ onProgress: (each) => progress.push(each) }), { status: "ready" });
  assert.ok(progress.every((each) => each.status === "opening" && each.done <= each.total && each.fraction <= 1));
  assert.deepEqual(await server.call("status"), { status: "ready" });
  const pool = await server.pool();
  assert.ok(pool.candidates.length > 1);
  const route = await server.route({ prompt, max_ms: 60_000 });
  assert.ok(route.options.some((each) => each.candidate === route.chosen && each.fits));
});

test("makes an image, with progress and previews", async () => {
  const events = [];
  const slowest = (await server.route({ prompt })).options.reduce((one, other) => (one.ms > other.ms ? one : other)).candidate;
  const job = { prompt, max_ms: 60_000, candidate: slowest, seed: 7, preview: true };
  const found = await server.generate(job, { onEvent: (event) => events.push(event) });
  assert.equal(found.state, "done");
  assert.ok(isImage(found.images[0].base64, "PNG"));
  assert.equal(found.images[0].seed, 7);
  assert.deepEqual([...new Set(events.map((event) => event.event))], ["queued", "routed", "step"]);
  const steps = events.filter((event) => event.event === "step");
  assert.deepEqual(steps.map((event) => event.step), steps.map((_, i) => i + 1));
  assert.equal(steps.at(-1).step, steps.at(-1).steps);
  assert.ok(steps.some((event) => event.preview && isImage(event.preview, "JFIF")));
  assert.ok(steps.every((event) => event.ms_to_go >= 0));
  const again = await server.generate({ ...job, preview: false });
  assert.equal(pixelsOf(again.images[0].base64), pixelsOf(found.images[0].base64));
  assert.deepEqual((await server.call("jobs")).data, [], "finished jobs are forgotten");
});

test("several at once keep their events apart", async () => {
  const jobs = await Promise.all(
    [1, 2, 3].map(async (seed) => {
      const ids = new Set();
      const found = await server.generate({ prompt, seed }, { onEvent: (event) => ids.add(event.job) });
      return { ids, found };
    }),
  );
  for (const [i, { ids, found }] of jobs.entries()) {
    assert.deepEqual([...ids], [found.id]);
    assert.equal(found.images[0].seed, i + 1);
  }
});

test("a refusal has its code", async () => {
  await assert.rejects(server.generate({ prompt, max_ms: 0.01 }), (error) => {
    assert.ok(error instanceof CostrouteError);
    assert.equal(error.code, "max_ms_too_small");
    assert.equal(error.data.status, 422);
    return true;
  });
  await assert.rejects(server.generate({ prompt: "" }), { code: "invalid_prompt" });
  await assert.rejects(server.call("nothing"), CostrouteError);
});

test("an aborted job ends, and the next one is made", async () => {
  const abort = new AbortController();
  const onEvent = (event) => event.event === "step" && abort.abort();
  await assert.rejects(server.generate({ prompt, count: 10 }, { onEvent, signal: abort.signal }), { code: "cancelled" });
  await assert.rejects(server.generate({ prompt }, { signal: abort.signal }), { code: "cancelled" });
  assert.equal((await server.generate({ prompt })).state, "done");
});

test("of routes that wait only the last is computed", async () => {
  const asked = ["a", "a r", "a red", "a red house"].map((text) => server.route({ prompt: text, latest: "test" }));
  const answers = await Promise.allSettled(asked);
  assert.equal(answers.at(-1).status, "fulfilled");
  assert.ok(answers.every((each) => each.status === "fulfilled" || each.reason.code === "superseded"));
});

test("closing ends the server, with what waits for it", async () => {
  const own = new Costroute({ command, args });
  await own.ready();
  const waiting = assert.rejects(own.generate({ prompt, count: 10 }), CostrouteError);
  assert.equal(await own.close(), 0);
  await waiting;
  await assert.rejects(own.pool(), { code: "ended" });
});

test("a server that is killed fails its calls with a reason", async () => {
  const own = new Costroute({ command, args });
  await own.ready();
  const waiting = assert.rejects(own.generate({ prompt, count: 10 }), { code: "ended" });
  process.kill(own.pid, "SIGKILL");
  await waiting;
  assert.equal(await own.ended, null);
});

test("a command that is missing or fails says so", async () => {
  const missing = new Costroute({ command: "no-such-command-here" });
  await assert.rejects(missing.ready(), { code: "not_found" });
  assert.equal(await missing.close(), null);
  const wrong = new Costroute({ command, args: [...args, "--no-such-option"] });
  await assert.rejects(wrong.ready(), (error) => error.code === "ended" && /no-such-option/.test(error.message));
  assert.equal(await wrong.close(), 2);
});
