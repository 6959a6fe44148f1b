// Writes the hash of the sources beside the build, so that a stale build is found without Node.
// tests/panel/test_build.py computes the same: SHA-256 over "<path>\0<sha256 of content>\n" of the sorted files.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';

const root = new URL('../', import.meta.url);
const listed = ['package.json', 'yarn.lock', '.yarnrc.yml', 'tsconfig.json', 'rspack.config.js', 'install.json'];

function walk(folder) {
  return readdirSync(new URL(folder, root)).flatMap(name => {
    const path = `${folder}${name}`;
    return statSync(new URL(path, root)).isDirectory() ? walk(`${path}/`) : [path];
  });
}

const sha = bytes => createHash('sha256').update(bytes).digest('hex');
const files = [...listed, ...['src/', 'style/', 'schema/', 'scripts/'].flatMap(walk)].sort();
const text = files.map(path => `${path}\0${sha(readFileSync(new URL(path, root)))}\n`).join('');
writeFileSync(new URL('../workbench/static/sources.sha256', root), `${sha(text)}\n`);
