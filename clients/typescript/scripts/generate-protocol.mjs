// Writes src/protocol.ts, the types of the JSON frames, from the one definition
// of the protocol. With --check it writes nothing and fails if they differ.
//
// It reads only the subset of protobuf that frames.proto uses: messages of
// scalar, message, repeated and map fields, one oneof named `body`, and
// comments above each. Anything else is an error, not a guess.
import { readFileSync, writeFileSync } from 'node:fs';

const proto = new URL('../../../proto/rejoin/v1/frames.proto', import.meta.url);
const output = new URL('../src/protocol.ts', import.meta.url);

const SCALARS = {
  string: 'string',
  bool: 'boolean',
  uint32: 'number',
  int64: 'number',
  uint64: 'number',
};
/** Renamed where the plain name is taken in JavaScript. */
const RENAMED = { Error: 'ErrorBody', Message: 'WireMessage' };
const name = (type) => RENAMED[type] ?? type;

function parse(text) {
  const messages = [];
  let comment = [];
  let current;
  let inBody = false;
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('syntax ') || line.startsWith('package ')) {
      comment = [];
    } else if (line.startsWith('//')) {
      comment.push(line.slice(2).trim());
    } else if (line.startsWith('message ')) {
      const [, type, empty] = /^message (\w+) \{(\})?$/.exec(line);
      current = { type, comment, fields: [], bodies: [] };
      messages.push(current);
      comment = [];
      if (empty) current = undefined;
    } else if (line === 'oneof body {') {
      inBody = true;
    } else if (line === '}') {
      if (inBody) inBody = false;
      else current = undefined;
    } else {
      const field =
        /^(?:(repeated) )?(map<uint32, string>|\w+) (\w+) = \d+;$/.exec(line);
      if (!field || !current) throw new Error(`not understood: ${line}`);
      const [, repeated, type, key] = field;
      (inBody ? current.bodies : current.fields).push({ repeated, type, key, comment });
      comment = [];
    }
  }
  return messages;
}

const doc = (lines, indent = '') => `${indent}/** ${lines.join(' ')} */\n`;

function tsType(field) {
  let type = SCALARS[field.type] ?? name(field.type);
  if (field.type.startsWith('map<')) type = 'Record<string, string>';
  return field.repeated ? `${type}[]` : type;
}

function interfaceOf(message) {
  let text = doc(message.comment) + `export interface ${name(message.type)} {\n`;
  for (const field of message.fields) {
    text += doc(field.comment, '  ');
    if (field.type === 'bytes') {
      text += `  ${field.key}?: unknown;\n`;
      text += doc(['The payload, where its bytes are not JSON.'], '  ');
      text += `  ${field.key}_base64?: string;\n`;
    } else {
      text += `  ${field.key}?: ${tsType(field)};\n`;
    }
  }
  return text.replace(/\{\n$/, '{') + '}\n';
}

function unionOf(message) {
  let text = doc(message.comment) + `export interface ${message.type} {\n`;
  for (const field of message.fields) {
    text += doc(field.comment, '  ') + `  ${field.key}?: ${tsType(field)};\n`;
  }
  for (const body of message.bodies) {
    text += doc(body.comment, '  ') + `  ${body.key}?: ${name(body.type)};\n`;
  }
  const keys = message.bodies.map((body) => `  | '${body.key}'`).join('\n');
  return `${text}}\n\n${doc([`What a ${message.type} says: it has exactly one of these.`])}export type ${message.type}Key =\n${keys};\n`;
}

const header = `// Generated from proto/rejoin/v1/frames.proto by scripts/generate-protocol.mjs.
// Do not edit: change the definition and run \`npm run generate\`.
//
// Every field is optional: on the wire, empty means the same as left out.
`;

const messages = parse(readFileSync(proto, 'utf8'));
const text = [header, ...messages.map((m) => (m.bodies.length ? unionOf(m) : interfaceOf(m)))].join('\n');

if (process.argv.includes('--check')) {
  if (readFileSync(output, 'utf8') !== text) {
    console.error('src/protocol.ts is not what frames.proto says: run `npm run generate`');
    process.exit(1);
  }
} else {
  writeFileSync(output, text);
}
