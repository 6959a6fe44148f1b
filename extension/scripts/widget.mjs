// Bundles the inline view: one ES module with its styles inside, as anywidget wants it.
import { build } from 'esbuild';

await build({
  entryPoints: ['src/view/anywidget.ts'],
  outfile: '../workbench/static/widget.js',
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  legalComments: 'none',
  loader: { '.css': 'text' }
});
