// Images that are dropped, pasted or chosen: a PNG with settings gives its settings, any other image is where the next one starts.

import { byId, notify } from "./dom.js";
import { readSettings, readStart } from "./picture.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];

const imageIn = (transfer) => [...(transfer?.files ?? [])].find((file) => TYPES.includes(file.type));
const hasFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

export const setUpDrop = ({ onSettings, onStart }) => {
  const start = async (file) => {
    try {
      onStart(await readStart(file));
    } catch {
      notify(`${file.name || "This file"} cannot be read as an image.`);
    }
  };
  const take = async (file) => {
    const settings = await readSettings(file);
    if (!settings) return start(file);
    onSettings(settings, { act: () => start(file), label: "Start from the image instead" });
  };
  setUpTargets(take);
  byId("choose-file").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", async () => {
    const [file] = byId("file").files;
    byId("file").value = "";
    if (file) await start(file); // the button says so: the image itself is wanted
  });
};

const setUpTargets = (take) => {
  const veil = byId("drop");
  let depth = 0;
  const show = (change) => { depth = Math.max(0, depth + change); veil.hidden = depth === 0; };
  addEventListener("dragenter", (event) => { if (hasFile(event)) { event.preventDefault(); show(1); } });
  addEventListener("dragover", (event) => { if (hasFile(event)) event.preventDefault(); });
  addEventListener("dragleave", (event) => { if (hasFile(event)) show(-1); });
  addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    show(-depth);
    const file = imageIn(event.dataTransfer);
    if (file) take(file);
    else notify("Drop a PNG, JPEG or WebP image.");
  });
  addEventListener("paste", (event) => {
    const file = imageIn(event.clipboardData);
    if (file) take(file);
  });
};
