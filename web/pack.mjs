// Puts what Vite built into one file for the program to embed, and a table of it for
// src/serve/web_page.cpp: path, type, where it lies, its size uncompressed, tag, whether it is
// compressed, whether its name changes with its content.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { extname, join, relative } from 'node:path';
import { constants, gzipSync } from 'node:zlib';

const [from, table, blob] = process.argv.slice(2);
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.woff2': 'font/woff2',
};
const PAGES = { 'index.html': '/', 'runs.html': '/runs' };

// What is embedded comes with its licences, as they ask for.
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
const licences = Object.entries(lock.packages)
  .filter(([path, entry]) => path && !entry.dev && !entry.optional)
  .map(([path, entry]) => {
    const file = readdirSync(path).find((name) => /^licen[sc]e/i.test(name));
    const text = file ? readFileSync(join(path, file), 'utf8').trim() : `Licence: ${entry.license}`;
    return `${path.replace('node_modules/', '')} ${entry.version}\n\n${text}\n`;
  });
writeFileSync(join(from, 'licenses.txt'), licences.join(`\n${'-'.repeat(72)}\n\n`));

const files = readdirSync(from, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(from, join(entry.parentPath ?? entry.path, entry.name)))
  .sort();
const rows = [];
const parts = [];
let offset = 0;
for (const file of files) {
  const type = TYPES[extname(file)];
  if (!type) throw new Error(`${file}: has no media type in web/pack.mjs`);
  const content = readFileSync(join(from, file));
  const small = gzipSync(content, { level: constants.Z_BEST_COMPRESSION });
  const compressed = small.length < 0.9 * content.length;
  const stored = compressed ? small : content;
  const tag = createHash('sha256').update(content).digest('hex').slice(0, 20);
  const path = PAGES[file] ?? `/${file}`;
  rows.push(
    `{${JSON.stringify(path)}, ${JSON.stringify(type)}, ${offset}, ${stored.length}, ` +
      `${content.length}, ${JSON.stringify(tag)}, ${compressed}, ${path.startsWith('/assets/')}},`,
  );
  parts.push(stored);
  offset += stored.length;
}
writeFileSync(blob, Buffer.concat(parts));
writeFileSync(table, rows.join('\n') + '\n');
