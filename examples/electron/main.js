// The main process: one window, and one server that lives as long as this program.

import { writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { app, BrowserWindow, dialog, ipcMain } from "electron";

import { Backend } from "./backend.js";
import { Costroute } from "./client.js";

const here = path.dirname(fileURLToPath(import.meta.url));
const server = new Costroute({ command: findCommand() });
const backend = new Backend(server);

/** Beside a packed application the folder that PyInstaller makes, else the command as it is installed. */
function findCommand() {
  if (app.isPackaged) return path.join(process.resourcesPath, "costroute-rt", "costroute-rt");
  return process.env.COSTROUTE_COMMAND || "costroute-rt";
}

/** Sends data to a page, if it is still there. */
function sendTo(page, channel) {
  return (data) => page.isDestroyed() || page.send(channel, data);
}

ipcMain.handle("ready", ({ sender }) => backend.ready(sendTo(sender, "opening")));
ipcMain.handle("route", (_, job) => backend.route(job));
ipcMain.handle("cancel", () => backend.cancel());
ipcMain.handle("generate", ({ sender }, job) => backend.generate(job, sendTo(sender, "event")));
ipcMain.handle("save", async ({ sender }, base64) => {
  const { canceled, filePath } = await dialog.showSaveDialog(BrowserWindow.fromWebContents(sender), { defaultPath: "image.png" });
  if (canceled) return { result: null };
  try {
    await writeFile(filePath, Buffer.from(base64, "base64"));
    return { result: filePath };
  } catch (error) {
    return { error: { message: error.message, code: error.code } };
  }
});

app.whenReady().then(() => {
  const window = new BrowserWindow({
    width: 960,
    height: 720,
    minWidth: 420,
    minHeight: 480,
    webPreferences: { preload: path.join(here, "preload.cjs") },
  });
  window.removeMenu();
  window.webContents.setWindowOpenHandler(() => ({ action: "deny" }));
  window.webContents.on("will-navigate", (event) => event.preventDefault());
  window.loadFile(path.join(here, "index.html"));
});

app.on("window-all-closed", () => app.quit());
app.on("will-quit", () => server.close()); // the end of this process alone would end it too
