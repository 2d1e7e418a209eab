// What this browser keeps: images with their settings, and votes (IndexedDB).

const NAME = "costroute", VERSION = 1;
let opened;

const open = () => opened ??= new Promise((resolve, reject) => {
  const request = indexedDB.open(NAME, VERSION);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("images", { keyPath: "id" }).createIndex("made", "made");
    request.result.createObjectStore("votes", { keyPath: "id" }).createIndex("comparison", "comparison");
  };
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** Runs `act` on an object store; resolves with the result of the request that it returns, when all is written. */
const within = async (name, mode, act) => {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(name, mode);
    const request = act(transaction.objectStore(name));
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
};

export const images = {
  put: (image) => within("images", "readwrite", (store) => store.put(image)),
  get: (id) => within("images", "readonly", (store) => store.get(id)),
  delete: (id) => within("images", "readwrite", (store) => store.delete(id)),
  clear: () => within("images", "readwrite", (store) => store.clear()),
  count: () => within("images", "readonly", (store) => store.count()),
  /** The newest, without reading the others. */
  newest: (most) => within("images", "readonly", (store) => {
    const found = { result: [] };
    store.index("made").openCursor(null, "prev").onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor || found.result.length >= most) return;
      found.result.push(cursor.value);
      cursor.continue();
    };
    return found;
  }),
};

export const votes = {
  all: () => within("votes", "readonly", (store) => store.getAll()),
  clear: () => within("votes", "readwrite", (store) => store.clear()),
  /** Replaces the votes of one comparison. */
  replace: (comparison, rows) => within("votes", "readwrite", (store) => {
    store.index("comparison").openKeyCursor(comparison).onsuccess = ({ target: { result: cursor } }) => {
      if (cursor) {
        store.delete(cursor.primaryKey);
        cursor.continue();
      } else {
        for (const row of rows) store.put(row);
      }
    };
  }),
};
