// The images that this browser keeps, and those that are on their way.

import { byId, make, notify, setText } from "./dom.js";
import { plural } from "./format.js";
import { makeThumb } from "./picture.js";
import { images } from "./store.js";

const PAGE = 48, MOST_DELETED = 500;

const deleted = {
  ids: () => JSON.parse(localStorage.deleted ?? "[]"),
  add: (ids) => { localStorage.deleted = JSON.stringify([...deleted.ids(), ...ids].slice(-MOST_DELETED)); },
  remove: (id) => { localStorage.deleted = JSON.stringify(deleted.ids().filter((each) => each !== id)); },
};

/** Deletes an image; it does not come back with its job when the page is loaded again. Returns what brings it back. */
export const remove = async (kept) => {
  deleted.add([kept.id]);
  await images.delete(kept.id);
  return async () => { deleted.remove(kept.id); await images.put(kept); };
};

export const removeAll = async () => {
  deleted.add((await images.newest(MOST_DELETED)).map((kept) => kept.id));
  await images.clear();
};

/** Fetches the images of a finished job and keeps them; returns them. Those that are kept already stay as they are. */
export const keep = async (job) => {
  const found = await Promise.all(job.images.map(async (image, index) => {
    const id = `${job.id}:${index}`;
    const known = await images.get(id);
    if (known || deleted.ids().includes(id)) return known ?? null;
    const answer = await fetch(image.url);
    if (!answer.ok) return null;
    const blob = await answer.blob();
    const { prompt, candidate, elapsed_ms, max_ms = null, met = null, notes } = job;
    const { width, height, seed } = image;
    const settings = { ...image.settings, max_ms };
    const kept = { id, job: job.id, made: Date.now() + index / 100, blob, thumb: await makeThumb(blob), width, height, seed, settings };
    Object.assign(kept, { prompt, candidate, elapsed_ms, max_ms, met, notes });
    await images.put(kept).catch((error) => notify(`This browser cannot keep the image (${error?.name}): download it.`, { stays: true }));
    return kept;
  }));
  return found.filter(Boolean);
};

/** The tiles under the stage, the newest first. */
export class Gallery {
  #tiles = new Map();
  #urls = new Map();
  #most = PAGE;
  #turn = 0;

  constructor({ onShow, onShowJob, onClear }) {
    this.onShow = onShow;
    this.onShowJob = onShowJob;
    byId("gallery-more").addEventListener("click", () => { this.#most += PAGE; this.refresh(); });
    byId("gallery-clear").addEventListener("click", async () => {
      const count = await images.count();
      if (confirm(`Delete all ${plural(count, "image")} that this browser keeps?`)) onClear();
    });
  }

  /** Draws what is kept, after the jobs that are on their way. */
  async refresh(jobs = this.jobs ?? [], selected = this.selected) {
    Object.assign(this, { jobs, selected });
    const turn = ++this.#turn;
    const [kept, count] = await Promise.all([images.newest(this.#most), images.count()]);
    if (turn !== this.#turn) return;
    const waiting = [...jobs].reverse().map((job) => this.#tile(job.id, () => this.#jobTile(job)));
    const done = kept.map((image) => this.#tile(image.id, () => this.#imageTile(image)));
    this.#replace([...waiting, ...done]);
    this.select(this.selected);
    byId("gallery").hidden = !waiting.length && !done.length;
    byId("gallery-clear").hidden = !count;
    byId("gallery-more").hidden = count <= kept.length;
    setText(byId("gallery-text"), count ? `${plural(count, "image")}, kept in this browser alone` : "");
  }

  select(id) {
    this.selected = id;
    for (const [key, tile] of this.#tiles) tile.firstChild.setAttribute("aria-pressed", String(key === id));
  }

  /** What has changed about a job that is on its way. */
  update(job) {
    const tile = this.#tiles.get(job.id);
    if (!tile) return;
    const image = tile.querySelector("img");
    if (job.preview && image.src !== job.preview) Object.assign(image, { src: job.preview, hidden: false });
    tile.querySelector("progress").value = job.steps ? job.step / job.steps : 0;
  }

  #tile(id, create) {
    return [id, this.#tiles.get(id) ?? create()];
  }

  #replace(pairs) {
    const next = new Map(pairs);
    for (const [id, tile] of this.#tiles) if (!next.has(id)) this.#forget(id, tile);
    this.#tiles = next;
    let place = byId("tiles").firstChild;
    for (const tile of next.values()) { // those that stay keep their focus
      if (tile === place) place = place.nextSibling;
      else byId("tiles").insertBefore(tile, place);
    }
  }

  #forget(id, tile) {
    tile.remove();
    if (this.#urls.has(id)) URL.revokeObjectURL(this.#urls.get(id));
    this.#urls.delete(id);
  }

  #imageTile(kept) {
    const url = URL.createObjectURL(kept.thumb ?? kept.blob);
    this.#urls.set(kept.id, url);
    const button = make("button", { type: "button" }, make("img", { src: url, alt: kept.prompt, loading: "lazy", decoding: "async" }));
    button.addEventListener("click", () => this.onShow(kept.id));
    return make("li", { data: { id: kept.id } }, button);
  }

  #jobTile(job) {
    const progress = make("progress", { max: 1, value: 0 });
    progress.setAttribute("aria-hidden", "true");
    const button = make("button", { type: "button" }, make("img", { alt: "", hidden: !job.preview }), progress);
    if (job.preview) button.firstChild.src = job.preview;
    button.setAttribute("aria-label", `On its way: ${job.prompt ?? "image"}`);
    button.addEventListener("click", () => this.onShowJob(job));
    return make("li", { className: "waiting", data: { id: job.id } }, button);
  }
}
