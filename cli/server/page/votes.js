// Votes between two candidates, in the form of the table that `fit-router --votes` reads.

import { byId, download, setText } from "./dom.js";
import { plural } from "./format.js";
import { votes } from "./store.js";

const COLUMNS = ["prompt", "candidate_a", "candidate_b", "winner", "seed", "voted_at"];

/** The rows of one choice among candidates: the chosen one against each other one, or a tie of every pair. */
export const saveVotes = ({ id, prompt, seed }, candidates, winner) => {
  const all = candidates.flatMap((first, place) => candidates.slice(place + 1).map((second) => [first, second]));
  const pairs = winner === null ? all : all.filter((pair) => pair.includes(winner));
  const voted_at = new Date().toISOString();
  return pairs.map(([candidate_a, candidate_b], place) => ({
    id: `${id}:${place}`, comparison: id, prompt, candidate_a, candidate_b, winner: winner ?? "tie", seed, voted_at,
  }));
};

const quote = (value) => (/[",\r\n;\t]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** The table as CSV. */
export const toCsv = (rows) => {
  const lines = [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))];
  return lines.map((line) => `${line.map(quote).join(",")}\n`).join("");
};

/** How many votes there are, and what can be done with them. */
export const showVotes = async () => {
  const rows = await votes.all();
  byId("votes").hidden = !rows.length;
  const prompts = new Set(rows.map((row) => row.prompt)).size;
  setText(byId("votes-count"), `${plural(rows.length, "vote")} on ${plural(prompts, "prompt")}.`);
};

export const setUpVotes = () => {
  byId("votes-download").addEventListener("click", async () => {
    download("votes.csv", new Blob([toCsv(await votes.all())], { type: "text/csv" }));
  });
  byId("votes-clear").addEventListener("click", async () => {
    if (!confirm("Delete all votes that this browser keeps?")) return;
    await votes.clear();
    await showVotes();
  });
};
