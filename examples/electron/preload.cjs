// What the page may do: no more than this.

const { contextBridge, ipcRenderer } = require("electron");

contextBridge.exposeInMainWorld("costroute", {
  ready: () => ipcRenderer.invoke("ready"),
  route: (job) => ipcRenderer.invoke("route", job),
  generate: (job) => ipcRenderer.invoke("generate", job),
  cancel: () => ipcRenderer.invoke("cancel"),
  save: (base64) => ipcRenderer.invoke("save", base64),
  onEvent: (take) => ipcRenderer.on("event", (_, data) => take(data)),
  onOpening: (take) => ipcRenderer.on("opening", (_, data) => take(data)),
});
