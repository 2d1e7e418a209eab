// The server that the tests ask, as tests/cli/server/test_node.py started it.

export const url = process.env.COSTROUTE_URL;
export const token = process.env.COSTROUTE_TOKEN;
export const prompt = "a red house by a lake";

/** A PNG file of 1 x 1 pixel, red. */
export const png = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC",
  "base64",
);

/** How many requests to addresses that contain `part` the server has answered. */
export async function requestsOf(part) {
  const answer = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  const lines = (await answer.text()).split("\n");
  const counts = lines.filter((line) => line.startsWith("costroute_requests_total") && line.includes(part));
  return counts.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** Whether the bytes, or the base64 of them, are a PNG file. */
export function isPng(data) {
  const bytes = typeof data === "string" ? Buffer.from(data, "base64") : Buffer.from(data);
  return bytes.subarray(1, 4).toString("latin1") === "PNG";
}

/** The packed pixels of a PNG file in base64, without its settings, which name times. */
export function pixelsOf(base64) {
  const bytes = Buffer.from(base64, "base64");
  return bytes.subarray(bytes.indexOf("IDAT")).toString("base64");
}
