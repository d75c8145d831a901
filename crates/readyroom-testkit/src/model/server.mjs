// The model server of a test. In front stands an HTTP server that reads each request, chooses the next step of the
// script whose word the conversation holds, and writes a journal line. Answers and tool calls are made by aimock,
// which speaks all four APIs; what it can't do (silence, a torn stream, an end without a finish marker) is done here
// to the stream that it made.
//
// Arguments: the path of aimock's module. Commands come as JSON lines on stdin, facts go as JSON lines to stdout. The
// process ends when stdin does, so it can't outlive the test.

import http from "node:http";
import readline from "node:readline";
import { pathToFileURL } from "node:url";
import { answersIn, apiOf, conversation, isSide, streams, wordOf } from "./conversation.mjs";
import { USAGE, errorBody, wholeChunks, withoutFinish } from "./wire.mjs";

const { LLMock } = await import(pathToFileURL(process.argv[2]));
const aimock = new LLMock({ port: 0, host: "127.0.0.1", journalMaxEntries: 1 });
await aimock.start();

const CHUNK = 16 * 1024;
const tell = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);

/** Word -> { steps, next }. */
const scripts = new Map();
let otherwise = { steps: [{ say: "ok" }], next: 0 };
let requests = 0;

const nextOf = (script) => script.steps[Math.min(script.next++, script.steps.length - 1)];

/** Resolves after `ms`, or at once when the client has gone; true where it is still there. */
const pause = (ms, response) =>
  new Promise((resolve) => {
    if (response.destroyed) return resolve(false);
    const gone = () => {
      clearTimeout(timer);
      resolve(false);
    };
    const timer = setTimeout(() => {
      response.off("close", gone);
      resolve(true);
    }, ms);
    response.once("close", gone);
  });

/** Asks aimock what `seen` asked, with `answer` as its answer; gives its response to read from. */
function ask(seen, answer, pace, response) {
  const context = `step-${seen.id}-${Math.random().toString(36).slice(2)}`;
  if (answer) {
    const response = { ...answer, usage: USAGE[seen.api] };
    aimock.addFixture({ match: { context }, response, ...pace });
  }
  return new Promise((resolve, reject) => {
    const headers = { ...seen.headers, "x-aimock-context": context };
    for (const name of ["accept-encoding", "connection", "expect", "host", "keep-alive", "transfer-encoding"]) {
      delete headers[name];
    }
    const raw = answer ? brief(seen) : seen.raw;
    headers["content-length"] = raw.length;
    const { method, path } = seen;
    const request = http.request(
      { host: "127.0.0.1", port: aimock.port, method, path, headers, agent: false },
      resolve,
    );
    request.on("error", reject);
    response.once("close", () => {
      request.destroy();
      const fixtures = aimock.getFixtures();
      const at = fixtures.findIndex((fixture) => fixture.match.context === context);
      if (at >= 0) fixtures.splice(at, 1);
    });
    request.end(raw);
  });
}

/**
 * What `seen` asked without what aimock has no use for when it is told its answer: a tool's instructions and its tools
 * are most of a request, and reading them once more would make the model slower than it is said to be.
 */
function brief({ body, raw }) {
  if (body === null || typeof body !== "object") return raw;
  const { tools, system, instructions, systemInstruction, ...rest } = body;
  return Buffer.from(JSON.stringify(rest));
}

async function pass(seen, answer, pace, response) {
  send(await ask(seen, answer, pace, response), response);
}

function send(upstream, response) {
  const headers = { ...upstream.headers };
  // These two are between us and aimock; what the client gets is its own connection's affair.
  delete headers.connection;
  delete headers["keep-alive"];
  response.writeHead(upstream.statusCode, headers);
  upstream.pipe(response);
}

/** The answer's stream up to its finish marker; null where the client did not ask for a stream. */
async function torn(seen, text, response) {
  const upstream = await ask(seen, { content: text }, { chunkSize: wholeChunks(text, CHUNK) }, response);
  const parts = [];
  for await (const part of upstream) parts.push(part);
  if (!seen.streams) return null;
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  response.flushHeaders();
  return withoutFinish(seen.api, Buffer.concat(parts).toString("utf8"));
}

const callsOf = (calls) => calls.map((call) => ({ name: call.name, arguments: JSON.stringify(call.arguments) }));

const STEPS = {
  say: (text, seen, response) => pass(seen, { content: text }, { chunkSize: wholeChunks(text, CHUNK) }, response),
  slow: ({ text, chunk, delay_ms }, seen, response) =>
    pass(seen, { content: text }, { chunkSize: wholeChunks(text, chunk), latency: delay_ms }, response),
  call: (call, seen, response) => pass(seen, { toolCalls: callsOf([call]) }, { chunkSize: CHUNK }, response),
  calls: (calls, seen, response) => pass(seen, { toolCalls: callsOf(calls) }, { chunkSize: CHUNK }, response),
  say_and_call: ({ text, name, arguments: given }, seen, response) =>
    pass(seen, { content: text, toolCalls: callsOf([{ name, arguments: given }]) }, { chunkSize: CHUNK }, response),
  status: ({ code, headers, body }, seen, response) => {
    response.writeHead(code, { "content-type": "application/json", ...headers });
    response.end(body === "" ? JSON.stringify(errorBody(seen.api, code)) : body);
  },
  // From the request's arrival to the answer, whatever that takes to make.
  delay: async ([ms, step], seen, response) => {
    const waited = pause(ms - (performance.now() - seen.at), response);
    if (step.say === undefined) {
      if (await waited) await run(step, seen, response);
      return;
    }
    const made = ask(seen, { content: step.say }, { chunkSize: wholeChunks(step.say, CHUNK) }, response);
    // It fails when the client goes, which the pause tells.
    made.catch(() => {});
    if (await waited) send(await made, response);
  },
  break: async ({ after_text }, seen, response) => {
    const stream = await torn(seen, after_text, response);
    if (stream === null) return response.destroy();
    // The bytes must be on their way before the reset overtakes them.
    response.write(stream, () => response.destroy());
  },
  no_finish: async ({ text }, seen, response) => {
    const stream = await torn(seen, text, response);
    if (stream === null) response.destroy();
    else response.end(stream);
  },
  by_answers: (steps, seen, response) => {
    const answers = answersIn(seen.api, seen.body);
    return run(steps[Math.min(answers, steps.length - 1)], seen, response);
  },
  hang: () => {},
  hang_after: async ({ text }, seen, response) => {
    const stream = await torn(seen, text, response);
    if (stream !== null) response.write(stream);
  },
};

async function run(step, seen, response) {
  const [kind, data] = typeof step === "string" ? [step, null] : Object.entries(step)[0];
  await STEPS[kind](data, seen, response);
}

async function answer(request, response) {
  const at = performance.now();
  const parts = [];
  for await (const part of request) parts.push(part);
  const raw = Buffer.concat(parts);
  let body = raw.toString("utf8");
  try {
    body = JSON.parse(body);
  } catch {
    // Not JSON: the journal keeps the text.
  }
  const { method, url: path, headers } = request;
  const api = apiOf(method, path);
  const seen = { id: requests++, at, method, path, headers, raw, body, api, streams: streams(api, path, body) };
  const said = api ? conversation(api, body) : { system: "", users: [] };
  const side = api !== null && isSide(said);
  const word = wordOf([...scripts.keys()], said.users);
  let step;
  if (api && !side) step = nextOf(scripts.get(word) ?? otherwise);
  const { id } = seen;
  tell({ request: { id, method, path, headers, body, side, word: word ?? null, at: Date.now() } });
  response.once("close", () => tell({ ended: { id, whole: response.writableFinished } }));
  if (step) await run(step, seen, response);
  else if (api) await run({ say: "ok" }, seen, response);
  else await pass(seen, null, {}, response);
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => {
    if (!response.destroyed) tell({ trouble: String(error?.stack ?? error) });
    response.destroy();
  });
});
// A client's idle connection must never be closed under its next request.
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.headersTimeout = 0;
server.listen(0, "127.0.0.1", () => tell({ listening: server.address().port }));

const commands = readline.createInterface({ input: process.stdin, crlfDelay: Infinity });
commands.on("line", (line) => {
  const command = JSON.parse(line);
  if (command.on) scripts.set(command.on.word, { steps: command.on.steps, next: 0 });
  if (command.otherwise) otherwise = { steps: command.otherwise.steps, next: 0 };
  if (command.forget) scripts.clear();
  tell({ done: command.id });
});
commands.on("close", () => process.exit(0));
