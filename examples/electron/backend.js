// What the page may ask for, without Electron: answers are { result } or { error }, because Electron keeps only the message of an error.

export class Backend {
  #server;
  #running = null;

  constructor(server) {
    this.#server = server;
  }

  ready(onProgress) {
    return answer(() => this.#server.ready({ onProgress }));
  }

  /** The route of the newest prompt: earlier ones that still wait are refused with `superseded`. */
  route(job) {
    return answer(() => this.#server.route({ ...job, latest: "window" }));
  }

  /** One image at a time: a new one ends the one before. */
  generate(job, onEvent) {
    this.cancel();
    const mine = (this.#running = new AbortController());
    return answer(() => this.#server.generate({ ...job, preview: true }, { onEvent, signal: mine.signal }));
  }

  cancel() {
    this.#running?.abort();
  }
}

async function answer(work) {
  try {
    return { result: await work() };
  } catch (error) {
    return { error: { message: error.message, code: error.code ?? "failed", ...error.data } };
  }
}
