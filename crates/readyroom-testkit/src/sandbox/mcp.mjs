// A server of the Model Context Protocol with one tool, `touch`, that makes a file: what a user may have added to a tool.
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const tools = [
  {
    name: 'touch',
    description: 'Makes a file.',
    inputSchema: { type: 'object', properties: { path: { type: 'string' } }, required: ['path'] },
  },
];

const answers = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'own', version: '1.0.0' },
  }),
  ping: () => ({}),
  'tools/list': () => ({ tools }),
  'tools/call': ({ arguments: { path } }) => {
    writeFileSync(path, 'x\n');
    return { content: [{ type: 'text', text: 'made' }] };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) continue;
  const answer = answers[method];
  const error = { code: -32601, message: 'no such method' };
  const rest = answer ? { result: answer(params) } : { error };
  process.stdout.write(JSON.stringify({ jsonrpc: '2.0', id, ...rest }) + '\n');
}
