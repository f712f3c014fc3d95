/** Origins of values in words, as approval requests and the ledger name them. */

export const ORIGINS: Record<string, string> = {
  person: "the person said it",
  own: "from the person's own record",
  endorsed: "from a document that the person named",
  record: "from a record of what the person asked about",
  known: "from another record",
  outside: "from untrusted content",
  nowhere: "the agent chose it",
};

/** Origins that neither the person nor a record vouches for. */
export const UNTRUSTED = new Set(["outside", "nowhere"]);
