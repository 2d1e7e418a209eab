const field = (id) => document.getElementById(id);
const client = sessionStorage.client ??= crypto.randomUUID();
let job = null;

const maxMs = () => Math.round(100 * 10 ** (field("time").value / 33.4));
const show = () => { field("shown").textContent = `${(maxMs() / 1000).toFixed(1)} s`; };

const draw = (source, alt) => {
  field("image").src = source;
  field("image").alt = alt;
  field("image").hidden = false;
};

const end = (text) => {
  job = null;
  field("cancel").hidden = true;
  field("status").textContent = text;
};

const call = async (method, path, body) => {
  const answer = await fetch(path, {
    method,
    headers: body && { "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error.message);
  return found;
};

const on = (name, act) => events.addEventListener(name, (event) => {
  const data = JSON.parse(event.data);
  if (data.job === job?.id) act(data);
});
const events = new EventSource(`v1/events?client=${client}`);
on("step", (data) => {
  field("status").textContent = `step ${data.step} of ${data.steps}, ${(data.ms_to_go / 1000).toFixed(1)} s to go`;
  if (data.preview) draw(`data:image/jpeg;base64,${data.preview}`, "");
});
on("done", (data) => {
  draw(data.images[0].url, data.prompt);
  end(`${data.candidate}, ${(data.elapsed_ms / 1000).toFixed(1)} s`);
});
on("failed", (data) => end(data.error.message));
on("cancelled", () => end("cancelled"));

field("time").addEventListener("input", show);
field("cancel").addEventListener("click", () => job && call("DELETE", `v1/jobs/${job.id}`));
field("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  field("status").textContent = "waiting";
  try {
    job = await call("POST", "v1/jobs", { prompt: field("prompt").value, max_ms: maxMs(), preview: true, client });
    field("cancel").hidden = false;
  } catch (error) {
    end(error.message);
  }
});
show();
