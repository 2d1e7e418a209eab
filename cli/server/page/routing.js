// The route: which candidate the prompt gets in the time that is set, and what another one would give or take.

import { byId, debounce, make, setText, showText } from "./dom.js";
import { quality, rounded, seconds, sentence, signed } from "./format.js";
import { call } from "./server.js";

const LATEST = "page";
// A budget for a candidate: estimates change a little from call to call, and the request itself takes some milliseconds.
const ROOM = 1.08, HANDLING_MS = 5;
// What is faster by less is not worth a mention, nor what is better by less than three digits show, nor loading and waiting of less.
const LESS = 0.92, SEEN = 0.0005, NOTED_MS = 50;

const needed = (option) => option.p95_ms * ROOM + HANDLING_MS;
const best = (options) => options.reduce((found, option) => (!found || option.quality > found.quality ? option : found), null);

/** The best of the candidates that fit, as the server will choose: shown at once, and replaced by its answer. */
export const guess = (options, maxMs, needsGuidance, isGuided) => {
  const fitting = options.filter((option) => maxMs === null || option.p95_ms <= maxMs);
  const able = needsGuidance ? fitting.filter((option) => isGuided(option.candidate)) : fitting;
  return best(able.length ? able : fitting);
};

/** Keeps the table up to date. */
export class Routing {
  #asking = null;
  #found = null;
  #pool = new Map();

  constructor(form, time, { onPin, onUnpin, onTime, onRefused }) {
    Object.assign(this, { form, time, onPin, onTime, onRefused });
    this.ask = debounce(() => this.#ask());
    byId("rows").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) onPin(button.dataset.candidate);
    });
    byId("unpin").addEventListener("click", onUnpin);
  }

  offer(candidates) {
    this.#pool = new Map(candidates.map((each) => [each.name, each]));
  }

  get options() {
    return this.#found?.options ?? [];
  }

  /** Those that can make an image for the prompt, in the pool's order. */
  get able() {
    return this.options.filter((option) => this.#pool.get(option.candidate)?.has_bundle !== false);
  }

  get chosen() {
    const find = (name) => this.options.find((option) => option.candidate === name);
    return find(this.form.pinned) ?? find(this.#found.chosen);
  }

  /** Shows at once what the server will say about another time. */
  preview() {
    if (!this.#found) return;
    const { pinned, maxMs, negative } = this.form;
    const option = pinned ? this.chosen : guess(this.options, maxMs, Boolean(negative), (name) => this.#isGuided(name));
    this.time.candidate = option ? this.#spoken(option.candidate) : "no candidate is so fast";
    this.time.describe(this.time.candidate);
  }

  async #ask() {
    this.#asking?.abort();
    const asking = this.#asking = new AbortController();
    byId("choice").setAttribute("aria-busy", "true");
    const prompt = this.form.prompt;
    const fields = { ...this.form.fields, prompt: prompt || byId("prompt").placeholder, or_fastest: true, latest: LATEST };
    if (this.form.maxMs !== null) fields.max_ms = this.form.maxMs;
    try {
      this.#found = await call("POST", "v1/route", fields, asking.signal);
      this.#show(prompt);
    } catch (error) {
      if (error.name === "AbortError" || error.code === "superseded") return;
      this.onRefused(error);
    }
    byId("choice").setAttribute("aria-busy", "false");
  }

  #show(prompt) {
    this.time.fit(this.options.map((option) => option.p95_ms - option.stages.queue_ms));
    this.preview();
    this.#showChoice();
    this.#showNeighbours();
    this.#showTable();
    setText(byId("route-title"), `${this.options.length} candidates`);
    const { router, fallback } = this.#found;
    const basis = [prompt ? "" : "For the example prompt.", router?.basis ? `Expected quality: ${router.basis}.` : "", fallback ?? ""];
    setText(byId("router"), basis.filter(Boolean).join(" "));
  }

  #showChoice() {
    const { form } = this, option = this.chosen, isPinned = form.pinned !== null;
    const fits = isPinned || option.fits;
    byId("choice").dataset.fits = String(fits);
    setText(byId("choice-name"), option.candidate);
    setText(byId("choice-ms"), `≈ ${seconds(option.ms)}`);
    const worth = `quality ${quality(option.quality)} ± ${quality(option.quality_error)}`;
    const reason = isPinned ? "your choice, whatever it takes" : this.#reason();
    const tooLittle = `Nothing fits in ${seconds(form.maxMs ?? 0)}; this is the fastest and needs up to ${seconds(option.p95_ms)}.`;
    setText(byId("choice-why"), fits ? `${sentence(reason)}; ${worth}.` : tooLittle);
    showText(byId("choice-notes"), this.#notes(option).join(" "));
    byId("unpin").hidden = !isPinned;
  }

  /** Why the server chose it, with the time as it was set: the server counts from when the request arrived. */
  #reason() {
    return this.form.maxMs === null ? this.#found.reason : this.#found.reason.replace(/within [\d.]+ ms/, `within ${seconds(this.form.maxMs)}`);
  }

  #notes(option) {
    const { swap_ms, queue_ms } = option.stages;
    return [
      this.form.negative && !this.#isGuided(option.candidate) ? `${option.candidate} ignores what is to be kept out of the image.` : "",
      swap_ms > NOTED_MS ? `${seconds(swap_ms)} of it is loading.` : "",
      queue_ms > NOTED_MS ? `${seconds(queue_ms)} of it is waiting for other images.` : "",
      option.building_ms ? `About ${seconds(option.building_ms)} when its faster engines are built.` : "",
    ].filter(Boolean);
  }

  /** The next faster and the next better point: one press sets the time. */
  #showNeighbours() {
    const now = this.chosen;
    const faster = best(this.options.filter((option) => option.ms < now.ms * LESS));
    const dearer = this.options.filter((option) => option.quality >= now.quality + SEEN && option.ms > now.ms);
    const better = dearer.sort((a, b) => a.ms - b.ms)[0];
    const quickest = this.chosen.fits || this.form.pinned ? null : now;
    const found = quickest ? [["Allow", quickest]] : [faster && ["Faster", faster], better && ["Better", better]].filter(Boolean);
    byId("neighbours").replaceChildren(...found.map(([word, option]) => this.#neighbour(word, option, now)));
  }

  #neighbour(word, option, now) {
    const change = signed(option.quality - now.quality);
    const isSame = option.equal_within_error ? " (equal within error)" : "";
    const isLost = this.form.negative && this.#isGuided(now.candidate) && !this.#isGuided(option.candidate);
    const loses = isLost ? ", ignores what to keep out" : "";
    const effect = word === "Allow" ? seconds(needed(option)) : `≈ ${seconds(option.ms)}, quality ${change}${isSame}${loses}`;
    const button = make("button", { type: "button" }, make("b", { textContent: word }), ` ${effect}`);
    button.addEventListener("click", () => this.onTime(needed(option)));
    return button;
  }

  #showTable() {
    const values = this.options.map((option) => option.quality);
    const low = Math.min(...values), range = Math.max(...values) - low || 1;
    const rows = this.options.map((option) => this.#row(option, (option.quality - low) / range));
    const focused = byId("rows").contains(document.activeElement) ? document.activeElement.dataset.candidate : null;
    byId("rows").replaceChildren(...rows, ...Object.entries(this.#found.unfit ?? {}).map(([name, why]) => this.#unfitRow(name, why)));
    if (focused) [...byId("rows").querySelectorAll("button")].find((button) => button.dataset.candidate === focused)?.focus();
  }

  #row(option, part) {
    const isChosen = option === this.chosen, canFit = option.fits;
    const why = isChosen && this.form.pinned ? "your choice" : rounded(option.why);
    const name = option.candidate;
    const button = make("button", { type: "button", className: "plain", textContent: name, data: { candidate: name } });
    button.setAttribute("aria-pressed", String(this.form.pinned === name));
    button.title = "Always use this candidate";
    const bar = make("span", { className: "bar", style: { "--part": part.toFixed(3) } });
    bar.setAttribute("aria-hidden", "true");
    const row = make("tr", { data: { fits: String(canFit) } },
      make("th", { scope: "row" }, button, make("small", { textContent: why })),
      make("td", {}, quality(option.quality), make("small", { textContent: `± ${quality(option.quality_error)}` }), bar),
      make("td", {}, seconds(option.ms), make("small", { textContent: `up to ${seconds(option.p95_ms)}` })));
    if (isChosen) row.setAttribute("aria-current", "true");
    return row;
  }

  #unfitRow(name, why) {
    const cells = [make("td", { textContent: "–" }), make("td", { textContent: "–" })];
    return make("tr", { data: { fits: "false" } }, make("th", { scope: "row" }, name, make("small", { textContent: why })), ...cells);
  }

  #isGuided(name) {
    return this.#pool.get(name)?.is_guided ?? true;
  }

  #spoken(name) {
    const steps = this.#pool.get(name)?.num_inference_steps;
    return steps ? `${name}, ${steps} ${steps === 1 ? "step" : "steps"}` : name;
  }
}
