// Numbers as people read and hear them.

const digits = (seconds) => (seconds < 1 ? 2 : seconds < 20 ? 1 : 0);

/** 0.34 s, 2.4 s, 24 s, 3 min 5 s. */
export const seconds = (ms) => {
  const value = Math.max(0, ms) / 1000;
  if (value < 90) return `${value.toFixed(digits(value))} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
};

/** The same, to be spoken. */
export const spoken = (ms) => {
  const value = Math.max(0, ms) / 1000;
  if (value < 90) return `${value.toFixed(digits(value))} seconds`;
  return `${Math.floor(value / 60)} minutes ${Math.round(value % 60)} seconds`;
};

/** A quality or its error: scores of most metrics are below 1, those of a few are tens. */
export const quality = (value) => value.toFixed(Math.abs(value) >= 10 ? 1 : 3);

export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

/** The server's sentences, without more digits than anybody reads: 399.434 ms becomes 399 ms. */
export const rounded = (text) => text.replace(/\d+\.\d+(?= ms)/g, (number) => Math.round(Number(number)));

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
