// Prints what the package weighs, and what the client adds to a web page,
// minified and gzipped; fails above the goal of 15 kB for the latter.
import { execFileSync } from 'node:child_process';
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
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
const cwd = fileURLToPath(new URL('..', import.meta.url));
const [packed] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
console.log(`@rejoin/client: ${packed.size} bytes packed (${packed.entryCount} files), ${bytes.length} bytes minified, ${gzip} gzipped (goal ${GOAL_BYTES})`);
if (gzip > GOAL_BYTES) process.exit(1);
