// Bundles one TypeScript module of the view and imports it, so that Node's own test runner can call it.
import { build } from 'esbuild';

export async function load(name) {
  const { outputFiles } = await build({
    entryPoints: [new URL(`../src/view/${name}.ts`, import.meta.url).pathname],
    bundle: true,
    format: 'esm',
    write: false
  });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`);
}
