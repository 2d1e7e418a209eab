// Jobs of this browser, followed by events; they go on when the page is reloaded.

import { call, Events } from "./server.js";

const OVER = ["done", "failed", "cancelled"];
const KNOWN = [
  "prompt", "candidate", "ahead", "step", "steps", "max_ms", "elapsed_ms", "images", "notes", "error", "met", "replanned", "skipped",
];

/** Tells of jobs by the events "change" and "end", whose detail is the job. */
export class Jobs extends EventTarget {
  #jobs = new Map();
  #asking = new Set();

  constructor(client, { onLost, onFound }) {
    super();
    this.client = client;
    this.events = new Events(client, { onEvent: (name, data) => this.#take(name, data), onLost, onFound });
  }

  /** Begins a job; raises ServerError if it is refused. */
  async submit(fields) {
    const asked = call("POST", "v1/jobs", { ...fields, preview: true, client: this.client });
    this.#asking.add(asked);
    try {
      return this.#accept(await asked, fields);
    } finally {
      this.#asking.delete(asked);
    }
  }

  /** Ends a job after the step that runs. One that was done just before is forgotten by the server, which then tells no more of it. */
  async cancel(job) {
    if (job.isOver) return;
    const { state } = await call("DELETE", `v1/jobs/${job.id}`);
    if (OVER.includes(state) && !job.isOver) this.#tell("end", this.#merge({ id: job.id, state: "cancelled" }));
  }

  /** Picks up what was going on before the page was loaded. Jobs that ended meanwhile are told of as well. */
  async resume() {
    const { data } = await call("GET", `v1/jobs?client=${this.client}`);
    for (const each of data) {
      const wasOver = this.#jobs.get(each.id)?.isOver, job = this.#merge(each);
      job.isKnown = true;
      if (job.isOver && !wasOver) this.#tell("end", job);
    }
    this.events.open();
  }

  find(id) {
    return this.#jobs.get(id);
  }

  /** Those that have not ended; events may tell of a job before the answer to its request does, and then it is not counted yet. */
  get active() {
    return [...this.#jobs.values()].filter((job) => job.isKnown && !job.isOver);
  }

  async #take(name, data) {
    if (OVER.includes(name)) await this.#answered();
    const known = this.#jobs.get(data.job);
    if (known?.isOver || (name === "step" && data.step < (known?.step ?? 0))) return;
    const state = OVER.includes(name) ? name : name === "step" ? "running" : known?.state ?? "queued";
    const job = this.#merge({ ...data, id: data.job, state });
    this.#tell(job.isOver ? "end" : "change", job);
  }

  /** Waits until whoever asked for a job knows its number. */
  async #answered() {
    await Promise.allSettled(this.#asking);
    await new Promise((resolve) => setTimeout(resolve));
  }

  /** The answer to a request; events may have told of more already, and only they tell of its end. */
  #accept(data, fields) {
    const isBehind = this.#jobs.get(data.id)?.state === "running" || OVER.includes(data.state);
    const { id, prompt, max_ms } = data;
    return Object.assign(this.#merge(isBehind ? { id, prompt, max_ms } : data), { fields, isKnown: true });
  }

  #merge(data) {
    const job = this.#jobs.get(data.id) ?? { id: data.id, state: "queued", step: 0, steps: null, images: [], notes: [], preview: null };
    this.#jobs.set(data.id, job);
    if (job.isOver) return job;
    for (const name of KNOWN) if (data[name] !== undefined && data[name] !== null) job[name] = data[name];
    if (data.preview) job.preview = `data:image/jpeg;base64,${data.preview}`;
    if (data.ahead === null) job.ahead = null;
    const now = performance.now();
    if (typeof data.ms_to_go === "number") job.endsAt = now + data.ms_to_go;
    if (typeof data.start_in_ms === "number") job.startsAt = now + data.start_in_ms;
    job.state = data.state ?? job.state;
    job.isOver = OVER.includes(job.state);
    return job;
  }

  #tell(type, job) {
    this.dispatchEvent(new CustomEvent(type, { detail: job }));
  }
}
