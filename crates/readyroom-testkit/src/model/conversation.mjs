// Reads what a tool asked of the model, whichever of the four APIs it speaks: which API, what the person said, and
// whether it is a side request that the tool makes by itself.

const flat = (content) => {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content
    .filter((part) => typeof part === "string" || typeof part?.text === "string")
    .map((part) => (typeof part === "string" ? part : part.text))
    .join("\n");
};

/** The API that a path belongs to, or null where the request asks for no answer of a model. */
export function apiOf(method, path) {
  if (method !== "POST") return null;
  const bare = path.split("?")[0];
  if (bare.endsWith("/chat/completions")) return "chat";
  if (bare.endsWith("/responses")) return "responses";
  if (bare.endsWith("/v1/messages")) return "anthropic";
  if (bare.endsWith(":generateContent") || bare.endsWith(":streamGenerateContent")) return "gemini";
  return null;
}

/** Whether the client wants a stream of events. */
export function streams(api, path, body) {
  return api === "gemini" ? path.includes(":streamGenerateContent") : body?.stream === true;
}

/** The system text, and each message of the user's in order, without tool results. */
export function conversation(api, body) {
  const users = [];
  const system = [];
  if (api === "gemini") {
    system.push(flat(body?.systemInstruction?.parts));
    for (const message of body?.contents ?? []) {
      if ((message.role ?? "user") === "user") users.push(flat(message.parts));
    }
  } else {
    if (api === "anthropic") system.push(flat(body?.system));
    if (api === "responses") {
      system.push(flat(body?.instructions));
      if (typeof body?.input === "string") users.push(body.input);
    }
    const messages = api === "responses" ? body?.input : body?.messages;
    for (const message of Array.isArray(messages) ? messages : []) {
      if (message.role === "user") users.push(flat(message.content));
      if (message.role === "system" || message.role === "developer") system.push(flat(message.content));
    }
  }
  return { system: system.join("\n"), users: users.filter((text) => text !== "") };
}

/** How many answers of the model's the conversation holds; calls of tools are such. */
export function answersIn(api, body) {
  const items = { gemini: body?.contents, responses: body?.input }[api] ?? body?.messages;
  if (!Array.isArray(items)) return 0;
  return items.filter((item) => ["assistant", "model"].includes(item.role) || item.type === "function_call").length;
}

// Requests that tools make beside the conversation. They are answered, but they advance no script.
const SIDE_SYSTEM = [
  /title generator/i,
  /generate a (concise|short|brief)[^\n]*title/i,
  /isNewTopic/,
  /generates? concise, one-line git commit messages/i,
];
const SIDE_USER = [/^\*Briefly\* summarize this partial conversation/, /^Analyze \*only\* the content and structure/];

/** Whether this is such a request. */
export function isSide({ system, users }) {
  const last = users.at(-1) ?? "";
  return SIDE_SYSTEM.some((pattern) => pattern.test(system)) || SIDE_USER.some((pattern) => pattern.test(last));
}

/**
 * The registered word that the newest user message with any of them holds; where it holds several, the one that stands
 * last in it, and of two at one place the longer. Undefined where there is none.
 */
export function wordOf(words, users) {
  for (const text of [...users].reverse()) {
    let found;
    let at = -1;
    for (const word of words) {
      const index = text.lastIndexOf(word);
      if (index > at || (index === at && index >= 0 && word.length > found.length)) {
        found = word;
        at = index;
      }
    }
    if (found !== undefined) return found;
  }
  return undefined;
}
