// Prints what the client adds to a web page, minified and gzipped, and fails
// above the goal of 15 kB.
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const GOAL_BYTES = 15_000;

const { outputFiles } = await build({
  entryPoints: [new URL('../dist/index.js', import.meta.url).pathname],
  bundle: true,
  format: 'esm',
  minify: true,
  target: 'es2022',
  write: false,
});
const bytes = outputFiles[0].contents;
const gzip = gzipSync(bytes, { level: 9 }).length;
console.log(`@rejoin/client: ${bytes.length} bytes minified, ${gzip} gzipped (goal ${GOAL_BYTES})`);
if (gzip > GOAL_BYTES) process.exit(1);
