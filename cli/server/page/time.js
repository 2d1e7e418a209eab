// The time slider: a logarithmic scale over what the candidates need, whose end means no limit; and values that need no dragging.

import { byId, make, setText } from "./dom.js";
import { seconds, spoken } from "./format.js";

const END = 200;
const NICE = [1, 1.5, 2, 3, 5, 7, 10];
const MOST_QUICK = 4;

/** The next round number of milliseconds: 1, 1.5, 2, 3, 5 or 7 times a power of ten. */
export const roundUp = (ms) => {
  const power = 10 ** Math.floor(Math.log10(ms));
  return NICE.find((each) => each * power >= ms * 0.999) * power;
};

/** Round numbers from `low` to `high`, evenly chosen. */
const quickValues = (low, high) => {
  const all = [];
  for (let value = roundUp(low); value < high; value = roundUp(value * 1.01)) all.push(value);
  const step = Math.max(1, (all.length - 1) / (MOST_QUICK - 1));
  return [...new Set(Array.from({ length: Math.min(MOST_QUICK, all.length) }, (_, index) => all[Math.round(index * step)]))];
};

/** The budget as the user sets it; calls `onInput` whenever that changes. */
export class TimeSlider {
  #low = 50;
  #high = 5000;
  #maxMs;
  #needed = [];

  constructor(maxMs, onInput) {
    this.#maxMs = maxMs;
    this.input = byId("time");
    this.input.addEventListener("input", () => { this.#read(); onInput(); });
    byId("quick").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) { this.set(button.dataset.ms ? Number(button.dataset.ms) : null); onInput(); }
    });
    this.#place();
  }

  /** Milliseconds; null means no limit. */
  get maxMs() {
    return this.#maxMs;
  }

  set(maxMs) {
    this.#maxMs = maxMs === null ? null : Math.max(1, Math.round(maxMs));
    const isOutside = maxMs !== null && (maxMs < this.#low || maxMs > this.#high);
    if (isOutside) this.#stretch(Math.min(maxMs, this.#low), Math.max(maxMs, this.#high));
    this.#place();
  }

  /** Makes the scale hold what the candidates need, in milliseconds. After the first time it only grows: nothing moves while one types. */
  fit(needed) {
    if (!needed.length) return;
    this.#needed = needed;
    const low = Math.min(...needed) * 0.8, high = Math.max(...needed) * 2;
    const isFirst = !byId("quick").children.length;
    if (isFirst || Math.min(...needed) < this.#low || Math.max(...needed) > this.#high) {
      const given = this.#maxMs ?? low;
      this.#stretch(Math.min(low, given, isFirst ? low : this.#low), Math.max(high, given, isFirst ? high : this.#high));
      this.#place();
    }
    this.#drawTicks();
  }

  /** What a screen reader says: seconds, then the candidate. */
  describe(candidate) {
    const time = this.#maxMs === null ? "no limit" : spoken(this.#maxMs);
    this.input.setAttribute("aria-valuetext", candidate ? `${time}, ${candidate}` : time);
  }

  #stretch(low, high) {
    this.#low = low;
    this.#high = high;
    const buttons = quickValues(low, high).map((ms) => make("button", { type: "button", textContent: seconds(ms), data: { ms } }));
    byId("quick").replaceChildren(...buttons, make("button", { type: "button", textContent: "No limit", data: { ms: "" } }));
    this.#drawTicks();
  }

  #fraction(ms) {
    return Math.log(ms / this.#low) / Math.log(this.#high / this.#low);
  }

  #read() {
    const value = Number(this.input.value);
    const exact = this.#low * (this.#high / this.#low) ** (value / (END - 1));
    this.#maxMs = value >= END ? null : Number(exact.toPrecision(2));
    this.#show();
  }

  #place() {
    this.input.value = this.#maxMs === null ? END : Math.min(END - 1, Math.round(this.#fraction(this.#maxMs) * (END - 1)));
    this.#show();
  }

  #show() {
    setText(byId("time-shown"), this.#maxMs === null ? "no limit" : seconds(this.#maxMs));
    this.input.style.setProperty("--part", `${(100 * this.input.value) / END}%`);
    for (const button of byId("quick").children) {
      const ms = button.dataset.ms ? Number(button.dataset.ms) : null;
      button.setAttribute("aria-pressed", String(ms === this.#maxMs));
    }
    this.describe(this.candidate);
  }

  /** A mark where each candidate begins to fit. */
  #drawTicks() {
    const places = this.#needed.map((ms) => this.#fraction(ms)).filter((place) => place >= 0 && place <= 1);
    byId("ticks").replaceChildren(...places.map((place) => make("i", { style: { left: `${(100 * place * (END - 1)) / END}%` } })));
  }
}
