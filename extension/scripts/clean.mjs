// Removes what a build leaves behind, so that a file that is no longer made cannot stay committed.
import { rmSync } from 'node:fs';

for (const path of ['lib', 'tsconfig.tsbuildinfo', '../workbench/labextension', '../workbench/static']) {
  rmSync(new URL(`../${path}`, import.meta.url), { recursive: true, force: true });
}
