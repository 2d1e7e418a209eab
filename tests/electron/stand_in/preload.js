// Stands in for Electron's module in the script before the page, which follows these lines.

const require = () => ({
  contextBridge: { exposeInMainWorld: (name, api) => (window[name] = api) },
  ipcRenderer: {
    invoke: async (channel, given) => (await fetch(`/${channel}`, { method: "POST", body: JSON.stringify(given) ?? "" })).json(),
    on: (channel, take) => {
      const source = new EventSource("/events");
      source.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.channel === channel) take({}, message.data);
      };
    },
  },
});
