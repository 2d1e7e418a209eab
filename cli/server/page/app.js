// The page: what happens when the user or the server does something.

import { announce, byId, closeNotice, make, notify, prefersCalm, setText } from "./dom.js";
import { plural, seconds, sentence, spoken } from "./format.js";
import { Comparison } from "./compare.js";
import { setUpDrop } from "./drop.js";
import { Form } from "./form.js";
import { Gallery, keep, remove, removeAll } from "./gallery.js";
import { Jobs } from "./jobs.js";
import { readStart } from "./picture.js";
import { Routing } from "./routing.js";
import { call, randomName } from "./server.js";
import { sayDone, Stage } from "./stage.js";
import { images } from "./store.js";
import { TimeSlider } from "./time.js";
import { setUpVotes, showVotes } from "./votes.js";

const EXAMPLES = ["a red house by a lake at sunset", "two sailboats under a full moon", "a snowy mountain village at night"];
const PROBLEMS = {
  failed: "The server could not open its models; its own output says why.",
  unreachable: "The server does not answer; trying again …",
  invalid_token: "This server has a new token: open the link that it printed.",
};
// How often the server is asked how far it is while it opens.
const LOOK_MS = 500;
// The budget before the user has set one.
const FIRST_MS = 1000;
// A budget that is raised is a little larger than what was said to be needed.
const ROOM = 1.1, HANDLING_MS = 25;

const client = localStorage.client ??= randomName();
let pool = null;

const form = new Form((ms) => { routing.preview(); routing.ask(ms); });
form.maxMs = form.maxMs === undefined ? FIRST_MS : form.maxMs;
const time = new TimeSlider(form.maxMs, () => setTime(time.maxMs));
const routing = new Routing(form, time, { onPin: pin, onUnpin: () => pin(null), onTime: setTime, onRefused: showRefusal });
const stage = new Stage({ defaultSize: () => form.size.width ? form.size : { width: 1, height: 1 } });
const jobs = new Jobs(client, { onLost, onFound: () => setConnected(true) });
const comparison = new Comparison(jobs, {
  ratio: () => (form.size.width ? form.size.width / form.size.height : 1),
  onOpen: () => setComparing(true),
  onClose: (hadFocus) => setComparing(false, hadFocus),
  onVoted: () => { showVotes(); refreshGallery(); },
});
const gallery = new Gallery({ onShow: showKept, onShowJob: showJob, onClear: clearGallery });

function setTime(maxMs) {
  form.pinned = null;
  if (time.maxMs !== maxMs) time.set(maxMs);
  form.maxMs = time.maxMs;
  form.save();
  routing.preview();
  routing.ask(30);
}

/** One candidate for all that follows, whatever time it takes; null leaves it to the time again. */
function pin(candidate) {
  form.pinned = form.pinned === candidate ? null : candidate;
  routing.preview();
  routing.ask(0);
}

/** A route that is refused: what the form asks for cannot be done, with the reason. */
function showRefusal(error) {
  if (form.start && error.details?.param === "init_image") {
    setStart(null);
    notify(`${sentence(error.message)}.`);
    return;
  }
  byId("choice").dataset.fits = "false";
  setText(byId("choice-name"), "No route");
  setText(byId("choice-ms"), "");
  setText(byId("choice-why"), `${sentence(error.message)}.`);
  byId("neighbours").replaceChildren();
}

async function generate() {
  closeNotice();
  try {
    const job = await jobs.submit(form.jobFields);
    if (comparison.isOpen) comparison.close();
    announce(`Started: ${job.candidate ?? "the image"}${job.endsAt ? `, about ${spoken(job.endsAt - performance.now())}` : ""}.`);
    if (!job.isOver) showJob(job);
    byId("stage").scrollIntoView({ block: "nearest", behavior: prefersCalm() ? "auto" : "smooth" });
    refreshGallery();
  } catch (error) {
    refuse(error);
  }
}

/** A job that is refused; a budget that is too small can be raised with one press. */
function refuse(error) {
  const needed = error.details?.needed_ms && error.code === "max_ms_too_small" ? error.details.needed_ms * ROOM + HANDLING_MS : null;
  const act = needed && (() => { setTime(needed); generate(); });
  notify(`${sentence(error.message)}.`, { act, label: needed && `Allow ${seconds(needed)}`, stays: true });
}

function showJob(job) {
  setSelected(job.id);
  stage.showJob(job);
}

async function showKept(id) {
  const kept = await images.get(id);
  if (!kept) return;
  if (comparison.isOpen) comparison.close();
  setSelected(id);
  await stage.showImage(kept);
}

function setSelected(id) {
  sessionStorage.selected = id ?? "";
  gallery.select(id);
}

const refreshGallery = () => gallery.refresh(jobs.active.filter((job) => !comparison.owns(job)));

jobs.addEventListener("change", ({ detail: job }) => {
  if (comparison.owns(job)) return comparison.update(job);
  stage.update(job);
  gallery.update(job);
});

jobs.addEventListener("end", async ({ detail: job }) => {
  routing.ask(300);
  if (comparison.owns(job)) return comparison.update(job);
  const wasShown = stage.job === job || sessionStorage.selected === job.id;
  if (job.state !== "done") {
    if (wasShown) {
      stage.showEnd(job);
      announce(job.state === "cancelled" ? "Cancelled." : `Not done: ${job.error?.message}.`);
    }
    return refreshGallery();
  }
  const [first] = await keep(job);
  if (wasShown && !first) stage.showEnd({ ...job, state: "cancelled" });
  if (wasShown && first) {
    setSelected(first.id);
    await stage.showImage(first);
    sayDone(job);
  }
  await refreshGallery();
});

async function clearGallery() {
  await removeAll();
  setSelected(null);
  stage.showEmpty();
  await refreshGallery();
}

async function deleteShown() {
  const kept = stage.shown, bringBack = await remove(kept);
  setSelected(null);
  stage.showEmpty();
  byId("box").focus();
  await refreshGallery();
  const undo = async () => { await bringBack(); await refreshGallery(); await showKept(kept.id); };
  notify("The image was deleted.", { act: undo, label: "Undo" });
}

function useSettings(settings, undo = {}) {
  form.fill(settings);
  const isKnown = pool?.candidates.some((each) => each.name === settings.candidate);
  form.pinned = isKnown ? settings.candidate : null;
  if (settings.max_ms) { time.set(settings.max_ms); form.maxMs = time.maxMs; form.save(); }
  routing.ask(0);
  const lacks = isKnown ? "" : " Its candidate is not here, so another one will make it.";
  notify(`The image's settings are in the form.${lacks}`, undo);
  byId("prompt").focus();
}

function setStart(start) {
  form.start = start;
  byId("start").hidden = !start;
  if (start) byId("start-image").src = start.data;
  else byId("start-image").removeAttribute("src");
  setText(byId("strength-shown"), `${byId("strength").value} %`);
  routing.ask(0);
}

function setComparing(isComparing, hadFocus) {
  byId("stage").hidden = isComparing;
  if (hadFocus) byId("compare").focus();
}

/** The stream of events broke off; if it was refused, the page may need the token of a server that was started anew. */
async function onLost(isRefused) {
  setConnected(false);
  const error = isRefused && (await call("GET", "v1/pool").catch((found) => found));
  if (error?.code === "invalid_token") showState(PROBLEMS.invalid_token);
}

function setConnected(isConnected) {
  document.body.classList.toggle("lost", !isConnected);
  showState(isConnected ? null : PROBLEMS.unreachable);
}

function showState(text) {
  const ready = pool?.candidates.length ? `${pool.family} · ${plural(pool.candidates.length, "candidate")}` : "opening …";
  setText(byId("state"), text ?? ready);
}

/** The pool, when the server has opened its models; tells how far it is. It is no error to ask early, as /readyz has it. */
async function waitUntilReady() {
  for (;;) {
    const found = await call("GET", "v1/pool").catch(({ code }) => ({ state: code in PROBLEMS ? code : "failed" }));
    if (found.state === "ready" || found.state === "draining") return found;
    const part = found.opening?.fraction ? ` ${Math.round(100 * found.opening.fraction)} %` : "";
    const left = found.opening?.remaining_s ? `, about ${seconds(1000 * found.opening.remaining_s)}` : "";
    const text = PROBLEMS[found.state] ?? `Getting ready: ${found.opening?.stage ?? "opening"}${part}${left}`;
    showState(text);
    setText(byId("empty-text"), text);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

async function start() {
  setUpVotes();
  showVotes();
  stage.showEmpty();
  refreshGallery();
  pool = await waitUntilReady();
  showState();
  form.offerSizes(pool.image_sizes);
  routing.offer(pool.candidates);
  byId("compare").disabled = pool.candidates.length < 2;
  stage.showEmpty();
  routing.ask(0);
  await jobs.resume();
  await pickUp();
}

/** Shows what was shown before the page was loaded again. */
async function pickUp() {
  if (comparison.restore() === true) return;
  const selected = sessionStorage.selected;
  const job = jobs.active.findLast((each) => !comparison.owns(each) && (!selected || each.id === selected));
  if (job) showJob(job);
  else if (selected && !stage.shown) await showKept(selected);
  await refreshGallery();
}

byId("form").addEventListener("submit", (event) => { event.preventDefault(); generate(); });
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId("form").requestSubmit(); }
});
byId("compare").addEventListener("click", () => {
  if (!byId("form").reportValidity()) return;
  comparison.begin(form.jobFields, routing.able);
});
byId("cancel").addEventListener("click", () => stage.job && jobs.cancel(stage.job).catch(refuse));
byId("reuse").addEventListener("click", () => useSettings(stage.shown.settings));
byId("restart").addEventListener("click", async () => setStart(await readStart(stage.shown.blob)));
byId("delete").addEventListener("click", deleteShown);
byId("start-remove").addEventListener("click", () => { setStart(null); byId("prompt").focus(); });
byId("strength").addEventListener("input", () => setText(byId("strength-shown"), `${byId("strength").value} %`));
byId("notice-close").addEventListener("click", closeNotice);
byId("examples").append(...EXAMPLES.map((prompt) => make("button", { type: "button", textContent: prompt })));
byId("examples").addEventListener("click", (event) => {
  if (!event.target.matches("button")) return;
  byId("prompt").value = event.target.textContent;
  byId("prompt").dispatchEvent(new Event("input"));
  byId("prompt").focus();
});
byId("route").open = localStorage.routeOpen ? localStorage.routeOpen === "true" : matchMedia("(min-width: 60rem)").matches;
byId("route").addEventListener("toggle", () => { localStorage.routeOpen = byId("route").open; });
document.addEventListener("visibilitychange", () => {
  if (document.hidden && !jobs.active.length) jobs.events.close();
  else if (!document.hidden && pool) jobs.resume().then(refreshGallery, () => {});
});
setUpDrop({ onSettings: useSettings, onStart: setStart });
start().catch((error) => { showState(error.message); setText(byId("empty-text"), error.message); });
