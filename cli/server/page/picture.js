// Image files: the settings in a PNG, and images to start from.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const TEXT_CHUNKS = ["tEXt", "zTXt", "iTXt"];
const MOST_SIDE = 1536, SMALL_SIDE = 64;

const inflate = async (bytes) => {
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
};
const latin1 = (bytes) => new TextDecoder("latin1").decode(bytes);

/** The text of one chunk: keyword, then as its kind says, plain or compressed. */
const readText = async (kind, data) => {
  const end = data.indexOf(0);
  const key = latin1(data.subarray(0, end));
  if (kind === "tEXt") return [key, latin1(data.subarray(end + 1))];
  if (kind === "zTXt") return [key, latin1(await inflate(data.subarray(end + 2)))];
  const isPacked = data[end + 1] === 1;
  const language = data.indexOf(0, end + 3);
  const text = data.subarray(data.indexOf(0, language + 1) + 1);
  return [key, new TextDecoder().decode(isPacked ? await inflate(text) : text)];
};

/** The texts of a PNG by keyword; empty for other files. */
export const readTexts = async (bytes) => {
  const texts = {};
  if (SIGNATURE.some((byte, place) => bytes[place] !== byte)) return texts;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at), kind = latin1(bytes.subarray(at + 4, at + 8));
    if (at + 12 + length > bytes.length) break;
    if (TEXT_CHUNKS.includes(kind)) {
      const [key, text] = await readText(kind, bytes.subarray(at + 8, at + 8 + length)).catch(() => ["", ""]);
      texts[key] ??= text;
    }
    at += 12 + length;
  }
  return texts;
};

const number = (text) => (text === undefined ? undefined : Number(text));

/** What AUTOMATIC1111's web UI and its kin write: prompt, negative prompt, then `Key: value` pairs. */
const readParameters = (text) => {
  const lines = text.split("\n");
  const pairs = Object.fromEntries([...lines.pop().matchAll(/([\w ]+): ([^,]+)/g)].map(([, key, value]) => [key.trim(), value.trim()]));
  const cut = lines.findIndex((line) => line.startsWith("Negative prompt: "));
  const [width, height] = (pairs.Size ?? "").split("x").map(Number);
  return {
    prompt: lines.slice(0, cut < 0 ? lines.length : cut).join("\n"),
    negative_prompt: cut < 0 ? null : lines.slice(cut).join("\n").slice("Negative prompt: ".length),
    seed: number(pairs.Seed),
    candidate: pairs.Model,
    width,
    height,
  };
};

/** The settings that a PNG was made with, ours or another program's; null if it has none. */
export const readSettings = async (file) => {
  const texts = await readTexts(new Uint8Array(await file.arrayBuffer()));
  try {
    const found = texts.costroute ? JSON.parse(texts.costroute) : texts.parameters ? readParameters(texts.parameters) : null;
    return found && typeof found.prompt === "string" ? found : null;
  } catch {
    return null;
  }
};

const shrink = (bitmap, side) => {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
};

const toDataUrl = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

/** An image to start from: `data` is sent with jobs; `small` stands for it in routes, which only need to know that there is one. */
export const readStart = async (file) => {
  const bitmap = await createImageBitmap(file);
  const data = await toDataUrl(await shrink(bitmap, MOST_SIDE).convertToBlob({ type: "image/png" }));
  const small = await toDataUrl(await shrink(bitmap, SMALL_SIDE).convertToBlob({ type: "image/jpeg" }));
  bitmap.close();
  return { data, small };
};

/** A small copy for the gallery. */
export const makeThumb = async (blob) => {
  const bitmap = await createImageBitmap(blob);
  const thumb = await shrink(bitmap, 320).convertToBlob({ type: "image/webp", quality: 0.85 });
  bitmap.close();
  return thumb;
};
