// The server: calls that answer JSON, and the one stream of events.

/** A refusal or failure, in the server's words. */
export class ServerError extends Error {
  constructor(status, error) {
    super(error.message);
    Object.assign(this, { status, code: error.code, details: error });
  }
}

/** What the server answers; raises ServerError, and AbortError if `signal` says so. Paths are relative: the page may be under /t/TOKEN/. */
export const call = async (method, path, body, signal) => {
  let answer, found;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: body && { "content-type": "application/json" },
      body: body && JSON.stringify(body),
    });
    found = await answer.json(); // may be aborted as well
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(answer?.status ?? 0, { message: "The server does not answer.", code: "unreachable" });
  }
  if (answer.ok) return found;
  throw new ServerError(answer.status, found.error ?? { message: `The server answered ${answer.status}.`, code: "unknown" });
};

const NAMES = ["queued", "routed", "step", "replanned", "done", "failed", "cancelled"];
const RETRY_MS = 2000;

/** The events of all jobs of one client. It goes on after the last event that was seen, also after a reload. */
export class Events {
  #source = null;
  #retry;

  constructor(client, { onEvent, onLost, onFound }) {
    Object.assign(this, { client, onEvent, onLost, onFound });
  }

  open() {
    if (this.#source) return;
    clearTimeout(this.#retry);
    const query = new URLSearchParams({ client: this.client, last_event_id: sessionStorage.lastEvent ?? "0" });
    const source = this.#source = new EventSource(`v1/events?${query}`);
    source.addEventListener("open", () => this.onFound());
    source.addEventListener("error", () => this.#lose(source));
    for (const name of NAMES) source.addEventListener(name, (event) => this.#take(name, event));
  }

  /** A page that nobody looks at holds no connection: a browser allows six to a server. */
  close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #take(name, event) {
    sessionStorage.lastEvent = event.lastEventId;
    this.onEvent(name, JSON.parse(event.data));
  }

  #lose(source) {
    const isRefused = source.readyState === EventSource.CLOSED;
    this.onLost(isRefused);
    if (!isRefused) return; // the browser tries again by itself
    this.close();
    this.#retry = setTimeout(() => this.open(), RETRY_MS);
  }
}

/** A random name; crypto.randomUUID exists only where the page came by HTTPS or from this machine. */
export const randomName = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
};
