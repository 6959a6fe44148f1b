// Bundles the inline view: one ES module with its styles inside, as anywidget wants it, and Vega for its charts apart.
import { build } from 'esbuild';

const shared = { bundle: true, format: 'esm', target: 'es2022', minify: true, legalComments: 'none', loader: { '.css': 'text' } };
await build({ ...shared, entryPoints: ['src/view/anywidget.ts'], outfile: '../workbench/static/widget.js' });
await build({ ...shared, entryPoints: ['src/view/vega.ts'], outfile: '../workbench/static/vega.js' });
