// All candidates side by side for one prompt and one seed; their names stay hidden until one is chosen.

import { announce, byId, make, setText } from "./dom.js";
import { plural, quality, seconds } from "./format.js";
import { keep } from "./gallery.js";
import { randomName } from "./server.js";
import { votes } from "./store.js";
import { saveVotes } from "./votes.js";

const MOST_CARDS = 12, MOST_REMEMBERED = 400;

const load = (name, fallback) => {
  try {
    return JSON.parse(localStorage[name] ?? "null") ?? fallback;
  } catch {
    return fallback;
  }
};

const shuffle = (values) => {
  const found = [...values];
  for (let last = found.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [found[last], found[other]] = [found[other], found[last]];
  }
  return found;
};

const letter = (place) => String.fromCharCode(65 + place);

/** The view of a comparison. */
export class Comparison {
  #now = null;
  #cards = new Map();
  #ours = new Set(load("compared", []));

  constructor(jobs, { ratio, onOpen, onClose, onVoted }) {
    Object.assign(this, { jobs, ratio, onOpen, onClose, onVoted });
    byId("comparison-close").addEventListener("click", () => this.close());
    byId("comparison-cancel").addEventListener("click", () => this.#cancel());
    byId("tie").addEventListener("click", () => this.#choose(null));
    byId("cards").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button && !button.disabled) this.#choose(button.dataset.candidate);
    });
  }

  /** Whether a job belongs to a comparison, of which only the chosen image is kept. */
  owns(job) {
    return this.#ours.has(job.id);
  }

  get isOpen() {
    return this.#now !== null;
  }

  /** Makes the prompt's image with each candidate, from the same seed and with all the time that it needs. */
  async begin(fields, options) {
    const cards = shuffle(options.slice(0, MOST_CARDS)).map((option) => ({ name: option.candidate, ms: option.ms, quality: option.quality }));
    const seed = fields.seed ?? Math.floor(Math.random() * 2 ** 32);
    const { max_ms, candidate, count, ...common } = fields;
    this.#now = { id: randomName(), prompt: fields.prompt, seed, winner: undefined, cards };
    this.#open();
    announce(`Comparing ${plural(cards.length, "candidate")}.`);
    const asked = this.#now;
    await Promise.all(asked.cards.map(async (card) => {
      try {
        const job = await this.jobs.submit({ ...common, seed, candidate: card.name });
        card.job = job.id;
        this.#remember(job.id);
        if (asked !== this.#now) await this.jobs.cancel(job);
      } catch (error) {
        card.error = error.message;
      }
    }));
    if (asked !== this.#now) return;
    this.#save();
    for (const card of this.#now.cards) this.#update(card);
  }

  /** Shows the comparison that was open when the page was left, if the server still has its images. */
  restore() {
    const kept = load("comparison", null);
    if (!kept?.cards.every((card) => card.error || this.jobs.find(card.job))) {
      delete localStorage.comparison;
      return false;
    }
    this.#now = kept;
    this.#open({ hasFocus: false });
    if (kept.winner !== undefined) this.#reveal();
    return true;
  }

  /** What has changed about one of its jobs. */
  update(job) {
    const card = this.#now?.cards.find((each) => each.job === job.id);
    if (card) this.#update(card);
  }

  close() {
    const hadFocus = byId("comparison").contains(document.activeElement);
    this.#cancel();
    this.#now = null;
    delete localStorage.comparison;
    byId("comparison").hidden = true;
    this.onClose(hadFocus);
  }

  #open({ hasFocus = true } = {}) {
    byId("comparison").hidden = false;
    byId("tie").hidden = false;
    setText(byId("comparison-title"), "Which one is best?");
    setText(byId("comparison-text"), `“${this.#now.prompt}”, seed ${this.#now.seed}. Names appear when you have chosen.`);
    this.#cards = new Map(this.#now.cards.map((card, place) => [card.name, this.#makeCard(card, place)]));
    byId("cards").style.setProperty("--ratio", String(this.ratio()));
    byId("cards").replaceChildren(...this.#cards.values());
    this.onOpen();
    for (const card of this.#now.cards) this.#update(card);
    if (hasFocus) byId("comparison-title").focus();
  }

  #makeCard(card, place) {
    const name = make("span", { className: "name", textContent: letter(place) });
    const button = make("button", { type: "button", disabled: true, data: { candidate: card.name } },
      make("img", { alt: "", hidden: true }), make("progress", { max: 1, value: 0 }), name);
    button.setAttribute("aria-label", `Image ${letter(place)} is on its way`);
    button.querySelector("progress").setAttribute("aria-hidden", "true");
    return make("li", {}, button, make("p", { className: "muted small" }));
  }

  #update(card) {
    const job = this.jobs.find(card.job), tile = this.#cards.get(card.name);
    const button = tile.querySelector("button"), image = tile.querySelector("img"), place = this.#now.cards.indexOf(card);
    const problem = card.error ?? (job?.isOver && job.state !== "done" ? job.error?.message ?? job.state : "");
    const done = job?.state === "done" ? job.images[0]?.url : null;
    if (!done && job?.preview) Object.assign(image, { src: job.preview, hidden: false });
    if (done && image.dataset.url !== done) this.#showDone(image, done, button, place);
    const progress = tile.querySelector("progress");
    progress.hidden = Boolean(done || problem);
    progress.value = job?.steps ? job.step / job.steps : 0;
    if (problem) setText(tile.querySelector("p"), problem);
    const isBusy = this.#now.cards.some((each) => !each.error && !this.jobs.find(each.job)?.isOver);
    byId("comparison-cancel").hidden = !isBusy;
    byId("tie").disabled = isBusy;
    if (isBusy || this.#now.isSaid) return;
    this.#now.isSaid = true;
    announce("All candidates are done. Choose the best one.");
  }

  async #showDone(image, url, button, place) {
    image.dataset.url = url;
    const next = make("img", { src: url, alt: "" });
    next.dataset.url = url;
    await next.decode().catch(() => {});
    image.replaceWith(next);
    button.disabled = false;
    if (this.#now?.winner === undefined) button.setAttribute("aria-label", `Choose image ${letter(place)}`);
  }

  /** Keeps the choice: a click on one of four is three votes; without a winner, every pair is a tie. */
  async #choose(winner) {
    this.#now.winner = winner;
    this.#save();
    const done = this.#now.cards.filter((card) => this.jobs.find(card.job)?.state === "done").map((card) => card.name);
    await votes.replace(this.#now.id, saveVotes(this.#now, done, winner));
    this.#reveal();
    const count = winner === null ? (done.length * (done.length - 1)) / 2 : done.length - 1;
    announce(winner === null ? `${plural(count, "tie")} kept.` : `You chose ${winner}. ${plural(count, "vote")} kept.`);
    const job = this.jobs.find(this.#now.cards.find((card) => card.name === winner)?.job);
    if (job) await keep(job);
    this.onVoted();
  }

  #reveal() {
    const { winner, cards } = this.#now;
    setText(byId("comparison-title"), winner === null ? "About the same" : "Your choice is kept");
    setText(byId("comparison-text"), `“${this.#now.prompt}”, seed ${this.#now.seed}. Another click changes the choice.`);
    for (const card of cards) {
      const tile = this.#cards.get(card.name), job = this.jobs.find(card.job), button = tile.querySelector("button");
      setText(tile.querySelector(".name"), card.name);
      button.setAttribute("aria-pressed", String(card.name === winner));
      button.setAttribute("aria-label", card.name === winner ? `${card.name}, your choice` : `Choose ${card.name} instead`);
      if (job?.state === "done") setText(tile.querySelector("p"), `≈ ${seconds(card.ms)}, expected quality ${quality(card.quality)}`);
    }
  }

  #cancel() {
    for (const card of this.#now?.cards ?? []) {
      const job = this.jobs.find(card.job);
      if (job && !job.isOver) this.jobs.cancel(job).catch(() => {});
    }
  }

  #remember(id) {
    this.#ours.add(id);
    localStorage.compared = JSON.stringify([...this.#ours].slice(-MOST_REMEMBERED));
  }

  #save() {
    localStorage.comparison = JSON.stringify(this.#now);
  }
}
