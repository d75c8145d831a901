// What the four APIs look like on the wire, as far as the faults need it: error bodies, and where an answer's finish
// marker stands, so that a stream can be cut before it.

const GEMINI_STATUS = {
  400: "INVALID_ARGUMENT",
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  429: "RESOURCE_EXHAUSTED",
  500: "INTERNAL",
  503: "UNAVAILABLE",
};
const ANTHROPIC_TYPE = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  500: "api_error",
  529: "overloaded_error",
};
const OPENAI_TYPE = {
  401: ["invalid_request_error", "invalid_api_key"],
  404: ["invalid_request_error", "model_not_found"],
  429: ["requests", "rate_limit_exceeded"],
  500: ["server_error", null],
};
const MESSAGE = {
  400: "mock: bad request",
  401: "mock: Incorrect API key provided",
  403: "mock: forbidden",
  404: "mock: the model does not exist",
  429: "mock: Rate limit reached",
  500: "mock: internal error",
  529: "mock: Overloaded",
};

/** What every answer is said to have used. Never nothing: tools take that as the sign that no model was asked. */
export const USAGE = {
  chat: { prompt_tokens: 1000, completion_tokens: 100 },
  responses: { input_tokens: 1000, output_tokens: 100 },
  anthropic: { input_tokens: 1000, output_tokens: 100 },
  gemini: { promptTokenCount: 1000, candidatesTokenCount: 100 },
};

/** The body with which a provider of this API answers `code`. */
export function errorBody(api, code) {
  const message = MESSAGE[code] ?? `mock: status ${code}`;
  if (api === "gemini") return { error: { code, message, status: GEMINI_STATUS[code] ?? "UNKNOWN" } };
  if (api === "anthropic") return { type: "error", error: { type: ANTHROPIC_TYPE[code] ?? "api_error", message } };
  const [type, error] = OPENAI_TYPE[code] ?? ["invalid_request_error", null];
  return { error: { message, type, param: null, code: error } };
}

/**
 * A whole event stream without its end: every event up to the one that says that the answer's text is complete. For
 * Gemini, whose last event carries text and marker together, the event without the marker.
 */
export function withoutFinish(api, stream) {
  const kept = [];
  for (const event of stream.split("\n\n")) {
    if (event.trim() === "") continue;
    const line = event.split("\n").find((line) => line.startsWith("data: "));
    const data = line?.slice("data: ".length) ?? "";
    if (data === "[DONE]") break;
    const json = data === "" ? {} : JSON.parse(data);
    if (api === "chat" && json.choices?.some((choice) => choice.finish_reason)) break;
    if (api === "responses" && /^response\.(output_text\.done|completed)$/.test(json.type)) break;
    if (api === "anthropic" && json.type === "content_block_stop") break;
    if (api === "gemini" && json.candidates?.some((candidate) => candidate.finishReason)) {
      for (const candidate of json.candidates) delete candidate.finishReason;
      delete json.usageMetadata;
      kept.push(`data: ${JSON.stringify(json)}`);
      break;
    }
    kept.push(event);
  }
  return kept.map((event) => `${event}\n\n`).join("");
}

/**
 * A chunk size near `wanted` that tears no character in two: aimock cuts text by UTF-16 units, and half of a pair is
 * no text for a strict client.
 */
export function wholeChunks(text, wanted) {
  const low = (at) => {
    const unit = text.charCodeAt(at);
    return unit >= 0xdc00 && unit <= 0xdfff;
  };
  for (let size = Math.max(1, wanted); size < text.length; size++) {
    let tears = false;
    for (let at = size; at < text.length && !tears; at += size) tears = low(at);
    if (!tears) return size;
  }
  return Math.max(1, text.length);
}
