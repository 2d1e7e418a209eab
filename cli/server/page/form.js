// What the user wants: the fields of the form, kept over a reload.

import { byId } from "./dom.js";

const KEPT = ["prompt", "negative", "seed", "size", "count", "strength"];
const TYPED = ["prompt", "negative"], TYPING_MS = 180;
const LAST_SEED = 2 ** 32 - 1;

const load = () => {
  try {
    return JSON.parse(localStorage.form ?? "{}");
  } catch {
    return {};
  }
};

/** The form's values, as the server names them; calls `onInput` with how long to wait for more of it. */
export class Form {
  /** The candidate that the user picked; null means the one that the time allows. */
  pinned = null;
  start = null;

  constructor(onInput) {
    const kept = load();
    this.maxMs = kept.maxMs === undefined ? undefined : kept.maxMs;
    this.#size = kept.size;
    for (const name of KEPT) if (kept[name] !== undefined && name !== "size") byId(name).value = kept[name];
    for (const name of KEPT) {
      byId(name).addEventListener("input", () => {
        this.save();
        onInput(TYPED.includes(name) ? TYPING_MS : 0);
      });
    }
  }

  #size;

  save() {
    const values = Object.fromEntries(KEPT.map((name) => [name, byId(name).value]));
    localStorage.form = JSON.stringify({ ...values, maxMs: this.maxMs });
  }

  /** Sizes as the server lists them; the first is the default. */
  offerSizes(sizes) {
    const options = sizes.map(({ width, height }) => new Option(`${width} × ${height}`, `${width}x${height}`));
    const wanted = byId("size").value || this.#size;
    byId("size").replaceChildren(...options);
    byId("size").disabled = sizes.length < 2;
    if (options.some((option) => option.value === wanted)) byId("size").value = wanted;
  }

  get size() {
    const [width, height] = byId("size").value.split("x").map(Number);
    return width ? { width, height } : {};
  }

  get prompt() {
    return byId("prompt").value.trim();
  }

  get seed() {
    const text = byId("seed").value.trim();
    return /^\d{1,10}$/.test(text) && Number(text) <= LAST_SEED ? Number(text) : null;
  }

  get negative() {
    return byId("negative").value.trim();
  }

  /** The fields that routes and jobs have in common. */
  get fields() {
    return {
      prompt: this.prompt,
      ...(byId("size").selectedIndex > 0 ? this.size : {}),
      ...(this.negative && { negative_prompt: this.negative }),
      ...(Number(byId("count").value) > 1 && { count: Number(byId("count").value) }),
      ...(this.start && { init_image: this.start.small, strength: Number(byId("strength").value) / 100 }),
    };
  }

  /** The fields of a job. */
  get jobFields() {
    return {
      ...this.fields,
      ...(this.seed !== null && { seed: this.seed }),
      ...(this.start && { init_image: this.start.data }),
      ...(this.pinned ? { candidate: this.pinned } : this.maxMs !== null && { max_ms: this.maxMs }),
    };
  }

  /** Takes over what made an image. */
  fill(settings) {
    byId("prompt").value = settings.prompt ?? "";
    byId("negative").value = settings.negative_prompt ?? settings.ignored?.negative_prompt ?? "";
    byId("seed").value = settings.seed ?? "";
    byId("count").value = "1";
    const size = `${settings.width}x${settings.height}`;
    if ([...byId("size").options].some((option) => option.value === size)) byId("size").value = size;
    if (byId("negative").value || byId("seed").value) byId("more").open = true;
    this.save();
  }
}
