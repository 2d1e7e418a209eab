// Stands in for Electron: serves the example's page, and hands its calls to backend.js. Prints its address as one line.

import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const [folder, options] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(folder, name)));
const { Backend } = await load("backend.js");
const { Costroute } = await load("client.js");

const FILES = { "/": "text/html", "/renderer.js": "text/javascript", "/style.css": "text/css" };
const costroute = new Costroute(JSON.parse(options));
const backend = new Backend(costroute);
let events = null;

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname === "/events") {
    events = response.writeHead(200, { "content-type": "text/event-stream" });
    events.flushHeaders();
  } else if (request.method === "POST") {
    const method = pathname.slice(1);
    const given = JSON.parse((await text(request)) || "{}");
    const found = await backend[method](given, (data) => events?.write(`data: ${JSON.stringify(data)}\n\n`));
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(found ?? {}));
  } else if (pathname in FILES) {
    response.writeHead(200, { "content-type": FILES[pathname] });
    createReadStream(path.join(folder, pathname === "/" ? "index.html" : pathname)).pipe(response);
  } else {
    response.writeHead(204).end(); // an icon
  }
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
process.stdin.resume().on("end", async () => {
  await costroute.close();
  process.exit(0);
});
