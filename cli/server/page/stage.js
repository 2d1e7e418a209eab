// The one image that is looked at: empty, on its way with preview and countdown, or done with its settings.

import { announce, byId, make, prefersCalm, setText, showText } from "./dom.js";
import { plural, rounded, seconds, sentence, spoken } from "./format.js";

const TITLE = document.title;
const PARTS = ["meter", "empty", "cancel", "download", "reuse", "restart", "delete", "settings", "shown-notes"];
const HIDDEN_SETTINGS = ["versions", "prompt"];

/** Shows a job or an image that is kept. */
export class Stage {
  #job = null;
  #shown = null;
  #url = null;
  #ticking = null;
  #hasSaidHalf = false;
  #turn = 0;
  /** Counts what was shown, so that an image that is decoded late does not take a later one's place. */

  constructor({ defaultSize }) {
    this.defaultSize = defaultSize;
  }

  get job() {
    return this.#job;
  }

  /** The kept image that is shown; null while a job runs. */
  get shown() {
    return this.#shown;
  }

  showEmpty() {
    this.#turn += 1;
    this.#reset();
    byId("empty").hidden = false;
    byId("caption").hidden = true;
    this.#setBox(this.defaultSize());
  }

  /** A job from its beginning on; its box has the final image's shape from the start. */
  showJob(job) {
    this.#turn += 1;
    this.#reset();
    this.#job = job;
    this.#hasSaidHalf = job.step * 2 >= (job.steps ?? Infinity);
    this.#setBox({ ...this.defaultSize(), ...(job.fields?.width && { width: job.fields.width, height: job.fields.height }) });
    byId("caption").hidden = byId("meter").hidden = false;
    byId("cancel").hidden = false;
    this.#ticking = setInterval(() => this.#tick(), prefersCalm() ? 500 : 100);
    this.update(job);
  }

  /** What has changed about the job that is shown. */
  update(job) {
    if (job !== this.#job) return;
    setText(byId("shown-prompt"), job.prompt ?? "");
    this.#showFacts([job.candidate, job.max_ms && `at most ${seconds(job.max_ms)}`]);
    showText(byId("shown-notes"), job.skipped ? `${plural(job.skipped, "step")} skipped to be in time.` : "");
    if (job.preview && byId("preview").src !== job.preview) {
      byId("preview").src = job.preview;
      byId("preview").hidden = false;
    }
    const progress = byId("progress");
    if (job.steps) progress.value = job.step / job.steps;
    else progress.removeAttribute("value");
    setText(byId("step"), job.steps ? `step ${job.step} of ${job.steps}` : "");
    if (job.steps > 1 && !this.#hasSaidHalf && job.step * 2 >= job.steps) {
      this.#hasSaidHalf = true;
      announce("Half done.");
    }
    this.#tick();
  }

  /** The finished image takes the preview's place in one frame: it is decoded before. */
  async showImage(kept) {
    const url = URL.createObjectURL(kept.blob), turn = ++this.#turn;
    const next = make("img", { src: url, alt: kept.prompt, id: "image", className: "layer" });
    await next.decode().catch(() => {});
    if (turn !== this.#turn) return URL.revokeObjectURL(url);
    const hadFocus = document.activeElement === byId("cancel");
    this.#reset({ keepsLayers: true });
    this.#url = url;
    byId("image").replaceWith(next);
    byId("preview").hidden = true;
    this.#shown = kept;
    this.#setBox(kept);
    this.#describe(kept);
    if (hadFocus) byId("box").focus();
  }

  /** A job that ended without an image: the last preview is no result, so it goes. */
  showEnd(job) {
    this.#turn += 1;
    const hadFocus = document.activeElement === byId("cancel");
    this.#reset();
    byId("caption").hidden = true;
    byId("empty").hidden = false;
    setText(byId("empty-text"), job.state === "cancelled" ? "Cancelled." : sentence(job.error?.message ?? "It failed."));
    if (hadFocus) byId("box").focus();
  }

  #reset({ keepsLayers = false } = {}) {
    clearInterval(this.#ticking);
    this.#job = this.#shown = null;
    document.title = TITLE;
    for (const id of PARTS) byId(id).hidden = true;
    if (keepsLayers) return this.#forget();
    for (const id of ["preview", "image"]) { byId(id).hidden = true; byId(id).removeAttribute("src"); }
    setText(byId("empty-text"), "Describe an image and choose how long it may take.");
    this.#forget();
  }

  #forget() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }

  #setBox({ width, height }) {
    byId("stage").style.setProperty("--ratio", String(width / height));
  }

  #tick() {
    const job = this.#job, now = performance.now();
    if (!job) return;
    const left = (job.endsAt ?? now) - now;
    const isWaiting = job.state === "queued" && job.ahead > 0;
    const waiting = `${job.ahead} ahead, starts in ${seconds(Math.max(0, (job.startsAt ?? now) - now))}`;
    const text = isWaiting ? waiting : job.endsAt === undefined ? "starting" : left > 0 ? `${seconds(left)} to go` : "any moment";
    setText(byId("to-go"), text);
    const title = left >= 1000 ? `${Math.ceil(left / 1000)} s · ${TITLE}` : TITLE;
    if (document.title !== title) document.title = title;
  }

  #describe(kept) {
    byId("caption").hidden = false;
    setText(byId("shown-prompt"), kept.prompt);
    const budget = kept.max_ms ? ` of ${seconds(kept.max_ms)}${kept.met ? "" : ", late"}` : "";
    const steps = kept.settings.num_inference_steps;
    const time = `${seconds(kept.elapsed_ms)}${budget}`;
    this.#showFacts([kept.candidate, time, plural(steps, "step"), `${kept.width} × ${kept.height}`, `seed ${kept.seed}`]);
    const skipped = kept.settings.replanned ? [`${plural(kept.settings.replanned, "step")} skipped to be in time.`] : [];
    showText(byId("shown-notes"), [...skipped, ...(kept.notes ?? []).map((note) => `${sentence(rounded(note))}.`)].join(" "));
    const link = byId("download");
    Object.assign(link, { href: this.#url, download: `${kept.settings.candidate}-${kept.seed}.png`.replace(/[^\w.@-]+/g, "-") });
    for (const id of ["download", "reuse", "restart", "delete", "settings"]) byId(id).hidden = false;
    const pairs = Object.entries(kept.settings).filter(([name, value]) => value !== null && !HIDDEN_SETTINGS.includes(name));
    byId("settings-list").replaceChildren(...pairs.flatMap(([name, value]) => [
      make("dt", { textContent: name }), make("dd", { textContent: typeof value === "object" ? JSON.stringify(value) : String(value) })]));
  }

  #showFacts(facts) {
    byId("facts").replaceChildren(...facts.filter(Boolean).map((fact) => make("li", { textContent: fact })));
  }
}

/** What is said when an image is there. */
export const sayDone = (job) => announce(`Done in ${spoken(job.elapsed_ms)}: ${job.prompt}`);
