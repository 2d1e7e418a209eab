// Stands in for Electron's module: keeps what the main process registers, and serves its page to a browser.

import { EventEmitter } from "node:events";
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { text } from "node:stream/consumers";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const handlers = new Map();
let events = null; // the answer that carries what is sent to the page

const sender = {
  isDestroyed: () => false,
  send: (channel, data) => events?.write(`data: ${JSON.stringify({ channel, data })}\n\n`),
};

export const ipcMain = { handle: (channel, handler) => handlers.set(channel, handler) };

export const app = Object.assign(new EventEmitter(), {
  isPackaged: false,
  whenReady: () => Promise.resolve(),
  quit: () => app.emit("will-quit"),
});

export const dialog = { showSaveDialog: async () => ({ canceled: false, filePath: process.env.SAVE_AS }) };

export class BrowserWindow {
  static fromWebContents = () => null;
  webContents = Object.assign(new EventEmitter(), { setWindowOpenHandler: () => {} });

  constructor({ webPreferences }) {
    this.preload = webPreferences.preload;
  }

  removeMenu() {}

  loadFile(file) {
    const server = createServer((request, response) => answer(path.dirname(file), request, response));
    server.listen(0, "127.0.0.1", () => {
      const url = `http://127.0.0.1:${server.address().port}/${path.basename(file)}`;
      console.log(JSON.stringify({ url, preload: this.preload }));
    });
    process.stdin.resume().on("end", () => {
      server.close();
      server.closeAllConnections();
      app.emit("window-all-closed");
    });
  }
}

async function answer(folder, request, response) {
  const name = new URL(request.url, "http://localhost").pathname.slice(1);
  if (name === "events") {
    events = response.writeHead(200, { "content-type": "text/event-stream" });
    events.flushHeaders();
  } else if (request.method === "POST") {
    const given = JSON.parse((await text(request)) || "null");
    const found = await handlers.get(name)({ sender }, given ?? undefined);
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(found ?? null));
  } else if (path.extname(name) in TYPES) {
    response.writeHead(200, { "content-type": TYPES[path.extname(name)] });
    createReadStream(path.join(folder, path.basename(name))).pipe(response);
  } else {
    response.writeHead(204).end(); // an icon
  }
}
