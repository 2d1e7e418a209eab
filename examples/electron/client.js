// A client of `costroute-rt serve --stdio`: JSON-RPC 2.0, one message a line, to a child process. It needs Node alone.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const MOST_LOG = 4000;
const CLOSE_MS = 10_000;
const LOOK_MS = 300;

/** What the server refused or failed at. `code` is a word such as max_ms_too_small; `data` has the rest, such as needed_ms. */
export class CostrouteError extends Error {
  constructor(message, code, data = {}) {
    super(message);
    this.name = "CostrouteError";
    this.code = code;
    this.data = data;
  }
}

/** One server, which starts with this object and ends with `close()`, or when this process ends. */
export class Costroute {
  #child;
  #ended;
  #failure = null;
  #log = "";
  #last = 0;
  #calls = new Map();
  #jobs = new Map();

  /**
   * command: the program, or a list of it and its first arguments. args: options of `serve`, such as ["--pool", "desk.pool"].
   * The others are options of child_process.spawn, such as cwd and env.
   */
  constructor({ command = "costroute-rt", args = [], ...options } = {}) {
    const [program, ...first] = [command].flat();
    this.#child = spawn(program, [...first, "serve", "--stdio", ...args], { windowsHide: true, ...options, stdio: ["pipe", "pipe", "pipe"] });
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#read(line));
    this.#child.stderr.setEncoding("utf8").on("data", (text) => (this.#log = (this.#log + text).slice(-MOST_LOG)));
    this.#child.stdin.on("error", () => {}); // it has ended; "close" says why
    this.#ended = new Promise((resolve) => {
      this.#child.on("error", (error) => {
        const isMissing = error.code === "ENOENT";
        const message = isMissing ? `${program} was not found: pip install "costroute-rt[cpu]"` : error.message;
        this.#fail(new CostrouteError(message, isMissing ? "not_found" : "not_started"));
        if (this.#child.pid === undefined) resolve(null); // it never ran
      });
      this.#child.on("close", (status) => {
        this.#fail(new CostrouteError(this.#log.trim() || `${program} has ended with status ${status}`, "ended", { status }));
        resolve(status);
      });
    });
  }

  /** Resolves with the exit status when the server has ended, whatever the reason; null if it never started or was killed. */
  get ended() {
    return this.#ended;
  }

  /** The number of the server's process; undefined if it could not be started. */
  get pid() {
    return this.#child.pid;
  }

  /**
   * Resolves when the models are open; images asked for earlier wait for that within their budget. The first start on a machine builds
   * engines, which takes a while: onProgress gets { status, stage, done, total, fraction, remaining_s } until then.
   */
  async ready({ onProgress } = {}) {
    const ready = this.call("ready");
    const look = async () => {
      const found = await this.call("status").catch(() => ({})); // if it fails, so does `ready`, with the reason
      if (found.stage) onProgress(found);
    };
    const timer = onProgress && setInterval(look, LOOK_MS);
    try {
      return await ready;
    } finally {
      clearInterval(timer);
    }
  }

  /** What can be used: candidates, image_sizes ... */
  pool() {
    return this.call("pool");
  }

  /** What a job would get now. Of calls with the same `latest` that wait, all but the last are refused with `superseded`. */
  route(job) {
    return this.call("route", job);
  }

  /**
   * Makes images of a job such as { prompt, max_ms, preview: true }.
   *
   * onEvent gets each event of the job: queued, routed, step (with `preview`, a JPEG in base64, and `ms_to_go`), replanned.
   * An aborted signal ends the job after the step that runs, and rejects with the code `cancelled`.
   * Resolves with the finished job; its images have `base64`.
   */
  async generate(job, { onEvent = () => {}, signal } = {}) {
    if (signal?.aborted) throw cancelled();
    const { id } = await this.call("submit", job);
    const cancel = () => this.call("cancel", { id }).catch(() => {}); // it may have ended meanwhile
    try {
      if (signal?.aborted) cancel();
      signal?.addEventListener("abort", cancel, { once: true });
      const last = await this.#follow(id, onEvent);
      if (last.event !== "done") throw last.error ? problem(last.error) : cancelled();
      return await this.call("job", { id });
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#jobs.delete(id);
      cancel(); // of a job that has ended: forget it
    }
  }

  /** One call of a method of docs/server.md; resolves with its result. */
  call(method, params = {}) {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`);
    });
  }

  /** Ends the server and all that runs in it; resolves with its exit status. */
  async close() {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), CLOSE_MS);
    this.#child.stdin.end();
    try {
      return await this.#ended;
    } finally {
      clearTimeout(timer);
    }
  }

  #read(line) {
    const message = JSON.parse(line);
    if (message.method === "event") {
      this.#job(message.params.job).take(message.params);
      return;
    }
    const call = this.#calls.get(message.id);
    this.#calls.delete(message.id);
    if (message.error) call?.reject(problem({ ...message.error.data, message: message.error.message }));
    else call?.resolve(message.result);
  }

  /** Hands the events of a job on, also those that came before; resolves with the last. */
  #follow(id, onEvent) {
    return new Promise((resolve, reject) => {
      const job = this.#job(id);
      const early = job.events;
      job.reject = reject;
      job.take = (event) => (["done", "failed", "cancelled"].includes(event.event) ? resolve(event) : onEvent(event));
      early.forEach((event) => job.take(event));
      if (this.#failure) reject(this.#failure);
    });
  }

  #job(id) {
    if (!this.#jobs.has(id)) {
      const events = [];
      this.#jobs.set(id, { events, take: (event) => events.push(event), reject: () => {} });
    }
    return this.#jobs.get(id);
  }

  #fail(error) {
    this.#failure ??= error;
    for (const each of [...this.#calls.values(), ...this.#jobs.values()]) each.reject(this.#failure);
    this.#calls.clear();
    this.#jobs.clear();
  }
}

function problem({ message, code, ...data }) {
  return new CostrouteError(message, code, data);
}

function cancelled() {
  return new CostrouteError("the job was cancelled", "cancelled");
}
