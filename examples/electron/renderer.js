// The page: prompt, time and route; progress with preview; the images made so far.

const { costroute } = window;
const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));

const MOST_HISTORY = 24;
let [shortest, longest] = [50, 5000]; // milliseconds at the ends of the slider, until the first route says what candidates take here
let isScaled = false;
let shown = null; // the finished image in the frame
let isReady = false;
let isRunning = false;

/** The budget that the slider stands for, in milliseconds; null at its right end. */
function budget() {
  const share = page.time.value / page.time.max;
  return share === 1 ? null : Number((shortest * (longest / shortest) ** share).toPrecision(3));
}

function inSeconds(ms) {
  return ms < 1000 ? `${Number(ms.toPrecision(3))} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

function say(element, text, isBad = false) {
  element.textContent = text;
  element.classList.toggle("bad", isBad);
}

function sayError(element, { message }) {
  say(element, message[0].toUpperCase() + message.slice(1), true);
}

/** Lay the slider over what the candidates take; once, so that what is chosen stays. */
function scale(times) {
  if (isScaled) return;
  isScaled = true;
  [shortest, longest] = [Math.min(...times) * 0.8, Math.max(...times) * 1.2];
  sayLimit();
}

function sayLimit() {
  const ms = budget();
  page.limit.textContent = ms === null ? "no limit" : `at most ${inSeconds(ms)}`;
  page.time.setAttribute("aria-valuetext", page.limit.textContent);
}

/** Show what the prompt would get now. */
async function ask() {
  sayLimit();
  if (!isReady) return;
  if (!page.prompt.value.trim()) {
    say(page.route, "");
    return;
  }
  const { result, error } = await costroute.route({ prompt: page.prompt.value, max_ms: budget(), or_fastest: true });
  if (error) {
    if (error.code !== "superseded") sayError(page.route, error);
    return;
  }
  scale(result.options.map((each) => each.p95_ms));
  const chosen = result.options.find((each) => each.candidate === result.chosen);
  if (chosen.fits) say(page.route, `${chosen.candidate}, about ${inSeconds(chosen.ms)}`);
  else say(page.route, `Nothing is so fast: ${chosen.candidate} needs up to ${inSeconds(chosen.p95_ms)}`, true);
}

function show(base64, kind, text) {
  page.image.src = `data:image/${kind};base64,${base64}`;
  page.image.alt = text;
  page.image.hidden = false;
}

function take(event) {
  if (!isRunning) return;
  if (event.event === "queued" && event.ahead) say(page.status, `${event.ahead} before it`);
  if (event.event === "routed") say(page.status, `${event.candidate}, ${inSeconds(event.ms_to_go)} to go`);
  if (event.event !== "step") return;
  page.progress.value = event.step / event.steps;
  say(page.status, `step ${event.step} of ${event.steps}, ${inSeconds(event.ms_to_go)} to go`);
  if (event.preview) show(event.preview, "jpeg", "preview");
}

function takeOpening({ stage, fraction, remaining_s: left }) {
  if (isReady) return;
  page.progress.hidden = false;
  page.progress.value = fraction;
  const work = ["build", "measure"].includes(stage) ? "The models are built for this computer" : "The models are opened";
  say(page.route, left === null ? `${work} …` : `${work}, ${inSeconds(1000 * left)} to go`);
}

function showFinished(made) {
  shown = made;
  show(made.base64, "png", made.prompt);
  say(page.status, made.caption);
  page.save.hidden = false;
}

function remember(made) {
  const small = Object.assign(document.createElement("img"), { src: `data:image/png;base64,${made.base64}`, alt: made.prompt });
  const button = Object.assign(document.createElement("button"), { type: "button", title: `${made.prompt}: ${made.caption}` });
  button.append(small);
  button.addEventListener("click", () => isRunning || showFinished(made));
  const item = document.createElement("li");
  item.append(button);
  page.history.prepend(item);
  while (page.history.children.length > MOST_HISTORY) page.history.lastElementChild.remove();
}

function setRunning(value) {
  isRunning = value;
  page.generate.disabled = value;
  page.cancel.hidden = page.progress.hidden = !value;
  page.progress.value = 0;
}

async function draw() {
  if (!isReady || isRunning) return;
  setRunning(true);
  page.save.hidden = true;
  say(page.status, "");
  const { result, error } = await costroute.generate({ prompt: page.prompt.value, max_ms: budget() });
  setRunning(false);
  if (error) {
    if (shown) showFinished(shown);
    else page.image.hidden = true; // a preview is no result
    if (error.code === "cancelled") say(page.status, "Cancelled");
    else sayError(page.status, error);
    return;
  }
  const [{ base64, seed }] = result.images;
  const made = { base64, prompt: result.prompt, caption: `${result.candidate}, ${inSeconds(result.elapsed_ms)}, seed ${seed}` };
  showFinished(made);
  remember(made);
}

async function save() {
  const { result, error } = await costroute.save(shown.base64);
  if (error) sayError(page.status, error);
  else if (result) say(page.status, `saved as ${result}`);
}

async function start() {
  page.form.addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  page.prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    draw();
  });
  page.cancel.addEventListener("click", () => costroute.cancel());
  page.save.addEventListener("click", save);
  page.prompt.addEventListener("input", ask);
  page.time.addEventListener("input", ask);
  costroute.onEvent(take);
  costroute.onOpening(takeOpening);
  sayLimit();
  const { error } = await costroute.ready();
  page.progress.hidden = true;
  if (error) {
    sayError(page.route, error);
    return;
  }
  isReady = true;
  page.generate.disabled = false;
  ask();
}

start();
