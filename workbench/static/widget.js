var Oe=`/* Colours come from JupyterLab's theme; the fallbacks serve hosts that have none. */
.wb-panel {
  --wb-paper: var(--jp-layout-color1, #fff);
  --wb-paper-2: var(--jp-layout-color2, #f4f4f4);
  --wb-line: var(--jp-border-color2, #e0e0e0);
  --wb-line-strong: var(--jp-border-color1, #bdbdbd);
  --wb-ink: var(--jp-ui-font-color0, #111);
  --wb-ink-1: var(--jp-ui-font-color1, #222);
  --wb-ink-2: var(--jp-ui-font-color2, #616161);
  --wb-accent: var(--jp-brand-color0, #0d47a1);
  --wb-fill: var(--jp-brand-color1, #1565c0);
  --wb-cell: var(--jp-layout-color2, #eee);
  --wb-bad: var(--jp-error-color0, #b71c1c);
  --wb-bad-line: var(--jp-error-color1, #d32f2f);
  --wb-warn: var(--jp-warn-color0, #8a4b00);
  --wb-mono: var(--jp-code-font-family, ui-monospace, monospace);

  box-sizing: border-box;
  height: 100%;
  overflow: auto;
  padding: 8px 10px 14px;
  background: var(--wb-paper);
  color: var(--wb-ink-1);
  font-family: var(--jp-ui-font-family, system-ui, sans-serif);
  font-size: var(--jp-ui-font-size1, 13px);
  line-height: 1.4;
  container-type: inline-size;
}

.wb-panel *,
.wb-panel *::before {
  box-sizing: border-box;
}

.wb-panel [hidden] {
  display: none !important;
}

.wb-hidden {
  position: absolute;
  width: 1px;
  height: 1px;
  overflow: hidden;
  clip-path: inset(50%);
  white-space: nowrap;
}

.wb-quiet,
.wb-note,
.wb-label {
  color: var(--wb-ink-2);
}

.wb-grow {
  flex: 1 1 0;
  min-width: 0;
}

.wb-number {
  font-variant-numeric: tabular-nums;
}

.wb-token,
.wb-code {
  font-family: var(--wb-mono);
  font-size: 0.94em;
}

.wb-token {
  padding: 0 3px;
  border-radius: 2px;
  background: var(--wb-paper-2);
  color: var(--wb-ink-1);
  white-space: pre;
}

/* Head: what is being looked at */
.wb-head {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 4px 10px;
  padding: 0 2px 8px;
}

.wb-model {
  display: flex;
  flex-wrap: wrap;
  align-items: baseline;
  gap: 2px 8px;
  min-width: 0;
}

.wb-name {
  max-width: 24em;
  overflow: hidden;
  color: var(--wb-ink);
  font-size: 1.1em;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.wb-chip {
  padding: 0 6px;
  border: 1px solid var(--wb-line-strong);
  border-radius: 9px;
  color: var(--wb-ink-2);
  font-size: 0.88em;
}

.wb-head > .wb-select {
  max-width: 15em;
}

.wb-open {
  display: flex;
  gap: 4px;
}

.wb-open .wb-input {
  width: 21em;
  max-width: 40cqw;
}

/* Cards and their parts */
.wb-body {
  display: grid;
  grid-template-columns: minmax(0, 1fr) minmax(330px, 385px);
  gap: 8px;
  align-items: start;
}

.wb-left,
.wb-right {
  display: flex;
  flex-direction: column;
  gap: 8px;
  min-width: 0;
}

@container (max-width: 760px) {
  .wb-body {
    display: flex;
    flex-direction: column;
    align-items: stretch;
  }

  /* Beside a notebook: what a click on the map changes comes right below it. */
  .wb-left,
  .wb-right {
    display: contents;
  }

  .wb-inspector {
    order: 1;
  }

  .wb-plan {
    order: 2;
  }

  .wb-next {
    order: 3;
  }
}

.wb-card {
  padding: 7px 9px 8px;
  border: 1px solid var(--wb-line);
  border-radius: 4px;
  background: var(--wb-paper);
}

.wb-row,
.wb-tools {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 4px 8px;
}

.wb-panel .wb-title {
  margin: 0;
  color: var(--wb-ink);
  font-size: 1em;
  font-weight: 600;
}

.wb-panel .wb-note {
  margin: 5px 0;
  font-size: 0.94em;
}

.wb-panel button.wb-button,
.wb-panel .wb-select,
.wb-panel .wb-input {
  min-height: 24px;
  margin: 0;
  padding: 1px 8px;
  border: 1px solid var(--wb-line-strong);
  border-radius: 3px;
  background: var(--wb-paper);
  color: var(--wb-ink-1);
  font: inherit;
}

.wb-panel button.wb-button {
  cursor: pointer;
}

.wb-panel button.wb-button:hover:not(:disabled),
.wb-panel .wb-select:hover {
  background: var(--wb-paper-2);
}

.wb-panel button.wb-button:disabled {
  cursor: default;
  opacity: 0.45;
}

.wb-panel button.wb-button[aria-pressed='true'] {
  border-color: var(--wb-accent);
  box-shadow: inset 0 0 0 1px var(--wb-accent);
  color: var(--wb-accent);
}

.wb-panel button.wb-primary {
  min-width: 5.5em;
  border-color: var(--wb-fill);
  background: var(--wb-fill);
  color: #fff;
  font-weight: 600;
}

.wb-panel button.wb-primary:hover:not(:disabled) {
  background: var(--wb-fill);
  filter: brightness(1.1);
}

.wb-panel button.wb-primary.wb-working {
  background-image: repeating-linear-gradient(-45deg, transparent 0 8px, rgb(255 255 255 / 18%) 8px 16px);
  background-size: 23px 100%;
  animation: wb-working 0.8s linear infinite;
}

@keyframes wb-working {
  to {
    background-position: 23px 0;
  }
}

@media (prefers-reduced-motion: reduce) {
  .wb-panel button.wb-primary.wb-working {
    animation: none;
  }
}

.wb-panel :is(button, select, input, textarea, canvas, summary, .wb-map-table, .wb-plan-body):focus-visible {
  outline: 2px solid var(--wb-accent);
  outline-offset: 1px;
}

/* Prompt and its tokens */
.wb-prompt-row {
  flex-wrap: nowrap;
  align-items: flex-start;
}

.wb-panel .wb-prompt-row button.wb-primary {
  min-height: 46px;
}

.wb-panel .wb-prompt {
  flex: 1 1 auto;
  min-width: 0;
  padding: 5px 8px;
  font-family: var(--wb-mono);
  font-size: 1em;
  line-height: 1.45;
  resize: vertical;
}

.wb-strip {
  flex: 1 1 0;
  min-width: 12em;
  max-height: 7.4em;
  overflow: auto;
  padding-top: 3px;
  font-family: var(--wb-mono);
  font-size: 0.94em;
  line-height: 1.75;
}

.wb-chip-token {
  margin-right: 1px;
  padding: 1px 0;
  border-bottom: 2px solid var(--wb-line-strong);
  cursor: pointer;
  white-space: pre-wrap;
}

.wb-chip-token:hover {
  background: var(--wb-paper-2);
}

.wb-chip-token.wb-on {
  border-bottom-color: var(--wb-accent);
  background: var(--wb-paper-2);
  color: var(--wb-ink);
  font-weight: 600;
}

.wb-status {
  color: var(--wb-ink-2);
  font-size: 0.94em;
}

/* Errors */
.wb-error {
  display: flex;
  align-items: center;
  gap: 8px;
  margin-bottom: 8px;
  padding: 6px 9px;
  border: 1px solid var(--wb-bad-line);
  border-left-width: 4px;
  border-radius: 4px;
  background: var(--wb-paper);
  color: var(--wb-ink-1);
  overflow-wrap: anywhere;
}

.wb-error strong {
  color: var(--wb-ink);
}

.wb-error-mark {
  flex: none;
  width: 18px;
  height: 18px;
  border-radius: 50%;
  background: var(--wb-bad-line);
  color: #fff;
  font-weight: 700;
  line-height: 18px;
  text-align: center;
}

.wb-warning {
  margin: 6px 0 0;
  padding-left: 8px;
  border-left: 3px solid var(--wb-warn);
}

.wb-welcome {
  max-width: 44em;
  margin: 24px auto;
  padding: 14px 18px;
}

.wb-panel .wb-code {
  margin: 6px 0;
  padding: 7px 10px;
  border-radius: 3px;
  background: var(--wb-paper-2);
  color: var(--wb-ink-1);
}

/* Tables */
.wb-panel .wb-table {
  width: 100%;
  margin: 0;
  font-size: inherit;
  border-collapse: collapse;
}

.wb-panel .wb-table tr {
  background: none;
}

.wb-panel .wb-table th,
.wb-panel .wb-table td {
  padding: 1px 12px 1px 0;
  border: 0;
  border-bottom: 1px solid var(--wb-line);
  font-weight: 400;
  text-align: left;
}

.wb-panel .wb-table thead th {
  color: var(--wb-ink-2);
  font-size: 0.94em;
}

.wb-panel [data-wb-next] {
  margin-top: 4px;
}

.wb-panel [data-wb-next] :is(td.wb-number, thead th:nth-child(n + 2)) {
  width: 6em;
  text-align: right;
  white-space: nowrap;
}

.wb-panel [data-wb-next] :is(td, th):nth-child(4) {
  width: 8em;
}

.wb-panel .wb-table td.wb-bars {
  width: 36%;
  padding: 3px 0;
}

.wb-bars .wb-bar {
  position: static;
  height: 5px;
  margin: 1px 0;
}

.wb-base {
  background: var(--wb-ink-2);
}

.wb-up::after {
  content: ' \u25B2';
  font-size: 0.7em;
}

.wb-down::after {
  content: ' \u25BC';
  font-size: 0.7em;
}

.wb-quiet.wb-number::after {
  content: ' \u25B2';
  font-size: 0.7em;
  visibility: hidden;
}

/* Live */
.wb-live-texts {
  display: flex;
  gap: 10px;
}

.wb-live-column {
  flex: 1 1 0;
  min-width: 0;
}

.wb-live-text {
  max-height: 8.6em;
  overflow: auto;
  font-family: var(--wb-mono);
  font-size: 0.94em;
  line-height: 1.75;
}

.wb-chip-token.wb-diverged {
  border-bottom-color: var(--wb-bad-line);
  border-bottom-style: double;
  border-bottom-width: 4px;
  color: var(--wb-ink);
  font-weight: 600;
}

.wb-chip-token.wb-diverged::before {
  content: '\u2260';
  color: var(--wb-bad);
}
`;var je=`/* Plan */
.wb-plan {
  display: flex;
  flex-direction: column;
  min-height: 196px;
}

/* Of a fixed height, so that the experts below stay under the pointer while edits come and go. */
.wb-plan-body {
  flex: none;
  height: 92px;
  margin-top: 4px;
  overflow: auto;
}

.wb-hash {
  font-family: var(--wb-mono);
  font-size: 0.88em;
}

.wb-panel .wb-edits {
  margin: 4px 0 0;
  padding: 0;
  list-style: none;
}

.wb-edits li {
  display: flex;
  align-items: center;
  gap: 6px;
  border-top: 1px solid var(--wb-line);
}

.wb-edit {
  display: flex;
  flex: 1 1 auto;
  align-items: center;
  gap: 6px;
  min-width: 0;
  cursor: pointer;
}

.wb-edit span::first-letter {
  text-transform: uppercase;
}

.wb-edits li[data-wb-enabled='false'] span {
  color: var(--wb-ink-2);
  text-decoration: line-through;
}

.wb-panel .wb-edits button.wb-button,
.wb-panel .wb-error button[data-wb-action='dismiss'] {
  min-width: 24px;
  padding: 0 6px;
  border-color: transparent;
}

/* Inspector */
.wb-panel .wb-facts {
  display: flex;
  flex-wrap: wrap;
  gap: 2px 16px;
  margin: 4px 0 6px;
}

.wb-facts div {
  display: flex;
  gap: 5px;
}

/* Notebooks float these. */
.wb-panel .wb-facts :is(dt, dd) {
  float: none;
  width: auto;
  padding: 0;
}

.wb-panel .wb-facts dt {
  color: var(--wb-ink-2);
  font-weight: 400;
}

.wb-panel .wb-facts dd {
  margin: 0;
  color: var(--wb-ink);
  font-variant-numeric: tabular-nums;
}

.wb-tools {
  padding-top: 6px;
  border-top: 1px solid var(--wb-line);
}

.wb-experts {
  max-height: 640px;
  margin: 0 -4px;
  overflow: auto;
}

.wb-expert {
  display: grid;
  grid-template-columns: 10px 2.2em minmax(40px, 1fr) 3.4em 3.7em 3.7em 4.2em 2.2em;
  align-items: center;
  gap: 5px;
  padding: 1px 4px;
  border-left: 3px solid transparent;
}

.wb-expert-id {
  color: var(--wb-ink);
  font-variant-numeric: tabular-nums;
  text-align: right;
}

.wb-track {
  position: relative;
  height: 18px;
  overflow: hidden;
  border-radius: 2px;
  background: var(--wb-paper-2);
}

.wb-bar {
  position: absolute;
  inset: 0 auto 0 0;
  background: var(--wb-line-strong);
}

.wb-track .wb-number {
  position: absolute;
  inset: 0 5px 0 auto;
  color: var(--wb-ink);
  font-size: 0.88em;
  line-height: 18px;
}

.wb-weight {
  text-align: right;
  color: var(--wb-ink-2);
  font-size: 0.88em;
}

.wb-badge {
  color: var(--wb-ink-2);
  font-size: 0.88em;
}

.wb-panel button.wb-button:is([data-wb-action='ban'], [data-wb-action='force'], [data-wb-action='boost']) {
  min-height: 20px;
  padding: 0 5px;
  font-size: 0.88em;
}

.wb-expert:is([data-wb-state='chosen'], [data-wb-state='forced']) {
  border-left-color: var(--wb-fill);
}

.wb-expert:is([data-wb-state='chosen'], [data-wb-state='forced']) .wb-bar,
.wb-bars .wb-edited {
  background: color-mix(in srgb, var(--wb-fill) 45%, var(--wb-paper));
}

.wb-expert:is([data-wb-state='chosen'], [data-wb-state='forced']) :is(.wb-badge, .wb-expert-id) {
  color: var(--wb-ink);
  font-weight: 600;
}

.wb-expert[data-wb-state='banned'] {
  border-left-color: var(--wb-bad-line);
}

.wb-expert[data-wb-state='banned'] .wb-bar {
  background: repeating-linear-gradient(-45deg, var(--wb-line-strong) 0 2px, transparent 2px 5px);
}

.wb-expert[data-wb-state='banned'] .wb-expert-id {
  text-decoration: line-through;
}

.wb-expert[data-wb-state='native'] {
  border-left: 3px dotted var(--wb-ink-2);
}

/* Every exchange of a cell */
.wb-trials {
  margin: 6px 0;
  padding: 5px 6px;
  border: 1px solid var(--wb-line-strong);
  border-radius: 3px;
}

.wb-trials .wb-row {
  flex-wrap: nowrap;
  align-items: flex-start;
}

.wb-trials .wb-row .wb-quiet {
  font-size: 0.94em;
}

.wb-trial-list {
  max-height: 230px;
  overflow: auto;
}

.wb-panel .wb-trial-list button.wb-button {
  display: grid;
  grid-template-columns: 10px 5em 10px minmax(40px, 1fr) 5.6em 4.6em;
  align-items: center;
  gap: 5px;
  width: 100%;
  min-height: 22px;
  padding: 0 4px;
  border-color: transparent;
  text-align: left;
}

.wb-panel .wb-trial-list button.wb-button:focus-visible {
  outline-offset: -2px;
}

.wb-trial-list .wb-number {
  text-align: right;
  white-space: nowrap;
}

.wb-swing-track {
  position: relative;
  height: 12px;
  border-radius: 2px;
  background: linear-gradient(90deg, transparent calc(50% - 1px), var(--wb-ink-2) calc(50% - 1px) 50%, transparent 50%)
    var(--wb-paper-2);
}

.wb-swing {
  position: absolute;
  inset: 0 auto 0 50%;
  background: #0072b2;
}

.wb-swing.wb-loss {
  inset: 0 50% 0 auto;
  background: #d55e00;
}

.wb-panel button.wb-button.wb-expert-id {
  min-height: 20px;
  padding: 0 3px;
  border-color: transparent;
  color: var(--wb-ink);
  font-variant-numeric: tabular-nums;
  text-align: right;
  text-decoration: underline dotted;
  text-underline-offset: 3px;
}

.wb-weight-cell {
  display: flex;
  flex-direction: column;
  align-items: stretch;
}

.wb-slider {
  width: 100%;
  height: 10px;
  margin: 0;
  accent-color: var(--wb-fill);
}

.wb-more {
  padding: 4px 0;
}

.wb-panel .wb-short {
  width: 6.5em;
}

.wb-panel .wb-more .wb-short {
  width: 4.6em;
}

.wb-effect {
  display: inline-flex;
  align-items: center;
  gap: 4px;
  white-space: nowrap;
}

.wb-effect-bar {
  display: inline-block;
  height: 8px;
  background: var(--wb-fill);
}

.wb-profile-tokens {
  display: flex;
  flex-wrap: wrap;
  gap: 3px 10px;
  max-height: 140px;
  overflow: auto;
}

.wb-heads {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(96px, 1fr));
  gap: 8px;
  max-height: 360px;
  margin-top: 5px;
  overflow: auto;
}

.wb-head-card {
  display: flex;
  flex-direction: column;
  gap: 3px;
}

.wb-head-card canvas {
  width: 100%;
  aspect-ratio: 1;
  image-rendering: pixelated;
}

.wb-head-card[data-wb-masked='true'] canvas {
  opacity: 0.35;
  outline: 2px dashed var(--wb-bad-line);
}

/* Forms */
.wb-form {
  margin-top: 6px;
  padding: 6px;
  border: 1px solid var(--wb-line-strong);
  border-radius: 3px;
}

.wb-fields {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(140px, 1fr));
  gap: 4px 8px;
}

.wb-field {
  display: flex;
  flex-direction: column;
  gap: 1px;
  font-size: 0.94em;
}

.wb-panel .wb-field :is(.wb-input, .wb-select) {
  width: 100%;
}

.wb-panel .wb-preview {
  margin: 6px 0;
  color: var(--wb-ink);
  overflow-wrap: anywhere;
}

.wb-preview.wb-refused {
  padding-left: 8px;
  border-left: 3px solid var(--wb-warn);
}
`;var Ie=`/* Map */
.wb-map-scroll {
  position: relative;
  overflow: auto hidden;
}

.wb-map-canvas {
  position: sticky;
  left: 0;
  display: block;
}

.wb-run {
  font-size: 0.88em;
  font-variant-numeric: tabular-nums;
}

.wb-readout {
  min-height: 2.9em;
  margin-top: 4px;
  color: var(--wb-ink-1);
  font-size: 0.94em;
  font-variant-numeric: tabular-nums;
}

.wb-map-card .wb-select {
  width: 11.5em;
}

.wb-legend {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 2px 10px;
  min-height: 1.6em;
  font-size: 0.88em;
}

.wb-key {
  display: inline-flex;
  align-items: center;
  gap: 4px;
}

.wb-swatch {
  flex: none;
  width: 10px;
  height: 10px;
  border-radius: 2px;
}

.wb-gradient {
  width: 120px;
  height: 10px;
  border-radius: 2px;
}

.wb-mark {
  width: 13px;
  height: 13px;
  background-color: var(--wb-cell);
  border: 1px solid var(--wb-line-strong);
}

.wb-mark-edited {
  background-image: linear-gradient(135deg, var(--wb-ink) 0 42%, transparent 43%);
}

.wb-mark-flip {
  background-image: linear-gradient(to top, transparent 2px, var(--wb-ink) 2px 4px, transparent 4px);
}

.wb-mark-skip {
  background-image: repeating-linear-gradient(-45deg, var(--wb-ink-2) 0 1px, transparent 1px 4px);
}

.wb-details {
  margin-top: 4px;
  color: var(--wb-ink-2);
  font-size: 0.94em;
}

.wb-details summary {
  width: fit-content;
  cursor: pointer;
}

.wb-map-table {
  max-height: 320px;
  overflow: auto;
  color: var(--wb-ink-1);
}

.wb-map-table .wb-table td,
.wb-map-table .wb-table th {
  padding-right: 10px;
  text-align: right;
  white-space: nowrap;
}

.wb-map-row {
  display: flex;
  gap: 8px;
}

.wb-map-row > .wb-map {
  flex: 1 1 0;
  min-width: 0;
}

.wb-load {
  flex: none;
  width: 132px;
}

.wb-load-note {
  min-height: 2.9em;
  font-size: 0.88em;
}

@container (max-width: 520px) {
  .wb-load {
    display: none;
  }
}

.wb-box-bar {
  padding: 3px 6px;
  border-left: 3px solid var(--wb-accent);
  color: var(--wb-ink);
}

.wb-map-canvas {
  touch-action: pan-x pan-y;
}
`;var Fe=`/* Tabs and the views behind them */
.wb-tabs {
  display: flex;
  flex-wrap: wrap;
  gap: 2px;
}

.wb-tab-row {
  border-bottom: 1px solid var(--wb-line);
}

.wb-panel button.wb-tab {
  margin: 0;
  padding: 3px 12px;
  border: 0;
  border-bottom: 3px solid transparent;
  background: none;
  color: var(--wb-ink-2);
  font: inherit;
  cursor: pointer;
}

.wb-panel button.wb-tab:hover {
  background: var(--wb-paper-2);
}

.wb-panel button.wb-tab[aria-selected='true'] {
  border-bottom-color: var(--wb-fill);
  color: var(--wb-ink);
  font-weight: 600;
}

.wb-view {
  display: flex;
  flex-direction: column;
  gap: 8px;
  min-width: 0;
}

.wb-scroll {
  max-height: 460px;
  overflow: auto;
}

.wb-nowrap {
  white-space: nowrap;
}

.wb-panel .wb-subtitle {
  margin: 10px 0 3px;
  color: var(--wb-ink);
  font-size: 1em;
  font-weight: 600;
}

.wb-progress {
  width: 8em;
}

/* Runs */
.wb-clip {
  display: inline-block;
  max-width: 20em;
  overflow: hidden;
  text-overflow: ellipsis;
  vertical-align: bottom;
  white-space: nowrap;
}

.wb-runs td .wb-clip {
  max-width: 11em;
}

.wb-runs tr[aria-current='true'] th {
  font-weight: 600;
}

.wb-runs tr[aria-current='true'] {
  box-shadow: inset 3px 0 0 var(--wb-fill);
}

.wb-panel .wb-runs :is(th, td) {
  padding: 2px 8px 2px 4px;
}

/* Difference */
.wb-pair {
  display: grid;
  grid-template-columns: 1fr 1fr;
  gap: 8px;
  margin: 6px 0;
}

.wb-pair-card {
  padding: 4px 6px;
  border: 1px solid var(--wb-line);
  border-radius: 3px;
  overflow-wrap: anywhere;
}

.wb-diff-text {
  max-height: 12em;
  margin: 0;
  overflow: auto;
  font-family: var(--wb-mono);
  overflow-wrap: anywhere;
  white-space: pre-wrap;
}

.wb-diff-text .wb-base-only {
  background: color-mix(in srgb, #d55e00 22%, var(--wb-paper));
  color: var(--wb-ink);
  text-decoration: line-through;
}

.wb-diff-text .wb-run-only {
  background: color-mix(in srgb, #0072b2 24%, var(--wb-paper));
  color: var(--wb-ink);
  text-decoration: underline;
}

.wb-panel .wb-layer-diff {
  width: auto;
  min-width: 50%;
}

.wb-panel .wb-layer-diff td.wb-bars {
  width: 220px;
}

/* Charts */
.wb-figures {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr));
  gap: 10px;
}

.wb-panel .wb-figure {
  position: relative;
  min-width: 0;
  min-height: 60px;
  margin: 0;
  padding: 6px;
  border: 1px solid var(--wb-line);
  border-radius: 3px;
}

.wb-figure .vega-embed {
  width: 100%;
}

.wb-panel .wb-figure > button.wb-button {
  display: block;
  min-height: 20px;
  margin-left: auto;
  padding: 0 6px;
  font-size: 0.82em;
}

#vg-tooltip-element.vg-tooltip.custom-theme {
  padding: 4px 7px;
  border: 1px solid var(--jp-border-color1, #bbb);
  border-radius: 3px;
  background: var(--jp-layout-color1, #fff);
  color: var(--jp-ui-font-color1, #222);
  font-size: 12px;
}

/* SQL */
.wb-panel .wb-sql {
  width: 100%;
  margin: 5px 0;
  padding: 5px 8px;
  font-family: var(--wb-mono);
  line-height: 1.45;
  resize: vertical;
}

.wb-sql-error {
  margin: 5px 0;
  padding-left: 8px;
  border-left: 3px solid var(--wb-bad-line);
  overflow-wrap: anywhere;
}

.wb-macro {
  margin-top: 4px;
  font-size: 0.94em;
  overflow-wrap: anywhere;
}

.wb-macro .wb-code {
  white-space: pre-wrap;
}

.wb-panel .wb-answer th {
  position: sticky;
  top: 0;
  background: var(--wb-paper);
}

.wb-panel .wb-answer td {
  max-width: 32em;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

/* Help */
.wb-help {
  position: sticky;
  z-index: 5;
  top: 0;
  max-width: 44em;
  margin: 0 auto 8px;
  padding: 9px 12px;
  border: 1px solid var(--wb-accent);
  border-radius: 4px;
  background: var(--wb-paper);
  box-shadow: 0 2px 10px rgb(0 0 0 / 25%);
}

.wb-help p {
  margin: 5px 0 8px;
}

.wb-explained {
  outline: 2px dashed var(--wb-accent);
  outline-offset: 2px;
}
`;function n(a,e={},...t){let i=document.createElement(a);e.class&&(i.className=e.class),e.text!==void 0&&(i.textContent=e.text),e.title!==void 0&&(i.title=e.title);for(let[r,o]of Object.entries(e.attrs??{}))b(i,r,o);for(let[r,o]of Object.entries(e.on??{}))i.addEventListener(r,o);return i.append(...t.filter(r=>r!==null)),i}function b(a,e,t){t===void 0||t===!1?a.removeAttribute(e):a.setAttribute(e,t===!0?"":t)}function u(a,e,t,i){return n("button",{class:"wb-button",text:a,title:t,attrs:{type:"button","data-wb-action":e},on:{click:i}})}function k(a){return a.replace(/ /g,"\xB7").replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205"}function M(a,e,t){let i=n("select",{class:"wb-select",attrs:{"aria-label":a}});return i.append(...e.map(([r,o])=>n("option",{text:o,attrs:{value:r}}))),i.addEventListener("change",()=>t(i.value)),i}var Mt=(a,...e)=>a.replace(/%(\d)/g,(t,i)=>String(e[Number(i)-1]));var s=(a,...e)=>Mt(a,...e);var U=class{node=n("div",{class:"wb-errors"});get empty(){return this.node.childElementCount===0}clear(){this.node.replaceChildren()}show(e,t,i){let r=()=>o.remove(),o=n("div",{class:"wb-error",attrs:{role:"alert","data-wb-error":e}},n("span",{class:"wb-error-mark",text:"!",attrs:{"aria-hidden":"true"}}),n("div",{class:"wb-grow"},n("strong",{text:e})," ",n("span",{text:t})),i?u(s("Try again"),"retry",s("Try again"),()=>{r(),i()}):null,u("\xD7","dismiss",s("Dismiss"),r));o.lastElementChild.setAttribute("aria-label",s("Dismiss")),this.node.replaceChildren(o)}};function H(a,e,t){let i=URL.createObjectURL(new Blob([e],{type:t}));n("a",{attrs:{href:i,download:a}}).click(),window.setTimeout(()=>URL.revokeObjectURL(i),1e4)}function ze(a,e,t){let i=n("canvas",{attrs:{width:String(a.width),height:String(a.height)}}),r=i.getContext("2d");r.fillStyle=getComputedStyle(e).backgroundColor,r.fillRect(0,0,i.width,i.height),r.drawImage(a,0,0),i.toBlob(o=>{o&&H(t,o,"image/png")})}var Le=null;function Ve(a){Le=a}var N=class{constructor(e,t,i){this.pick=i;this.picture=u(s("SVG"),"figure",s("Save this chart as an SVG picture"),()=>{this.drawing?.svg().then(r=>H(`${e}.svg`,r,"image/svg+xml"))}),this.node=n("figure",{class:"wb-figure",attrs:{"data-wb-chart":e,"aria-label":t}},this.holder,this.note,this.picture),this.say(s("Nothing to draw yet."))}node;holder=n("div",{class:"wb-figure-holder"});note=n("p",{class:"wb-note"});picture;drawing=null;spec=null;turn=0;parameters=new Map;async show(e,t=""){let i=++this.turn;if(this.spec=e,!e){this.clear(),this.say(t);return}try{if(!Le)throw new Error(s("this host draws no charts"));let r=await Le();if(i!==this.turn)return;this.clear(),this.say("");let o=await r.draw(this.holder,e,Tt(this.node),this.pick);if(i!==this.turn){o.dispose();return}this.drawing=o,this.picture.hidden=!1,this.node.dataset.wbDrawn="true",this.parameters.forEach((l,d)=>o.set(d,l))}catch(r){this.say(s("The chart could not be drawn: %1.",r.message))}}set(e,t){this.parameters.set(e,t),this.drawing?.set(e,t)}restyle(){this.spec&&this.drawing&&this.show(this.spec)}say(e){this.note.textContent=e,this.note.hidden=e===""}clear(){this.drawing?.dispose(),this.drawing=null,this.picture.hidden=!0,delete this.node.dataset.wbDrawn,this.holder.replaceChildren()}};function Tt(a){let e=getComputedStyle(a),t=(i,r)=>e.getPropertyValue(i).trim()||r;return{ink:t("--wb-ink-1","#222"),faint:t("--wb-ink-2","#666"),line:t("--wb-line-strong","#bbb"),font:e.fontFamily}}var Lt="layer_in_view",G=class{constructor(e){this.actions=e;let t=[["load",s("Expert load by layer")],["contribution",s("Contribution by layer")],["rank",s("Attention rank by layer")],["sparsity",s("Activation sparsity by layer")],["entropy",s("Router entropy by layer")],["affinity",s("Affinity of experts between layers")]],i=r=>{let o=Number(r.layer);r.layer!==void 0&&Number.isInteger(o)&&e.layer(o)};this.figures=new Map(t.map(([r,o])=>[r,new N(r,o,i)])),this.node=n("section",{class:"wb-card",attrs:{"data-wb-view":"charts"}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Charts of the run in view")}),this.run),n("p",{class:"wb-note",text:s("The dashed rule is the layer in view; a click on a mark selects its layer.")}),n("div",{class:"wb-figures"},...[...this.figures.values()].map(r=>r.node)))}node;figures;run=n("span",{class:"wb-quiet"});asked=new Map;state=null;open=!1;opened(e){this.open=e,this.ask()}show(e){this.state=e;let t=e?.edited??e?.base;this.run.textContent=t?e?.edited?s("edited %1",t.id):s("base %1",t.id):s("No prompt has been run yet."),b(this.node,"data-wb-layer",e?.selected?String(e.selected.layer):void 0);let i=e?.selected?.layer;i!==void 0&&this.figures.forEach(r=>r.set(Lt,i)),this.ask()}take(e){let t=this.state?.edited??this.state?.base;e.run===t?.id&&this.figures.get(e.chart)?.show(e.spec,e.note)}restyle(){this.figures.forEach(e=>e.restyle())}ask(){let e=this.state?.edited??this.state?.base;if(!this.open||!e||this.state?.stale)return;let t=this.state?.selected?.layer??0;for(let i of this.figures.keys()){let r=i==="affinity"||i==="load"&&this.state.bench.layers*this.state.bench.experts>5e3?`${e.id}:${t}`:e.id;this.asked.get(i)!==r&&(this.asked.set(i,r),this.actions.send({type:"draw",chart:i,run:e.id,layer:t}))}}};var Ee=[[0,114,178],[230,159,0],[0,158,115],[204,121,167],[86,180,233],[213,94,0],[240,228,66]],We=[0,-.42,.5,-.65,.72];function B(a){let e=Ee[a%Ee.length],t=We[Math.floor(a/Ee.length)%We.length],i=t<0?0:255;return e.map(r=>Math.round(r+(i-r)*Math.abs(t)))}var X=[[68,1,84],[72,36,117],[65,68,135],[53,95,141],[42,120,142],[33,145,140],[34,168,132],[68,191,112],[122,209,81],[189,223,38],[253,231,37]];function S(a){let e=Math.min(1,Math.max(0,a))*(X.length-1),t=Math.min(X.length-2,Math.floor(e)),i=X[t],r=X[t+1];return i.map((o,l)=>Math.round(o+(r[l]-o)*(e-t)))}function z(a,e,t){return a.map((i,r)=>Math.round(i+(e[r]-i)*t))}function L([a,e,t]){return`rgb(${a}, ${e}, ${t})`}function Ke(a){let[e,t,i]=a.map(r=>{let o=r/255;return o<=.04045?o/12.92:((o+.055)/1.055)**2.4});return .2126*e+.7152*t+.0722*i>.179?"#000":"#fff"}function f(a,e=4){return Number.isFinite(a)?a!==0&&(Math.abs(a)<1e-4||Math.abs(a)>=1e6)?a.toExponential(e-1):a.toPrecision(e):"\u2013"}function A(a,e=4){return(a>0?"+":a<0?"\u2212":"")+f(Math.abs(a),e)}var Y=class{constructor(e){this.actions=e;this.pair=u(s("Base and edited"),"compare-view",s("Compare the two runs on the map"),()=>this.compareView()),this.node=n("section",{class:"wb-card",attrs:{"data-wb-view":"compare"}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Difference of two runs")}),n("span",{class:"wb-grow"}),this.pair,u(s("Choose runs\u2026"),"choose-runs",s("Tick two runs in the list"),e.list)),this.body),this.render()}node;body=n("div");pair;state=null;told=null;show(e){this.state=e,this.pair.disabled=!e?.base||!e.edited}opened(){this.told||this.compareView()}take(e){this.told=e,this.render()}compareView(){let{base:e,edited:t}=this.state??{};e&&t&&this.actions.send({type:"compare",base:e.id,run:t.id})}render(){let e=this.told;if(b(this.node,"data-wb-compare",e?`${e.base.id},${e.run.id}`:void 0),b(this.node,"data-wb-flips",e?String(e.flips):void 0),!e){this.body.replaceChildren(n("p",{class:"wb-note",text:s("Nothing to compare yet: run a prompt under a plan, or tick two runs in the list of runs.")}));return}let t={edit:s("by an edit"),tie:s("by a tie"),upstream:s("because of what came before")},i=[[s("aligned tokens"),String(e.aligned)],[s("flips"),String(e.flips)],...Object.entries(e.causes).map(([o,l])=>[t[o]??o,String(l)]),[s("mean KL"),e.kl===null?s("\u2013 (the store keeps no logits)"):s("%1 nats",f(e.kl))],[s("loss"),`${e.base.loss===null?"\u2013":f(e.base.loss)} \u2192 ${e.run.loss===null?"\u2013":f(e.run.loss)}`]],r=u(s("Show on the map"),"show-pair",s("The second run, with the first as its base"),()=>{this.actions.send({type:"show",run:e.run.id,base:e.base.id,plan:!1}),this.actions.look()});this.body.replaceChildren(n("div",{class:"wb-pair"},this.card(s("base"),e.base),this.card(s("run"),e.run)),n("dl",{class:"wb-facts"},...i.map(([o,l])=>n("div",{},n("dt",{text:o}),n("dd",{text:l})))),n("div",{class:"wb-row"},e.first?n("span",{},s("It begins in layer %1 at token %2, \u201C%3\u201D.",e.first.layer,e.first.position,k(e.first.text))):n("span",{text:s("No choice differs at aligned tokens.")}),r),n("h4",{class:"wb-subtitle",text:s("Text")}),this.text(e),n("h4",{class:"wb-subtitle",text:s("Layers")}),this.layers(e),n("h4",{class:"wb-subtitle",text:e.rows.length<e.flips?s("The first %1 of %2 flips",e.rows.length,e.flips):s("Flips")}),n("div",{class:"wb-scroll",attrs:{tabindex:"0",role:"region","aria-label":s("Flips")}},this.flips(e.rows)))}card(e,t){return n("div",{class:"wb-pair-card"},n("strong",{text:e})," ",n("span",{class:"wb-quiet",text:`${t.id} \xB7 ${t.model}`}),n("div",{class:"wb-quiet",text:t.edits.join("; ")||s("no plan")}))}text(e){let t={both:"",base:s("only in base"),run:s("only in run")};return n("p",{class:"wb-diff-text"},...e.pieces.map(({side:i,text:r})=>i==="both"?n("span",{text:r}):n(i==="base"?"del":"ins",{class:`wb-${i}-only`,text:r||"\u2205",title:t[i],attrs:{"data-wb-side":i}})))}layers(e){let t=Math.max(1,...e.layers.map(o=>o.flips)),i=e.layers.some(o=>o.base_rank!==null&&o.run_rank!==null),r=[s("layer"),s("flips"),"",...i?[s("attention rank, base"),s("run")]:[]];return n("table",{class:"wb-table wb-layer-diff"},n("thead",{},n("tr",{},...r.map(o=>o?n("th",{text:o,attrs:{scope:"col"}}):n("td")))),n("tbody",{},...e.layers.map(o=>{let l=n("div",{class:"wb-bar wb-edited"});l.style.width=`${(100*o.flips/t).toFixed(1)}%`;let d=h=>h===null?"\u2013":f(h,3);return n("tr",{},n("th",{text:String(o.layer),attrs:{scope:"row"}}),n("td",{class:"wb-number",text:String(o.flips)}),n("td",{class:"wb-bars",attrs:{"aria-hidden":"true"}},l),...i?[o.base_rank,o.run_rank].map(h=>n("td",{class:"wb-number",text:d(h)})):[])})))}flips(e){let t=[s("cell"),s("token"),s("base"),s("run"),s("margin of base"),s("cause")];return n("table",{class:"wb-table"},n("thead",{},n("tr",{},...t.map(i=>n("th",{text:i,attrs:{scope:"col"}})))),n("tbody",{},...e.map(i=>n("tr",{},n("td",{},u(`${i.layer}, ${i.position}`,"goto",s("Inspect layer %1, token %2",i.layer,i.position),()=>this.actions.select(i.layer,i.position))),n("th",{attrs:{scope:"row"}},n("code",{class:"wb-token",text:k(i.text)})),n("td",{class:"wb-number",text:i.base_experts.join(" ")}),n("td",{class:"wb-number",text:i.run_experts.join(" ")}),n("td",{class:"wb-number",text:i.base_margin===null?"\u2013":f(i.base_margin,3)}),n("td",{text:i.cause})))))}};function $(a,e){if(a.$ref){let i=e[a.$ref.split("/").pop()];return i?$(i,e):[{}]}let t=a.anyOf??a.oneOf;return t?t.flatMap(i=>$(i,e)):[a]}function J(a,e){return $(a,e).flatMap(t=>(t.enum??(t.const===void 0?[]:[t.const])).filter(i=>typeof i=="string"))}function Ue(a,e){return $(a,e).every(t=>t.enum!==void 0||t.const!==void 0)}function Ge(a,e){return $(a,e).every(t=>t.type==="boolean")}function Re(a,e){let t=$(a,e).map(i=>i.type==="null"?"":i.type==="array"&&St(i.items)?i.items.type==="integer"?"0, 3, 5-8":"0.5, 0.25":Ye(i)?"4:9":i.type==="object"&&typeof i.additionalProperties=="object"?"5: 1.5, 7: -1":i.type==="integer"?"1":i.type==="number"?"0.5":"");return[...J(a,e).slice(0,2),...new Set(t)].filter(Boolean).join(" / ")}function Xe(a,e,t){let i=a.trim();if(!i)return;let r=$(e,t);for(let o of r){let l=(o.enum??(o.const===void 0?[]:[o.const])).find(d=>String(d)===i);if(l!==void 0)return l}for(let o of r){let l=Et(i,o);if(l!==void 0)return l}try{return JSON.parse(i)}catch{throw new Error(Re(e,t))}}function Et(a,e){let t=a.split(/[,\s]+/).filter(Boolean);if(e.type==="integer"&&/^[+-]?\d+$/.test(a))return Number.isSafeInteger(Number(a))?Number(a):a;if(e.type==="number"&&Se(a))return Number(a);if(e.type==="boolean"&&/^(true|false)$/.test(a))return a==="true";if(e.type==="array"&&e.items?.type==="integer"&&t.every(r=>/^\d+(-\d+)?$/.test(r)))return t.flatMap(r=>{let[o,l]=r.split("-").map(Number);return Array.from({length:Math.max(0,(l??o)-o+1)},(d,h)=>o+h)});if(e.type==="array"&&e.items?.type==="number"&&t.every(Se))return t.map(Number);let i=/^(\d*):(\d*)$/.exec(a);if(Ye(e)&&i)return{start:Number(i[1]||0),stop:i[2]?Number(i[2]):null};if(e.type==="object"&&typeof e.additionalProperties=="object"&&!a.startsWith("{")){let r=a.split(",").map(o=>/^\s*([^:\s]+)\s*:\s*(\S+)\s*$/.exec(o));if(r.every(o=>o&&Se(o[2])))return Object.fromEntries(r.map(o=>[o[1],Number(o[2])]))}return e.type==="string"&&e.enum===void 0&&e.const===void 0?a:void 0}function Be(a){if(a==null)return"";if(Array.isArray(a))return a.every(e=>typeof e!="object")?a.join(", "):JSON.stringify(a);if(typeof a=="object"){let e=Object.entries(a);if("start"in a&&e.length<=2){let{start:t,stop:i}=a;return`${t||""}:${i??""}`}return e.every(([,t])=>typeof t=="number")?e.map(([t,i])=>`${t}: ${i}`).join(", "):JSON.stringify(a)}return String(a)}var Se=a=>a!==""&&Number.isFinite(Number(a)),St=a=>a?.type==="integer"||a?.type==="number",Ye=a=>a.type==="object"&&!!a.properties?.start;var Je=["layers","tokens","where","phase","rows","steps"],Rt=0,Q=class{constructor(e){this.actions=e;this.kinds.addEventListener("change",()=>this.build(this.kinds.value,this.given)),this.submit=u(s("Add to the plan"),"add","",()=>{}),this.submit.classList.add("wb-primary"),this.node=n("form",{class:"wb-form",attrs:{"data-wb-form":"",hidden:!0},on:{submit:t=>{t.preventDefault(),this.add()},input:()=>this.changed(),keydown:t=>{t.key==="Escape"&&(t.stopPropagation(),this.close())}}},n("div",{class:"wb-row"},n("label",{class:"wb-label"},s("Edit")," ",this.kinds)),this.about,this.fields,this.preview,n("div",{class:"wb-row"},this.submit,u(s("Cancel"),"cancel",s("Close the form (Escape)"),()=>this.close()))),this.submit.type="submit"}node;kinds=n("select",{class:"wb-select",attrs:{"aria-label":s("Kind of edit")}});about=n("p",{class:"wb-note"});fields=n("div",{class:"wb-fields"});preview=n("p",{class:"wb-preview",attrs:{role:"status"}});submit;forms=null;made=[];plan=null;replacing=null;asked=-1;timer=0;given={};wanted=null;take(e){this.forms=e;let t=new Map;for(let i of e.kinds){let[r,o]=i.kind.includes(".")?i.kind.split("."):["other",i.kind],l=t.get(r);l||(l=n("optgroup",{attrs:{label:r}}),t.set(r,l)),l.append(n("option",{text:o.replaceAll("_"," "),attrs:{value:i.kind}}))}this.kinds.replaceChildren(...t.values()),this.wanted!==null&&this.build(this.wanted,this.given)}show(e){this.replacing!==null&&e?.version!==this.plan?.version&&this.close(),this.plan=e}open(e,t={}){this.replacing=null,this.begin(e,t)}edit(e){let t=this.plan?.edits[e]?.data;t&&(this.replacing=e,this.begin(String(t.kind),t))}close(){this.node.hidden=!0,this.wanted=null,window.clearTimeout(this.timer)}previewed(e){e.seq===this.asked&&(this.say(e.refused||s("Will %1.",e.text),e.refused!=="",e.refused?"refused":"ready"),this.submit.disabled=e.refused!=="")}begin(e,t){this.node.hidden=!1,this.wanted=e,this.given=t,this.submit.textContent=this.replacing===null?s("Add to the plan"):s("Change the edit"),this.kinds.disabled=this.replacing!==null,this.forms?this.build(e,t):(this.preview.textContent=s("Asking the kernel what there is\u2026"),this.actions.send({type:"forms_of"})),this.node.scrollIntoView({block:"nearest"})}build(e,t){let i=this.forms?.kinds.find(d=>d.kind===e)??this.forms?.kinds[0];if(!i)return;this.wanted=i.kind,this.kinds.value=i.kind,b(this.node,"data-wb-form",i.kind),this.about.textContent=i.about;let{properties:r,required:o}=i.parameters,l=Object.keys(r).sort((d,h)=>Je.indexOf(d)-Je.indexOf(h));this.fields.replaceChildren(),this.made=l.filter(d=>r[d].const===void 0).map(d=>this.field(d,r[d],t[d],o.includes(d))),this.changed(),(this.made[0]?.input??this.kinds).focus()}field(e,t,i,r){let o=this.definitions,l=e.replaceAll("_"," "),d=i===void 0?t.default:i,h,p=null;if(Ge(t,o))h=n("input",{attrs:{type:"checkbox",name:e}}),h.checked=d===!0;else if(Ue(t,o))h=n("select",{class:"wb-select",attrs:{name:e}}),h.append(...J(t,o).map(c=>n("option",{text:c,attrs:{value:c}}))),h.value=Be(d);else{let c=J(t,o),m=`wb-words-${++Rt}`;p=c.length?n("datalist",{attrs:{id:m}},...c.map(g=>n("option",{attrs:{value:g}}))):null,h=n("input",{class:"wb-input",attrs:{name:e,placeholder:Re(t,o),autocomplete:"off",spellcheck:"false",list:p?m:void 0,required:r}}),h.value=Be(d)}return this.fields.append(n("label",{class:"wb-field",title:t.description??""},n("span",{class:"wb-label",text:l+(r?" *":"")}),h,p)),{name:e,required:r,schema:t,input:h}}get definitions(){return this.forms?.definitions??{}}data(){let e={kind:this.wanted};for(let{name:t,schema:i,input:r}of this.made){if(r instanceof HTMLInputElement&&r.type==="checkbox"){e[t]=r.checked;continue}let o;try{o=Xe(r.value,i,this.definitions)}catch(l){throw new Error(s("%1: type for instance %2",t.replaceAll("_"," "),l.message))}o!==void 0&&(e[t]=o)}return e}changed(){window.clearTimeout(this.timer),this.submit.disabled=!0;let e=this.made.filter(({required:i,input:r})=>i&&r.value.trim()==="").map(({name:i})=>i);if(e.length){this.say(s("Still to fill in: %1.",e.join(", ")),!1,"empty");return}let t;try{t=this.data()}catch(i){this.say(i.message,!0,"refused");return}b(this.preview,"data-wb-preview","asking"),this.timer=window.setTimeout(()=>{this.asked=this.actions.send({type:"preview",edit:t})},120)}say(e,t,i){this.preview.textContent=e,this.preview.classList.toggle("wb-refused",t),b(this.preview,"data-wb-preview",i)}add(){if(this.submit.disabled)return;let e=this.data();if(this.replacing===null)this.actions.send({type:"add",edit:e});else if(this.plan){let t=this.plan.edits[this.replacing]?.enabled??!0;this.actions.send({type:"replace",version:this.plan.version,index:this.replacing,edit:{...e,enabled:t}})}this.close()}};var Bt=0,Z=class{node;openButton;model=n("div",{class:"wb-model"});picker;source;models;listed=!1;constructor(e){this.picker=M(s("Bench"),[],e.use),this.models=n("datalist",{attrs:{id:`wb-models-${++Bt}`}});let t=()=>e.open(this.source.value.trim()||null);this.source=n("input",{class:"wb-input",attrs:{"aria-label":s("Model to open"),placeholder:s("folder or hub id; empty: the demo model"),spellcheck:"false",autocomplete:"off",list:this.models.id},on:{keydown:r=>{r.key==="Enter"&&t()},focus:()=>{this.listed||(this.listed=!0,e.control({type:"models_of"}))}}}),this.openButton=u(s("Open"),"open",s("Open this model in the kernel"),t);let i=u("?","help",s("Show what is where"),e.help);i.setAttribute("aria-label",s("Help")),this.node=n("div",{class:"wb-head"},this.model,this.picker,n("span",{class:"wb-grow"}),n("div",{class:"wb-open"},this.source,this.models,this.openButton,i))}show(e){let t=e?.moe_layers.length?s("%1 layers \xB7 %2 experts, %3 per token",e.layers,e.experts,e.top_k):s("%1 layers \xB7 dense",e?.layers);this.model.replaceChildren(...e?[n("strong",{class:"wb-name",text:He(e.name),title:e.name}),n("span",{class:"wb-quiet",text:`${e.model_type} \xB7 ${t}`}),n("span",{class:"wb-chip",text:e.isa?`${e.kernels} \xB7 ${e.isa}`:e.kernels,title:s("kernel backend in use")})]:[n("strong",{text:s("Workbench")})])}showBenches(e,t){this.picker.replaceChildren(...e.map(i=>n("option",{text:i.variables.length?`${i.variables.join(", ")} \xB7 ${He(i.name)}`:He(i.name),attrs:{value:i.key}}))),this.picker.hidden=e.length<2,t&&(this.picker.value=t)}showModels(e){this.models.replaceChildren(...e.rows.map(({name:t,note:i})=>n("option",{text:i,attrs:{value:t}})))}};function He(a){return/^(\/|[A-Za-z]:\\)/.test(a)?`\u2026/${a.split(/[/\\]/).filter(Boolean).pop()??a}`:a}var Ht=()=>[{title:s("Prompt"),at:".wb-prompt",text:s("Type text and press Enter. The model reads it once without a plan (base) and, if there is one, once with it (edited). Both are recorded in the store.")},{title:s("Routing map"),at:".wb-map-card",text:s("Tokens run across, layers down; the colour is the expert that got the greatest weight. Arrows move, Enter inspects, + and \u2212 zoom, B flips between base and edited. Drag, or Shift and arrows, marks a box; a click on a layer\u2019s or token\u2019s label marks all of it.")},{title:s("Inspector"),at:".wb-inspector",text:s("Every expert of the selected cell with its score. Ban, force or boost one: it acts at once. \u201CAct on\u201D says how far; the number of an expert tells what else it gets.")},{title:s("Plan"),at:".wb-plan",text:s("What you change is a plan: switch edits off, reorder, undo, keep it under a name, copy it as Python. \u201CAdd edit\u201D has a form for every kind of edit.")},{title:s("Live"),at:".wb-live",text:s("Generate goes on from the prompt token by token. Pause, step, rewind or branch; an edit acts at the next token.")},{title:s("Other views"),at:".wb-tabs",text:s("Charts of the run, the difference of two runs, all runs of the store, and SQL over them. A page of the runs in view opens without a kernel.")}],ee=class{constructor(e){this.root=e;this.back=u(s("Back"),"help-back",s("The part before"),()=>this.go(this.at-1)),this.next=u(s("Next"),"help-next",s("The next part"),()=>this.go(this.at+1)),this.next.classList.add("wb-primary"),this.node=n("div",{class:"wb-help",attrs:{role:"dialog","aria-label":s("Help"),hidden:!0},on:{keydown:t=>{t.key==="Escape"&&(t.stopPropagation(),this.close())}}},n("div",{class:"wb-row"},this.title,this.count),this.text,n("div",{class:"wb-row"},this.back,this.next,n("span",{class:"wb-grow"}),u(s("Close"),"help-close",s("Close the help (Escape)"),()=>this.close())))}node;title=n("strong");count=n("span",{class:"wb-quiet"});text=n("p");back;next;at=-1;marked=null;before=null;open(){this.before=document.activeElement,this.go(0)}close(){this.marked?.classList.remove("wb-explained"),this.node.hidden=!0,this.at=-1,this.before?.focus()}go(e){let t=Ht(),i=t[e];if(!i){this.close();return}this.at=e,this.marked?.classList.remove("wb-explained"),this.marked=this.root().querySelector(i.at),this.marked?.classList.add("wb-explained"),this.marked?.scrollIntoView({block:"nearest"}),this.title.textContent=i.title,this.count.textContent=s("%1 of %2",e+1,t.length),this.text.textContent=i.text,this.back.disabled=e===0,this.next.textContent=e+1<t.length?s("Next"):s("Done"),b(this.node,"data-wb-help",String(e)),this.node.hidden=!1,this.next.focus()}};var D=(a,e)=>JSON.stringify(a)===JSON.stringify(e);function O({scope:a,position:e,box:t}){return a==="box"&&t?{start:t.tokens[0],stop:t.tokens[1]+1}:a==="all"?"all":[e]}function j({scope:a,layer:e,box:t}){return a!=="box"||!t?[e]:Array.from({length:t.layers[1]-t.layers[0]+1},(i,r)=>t.layers[0]+r)}function qe({enabled:a,phase:e,data:t}){let i=r=>r==null||r==="all";return a&&e==="all"&&i(t.where)&&i(t.rows)&&i(t.steps)}function _(a,e,t,i){let r=o=>qe(o)&&e.includes(o.kind)&&D(o.layers,j(t))&&D(o.tokens,i===void 0?"all":O(t))&&D(o.experts,i===void 0?[]:[i]);return a.edits.findIndex(r)}function Qe(a,e,t,i){let r={kind:e,layers:j(t),experts:[i],tokens:O(t)},o=_(a,["reroute.ban","reroute.force"],t,i);return o<0?{type:"add",edit:{...r}}:a.edits[o].kind===e?{type:"remove",version:a.version,index:o}:{type:"replace",version:a.version,index:o,edit:{...r}}}function Ze(a,e,t,i){let r=_(a,["reroute.bias"],e,t),o=r>=0&&a.edits[r].delta===null?-1:r,l=(o<0?0:a.edits[o].delta)+i;if(o>=0&&l===0)return{type:"remove",version:a.version,index:o};let d={kind:"reroute.bias",layers:j(e),delta:{[t]:l},tokens:O(e)};return o<0?{type:"add",edit:{...d}}:{type:"replace",version:a.version,index:o,edit:{...d}}}function et(a,e){let t={kind:"skip.block",layers:[e]},i=_(a,["skip.block"],{layer:e,position:0,scope:"all"});return i<0?{type:"add",edit:{...t}}:{type:"remove",version:a.version,index:i}}function tt(a,e,t){let i=st(a,e);return i<0?1:a.edits[i].data.scale[t]??1}function it(a,e,t,i){let r=st(a,e),o={...r<0?{}:a.edits[r].data.scale};if(delete o[t],i!==1&&(o[t]=i),!Object.keys(o).length)return r<0?null:{type:"remove",version:a.version,index:r};let l={kind:"reroute.weights",layers:j(e),tokens:O(e),scale:o};return r<0?{type:"add",edit:{...l}}:{type:"replace",version:a.version,index:r,edit:{...l}}}function st(a,e){return a.edits.findIndex(t=>qe(t)&&t.kind==="reroute.weights"&&D(t.layers,j(e))&&D(t.tokens,O(e))&&typeof t.data.scale=="object"&&t.data.scale!==null)}function Pe(a,e,t){let i=a.edits.findIndex(o=>qe(o)&&o.kind==="mask.heads"&&o.tokens==="all"&&D(o.layers,[e])&&D(o.data.heads,[t])),r={kind:"mask.heads",layers:[e],heads:[t]};return i<0?{type:"add",edit:{...r}}:{type:"remove",version:a.version,index:i}}function rt(a,e){return{type:"add",edit:{...{kind:"reroute.replay",layers:j(a),tokens:O(a)},run:e}}}function te({layers:a,tokens:e}){let t=(i,r,[o,l])=>o===l?s(i,o):s(r,o,l);return`${t("layer %1","layers %1 to %2",a)}, ${t("token %1","tokens %1 to %2",e)}`}var nt=256,ie=512,qt=80,Pt=1.5,$e=[213,94,0],At={uint8:Uint8Array,int16:Int16Array,float32:Float32Array};function V(a,e){let t=e.buffer.slice(e.byteOffset,e.byteOffset+e.byteLength);return new At[a.dtype](t)}var se=class{constructor(e,t,i){this.layers=i;this.first=e.first,this.bucket=e.bucket,this.columns=e.columns,this.colour=e.colour,this.layer=e.layer,this.texts=e.texts,this.range=e.range,e.arrays.forEach((r,o)=>this.arrays.set(r.name,V(r,t[o])))}first;bucket;columns;colour;layer;texts;range;picture=null;arrays=new Map;at(e,t,i,r=0){return this.arrays.get(e)?.[(r*this.layers+t)*this.columns+i]??NaN}lane(e,t){return this.arrays.get("lanes")?.[e*this.columns+t]??NaN}},re=class{run;base;edited;layers;tokens;experts;choices;colours;whole;tiles=new Map;ranges=new Map;constructor(e,t){this.run=e.run,this.base=e.base,this.edited=e.edited,this.layers=e.layers.length,this.tokens=e.tokens,this.experts=e.experts,this.choices=e.choices,this.colours=e.colours,this.whole=e.tile!==null,e.tile&&this.tiles.set("whole",new se(e.tile,t,this.layers))}take(e,t){let i=new se(e,t,this.layers);i.range&&this.ranges.set(i.colour,i.range),this.tiles.set(Ae(i.colour,i.bucket,i.first,i.layer),i),this.tiles.size>qt&&this.tiles.delete(this.tiles.keys().next().value)}bucket(e){return this.whole?1:2**Math.max(0,Math.ceil(Math.log2(Pt/e)))}tile(e,t,i,r=null){if(this.whole)return this.tiles.get("whole");let o=Ae(e,t,this.start(t,i),r),l=this.tiles.get(o);return l&&(this.tiles.delete(o),this.tiles.set(o,l)),l??null}missing(e,t,i,r,o){if(this.whole)return[];let l=[],d=t*(t===1?nt:ie);for(let h=this.start(t,Math.max(0,i));h<=Math.min(r,this.tokens-1);h+=d){let p=[[t===1?"":e,null]];o!==null&&t>1&&p.push(["lanes",o]);for(let[c,m]of p){let g=Ae(c,t,h,m);this.tiles.has(g)||l.push({key:g,colour:c||"expert",first:h,bucket:t,layer:m})}}return l}start(e,t){let i=e*(e===1?nt:ie);return Math.floor(t/i)*i}fine(e){return this.tile("",1,e)}knows(e){return this.fine(e)!==null}text(e){let t=this.fine(e);return t?.texts[e-t.first]??null}read(e,t,i,r=0){let o=this.fine(i);return o?o.at(e,t,i-o.first,r):NaN}chosen(e,t){let i=[];for(let r=0;r<this.choices;r++){let o=this.read("experts",e,t,r);o>=0&&i.push({expert:o,weight:this.read("weights",e,t,r)})}return i}wasEdited(e,t){return this.read("edited",e,t)>0}flipped(e,t){return this.read("flip",e,t)>0}skipped(e,t){return this.read("skipped",e,t)>0}value(e,t,i){let r=this.fine(i);return r?ot(r,e,t,i-r.first):NaN}range(e){let t=this.ranges.get(e);if(!t){t=[1/0,-1/0];for(let i=0;this.whole&&i<this.layers;i++)for(let r=0;r<this.tokens;r++){let o=this.value(e,i,r);Number.isFinite(o)&&(t=[Math.min(t[0],o),Math.max(t[1],o)])}t=t[0]>t[1]?[0,1]:t,this.whole&&this.ranges.set(e,t)}return t}fill(e,t,i,r,o){let l=ot(e,t,i,r);if(!Number.isFinite(l))return null;if(t==="expert"){let p=e.bucket===1?1:e.at("share",i,r);return z(o,B(l),.25+.75*p)}if(t==="flip")return z(o,$e,Math.sqrt(l));let[d,h]=this.range(t);return S(h>d?(l-d)/(h-d):.5)}};function ot(a,e,t,i){if(a.at("skipped",t,i)>=1)return NaN;let r=a.bucket===1;if(e==="expert"||r&&e==="flip"){let o=a.at("experts",t,i);return o<0?NaN:e==="expert"?o:a.at("flip",t,i)}return a.at(e==="weight"?"weights":e,t,i)}function Ae(a,e,t,i){return`${e===1&&a!=="lanes"?"":a}:${e}:${t}:${i??""}`}var ne=class{constructor(e,t){this.send=e;this.compute=t;let i=u("\xD7","close-heads",s("Close the heads"),()=>this.take(null));b(i,"aria-label",s("Close the heads")),this.node=n("div",{class:"wb-trials",attrs:{hidden:!0}},n("div",{class:"wb-row"},this.title,n("span",{class:"wb-grow"}),i),this.list)}node;list=n("div",{class:"wb-heads"});title=n("span",{class:"wb-quiet"});told=null;plan=null;layer;ask(e){this.compute({type:"heads_of",layer:e})}show(e,t){this.plan=t,this.layer=e?.layer,this.told&&(e?.layer!==this.told.message.layer||e.run!==this.told.message.run)&&(e?.layer===this.told.message.layer?(this.told={message:{...this.told.message,run:e.run},values:this.told.values},this.ask(e.layer)):this.take(null)),this.render()}take(e,t=[]){this.told=e&&e.layer===this.layer?{message:e,values:V(e.array,t[0])}:null,this.render()}render(){if(this.node.hidden=!this.told,b(this.node,"data-wb-heads",this.told?String(this.told.message.layer):void 0),!this.told||!this.plan){this.list.replaceChildren();return}let{message:e,values:t}=this.told,[i,r]=e.array.shape;this.title.textContent=s("Attention of layer %1, tokens %2 to %3: rows attend, columns are attended to",e.layer,e.first,e.first+r-1);let o=this.plan;this.list.replaceChildren(...Array.from({length:i},(l,d)=>{let p=Pe(o,e.layer,d).type==="remove",c=u(p?s("Unmask %1",d):s("Mask %1",d),"mask-head",s("Replace the output of head %1 by zero, for all tokens",d),()=>this.send(Pe(o,e.layer,d)));b(c,"aria-pressed",String(p));let m=this.picture(t,d,r);return b(m,"role","img"),b(m,"aria-label",s("Attention pattern of head %1",d)),n("div",{class:"wb-head-card",attrs:{"data-wb-head":String(d),"data-wb-masked":String(p)}},m,c)}))}picture(e,t,i){let r=n("canvas",{attrs:{width:String(i),height:String(i)}}),o=r.getContext("2d"),l=o.createImageData(i,i);for(let d=0;d<i*i;d++)l.data.set([...S(e[t*i*i+d]/255),255],4*d);return o.putImageData(l,0,0),r}};var oe=class{node;body=n("div");wanted=null;constructor(){let e=u("\xD7","close-profile",s("Close the profile"),()=>this.close());b(e,"aria-label",s("Close the profile")),this.node=n("div",{class:"wb-trials wb-profile",attrs:{hidden:!0}},n("div",{class:"wb-row"},this.body,n("span",{class:"wb-grow"}),e))}want(e,t){this.wanted={layer:e,expert:t},this.node.hidden=!1,b(this.node,"data-wb-profile",void 0),this.body.replaceChildren(n("span",{class:"wb-quiet",text:s("Reading what the store knows of expert %1 \u2026",t)}))}close(){this.wanted=null,this.node.hidden=!0}inspect(e){this.wanted&&this.wanted.layer!==e&&this.close()}take(e){if(e.layer!==this.wanted?.layer||e.expert!==this.wanted.expert)return;b(this.node,"data-wb-profile",`${e.layer},${e.expert}`);let t=n("strong",{text:s("Expert %1 of layer %2",e.expert,e.layer)});if(!e.count){this.body.replaceChildren(t,n("p",{class:"wb-note",text:s("No token of this model was routed to it in this store.")}));return}this.body.replaceChildren(t,n("p",{class:"wb-note",text:s("%1 tokens of %2 runs \xB7 %3 % of the layer\u2019s choices \xB7 mean weight %4",e.count,e.runs,f(100*e.share,3),e.weight===null?"\u2013":f(e.weight,3))}),n("div",{class:"wb-profile-tokens"},...e.tokens.map(({text:i,count:r,lift:o})=>n("span",{class:"wb-key",title:s("%1 times; %2 \xD7 as often as other tokens",r,f(o,3))},n("code",{class:"wb-token",text:k(i)}),n("span",{class:"wb-quiet wb-number",text:o>=1.5?`${r} \u2191`:String(r)})))),e.peers.length?n("p",{class:"wb-note",text:s("chosen together with %1",e.peers.map(({expert:i,share:r})=>`${i} (${Math.round(100*r)} %)`).join(", "))}):"")}};var ae=class{constructor(e){this.send=e;let t=u("\xD7","close",s("Close the list of exchanges"),()=>this.take(null));b(t,"aria-label",s("Close the list of exchanges")),this.node=n("div",{class:"wb-trials",attrs:{hidden:!0}},n("div",{class:"wb-row"},this.title,n("span",{class:"wb-grow"}),t),this.list)}node;title=n("span",{class:"wb-quiet"});list=n("div",{class:"wb-trial-list",attrs:{role:"list",tabindex:"0","aria-label":s("Every exchange, best first")}});trials=null;drawn=null;take(e){this.trials=e,e===null&&this.show(null)}show(e){let t=this.trials,i=!!t&&!!e&&t.layer===e.layer&&t.position===e.position;if(this.node.hidden=!i,b(this.node,"data-wb-trials",i?`${t.layer},${t.position}`:void 0),!i||this.drawn===t)return;this.drawn=t,this.title.textContent=t.followed?s("Change of log-probability of the %1 tokens that followed, in nats; in brackets of the next, \u201C%2\u201D",t.followed,k(t.target)):s("Change of log-probability of the likeliest next token \u201C%1\u201D, in nats",k(t.target));let r=Math.max(1e-12,...t.rows.map(o=>Math.abs(o.change??0)));this.list.replaceChildren(...t.rows.map(o=>this.row(t,o,r)))}row(e,t,i){let r=t.change??0,o=n("span",{class:`wb-swing ${r<0?"wb-loss":"wb-gain"}`});o.style.width=`${(50*Math.abs(r)/i).toFixed(1)}%`;let l=p=>{let c=n("span",{class:"wb-swatch"});return c.style.background=L(B(p)),c},d=t.change===null?"\u2013":A(t.change,3),h=u("","exchange",s("Put this exchange into the plan, for this token alone"),()=>this.send({type:"exchange",layer:e.layer,position:e.position,removed:t.removed,expert:t.expert}));return b(h,"aria-label",s("Exchange expert %1 for %2: %3 nats",t.removed,t.expert,d)),h.append(l(t.removed),n("span",{class:"wb-number",text:`${t.removed} \u2192 ${t.expert}`}),l(t.expert),n("span",{class:"wb-swing-track"},o),n("span",{class:`wb-number ${r>0?"wb-up":r<0?"wb-down":"wb-quiet"}`,text:d}),n("span",{class:"wb-quiet",text:e.followed?`(${t.next_change===null?"\u2013":A(t.next_change,2)})`:"",title:t.next_change===null?"":s("next token %1 nats",f(t.next_change))})),n("div",{attrs:{role:"listitem","data-wb-trial":`${t.removed},${t.expert}`}},h)}};var le=class{constructor(e,t){this.send=e;this.trials=new ae(e),this.heads=new ne(e,t),this.source=n("input",{class:"wb-input wb-short",attrs:{type:"number",min:"0","aria-label":s("Token to take the route from"),placeholder:"0"}}),this.imitate=u(s("Route like token"),"imitate",s("Give this token the experts and weights of another one in this layer"),()=>{this.cell&&this.source.value&&this.send({type:"imitate",layer:this.cell.layer,position:this.cell.position,source:Number(this.source.value)})}),this.replayBase=u(s("Replay base"),"replay",s("Use the routes of the base run here, whatever else the plan does"),()=>{this.cell&&this.base&&this.send(rt(this.target,this.base))});let i=u(s("Heads"),"heads",s("Show what each attention head of this layer looks at, and mask one"),()=>{this.cell&&this.heads.ask(this.cell.layer)});this.more=n("div",{class:"wb-row wb-more"},i,this.imitate,this.source,this.replayBase),this.attempt=u(s("Try every expert"),"try",s("What every other expert here would have done to the text that followed"),()=>{this.cell&&t({type:"try",layer:this.cell.layer,position:this.cell.position})}),this.scopes=M(s("Clicks act on"),[["all",s("all tokens")],["token",s("this token")]],r=>{this.scope=r,this.render()}),this.orders=M(s("Order"),[["score",s("by score")],["id",s("by number")]],r=>{this.order=r,this.render()}),this.skip=u(s("Skip block"),"skip","",()=>{this.cell&&this.plan&&this.send(et(this.plan,this.cell.layer))}),this.tools=n("div",{class:"wb-tools"},n("label",{class:"wb-label"},s("Act on")," ",this.scopes),n("label",{class:"wb-label"},s("Sort")," ",this.orders),this.attempt),this.node=n("section",{class:"wb-card wb-inspector",attrs:{"aria-label":s("Cell inspector")}},n("div",{class:"wb-row"},this.title,n("span",{class:"wb-grow"}),this.skip),this.facts,this.tools,this.note,this.more,this.trials.node,this.heads.node,this.profile.node,this.list),this.render()}node;title=n("h3",{class:"wb-title"});facts=n("dl",{class:"wb-facts"});note=n("p",{class:"wb-note"});list=n("div",{class:"wb-experts",attrs:{role:"list","aria-label":s("Experts")}});tools;skip;attempt;trials;scopes;orders;rows=new Map;scope="all";order="score";cell=null;plan=null;bench=null;box=null;base=null;foreign=null;profile=new oe;heads;more;source;imitate;replayBase;boxScope=n("option",{text:s("the marked box"),attrs:{value:"box"}});show(e,t,i,r,o){this.foreign=r&&i&&r.model!==i.name?r.model||s("another model"):null,this.cell=e,this.plan=t,this.bench=i,this.base=o,this.profile.inspect(e?.layer),this.heads.show(e,t),this.render()}mark(e){let t=e&&!this.box;this.box=e,e?(this.boxScope.isConnected||this.scopes.append(this.boxScope),t&&(this.scope="box")):(this.boxScope.remove(),this.scope==="box"&&(this.scope="all")),this.scopes.value=this.scope,this.render()}actOn(e){this.scope=e,this.scopes.value=e,this.render()}takeProfile(e){this.profile.take(e)}takeHeads(e,t){this.heads.take(e,t)}take(e){this.trials.take(e),this.trials.show(this.cell)}get target(){return{layer:this.cell.layer,position:this.cell.position,scope:this.scope,box:this.box}}render(){let e=this.cell,t=this.plan;if(b(this.node,"data-wb-cell",e?`${e.layer},${e.position}`:void 0),this.facts.replaceChildren(),this.trials.show(e),this.tools.hidden=!e?.experts.length,this.skip.hidden=!e||this.foreign!==null,this.more.hidden=!e||this.foreign!==null,!e||!t){this.title.textContent=s("Inspector"),this.note.textContent=s("Run a prompt, then click a cell of the map to see how its token was routed."),this.list.replaceChildren(),this.rows.clear();return}this.title.replaceChildren(s("Layer %1",e.layer),n("span",{class:"wb-quiet",text:" \xB7 "}),s("token %1",e.position)," ",n("code",{class:"wb-token",text:k(e.text)})),this.fact(s("margin"),e.margin,s("k-th best score minus the next: how close the choice was")),this.fact(s("entropy"),e.entropy,s("of the routing distribution, in nats")),this.fact(s("influence"),e.facts.influence,s("1 \u2212 cosine of what enters and leaves the block")),e.experts.length||(this.fact(s("attention"),e.facts.attn_norm,s("norm of what attention adds, relative to the stream")),this.fact(s("MLP"),e.facts.mlp_norm,s("norm of what the MLP adds, relative to the stream")),this.fact(s("zeros"),e.facts.zero_share,s("share of activations that are exactly zero")));let i=this.foreign===null?this.bench?.refused[String(e.layer)]:"",r=e.experts.length>0&&i===void 0;this.imitate.hidden=this.source.hidden=this.replayBase.hidden=!r,this.replayBase.disabled=!this.base||this.base===e.run,this.attempt.disabled=i!==void 0||!e.experts.some(o=>o.chosen),this.renderSkip(e,t),this.renderNote(e,i),this.renderRows(e,t,i!==void 0)}fact(e,t,i){t!=null&&this.facts.append(n("div",{title:i},n("dt",{text:e}),n("dd",{text:f(t)})))}renderSkip(e,t){let i=_(t,["skip.block"],{...this.target,scope:"all"})>=0;this.skip.textContent=i?s("Unskip block"):s("Skip block"),this.skip.title=i?s("Run block %1 again",e.layer):s("Leave block %1 out for all tokens",e.layer),b(this.skip,"aria-pressed",String(i))}renderNote(e,t){this.foreign!==null?this.note.textContent=s("This run was recorded with %1, which is not the open model: it can be looked at. Press Run to read its prompt with the open model.",this.foreign):e.skipped?this.note.textContent=s("This block is skipped: nothing in it runs."):t!==void 0?this.note.textContent=s("This layer can be read but not re-routed: %1",t):e.experts.length?this.scope==="box"&&this.box?this.note.textContent=s("Ban, force and boost hold for the marked box: %1.",te(this.box)):this.scope==="all"?this.note.textContent=s("Ban and force hold in layer %1 for all tokens. %2 of %3 experts are chosen per token.",e.layer,e.choices,e.experts.length):this.note.textContent=s("Ban and force hold in layer %1 for token %2 alone. %3 of %4 experts are chosen per token.",e.layer,e.position,e.choices,e.experts.length):this.note.textContent=s("This layer has no router: every token passes through the same MLP.")}renderRows(e,t,i){let r=p=>p.base??p.score??(p.weight===null?-1/0:p.weight-1e9),o=[...e.experts].sort((p,c)=>this.order==="score"&&r(c)-r(p)||p.expert-c.expert),l=e.experts.map(p=>p.score??p.base).filter(p=>p!==null),d=Math.max(...l),h=Math.min(0,...l);for(let p of this.rows.keys())p>=o.length&&(this.rows.get(p).node.remove(),this.rows.delete(p));o.forEach((p,c)=>{let m=this.rows.get(p.expert)??this.makeRow(p.expert);this.fill(m,p,t,h,d,i),this.list.children[c]!==m.node&&this.list.insertBefore(m.node,this.list.children[c]??null)})}makeRow(e){let t=n("div",{class:"wb-bar"}),i=n("span",{class:"wb-number"}),r=n("span",{class:"wb-number wb-weight"}),o=n("span",{class:"wb-badge"}),l=v=>()=>{this.plan&&this.cell&&this.send(Qe(this.plan,v,this.target,e))},d=u(s("Ban"),"ban","",l("reroute.ban")),h=u(s("Force"),"force","",l("reroute.force")),p=u("+1","boost","",()=>{});p.addEventListener("click",v=>{this.plan&&this.cell&&this.send(Ze(this.plan,this.target,e,v.shiftKey?-1:1))});let c=n("span",{class:"wb-swatch"});c.style.background=L(B(e));let m=n("input",{class:"wb-slider",attrs:{type:"range",min:"0",max:"3",step:"0.1","data-wb-action":"weight","aria-label":s("Factor of the weight of expert %1",e)},on:{change:()=>{let v=this.plan&&this.cell?it(this.plan,this.target,e,Number(m.value)):null;v&&this.send(v)},input:()=>m.title=s("weight \xD7 %1",m.value)}}),g=u(String(e),"profile",s("What else is routed to expert %1",e),()=>{this.cell&&(this.profile.want(this.cell.layer,e),this.send({type:"profile_of",layer:this.cell.layer,expert:e}))});g.classList.add("wb-expert-id");let x={node:n("div",{class:"wb-expert",attrs:{role:"listitem","data-wb-expert":String(e)}},c,g,n("div",{class:"wb-track"},t,i),n("div",{class:"wb-weight-cell"},r,m),o,d,h,p),bar:t,score:i,weight:r,badge:o,ban:d,force:h,boost:p,slider:m};return this.rows.set(e,x),x}fill(e,t,i,r,o,l){let d=t.score??t.base,h=d===null||o===r?0:(d-r)/(o-r);e.bar.style.width=`${(100*h).toFixed(1)}%`,e.score.textContent=d===null?"\u2013":f(d,3),b(e.score,"data-wb-score",d===null?void 0:String(d)),e.score.title=t.base===null?"":s("base %1",f(t.base)),e.weight.textContent=t.weight===null?"":f(t.weight,3),e.weight.title=t.weight===null?"":s("combine weight");let p={"":"",chosen:s("chosen"),native:s("native"),banned:s("banned"),forced:s("forced")};e.badge.textContent=p[t.state],e.badge.title=t.state==="native"?s("chosen in the base run, not any more"):"",b(e.node,"data-wb-state",t.state),b(e.node,"data-wb-chosen",String(t.chosen)),b(e.node,"data-wb-native",String(t.native));let c=_(i,["reroute.ban","reroute.force"],this.target,t.expert),m=c<0?"":i.edits[c].kind,g=this.scope==="box"?s("the marked box"):this.scope==="all"?s("all tokens"):s("this token");e.ban.textContent=m==="reroute.ban"?s("Unban"):s("Ban"),e.force.textContent=m==="reroute.force"?s("Unforce"):s("Force");let w=_(i,["reroute.bias"],this.target,t.expert),x=w<0?null:i.edits[w].delta;e.boost.disabled=l;let v=tt(i,this.target,t.expert);e.slider.hidden=l||!t.chosen&&v===1,e.slider.value=String(v),e.slider.title=s("weight \xD7 %1 \xB7 drag to change \xB7 %2",f(v,2),g),b(e.boost,"aria-pressed",String(x!==null)),b(e.boost,"aria-label",s("Boost expert %1",t.expert)),e.boost.title=s("Raise the logit of expert %1 by 1 (Shift: lower) \xB7 %2 \xB7 now %3",t.expert,g,A(x??0,2));for(let[C,E]of[[e.ban,m==="reroute.ban"],[e.force,m==="reroute.force"]])C.disabled=l,b(C,"aria-pressed",String(E)),C.title=`${C.textContent} \xB7 ${s("expert %1",t.expert)} \xB7 ${g}`,b(C,"aria-label",s("%1 expert %2",C.textContent,t.expert))}};var de=class{constructor(e){this.actions=e;let{compute:t,generate:i}=e;this.generate=u(s("Generate"),"generate",s("Go on token by token until paused"),()=>i(!0)),this.pause=u(s("Pause"),"pause",s("Stop after the token under way"),()=>i(!1)),this.step=u(s("Step"),"step",s("Generate one token"),()=>t({type:"step"})),this.rewind=u(s("Rewind"),"rewind","",()=>{let r=this.state?.selected?.position;r!==void 0&&t({type:"rewind",position:r})}),this.branch=u(s("Branch"),"branch",s("Keep this text and go on in a copy of it"),()=>t({type:"branch"})),this.branches=M(s("Branch in view"),[],r=>t({type:"timeline",index:Number(r)})),this.node=n("section",{class:"wb-card wb-live",attrs:{"aria-label":s("Live generation")}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Live")}),this.generate,this.pause,this.step,this.rewind,this.branch,this.branches),this.note,this.texts)}node;generate;pause;step;rewind;branch;branches;note=n("p",{class:"wb-note"});texts=n("div",{class:"wb-live-texts"});columns=new Map;state=null;show(e,t){this.state=e;let i=e?.live??null;this.node.hidden=!e?.base;let r=t?"running":i?i.ended?"ended":"paused":"";b(this.node,"data-wb-live",r),b(this.node,"data-wb-generated",String(i?.edited.length??0)),b(this.node,"data-wb-diverged",i?.diverged===null||!i?void 0:String(i.diverged)),this.generate.hidden=t,this.pause.hidden=!t,this.generate.disabled=this.step.disabled=!!i?.ended,this.step.disabled||=t;let o=e?.selected?.position??-1,l=i?i.prompt_tokens+i.edited.length-1:-1;this.rewind.disabled=t||!i||o<i.prompt_tokens-1||o>=l,this.rewind.title=this.rewind.disabled?s("Select the token that shall be the last one, from the end of the prompt on"):s("Take back what follows token %1",o),this.branch.disabled=t||!i,this.renderBranches(i?.timelines??[],i?.current??0,t),this.renderNote(e,r),this.renderTexts(e)}renderBranches(e,t,i){this.branches.hidden=e.length<2,this.branches.disabled=i,this.branches.replaceChildren(...e.map((r,o)=>n("option",{text:s("branch %1 \xB7 %2 tokens",o+1,r),attrs:{value:String(o)}}))),this.branches.value=String(t)}renderNote(e,t){let i=e?.live,r=[];i?(r.push(s("%1 tokens generated.",i.edited.length)),t==="ended"&&r.push(s("The text has ended: rewind to go on from an earlier token.")),i.pending&&r.push(s("The plan has changed: it acts from the next token on.")),i.diverged!==null?r.push(s("The two texts part at token %1 (\u2260).",i.diverged)):i.base&&r.push(s("The two texts agree so far.")),t==="paused"&&r.push(s("Run goes back to the prompt."))):r.push(s("Generate goes on from the prompt. Edits made meanwhile act from the next token on.")),this.note.textContent=r.join(" ")}renderTexts(e){let t=e?.live,i=[];t?.base?i.push(["base",s("without the plan"),t.base],["edited",s("with the plan"),t.edited]):t&&i.push(["base",s("without a plan"),t.edited]);let r=new Set(i.map(([o])=>o));for(let[o,l]of this.columns)r.has(o)||(l.node.remove(),this.columns.delete(o));for(let[o,l,d]of i){let h=this.columns.get(o)??this.makeColumn(o);h.node.firstElementChild.textContent=l,b(h.text,"aria-label",l),this.fill(h.text,d,t.prompt_tokens,t.diverged,e?.selected?.position)}}makeColumn(e){let t=n("div",{class:"wb-live-text",attrs:{tabindex:"0",role:"group","data-wb-text":e}}),i=n("div",{class:"wb-live-column"},n("div",{class:"wb-quiet"}),t),r={node:i,text:t};return this.columns.set(e,r),this.texts.append(i),r}fill(e,t,i,r,o){let l=t.length>e.childElementCount;for(;e.childElementCount>t.length;)e.lastElementChild.remove();t.forEach((d,h)=>{let p=e.children[h];p||(p=n("span",{class:"wb-chip-token",on:{click:()=>this.actions.select(i+h)}}),e.append(p)),p.getAttribute("data-text")!==d&&(p.textContent=d.replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205",b(p,"data-text",d)),p.title=s("token %1 \u201C%2\u201D",i+h,k(d)),p.classList.toggle("wb-on",i+h===o),p.classList.toggle("wb-diverged",i+h===r)}),l&&(e.scrollTop=e.scrollHeight)}};var $t=32,he=class{node=n("div",{class:"wb-legend"});show(e,t){if(!e){this.node.replaceChildren();return}let i=t==="expert"?this.experts(e):t==="flip"?this.flips(e):this.scale(e,t),r=[];e.edited&&(e.choices>0&&r.push(["wb-mark-edited",s("re-routed by the plan")]),e.choices>0&&t!=="flip"&&r.push(["wb-mark-flip",s("flipped against base")]),r.push(["wb-mark-skip",s("skipped")])),i.push(...r.map(([o,l])=>n("span",{class:"wb-key"},n("span",{class:`wb-mark ${o}`}),l))),this.node.replaceChildren(...i)}experts(e){let t=Math.min($t,e.experts),i=[n("span",{class:"wb-quiet",text:e.whole?s("expert of the greatest weight"):s("most frequent expert; paler: of fewer tokens")})];for(let r=0;r<t;r++){let o=n("span",{class:"wb-swatch"});o.style.background=L(B(r)),i.push(n("span",{class:"wb-key"},o,String(r)))}return e.experts>t&&i.push(n("span",{class:"wb-quiet",text:s("and so on to %1",e.experts-1)})),i}flips(e){if(!e.edited)return[n("span",{class:"wb-quiet",text:s("No edited run yet: ban or force an expert to see which choices flip.")})];let t=n("span",{class:"wb-swatch"});if(t.style.background=L($e),!e.whole)return[n("span",{class:"wb-key"},t,s("choices that differ from the base run; paler: fewer of a column"))];let i=0,r=0;for(let o=0;o<e.layers;o++)for(let l=0;l<e.tokens;l++)i+=e.flipped(o,l)?1:0,r+=e.chosen(o,l).length?1:0;return[n("span",{class:"wb-key"},t,s("%1 of %2 choices differ from the base run",i,r))]}scale(e,t){let[i,r]=e.range(t),o=n("span",{class:"wb-gradient"});o.style.background=`linear-gradient(to right, ${[0,.2,.4,.6,.8,1].map(d=>L(S(d))).join(", ")})`;let l={weight:s("combine weight of the first expert"),margin:s("k-th best score minus the next; low: nearly went elsewhere"),entropy:s("entropy of the routing distribution in nats"),influence:s("1 \u2212 cosine of what enters and leaves the block"),contribution:s("norm of what the block adds, relative to the stream"),sparsity:s("share of activations that are exactly zero")};return[n("span",{class:"wb-number",text:f(i,3)}),o,n("span",{class:"wb-number",text:f(r,3)}),n("span",{class:"wb-quiet",text:(l[t]??"")+(e.whole?"":` \xB7 ${s("1st to 99th percentile")}`)})]}};var pe=132,ce=class{node;canvas;note=n("div",{class:"wb-quiet wb-load-note"});geometry=null;load=null;layers=0;experts=0;run="";constructor(){this.canvas=n("canvas",{attrs:{role:"img","aria-label":s("Load of every expert by layer")},on:{pointermove:e=>this.tell(e),pointerleave:()=>this.note.textContent=""}}),this.node=n("div",{class:"wb-load",attrs:{hidden:!0}},this.canvas,this.note)}show(e,t=[]){this.run=e?.run??"",this.load=e?V(e.array,t[0]):null,[this.layers,this.experts]=e?.array.shape??[0,0],this.node.hidden=!this.load||this.experts===0,b(this.node,"data-wb-load",e?e.run:void 0),this.draw()}place(e){let{head:t,height:i}=e,r=t!==this.geometry?.head||i!==this.geometry?.height;this.geometry={...e},r&&this.draw()}draw(){if(!this.load||!this.geometry)return;let{head:e,height:t}=this.geometry,i=window.devicePixelRatio||1,r=e+this.layers*t+2;this.canvas.width=pe*i,this.canvas.height=r*i,this.canvas.style.width=`${pe}px`,this.canvas.style.height=`${r}px`;let o=this.canvas.getContext("2d");o.setTransform(i,0,0,i,0,0);let l=getComputedStyle(this.node);o.fillStyle=l.getPropertyValue("--wb-ink-2").trim()||"#666",o.font=`11px ${l.fontFamily}`,o.textBaseline="middle",o.fillText(s("expert load"),0,e-9);let d=pe/this.experts;for(let h=0;h<this.layers;h++)for(let p=0;p<this.experts;p++){let c=this.load[h*this.experts+p];Number.isFinite(c)&&(o.fillStyle=L(S(Math.min(1,c*this.experts/3))),o.fillRect(p*d,e+h*t,Math.max(d-(d>5?1:0),.6),t-1))}}tell(e){if(!this.load||!this.geometry)return;let t=this.canvas.getBoundingClientRect(),i=Math.floor((e.clientY-t.top-this.geometry.head)/this.geometry.height),r=Math.floor((e.clientX-t.left)/pe*this.experts),o=i>=0&&i<this.layers?this.load[i*this.experts+r]:void 0;this.note.textContent=o===void 0||!Number.isFinite(o)?"":s("layer %1 \xB7 expert %2: %3 % of the choices, %4 \xD7 even",i,r,f(100*o,3),f(o*this.experts,2))}};var y=34,De=Math.PI/3.4,at=9,dt=20;function ue(a,e){return a.head+e.layers*a.height+dt}function ht(a,e,t,i){let r=window.devicePixelRatio||1,o=a.clientWidth,l=a.clientHeight;if(a.width=Math.round(o*r),a.height=Math.round(l*r),e.setTransform(r,0,0,r,0,0),e.clearRect(0,0,o,l),!i)return;let d=getComputedStyle(t),h=(x,v)=>d.getPropertyValue(x).trim()||v,p=h("--wb-cell","#eee"),c={paper:h("--wb-paper","#fff"),text:h("--wb-ink","#000"),faint:h("--wb-ink-2","#666"),accent:h("--wb-accent","#1976d2"),empty:p,none:Kt(p),family:d.fontFamily},m=Math.max(0,Math.floor((i.scroll-y)/i.width)),g=Math.min(i.data.tokens-1,Math.ceil((i.scroll+o-y)/i.width));e.save(),e.beginPath(),e.rect(y,0,o-y,l),e.clip();let w=i.data.bucket(i.width);w===1?Dt(e,i,c,m,g):Nt(e,i,c,m,g,w),i.rows==="lanes"&&Ot(e,i,c,m,g,w),Ft(e,i,c),e.restore(),e.save(),e.beginPath(),e.rect(y-8,0,o,l),e.clip(),jt(e,i,c,m,g),e.restore(),zt(e,i,c)}function Dt(a,e,t,i,r){let{data:o,colour:l,width:d,height:h,scroll:p}=e,c=d>=8?1:0,m=e.rows==="slots"&&o.choices>0?o.choices:1,g=(h-c)/m,w=l==="expert"&&d>=17&&g>=12,x=l!=="expert"&&l!=="flip"&&d>=34&&g>=15;a.textAlign="center",a.textBaseline="middle";for(let v=i;v<=r;v++){let C=o.tile("",1,v),E=y+v*d-p;for(let T=0;T<o.layers;T++){let R=e.head+T*h;if(!C){a.fillStyle=t.empty,a.fillRect(E,R,d-c,h-c);continue}let q=v-C.first,K=t.text;for(let P=0;P<m;P++){let F=m===1?o.fill(C,l,T,q,t.none):_t(o,C,l,T,q,P,t.none);if(a.fillStyle=F?L(F):t.empty,a.fillRect(E,R+P*g,d-c,g-(m>1&&g>6?1:0)),K=F?Ke(F):t.text,F&&(w||x)){let Ne=m===1?o.value(l,T,v):l==="expert"?C.at("experts",T,q,P):C.at("weights",T,q,P);a.fillStyle=K,a.font=`${w?11:10}px ${t.family}`,a.fillText(w?String(Ne):f(Ne,2),E+(d-c)/2,R+(P+.5)*g+.5)}}if(C.at("skipped",T,q)>0){Vt(a,E,R,d-c,h-c,t.faint);continue}C.at("edited",T,q)>0&&d>=4&&Wt(a,E,R,Math.min(7,d-c),K),C.at("flip",T,q)>0&&l!=="flip"&&d>=8&&(a.fillStyle=K,a.fillRect(E+2,R+h-c-4,d-c-4,2))}}}function _t(a,e,t,i,r,o,l){let d=e.at("experts",i,r,o);if(!(d>=0)||e.at("skipped",i,r)>0)return null;if(t==="expert")return B(d);if(t==="weight"){let[h,p]=a.range("weight");return S((e.at("weights",i,r,o)-Math.min(0,h))/(p||1))}return a.fill(e,t,i,r,l)}function Nt(a,e,t,i,r,o){let{data:l,colour:d}=e;a.imageSmoothingEnabled=!1;for(let[h,p,c]of pt(l,d,i,r,o)){let m=e.head,g=l.layers*e.height;if(!h){a.fillStyle=t.empty,a.fillRect(y+p*e.width-e.scroll,m,(c-p)*e.width,g);continue}let w=ut(h,l.layers,`${d} ${t.empty} ${l.range(d).join()}`,(x,v)=>l.fill(h,d,x,v,t.none)??t.none);ct(a,e,w,h,p,c,m,g,l.tokens)}}function Ot(a,e,t,i,r,o){let{data:l}=e,d=e.selected?.layer??0,h=ue(e,l);if(a.fillStyle=t.faint,a.font=`11px ${t.family}`,a.textAlign="left",a.textBaseline="middle",a.fillText(s("Experts of layer %1: bright where a token chose them",d),y,h-dt/2+1),a.fillStyle=t.empty,a.fillRect(y,h,a.canvas.clientWidth,l.experts*e.lane),o===1){let p=l.range("weight")[1]||1;for(let c=i;c<=r;c++)for(let{expert:m,weight:g}of l.chosen(d,c))a.fillStyle=L(S(Math.min(1,g/p))),a.fillRect(y+c*e.width-e.scroll,h+m*e.lane,Math.max(1,e.width-(e.width>=8?1:0)),e.lane-(e.lane>=6?1:0));return}a.imageSmoothingEnabled=!1;for(let[p,c,m]of pt(l,"lanes",i,r,o,d))if(p){let g=ut(p,l.experts,`lanes ${t.empty}`,(w,x)=>{let v=p.lane(w,x);return v>0?z(t.none,S(Math.sqrt(v)),.35+.65*Math.sqrt(v)):t.none});ct(a,e,g,p,c,m,h,l.experts*e.lane,l.tokens)}}function*pt(a,e,t,i,r,o=null){let l=t;for(;l<=i;){let d=null;for(let c=r;!d&&c<=a.tokens*2;c*=2)d=a.tile(e,c,l,o);let h=r*ie,p=Math.min(i+1,(Math.floor(l/h)+1)*h);yield[d,l,p],l=p}}function ct(a,e,t,i,r,o,l,d,h){let p=Math.max(0,Math.floor((r-i.first)/i.bucket)),c=Math.min(i.columns,Math.ceil((o-i.first)/i.bucket)),m=i.first+p*i.bucket,g=Math.min(h,i.first+c*i.bucket);a.drawImage(t,p,0,c-p,t.height,y+m*e.width-e.scroll,l,(g-m)*e.width,d)}function ut(a,e,t,i){let r=a.picture;if(r?.name===t)return r.canvas;let o=document.createElement("canvas");o.width=a.columns,o.height=e;let l=o.getContext("2d"),d=l.createImageData(a.columns,e);for(let h=0;h<e;h++)for(let p=0;p<a.columns;p++)d.data.set([...i(h,p),255],4*(h*a.columns+p));return l.putImageData(d,0,0),a.picture={name:t,canvas:o},o}function jt(a,e,t,i,r){let{data:o,width:l,head:d,scroll:h}=e,p=e.hovered?.position??e.selected?.position,c=(w,x,v,C)=>{a.save(),a.translate(y+(w+.5)*l-h-1,d-5),a.rotate(-De),a.textAlign="left",a.textBaseline="middle",a.font=`${v?"600 ":""}11px ${t.family}`,a.fillStyle=C,a.fillText(x,0,0),a.restore()},m=w=>w===e.selected?.position?t.accent:w===p?t.text:t.faint;if(l<4){let w=It(64/l);for(let x=Math.ceil(i/w)*w;x<=r;x+=w)c(x,x.toLocaleString(),!1,t.faint);return}let g=Math.max(1,Math.ceil(11/l));for(let w=i;w<=r;w++)(w%g===0||w===p)&&c(w,_e(o.text(w)??"\u2026"),w===p,m(w))}function It(a){let e=10**Math.floor(Math.log10(a));return e*([1,2,5].find(t=>t*e>=a)??10)}function Ft(a,e,t){let i=(o,l,d,h,p)=>{a.strokeStyle=d,a.lineWidth=h,a.setLineDash(p),a.strokeRect(y+l[0]*e.width-e.scroll-.5,e.head+o[0]*e.height-.5,Math.max(3,(l[1]-l[0]+1)*e.width),(o[1]-o[0]+1)*e.height),a.setLineDash([])},r=({layer:o,position:l},d,h,p)=>i([o,o],[l,l],d,h,p);e.hovered&&r(e.hovered,t.text,1,[]),e.box&&(i(e.box.layers,e.box.tokens,t.paper,4,[]),i(e.box.layers,e.box.tokens,t.accent,2,[6,3])),e.selected&&(r(e.selected,t.paper,4,[]),r(e.selected,t.text,2,[])),e.focused&&(r(e.cursor,t.paper,4,[]),r(e.cursor,t.accent,2,[4,2]))}function zt(a,e,t){let{data:i,height:r,head:o}=e;a.font=`11px ${t.family}`,a.textAlign="right",a.textBaseline="middle";let l=r>=11?1:4,d=e.hovered?.layer??(e.focused?e.cursor.layer:e.selected?.layer);for(let h=0;h<i.layers;h++)(h%l===0||h===d)&&(a.fillStyle=h===d?t.text:t.faint,a.fillText(String(h),y-7,o+(h+.5)*r));if(e.rows==="lanes"){let h=Math.max(1,Math.ceil(11/e.lane));a.fillStyle=t.faint;for(let p=0;p<i.experts;p+=h)a.fillText(String(p),y-7,ue(e,i)+(p+.5)*e.lane)}a.fillStyle=t.faint,a.fillText(s("layer"),y-5,o-9)}function _e(a){let e=[...k(a.replace(/^ (?=.)/,""))];return e.length>at?`${e.slice(0,at-1).join("")}\u2026`:e.join("")}function Vt(a,e,t,i,r,o){a.save(),a.beginPath(),a.rect(e,t,i,r),a.clip(),a.strokeStyle=o,a.lineWidth=1,a.beginPath();for(let l=-r;l<i;l+=5)a.moveTo(e+l,t+r),a.lineTo(e+l+r,t);a.stroke(),a.restore()}function Wt(a,e,t,i,r){a.fillStyle=r,a.beginPath(),a.moveTo(e,t),a.lineTo(e+i,t),a.lineTo(e,t+i),a.fill()}var lt=new Map;function Kt(a){let e=lt.get(a);if(!e){let t=document.createElement("canvas").getContext("2d");t.fillStyle=a,t.fillRect(0,0,1,1);let[i,r,o]=t.getImageData(0,0,1,1).data;e=[i,r,o],lt.set(a,e)}return e}var bt=34,Ut=60,Gt=3,Xt=1500,mt=4,me=class{constructor(e){this.actions=e;this.canvas=n("canvas",{class:"wb-map-canvas",attrs:{tabindex:"0",role:"application","aria-label":s("Routing map, empty")},on:{keydown:t=>this.key(t),pointermove:t=>this.move(t),pointerleave:()=>this.hover(null),pointerdown:t=>this.down(t),pointerup:t=>this.up(t),focus:()=>this.draw(),blur:()=>this.draw()}}),this.context=this.canvas.getContext("2d"),this.spacer=n("div",{class:"wb-map-spacer"}),this.scroller=n("div",{class:"wb-map-scroll",on:{scroll:()=>this.draw(),wheel:t=>this.wheel(t)}},this.spacer),this.spacer.append(this.canvas),this.readout=n("div",{class:"wb-readout",attrs:{"aria-hidden":"true"}}),this.spoken=n("div",{class:"wb-hidden",attrs:{role:"status","aria-live":"polite"}}),this.node=n("div",{class:"wb-map",attrs:{"data-wb-map":""}},this.scroller,this.readout,this.spoken),new ResizeObserver(()=>this.layout()).observe(this.scroller)}node;canvas;scroller;spacer;context;readout;spoken;data=null;colour="expert";rows="layers";cursor={layer:0,position:0};selected=null;hovered=null;box=null;press=null;fitted=!0;width=12;height=20;lane=8;head=30;frame=0;show(e){let t=e?.tokens!==this.data?.tokens;this.data=e,e&&t&&(this.fitted=!0,this.scroller.scrollLeft=0),e&&(this.cursor=W(this.cursor,e),this.box&&(this.box.tokens[1]>=e.tokens||this.box.layers[1]>=e.layers)&&this.brush(null)),b(this.node,"data-wb-tokens",e?String(e.tokens):void 0),b(this.node,"data-wb-layers",e?String(e.layers):void 0),this.layout(),this.tell()}colourBy(e){this.colour=e,b(this.node,"data-wb-color",e),this.draw(),this.tell()}arrange(e){this.rows=e,b(this.node,"data-wb-rows",e),this.layout()}select(e){this.selected=e,e&&this.data&&(this.cursor=W(e,this.data),this.reveal(this.cursor.position)),this.draw(),this.tell()}brush(e){this.box=e,b(this.node,"data-wb-box",e?`${e.layers.join("-")},${e.tokens.join("-")}`:void 0),this.actions.brush(e),this.draw()}zoomBy(e,t=this.scroller.clientWidth/2){if(!this.data)return;let i=(this.scroller.scrollLeft+t-y)/this.width,r=Math.min(Gt,this.whole());this.fitted=!1,this.width=e===0?this.whole():Math.min(Ut,Math.max(r,this.width*e)),this.layout(),this.scroller.scrollLeft=i*this.width+y-t}draw(){this.frame===0&&(this.frame=requestAnimationFrame(()=>{this.frame=0,this.paint()}))}whole(){let e=Math.max(50,this.scroller.clientWidth-y-bt);return Math.min(44,e/Math.max(1,this.data?.tokens??1))}fit(){return(this.data?.tokens??0)>Xt?this.whole():Math.max(13,this.whole())}layout(){let e=this.scroller.clientWidth;if(!this.data||e===0){this.draw();return}let t=this.data,{tokens:i,layers:r}=t;this.fitted&&(this.width=this.fit());let o=r<=12?24:r<=24?18:r<=40?13:9;this.height=this.rows==="slots"&&t.choices>1?Math.max(o,t.choices*(r<=12?13:5)):o,this.lane=t.experts<=16?12:t.experts<=64?6:3;let l=6;if(t.whole){l=0;for(let c=0;c<i;c++)l=Math.max(l,_e(t.text(c)??"").length)}this.head=Math.round(18+6.5*l*Math.sin(De));let d=Math.ceil(y+i*this.width+bt),h=this.rows==="lanes"?ue(this.geometry(),t)-this.head-r*this.height+t.experts*this.lane:0,p=this.head+r*this.height+2+h;this.spacer.style.width=`${d}px`,this.spacer.style.height=`${p}px`,this.canvas.style.width=`${Math.min(e,d)}px`,this.canvas.style.height=`${p}px`,this.actions.placed(this.geometry()),this.draw()}geometry(){return{width:this.width,height:this.height,head:this.head,lane:this.lane,scroll:this.scroller.scrollLeft}}reveal(e){let t=y+e*this.width,{scrollLeft:i,clientWidth:r}=this.scroller;t-y<i?this.scroller.scrollLeft=t-y:t+this.width>i+r&&(this.scroller.scrollLeft=t+this.width-r+2)}paint(){let e=this.data,t=document.activeElement===this.canvas;if(ht(this.canvas,this.context,this.node,e&&{...this.geometry(),data:e,colour:this.colour,rows:this.rows,cursor:this.cursor,selected:this.selected,hovered:this.hovered,box:this.box,focused:t}),e&&!e.whole){let i=e.bucket(this.width),r=Math.floor((this.scroller.scrollLeft-y)/this.width),o=Math.ceil((this.scroller.scrollLeft+this.canvas.clientWidth)/this.width),l=e.missing(this.colour,i,r,o,this.rows==="lanes"?this.selected?.layer??0:null);this.selected&&l.push(...e.missing(this.colour,1,this.selected.position,this.selected.position,null)),b(this.node,"data-wb-missing",String(l.length)),this.actions.want(l)}}placeAt(e){if(!this.data)return null;let t=this.canvas.getBoundingClientRect(),i=Math.floor((e.clientY-t.top-this.head)/this.height),r=Math.floor((e.clientX-t.left-y+this.scroller.scrollLeft)/this.width);return i>=0&&i<this.data.layers&&r>=0&&r<this.data.tokens&&e.clientX-t.left>=y?{layer:i,position:r}:null}move(e){let t=this.press,i=this.data;if(t&&i&&Math.hypot(e.clientX-t.x,e.clientY-t.y)>mt&&!t.header){let r=this.canvas.getBoundingClientRect(),o=W({layer:Math.floor((e.clientY-r.top-this.head)/this.height),position:Math.floor((e.clientX-r.left-y+this.scroller.scrollLeft)/this.width)},i);this.brush(be(t.at,o))}this.hover(this.placeAt(e))}down(e){let t=this.data;if(!t||e.button!==0)return;let i=this.canvas.getBoundingClientRect(),r=this.placeAt(e),o=e.clientY-i.top,l=e.clientX-i.left,d=W({layer:Math.floor((o-this.head)/this.height),position:Math.floor((l-y+this.scroller.scrollLeft)/this.width)},t),h=r?null:l<y&&o>=this.head?"row":o<this.head&&l>=y?"column":null;(r||h)&&(this.press={at:d,x:e.clientX,y:e.clientY,header:h},this.canvas.setPointerCapture(e.pointerId))}up(e){let t=this.press;this.press=null;let i=this.data;!t||!i||(t.header==="row"?this.brush({layers:[t.at.layer,t.at.layer],tokens:[0,i.tokens-1]}):t.header==="column"?this.brush({layers:[0,i.layers-1],tokens:[t.at.position,t.at.position]}):Math.hypot(e.clientX-t.x,e.clientY-t.y)<=mt&&(e.shiftKey&&this.selected?this.brush(be(this.selected,t.at)):this.choose(t.at)))}hover(e){(e?.layer!==this.hovered?.layer||e?.position!==this.hovered?.position)&&(this.hovered=e,this.canvas.style.cursor=e?"pointer":"",this.draw(),this.tell())}choose(e){this.cursor=e,this.selected=e,this.box&&this.brush(null),this.draw(),this.actions.select(e)}wheel(e){e.ctrlKey&&(e.preventDefault(),this.zoomBy(e.deltaY<0?1.15:1/1.15,e.clientX-this.scroller.getBoundingClientRect().left))}key(e){let t=this.data;if(!t||e.ctrlKey||e.metaKey||e.altKey)return;let{layer:i,position:r}=this.cursor,o=Math.max(1,t.bucket(this.width)),d={ArrowLeft:{layer:i,position:r-o},ArrowRight:{layer:i,position:r+o},ArrowUp:{layer:i-1,position:r},ArrowDown:{layer:i+1,position:r},Home:{layer:i,position:0},End:{layer:i,position:t.tokens-1},PageUp:{layer:0,position:r},PageDown:{layer:t.layers-1,position:r}}[e.key];if(d){let h=this.cursor;this.cursor=W(d,t),e.shiftKey&&this.brush(this.box?Yt(this.box,h,this.cursor):be(h,this.cursor)),this.reveal(this.cursor.position),this.draw(),this.tell(),this.spoken.textContent=this.readout.textContent}else if(e.key==="Escape"&&this.box)this.brush(null);else if(e.key==="Enter"||e.key===" ")this.choose({...this.cursor});else if(e.key==="+"||e.key==="=")this.zoomBy(1.25);else if(e.key==="-")this.zoomBy(.8);else if(e.key==="0")this.zoomBy(0);else return;e.preventDefault(),e.stopPropagation()}tell(){let e=this.data,t=document.activeElement===this.canvas,i=this.hovered??(t?this.cursor:this.selected);if(!e||!i||i.position>=e.tokens||i.layer>=e.layers){this.readout.textContent="";return}this.readout.textContent=Jt(e,i,this.colour,e.bucket(this.width)),this.canvas.setAttribute("aria-label",s("Routing map, %1 tokens, %2 layers, arrow keys move, Enter inspects, Shift and arrows mark a box.",e.tokens,e.layers))}};function W({layer:a,position:e},t){return{layer:Math.min(t.layers-1,Math.max(0,a)),position:Math.min(t.tokens-1,Math.max(0,e))}}function be(a,e){let t=(i,r)=>[Math.min(i,r),Math.max(i,r)];return{layers:t(a.layer,e.layer),tokens:t(a.position,e.position)}}function Yt(a,e,t){let i=(r,o)=>o===r[1]?r[0]:r[1];return be({layer:i(a.layers,e.layer),position:i(a.tokens,e.position)},t)}function Jt(a,{layer:e,position:t},i="expert",r=1){if(!a.knows(t)){let h=r>1?a.tile(i,r,t):null,p=Math.floor(t/r)*r,c=[s("layer %1",e),s("tokens %1 to %2",p,Math.min(a.tokens,p+r)-1)];if(h){let m=Math.floor((t-h.first)/r);i==="expert"?c.push(s("mostly expert %1 (%2 %)",h.at("experts",e,m),Math.round(100*h.at("share",e,m)))):i==="flip"?c.push(s("%1 % flipped",Math.round(100*h.at("flip",e,m)))):c.push(s("mean %1 %2",i,f(h.at(i==="weight"?"weights":i,e,m),3)))}return c.join(" \xB7 ")}let l=[s("layer %1",e),s("token %1 \u201C%2\u201D",t,k(a.text(t)??""))];if(a.skipped(e,t))return l.push(s("block skipped")),l.join(" \xB7 ");let d=a.chosen(e,t);return d.length&&l.push(s("experts %1",d.map(({expert:h,weight:p})=>`${h} (${f(p,3)})`).join(", ")),s("margin %1",f(a.value("margin",e,t),3)),s("entropy %1 nats",f(a.value("entropy",e,t),3))),l.push(s("influence %1",f(a.value("influence",e,t),3))),a.wasEdited(e,t)&&l.push(s("re-routed by the plan")),a.flipped(e,t)&&l.push(s("flipped against base")),l.join(" \xB7 ")}var Qt=256,fe=class{node;holder=n("div",{class:"wb-map-table",attrs:{tabindex:"0",role:"region","aria-label":s("Routing map as a table")}});data=null;colour="expert";constructor(){this.node=n("details",{class:"wb-details"},n("summary",{text:s("The map as a table")}),this.holder),this.node.addEventListener("toggle",()=>this.render())}show(e,t){this.data=e,this.colour=t,this.render()}render(){let e=this.data;if(!this.node.open||!e){this.holder.replaceChildren();return}let i=[...Array(e.tokens).keys()].filter(l=>e.knows(l)).slice(0,Qt),r=n("tr",{},n("th",{text:s("layer"),attrs:{scope:"col"}}));r.append(...i.map(l=>n("th",{attrs:{scope:"col"}},n("code",{text:k(e.text(l)??"")}))));let o=[...Array(e.layers).keys()].map(l=>{let d=n("tr",{},n("th",{text:String(l),attrs:{scope:"row"}}));return d.append(...i.map(h=>n("td",{class:"wb-number",text:this.text(e,l,h)}))),d});this.holder.replaceChildren(n("table",{class:"wb-table"},n("caption",{class:"wb-quiet",text:i.length<e.tokens?s("%1 of %2 tokens, from token %3 on",i.length,e.tokens,i[0]??0):s("All tokens")}),n("thead",{},r),n("tbody",{},...o)))}text(e,t,i){if(e.skipped(t,i))return s("skipped");let r=`${e.wasEdited(t,i)?` ${s("(edited)")}`:""}${e.flipped(t,i)?` ${s("(flipped)")}`:""}`;return this.colour==="expert"?e.chosen(t,i).map(({expert:o})=>o).join(" ")+r:this.colour==="flip"?e.flipped(t,i)?s("flipped"):s("same"):f(e.value(this.colour,t,i),3)+r}};var Zt=3,we=class{constructor(e){this.actions=e;this.map=new me({select:e.select,brush:i=>this.brushed(i),want:i=>this.want(i),placed:i=>this.load.place(i)}),this.colours=M(s("Colour by"),[],i=>this.colourBy(i)),this.rows=M(s("Rows of the map"),[["layers",s("one row a layer")],["slots",s("every choice")],["lanes",s("experts of the layer")]],i=>this.map.arrange(i)),this.side=u(s("Show base"),"side","",e.flip),this.picture=u(s("Picture"),"picture",s("Save the map in view as a PNG picture"),()=>ze(this.map.canvas,this.node,`routing-${this.data?.run??"map"}.png`));let t=(i,r,o,l)=>{let d=u(i,r,o,()=>this.map.zoomBy(l));return d.setAttribute("aria-label",o),d};this.boxBar=n("div",{class:"wb-row wb-box-bar",attrs:{hidden:!0}},this.boxText,u(s("Edit this box\u2026"),"edit-box",s("Choose what to do with these layers and tokens"),()=>{this.box&&e.editBox(this.box)}),u(s("Unmark"),"unmark",s("Forget the box (Escape)"),()=>this.map.brush(null))),this.node=n("section",{class:"wb-card wb-map-card",attrs:{"aria-label":s("Routing map")}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Routing map")}),n("label",{class:"wb-label"},s("Colour")," ",this.colours),this.rows,t("\u2212","zoom-out",s("Zoom out (\u2212)"),.8),t("\u2194","fit",s("Fit to width (0)"),0),t("+","zoom-in",s("Zoom in (+)"),1.25),this.side,this.picture,n("span",{class:"wb-grow"}),this.runLabel),n("div",{class:"wb-map-row"},this.map.node,this.load.node),this.boxBar,this.legend.node,this.table.node)}node;map;data=null;legend=new he;table=new fe;load=new ce;colours;rows;side;picture;runLabel=n("span",{class:"wb-quiet wb-run"});boxBar;boxText=n("span",{attrs:{role:"status"}});asked=new Map;box=null;colour="expert";wants=[];loadAsked=!0;take(e,t=[]){let i=e?.run!==this.data?.run;this.data=e?new re(e,t):null,this.asked.clear(),this.wants=[];let r=this.data?.colours??["expert"];r.includes(this.colour)||(this.colour=r[0]??"expert"),this.colours.replaceChildren(...r.map(o=>n("option",{text:ei(o),attrs:{value:o}}))),this.rows.hidden=!this.data?.choices,this.map.show(this.data),this.colourBy(this.colour),this.data?.choices?(i||this.load.run!==this.data.run)&&(this.loadAsked=!1,this.data.whole&&this.askLoad()):this.load.show(null)}takeTile(e,t){let i=this.data;i&&e.run===i.run&&e.base===i.base&&e.edited===i.edited&&(i.take(e.tile,t),this.legend.show(i,this.colour),this.table.show(i,this.colour),this.map.draw(),e.tile.bucket===1&&this.actions.texts())}takeLoad(e,t){e.run===this.data?.run&&this.load.show(e,t)}finished(e){for(let[t,i]of this.asked)i===e&&(this.asked.delete(t),this.ask())}show(e){let t=e?.edited??e?.base;b(this.runLabel,"data-wb-run",t?.id),b(this.runLabel,"data-wb-base",e?.base?.id);let i=t?.past?` \xB7 ${s("from the store")}`:"";this.runLabel.textContent=t?(e?.edited?s("edited %1",t.id):t.past?t.id:s("base %1",t.id))+i:"",this.runLabel.title=e?.edited&&e.base?s("run of the plan; the base run is %1",e.base.id):s("run without a plan"),this.map.select(e?.selected??null),this.showSide(e)}showSide(e){let t=!this.data?.edited;this.side.disabled=!e?.edited,this.side.textContent=t&&e?.edited?s("Show edited"):s("Show base"),this.side.title=s("Flip the map between base and edited (B)"),b(this.map.node,"data-wb-side",t?"base":"edited")}prefer(e){this.colour=e,this.data?.colours.includes(e)&&this.colourBy(e)}colourBy(e){this.colour=e,this.colours.value=e,this.map.colourBy(e),this.legend.show(this.data,e),this.table.show(this.data,e)}restyle(){this.map.draw(),this.load.draw(),this.legend.show(this.data,this.colour)}askLoad(){this.data&&!this.loadAsked&&(this.loadAsked=!0,this.actions.send({type:"load_of",run:this.data.run}))}want(e){this.wants=e,this.ask(),!e.length&&this.data?.choices&&this.askLoad()}ask(){let e=this.data;for(let t of this.wants){if(!e||this.asked.size>=Zt)return;if(!this.asked.has(t.key)){let{colour:i,first:r,bucket:o,layer:l}=t;this.asked.set(t.key,this.actions.send({type:"tile",run:e.run,base:e.base,edited:e.edited,colour:i,first:r,bucket:o,layer:l}))}}}brushed(e){this.box=e,this.boxBar.hidden=e===null,e&&(this.boxText.textContent=s("Marked: %1",te(e))),this.actions.brush(e)}};function ei(a){return{expert:s("chosen expert"),weight:s("weight of the first expert"),margin:s("margin"),entropy:s("entropy"),flip:s("flip against base"),influence:s("block influence"),contribution:s("contribution of the block"),sparsity:s("sparsity: zero activations")}[a]}var ge=class{constructor(e){this.ask=e;this.where=M(s("Next token after"),[["last",s("after the last token")],["selected",s("after the selected token")]],i=>{this.follow=i==="selected",this.ask(this.follow?this.selected?.position??null:null)});let t=(i,r)=>n("th",{text:i,title:r,attrs:{scope:"col"}});this.table=n("table",{class:"wb-table",attrs:{"data-wb-next":""}},n("caption",{class:"wb-hidden",text:s("Probability of the next token")}),n("thead",{},n("tr",{},t(s("token"),s("\xB7 is a space, \u23CE a line break")),t(s("base"),s("probability without the plan")),t(s("edited"),s("probability with the plan")),t(s("change"),s("edited minus base")),n("th",{attrs:{"aria-hidden":"true"}}))),this.body),this.node=n("section",{class:"wb-card wb-next",attrs:{"aria-label":s("Next token")}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Next token")}),this.where,n("span",{class:"wb-grow"}),this.summary),this.empty,this.table),this.show(null)}node;body=n("tbody");summary=n("span",{class:"wb-quiet"});empty=n("p",{class:"wb-note",text:s("Run a prompt to see what the model would say next.")});table;where;follow=!1;selected=null;moved(e){let t=e?.position!==this.selected?.position;this.selected=e,this.follow&&t&&this.ask(e?.position??null)}show(e){this.empty.hidden=e!==null,this.table.hidden=e===null,b(this.table,"data-wb-position",e?String(e.position):void 0),this.summary.textContent=e?.divergence===null||e?.divergence===void 0?"":s("KL %1 nats",f(e.divergence)),this.summary.title=s("Kullback-Leibler divergence of the edited distribution from the base one");let t=Math.max(1e-12,...(e?.rows??[]).flatMap(i=>[i.base,i.edited??0]));this.body.replaceChildren(...(e?.rows??[]).map(i=>{let r=i.edited===null?null:i.edited-i.base,o=(l,d)=>{let h=n("div",{class:`wb-bar ${d}`});return h.style.width=`${(100*l/t).toFixed(1)}%`,h};return n("tr",{attrs:{"data-wb-token":String(i.token)}},n("th",{attrs:{scope:"row"}},n("code",{class:"wb-token",text:k(i.text)})),n("td",{class:"wb-number",text:f(i.base)}),n("td",{class:"wb-number",text:i.edited===null?"\u2013":f(i.edited)}),n("td",{class:`wb-number ${r===null||r===0?"wb-quiet":r>0?"wb-up":"wb-down"}`,text:r===null?"\u2013":A(r)}),n("td",{class:"wb-bars",attrs:{"aria-hidden":"true"}},o(i.base,"wb-base"),i.edited===null?null:o(i.edited,"wb-edited")))}))}};var ve=class{constructor(e,t,i,r){this.send=e;this.form=i;this.fail=r;let o=u(s("Add edit\u2026"),"form",s("A form for every kind of edit"),()=>i.open("reroute.ban"));this.effect=u(s("Effects"),"effects",s("What each edit does: run the prompt again without it"),()=>t({type:"effects_of"})),this.name=n("input",{class:"wb-input wb-short",attrs:{"aria-label":s("Name to keep the plan under"),placeholder:s("name")},on:{input:()=>this.keep.disabled=!this.name.value.trim(),keydown:h=>{h.key==="Enter"&&this.keep.click()}}}),this.keep=u(s("Keep"),"keep",s("Keep this plan under a name and go on from it"),()=>{e({type:"keep",name:this.name.value}),this.name.value="",this.keep.disabled=!0}),this.kept=M(s("Kept plans"),[],h=>{h&&e({type:"recall",name:h}),this.forget.disabled=!h}),this.forget=u("\xD7","forget",s("Forget the kept plan"),()=>e({type:"forget",name:this.kept.value})),b(this.forget,"aria-label",s("Forget the kept plan")),this.undo=u(s("Undo"),"undo",s("Undo the last change of the plan (Ctrl+Z)"),()=>e({type:"undo"})),this.redo=u(s("Redo"),"redo",s("Redo it (Ctrl+Shift+Z)"),()=>e({type:"redo"})),this.clear=u(s("Clear"),"clear",s("Remove every edit"),()=>e({type:"clear"})),this.copy=u(s("Copy Python"),"copy",s("Copy the plan as Python code"),()=>this.toClipboard()),this.save=u(s("Save"),"save",s("Save the plan as a JSON file"),()=>this.download());let l=n("input",{attrs:{type:"file",accept:".json,application/json","aria-label":s("Plan file"),tabindex:"-1",hidden:!0},on:{change:()=>this.upload(l)}}),d=u(s("Load"),"load",s("Load a plan from a JSON file, in the place of this one"),()=>l.click());this.empty.textContent=s("No edits: the model routes as it was trained to. Ban or force an expert to change its mind."),this.node=n("section",{class:"wb-card wb-plan",attrs:{"aria-label":s("Plan")}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Plan")}),this.hash,n("span",{class:"wb-grow"}),this.undo,this.redo,this.clear),n("div",{class:"wb-row wb-plan-files"},o,this.effect,this.copy,this.save,d,l,this.name,this.keep,this.kept,this.forget),i.node,n("div",{class:"wb-plan-body",attrs:{tabindex:"0",role:"group","aria-label":s("Edits")}},this.empty,this.warnings,this.list)),this.show(null)}node;list=n("ol",{class:"wb-edits"});empty=n("p",{class:"wb-note"});warnings=n("div",{class:"wb-warnings"});hash=n("code",{class:"wb-quiet wb-hash"});undo;redo;clear;copy;save;kept;keep;forget;name;effect;plan=null;effects=null;take(e){this.effects=e,this.show(this.plan)}show(e){this.plan=e,this.form.show(e);let t=e?.kept??[];t.join(`
`)!==[...this.kept.options].slice(1).map(o=>o.value).join(`
`)&&(this.kept.replaceChildren(n("option",{text:s("kept plans\u2026"),attrs:{value:""}}),...t.map(o=>n("option",{text:o,attrs:{value:o}}))),this.forget.disabled=!0),this.kept.hidden=this.forget.hidden=!t.length,this.keep.disabled=!this.name.value.trim(),this.effect.disabled=!e?.edits.some(o=>o.enabled);let i=this.effects?.version===e?.version?this.effects:null,r=Math.max(1e-12,...(i?.rows??[]).map(o=>o.kl));this.copy.disabled=this.save.disabled=!e?.edits.length,b(this.node,"data-wb-plan",e?.hash??""),this.hash.textContent=e?.edits.length?e.hash.slice(0,8):"",this.hash.title=e?s("Hash of the plan: %1",e.hash):"",this.undo.disabled=!e?.undo,this.redo.disabled=!e?.redo,this.clear.disabled=!e?.edits.length,this.empty.hidden=!!e?.edits.length,this.list.replaceChildren(...(e?.edits??[]).map((o,l)=>{let d=e.version,h=n("input",{attrs:{type:"checkbox","aria-label":s("Enabled: %1",o.text)},on:{change:()=>this.send({type:"enable",version:d,index:l,enabled:h.checked})}});h.checked=o.enabled;let p=e.edits.length-1,c=(v,C,E,T)=>{let R=u(v,C,T,()=>this.send({type:"move",version:d,index:l,to:E}));return b(R,"aria-label",T),R.disabled=E<0||E>p,R},m=u("\xD7","remove",s("Remove: %1",o.text),()=>this.send({type:"remove",version:d,index:l}));b(m,"aria-label",s("Remove: %1",o.text));let g=u("\u2026","change",s("Change: %1",o.text),()=>this.form.edit(l));b(g,"aria-label",s("Change: %1",o.text));let w=i?.rows.find(v=>v.index===l),x=n("span",{class:"wb-effect-bar"});return x.style.width=`${(40*(w?.kl??0)/r).toFixed(1)}px`,n("li",{attrs:{"data-wb-edit":o.kind,"data-wb-enabled":String(o.enabled),"data-wb-effect":w?String(w.kl):void 0}},n("label",{class:"wb-edit"},h,n("span",{text:o.text})),w?n("span",{class:"wb-number wb-quiet wb-effect",title:s("KL to the plan without this edit: mean %1, last token %2 nats%3",f(w.kl),f(w.last),w.changed?s("; the likeliest next token is another one"):"")},x,`${f(w.kl,2)}${w.changed?" \u2260":""}`):null,g,p?c("\u2191","up",l-1,s("Earlier: %1",o.text)):null,p?c("\u2193","down",l+1,s("Later: %1",o.text)):null,m)})),this.warnings.replaceChildren(...(e?.warnings??[]).map(o=>n("p",{class:"wb-warning",text:o,attrs:{role:"status"}})))}async toClipboard(){try{await navigator.clipboard.writeText(`import workbench as wb

plan = ${this.plan?.python??""}
`),this.copy.textContent=s("Copied"),window.setTimeout(()=>this.copy.textContent=s("Copy Python"),1500)}catch{this.fail(s("The browser does not let this page write to the clipboard."),s("Save the plan as a file instead."))}}download(){H(`plan-${this.plan?.hash.slice(0,8)??""}.json`,this.plan?.text??"","application/json")}async upload(e){let t=e.files?.[0];t&&this.send({type:"load",plan:await t.text()}),e.value=""}};var ti="The capital of France is",ii=160,ye=class{node;constructor(e){this.node=n("textarea",{class:"wb-input wb-prompt",attrs:{"data-wb-prompt":"",rows:"2",spellcheck:"false","aria-label":s("Prompt"),placeholder:s("Type a prompt, for instance: %1",ti)},on:{input:()=>this.grow(),keydown:t=>{t.key==="Enter"&&!t.shiftKey&&!t.isComposing&&(t.preventDefault(),t.stopPropagation(),e())}}})}get value(){return this.node.value}set value(e){this.node.value=e}grow(){this.node.style.height="auto",this.node.style.height=`${Math.min(ii,this.node.scrollHeight+2)}px`}};var xe=class{constructor(e){this.actions=e;this.search=n("input",{class:"wb-input wb-grow",attrs:{type:"search","aria-label":s("Find runs"),placeholder:s("find by prompt, model or label")},on:{input:()=>{window.clearTimeout(this.timer),this.timer=window.setTimeout(()=>this.ask(),200)}}}),this.both=u(s("Compare"),"compare",s("Compare the two ticked runs: the older is the base"),()=>{let[i,r]=[...this.chosen].sort((o,l)=>BigInt(o)<BigInt(l)?-1:1);i&&r&&e.compare(i,r)}),this.more=u(s("Older runs"),"more",s("List more"),()=>this.ask(this.rows.at(-1)?.id));let t=(i,r="")=>n("th",{text:i,title:r,attrs:{scope:"col"}});this.table=n("table",{class:"wb-table wb-runs",attrs:{"data-wb-runs":""}},n("caption",{class:"wb-hidden",text:s("Recorded runs, newest first")}),n("thead",{},n("tr",{},t(s("compare")),t(s("look")),t(s("text")),t(s("plan")),t(s("labels")),t(s("tokens")),t(s("loss"),s("mean negative log-likelihood of its tokens, nats")),t(s("when")))),this.body),this.node=n("section",{class:"wb-card",attrs:{"data-wb-view":"runs"}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Runs in the store")}),this.search,u(s("Refresh"),"refresh",s("List again"),()=>this.ask()),this.both),this.empty,n("div",{class:"wb-scroll",attrs:{tabindex:"0",role:"region","aria-label":s("Runs in the store")}},this.table),this.more),this.render()}node;search;body=n("tbody");empty=n("p",{class:"wb-note"});table;more;both;chosen=[];rows=[];inView=[];timer=0;ask(e=void 0){this.actions.send({type:"runs_of",text:this.search.value,before:e??null})}take(e){e.text===this.search.value&&(this.rows=e.before===null?e.rows:[...this.rows,...e.rows],this.more.hidden=!e.more,this.render())}mark(e){e.join()!==this.inView.join()&&(this.inView=e,this.render())}render(){this.empty.textContent=this.search.value?s("No run matches. Clear the field to see all of them."):s("No run has been recorded yet. Run a prompt, or call bench.run(...) in a notebook."),this.empty.hidden=this.rows.length>0,this.table.hidden=this.rows.length===0,this.body.replaceChildren(...this.rows.map(e=>this.row(e))),this.both.disabled=this.chosen.length!==2}row(e){let t=n("input",{attrs:{type:"checkbox","aria-label":s("Compare run %1",e.id)}});t.checked=this.chosen.includes(e.id),t.addEventListener("change",()=>{let l=this.chosen.indexOf(e.id);l>=0&&this.chosen.splice(l,1),t.checked&&(this.chosen.push(e.id),this.chosen.length>2&&(this.chosen.shift(),this.render())),this.both.disabled=this.chosen.length!==2});let i=(l,d,h,p,c)=>{let m=u(l,d,h,()=>{this.actions.send({type:"show",run:e.id,base:c,plan:p}),this.actions.look()});return b(m,"aria-label",`${h}: ${e.id}`),m},r=e.edits.length?e.edits.join("; "):e.plan,o=Object.entries(e.labels).map(([l,d])=>`${l}: ${d}`);return n("tr",{attrs:{"data-wb-run-row":e.id,"aria-current":this.inView.includes(e.id)?"true":void 0}},n("td",{},t),n("td",{class:"wb-nowrap"},i(s("Open"),"show",s("Show this run on the map"),!1,null),e.plan?i(s("With plan"),"show-plan",s("Show it and take up its plan"),!0,null):null,e.parent?i(s("On parent"),"show-parent",s("Show it against the run it came from"),!1,e.parent):null),n("th",{attrs:{scope:"row"},title:`${e.model} \xB7 ${e.kind} \xB7 ${e.id}`},n("span",{class:"wb-clip",text:e.text||"\u2205"})),n("td",{title:r},n("span",{class:"wb-clip",text:r||"\u2013"})),n("td",{title:o.join(`
`)},n("span",{class:"wb-clip",text:o.join(", ")||"\u2013"})),n("td",{class:"wb-number",text:String(e.tokens)}),n("td",{class:"wb-number",text:e.loss===null?"\u2013":f(e.loss,4)}),n("td",{class:"wb-number wb-nowrap",text:e.started.slice(5,16)||"\u2013",title:e.started}))}};var ft="FROM expert_load($run)",ke=class{constructor(e){this.actions=e;this.text=n("textarea",{class:"wb-input wb-sql",attrs:{rows:"5",spellcheck:"false","aria-label":s("Query"),"data-wb-query":"",placeholder:ft},on:{keydown:l=>{l.key==="Enter"&&(l.ctrlKey||l.metaKey)&&(l.preventDefault(),l.stopPropagation(),this.run())}}}),this.text.value=ft,this.runButton=u(s("Ask"),"ask",s("Run the query (Ctrl+Enter)"),()=>this.run()),this.runButton.classList.add("wb-primary"),this.stop=u(s("Stop"),"stop",s("Stop the query"),()=>e.send({type:"cancel",request:this.asked})),this.stop.hidden=!0,this.macros=M(s("Macros and tables"),[],l=>this.explain(l));let t=n("input",{attrs:{type:"file",accept:".sql,text/plain","aria-label":s("Query file"),tabindex:"-1",hidden:!0},on:{change:()=>void t.files?.[0]?.text().then(l=>{this.text.value=l,t.value=""})}}),i=u(s("Copy link"),"link",s("Copy an address that opens this query here"),()=>void this.copy(i));this.share=i,this.offerLink();let r=l=>M(l,[],()=>this.plot());this.axes={x:r(s("across")),y:r(s("upwards")),colour:r(s("colour"))},this.mark=M(s("Mark"),[["bar",s("bars")],["line",s("lines")],["point",s("points")],["grid",s("grid")]],()=>this.plot()),this.chartBar=n("div",{class:"wb-row",attrs:{hidden:!0}},n("label",{class:"wb-label"},s("Draw")," ",this.mark),...Object.entries({x:s("across"),y:s("up"),colour:s("colour")}).map(([l,d])=>n("label",{class:"wb-label"},d," ",this.axes[l])),u(s("Draw"),"plot",s("Draw the answer as a chart"),()=>this.plot()));let o=(l,d)=>u(d,l,s("Save the whole answer as a %1 file",d),()=>{e.send({type:"export",format:l,sql:this.filled()})});this.figure.node.hidden=!0,this.node=n("section",{class:"wb-card",attrs:{"data-wb-view":"sql"}},n("div",{class:"wb-row"},n("h3",{class:"wb-title",text:s("Ask the store")}),this.macros),this.about,this.text,n("div",{class:"wb-row"},this.runButton,this.stop,this.summary,n("span",{class:"wb-grow"}),i,u(s("Save"),"save-sql",s("Save the query as a file"),()=>H("query.sql",this.text.value,"application/sql")),u(s("Load"),"load-sql",s("Load a query from a file"),()=>t.click()),t,o("csv","CSV"),o("parquet","Parquet")),n("p",{class:"wb-note",text:s("One SELECT, read-only. $run stands for the run in view and $base for its base.")}),this.error,this.chartBar,this.figure.node,this.table),this.fail("","")}node;text;runButton;stop;error=n("div",{class:"wb-sql-error",attrs:{role:"alert"}});summary=n("span",{class:"wb-quiet",attrs:{role:"status"}});table=n("div",{class:"wb-scroll wb-answer",attrs:{tabindex:"0",role:"region","aria-label":s("Answer")}});chartBar;mark;axes;figure=new N("query",s("Chart of the answer"),()=>{});macros;about=n("div",{class:"wb-macro"});share;catalogue=null;answered=null;runs=null;asked=-1;opened(){this.catalogue||this.actions.send({type:"catalogue_of"})}offerLink(){this.share.hidden=this.actions.link()===null}fill(e){this.text.value=e,this.text.focus()}show(e){this.runs=e}takeCatalogue(e){this.catalogue=e;let t=new Map;e.macros.forEach(i=>t.set(i.subject,[...t.get(i.subject)??[],i])),this.macros.replaceChildren(n("option",{text:s("%1 macros, %2 tables\u2026",e.macros.length,e.tables.length),attrs:{value:""}}),...[...t].map(([i,r])=>n("optgroup",{attrs:{label:i}},...r.map(({name:o})=>n("option",{text:o,attrs:{value:o}})))),n("optgroup",{attrs:{label:s("tables")}},...e.tables.map(({name:i})=>n("option",{text:i,attrs:{value:i}}))))}take(e){this.answered=e;let t=e.rows.length;this.summary.textContent=s("%1 rows, %2 s",e.more?`${t}+`:t,f(e.seconds,2)),b(this.table,"data-wb-answer",String(t));let i=e.columns.map(({type:o})=>/INT|FLOAT|DOUBLE|DECIMAL/.test(o)&&!o.endsWith("]")),r=(o,l)=>n("td",{class:i[l]?"wb-number":o===null?"wb-quiet":"",text:o===null?"NULL":typeof o=="number"&&!Number.isInteger(o)?f(o,6):String(o)});this.table.replaceChildren(n("table",{class:"wb-table"},n("caption",{class:"wb-hidden",text:s("Answer")}),n("thead",{},n("tr",{},...e.columns.map(({name:o,type:l})=>n("th",{text:o,title:l,attrs:{scope:"col"}})))),n("tbody",{},...e.rows.map(o=>n("tr",{},...o.map(r))))),...e.more?[n("p",{class:"wb-note",text:s("Only the first %1 rows are shown; CSV and Parquet hold all of them.",t)})]:[]),this.offerChart(e,i)}takeChart(e){this.figure.node.hidden=!1,this.figure.show(e.spec,e.note)}finished(e){e===this.asked&&(this.stop.hidden=!0,this.runButton.classList.remove("wb-working"))}fail(e,t){this.error.hidden=!e,b(this.error,"data-wb-error",e||void 0),this.error.replaceChildren(n("strong",{text:e})," ",n("span",{text:t})),e&&(this.summary.textContent="")}restyle(){this.figure.restyle()}filled(){let{run:e,base:t}=this.runs??{};return this.text.value.replace(/\$run\b/g,e??"0").replace(/\$base\b/g,t??"0")}run(){this.fail("",""),this.summary.textContent=s("asking\u2026"),this.stop.hidden=!1,this.runButton.classList.add("wb-working"),this.asked=this.actions.send({type:"query",sql:this.filled()})}plot(){let e=this.answered?.sql;if(e){let{x:t,y:i,colour:r}=this.axes;this.fail("",""),this.actions.send({type:"plot",sql:e,mark:this.mark.value,x:t.value,y:i.value,colour:r.value||null})}}offerChart(e,t){let i=e.columns.map(({name:h})=>h);this.chartBar.hidden=i.length<2||!e.rows.length,this.figure.node.hidden=!0;let r=h=>[...h?[n("option",{text:s("none"),attrs:{value:""}})]:[],...i.map(p=>n("option",{text:p,attrs:{value:p}}))],{x:o,y:l,colour:d}=this.axes;o.replaceChildren(...r(!1)),l.replaceChildren(...r(!1)),d.replaceChildren(...r(!0)),o.value=i[0]??"",l.value=i.filter((h,p)=>t[p]&&p>0).pop()??i[1]??"",d.value=i.length>2?i.find((h,p)=>p>0&&h!==l.value)??"":""}explain(e){let t=this.catalogue?.macros.find(o=>o.name===e),i=this.catalogue?.tables.find(o=>o.name===e),r=t?`FROM ${t.name}(${si(t.arguments)})`:i?`FROM ${i.name} LIMIT 100`:"";this.about.replaceChildren(...t?[n("div",{},n("code",{text:`${t.name}(${t.arguments})`})," ",t.answers),n("pre",{class:"wb-code",text:t.formula}),n("div",{class:"wb-quiet",text:t.source})]:i?[n("div",{},n("code",{text:i.name}),": ",i.columns.map(o=>`${o.name} ${o.type}`).join(", "))]:[],...r?[u(s("Use"),"use-macro",s("Put this into the query box"),()=>this.fill(r))]:[])}async copy(e){try{await navigator.clipboard.writeText(this.actions.link()?.(this.text.value)??this.text.value),e.textContent=s("Copied"),window.setTimeout(()=>e.textContent=s("Copy link"),1500)}catch{this.actions.fail(s("The browser does not let this page write to the clipboard."),s("Save the query as a file instead."))}}};function si(a){let e={run:"$run",new_run:"$run",base:"$base",base_run:"$base",ids:"$run",others:"[$base]"};return a.split(",").map(t=>t.trim()).filter(t=>t&&!t.includes(":=")).map(t=>e[t]??t).join(", ")}var I=400,Ce=class{constructor(e){this.select=e}node=n("div",{class:"wb-strip",attrs:{"aria-label":s("Tokens"),role:"group"}});first=0;show(e,t){let i=e?.tokens??0,r=t??0;i<=I?this.first=0:(r<this.first||r>=this.first+I||this.first+I>i)&&(this.first=Math.max(0,Math.min(i-I,r-I/2)));let o=[];for(let d=this.first;d<Math.min(i,this.first+I);d++)e.knows(d)&&o.push(d);let l=o.length;for(;this.node.childElementCount>l;)this.node.lastElementChild.remove();for(let d=0;d<l;d++){let h=o[d],p=e.text(h)??"",c=this.node.children[d];c||(c=n("span",{class:"wb-chip-token",on:{click:m=>this.select(Number(m.currentTarget.getAttribute("data-token")))}}),this.node.append(c)),(c.getAttribute("data-text")!==p||c.getAttribute("data-token")!==String(h))&&(c.textContent=p.replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205",b(c,"data-text",p),b(c,"data-token",String(h)),c.title=s("token %1 \u201C%2\u201D",h,k(p))),c.classList.toggle("wb-on",h===t)}}};var ri=0,Me=class{constructor(e,t,i){this.tabs=t;this.chosen=i;let r=++ri;this.current=t[0].key,this.buttons=t.map(({key:o,label:l,title:d,panel:h})=>(h.id=`wb-tab-${r}-${o}`,b(h,"role","tabpanel"),b(h,"aria-label",l),n("button",{class:"wb-tab",text:l,title:d,attrs:{type:"button",role:"tab","aria-controls":h.id,"data-wb-tab":o},on:{click:()=>this.choose(o),keydown:p=>this.key(p)}}))),this.node=n("div",{class:"wb-tabs",attrs:{role:"tablist","aria-label":e}},...this.buttons),this.render()}node;buttons;current;choose(e){let t=e!==this.current;this.current=e,this.render(),t&&this.chosen(e)}render(){this.tabs.forEach(({key:e,panel:t},i)=>{let r=e===this.current;t.hidden=!r,b(this.buttons[i],"aria-selected",String(r)),this.buttons[i].tabIndex=r?0:-1})}key(e){let t=this.tabs.findIndex(({key:o})=>o===this.current),r={ArrowLeft:t-1,ArrowRight:t+1,Home:0,End:this.tabs.length-1}[e.key];if(r!==void 0){e.preventDefault(),e.stopPropagation();let o=(r+this.tabs.length)%this.tabs.length;this.choose(this.tabs[o].key),this.buttons[o].focus()}}};function wt(a,e){if(a)return[n("h3",{class:"wb-title",text:s("Opening a model\u2026")}),n("p",{class:"wb-note",text:s("The first time this takes a few seconds: the kernel loads torch and the weights.")})];let t=[n("p",{},s("Run this in a cell of the notebook, and it appears here:")),n("pre",{class:"wb-code",text:`import workbench as wb
bench = wb.open()`})];return[n("h3",{class:"wb-title",text:s("No bench in this kernel yet")}),...e?[]:t,n("p",{},s("To open a model from here, name it in the field above (a local folder or a hub id; empty for the demo model) and press Open."))]}var ni=["run","recompute","open","step","try","effects_of","heads_of"],oi=["watch","seen","cancel","models_of"],ai=["query","plot","catalogue_of"],Te=class{node;card;inspector;planList;form;next;live;charts;compare;runs;sql;head;help=new ee(()=>this.node);strip=new Ce(e=>this.select({layer:this.state?.selected?.layer??0,position:e}));tabs;prompt=new ye(()=>this.run());runButton;status=n("span",{class:"wb-status",attrs:{role:"status"}});progress=n("progress",{class:"wb-progress",attrs:{max:"1","aria-label":s("Progress"),hidden:!0}});alerts=new U;welcome=n("section",{class:"wb-card wb-welcome"});body;channel=null;options=null;preferences={colour:"expert",scope:"all",link:null};seq=0;pending=new Map;state=null;cell=null;kernelBusy=null;asked=-1;opened;resume=null;generating=!1;query=null;visible=!0;constructor(){let e=l=>this.send("control",l),t=l=>this.send("compute",l);this.form=new Q({send:e}),this.card=new we({send:e,select:l=>this.select(l),brush:l=>this.inspector.mark(l),editBox:({layers:l,tokens:d})=>this.form.open("reroute.ban",{layers:Array.from({length:l[1]-l[0]+1},(h,p)=>l[0]+p),tokens:{start:d[0],stop:d[1]+1}}),flip:()=>this.flip(),texts:()=>this.strip.show(this.card.data,this.state?.selected?.position)}),this.inspector=new le(e,t),this.planList=new ve(e,t,this.form,(l,d)=>this.fail(l,d)),this.live=new de({compute:t,generate:l=>this.generate(l),select:l=>this.select({layer:this.state?.selected?.layer??0,position:l})}),this.next=new ge(l=>e({type:"next",position:l}));let i=()=>this.tabs.choose("map");this.charts=new G({send:e,layer:l=>this.select({layer:l,position:this.state?.selected?.position??0})}),this.compare=new Y({send:e,look:i,list:()=>this.tabs.choose("runs"),select:(l,d)=>{this.select({layer:l,position:d}),i()}}),this.runs=new xe({send:e,look:i,compare:(l,d)=>{this.compare.take(null),e({type:"compare",base:l,run:d}),this.tabs.choose("compare")}}),this.sql=new ke({send:e,link:()=>this.preferences.link,fail:(l,d)=>this.fail(l,d)}),this.head=new Z({control:e,use:l=>{this.generate(!1),e({type:"use",key:l})},open:l=>this.open(l),help:()=>this.help.open()}),this.runButton=u(s("Run"),"run",s("Run the prompt (Enter; Shift+Enter for a new line)"),()=>this.run()),this.runButton.classList.add("wb-primary");let r=n("div",{class:"wb-view"},this.card.node,this.next.node),o=[["map",s("Map"),s("The routing map of the run in view"),r],["charts",s("Charts"),s("Attention rank, contribution, sparsity, load and affinity"),n("div",{class:"wb-view"},this.charts.node)],["compare",s("Difference"),s("Two runs side by side"),n("div",{class:"wb-view"},this.compare.node)],["runs",s("Runs"),s("All runs of the store"),n("div",{class:"wb-view"},this.runs.node)],["sql",s("SQL"),s("Ask the store"),n("div",{class:"wb-view"},this.sql.node)]];this.tabs=new Me(s("Views"),o.map(([l,d,h,p])=>({key:l,label:d,title:h,panel:p})),l=>this.turnTo(l)),this.body=this.layout(o.map(([,,,l])=>l)),this.node=n("div",{class:"wb-panel",attrs:{"data-wb-panel":"","data-wb-busy":"true","data-wb-view-now":"map"},on:{keydown:l=>this.key(l)}},this.head.node,this.alerts.node,this.help.node,this.welcome,this.body),this.render()}connect(e,t){this.channel=e,this.options=t,this.pending.clear(),this.asked=-1,this.opened=void 0,this.kernelBusy=null,this.generating=!1,this.resume=this.memory(),e.listen((i,r)=>this.receive(i,r)),this.send("control",{type:"hello",protocol:3,version:t.version})}disconnect(e){this.resume=this.memory(),this.channel=null,this.generating=!1,this.kernelBusy=e,this.renderBusy()}watch(e){this.visible=e,e||this.generate(!1),this.channel&&this.send("control",{type:"watch",visible:e})}recall(e){this.resume=e,this.prompt.value=e.prompt}prefer(e){this.preferences=e,this.inspector.actOn(e.scope),this.card.prefer(e.colour),this.sql.offerLink()}ask(e){this.query=this.state?null:e,this.tabs.choose("sql"),this.sql.fill(e)}restyle(){this.card.restyle(),this.charts.restyle(),this.sql.restyle(),this.renderCell()}focus(){this.prompt.node.focus()}fail(e,t,i){this.alerts.show(e,t,i)}layout(e){let t=u(s("Save as page"),"page",s("One HTML file of the runs in view that opens without a kernel"),()=>this.send("control",{type:"export",format:"html",sql:""}));return n("div",{class:"wb-body"},n("div",{class:"wb-left"},n("section",{class:"wb-card",attrs:{"aria-label":s("Prompt")}},n("div",{class:"wb-row wb-prompt-row"},this.prompt.node,this.runButton),n("div",{class:"wb-row"},this.strip.node,this.progress,this.status)),this.live.node,n("div",{class:"wb-row wb-tab-row"},this.tabs.node,n("span",{class:"wb-grow"}),t),...e),n("div",{class:"wb-right"},this.planList.node,this.inspector.node))}turnTo(e){b(this.node,"data-wb-view-now",e),this.channel&&this.state&&(this.charts.opened(e==="charts"),e==="compare"?this.compare.opened():e==="runs"?this.runs.ask():e==="sql"&&this.sql.opened())}send(e,t){if(!this.channel)return this.fail(s("The panel has no kernel."),s("Wait for it to come back, or start it from the Kernel menu.")),-1;let i=++this.seq;return oi.includes(t.type)||this.pending.set(i,t.type),this.channel.send(e,{...t,seq:i}),this.renderBusy(),i}receive(e,t){switch(e.type){case"benches":this.showBenches(e.benches,e.current);break;case"state":this.takeState(e);break;case"map":this.send("control",{type:"seen"}),this.card.take(e,t),this.card.show(this.state),this.strip.show(this.card.data,this.state?.selected?.position);break;case"tile":this.card.takeTile(e,t);break;case"load":this.card.takeLoad(e,t);break;case"cell":this.cell=e,this.renderCell();break;case"next":this.next.show(e);break;case"busy":this.kernelBusy=e.what,this.progress.hidden=e.share===null,this.progress.value=e.share??0;break;case"trials":this.inspector.take(e);break;case"heads":this.inspector.takeHeads(e,t);break;case"profile":this.inspector.takeProfile(e);break;case"effects":this.planList.take(e);break;case"forms":this.form.take(e);break;case"previewed":this.form.previewed(e);break;case"runs":this.runs.take(e);break;case"comparison":this.compare.take(e);break;case"catalogue":this.sql.takeCatalogue(e);break;case"table":this.sql.take(e);break;case"chart":e.chart==="query"?this.sql.takeChart(e):this.charts.take(e);break;case"file":H(e.name,t[0],e.mime);break;case"models":this.head.showModels(e);break;case"done":this.finished(e.seq);break;case"error":this.showFailure(e);break}this.renderBusy()}showFailure(e){let t=e.seq===null?void 0:this.pending.get(e.seq);if(t&&ai.includes(t)){this.sql.fail(e.problem,e.remedy);return}this.fail(e.problem,e.remedy),this.generating=!1,this.live.show(this.state,!1),t==="open"&&(this.opened=void 0,this.render())}finished(e){let t=this.pending.get(e);this.pending.delete(e),this.card.finished(e),this.sql.finished(e),t==="step"&&this.generating&&(this.state?.live?.ended?this.generate(!1):requestAnimationFrame(()=>{this.generating&&this.send("compute",{type:"step"})})),(t==="run"||t==="recompute")&&this.tabs.current==="runs"&&this.visible&&this.runs.ask()}generate(e){e&&!this.generating&&(this.alerts.clear(),this.send("compute",{type:"step"})),this.generating=e&&this.channel!==null,this.live.show(this.state,this.generating),this.renderBusy()}flip(){this.state?.edited&&this.card.data&&this.send("control",{type:"side",base:this.card.data.edited})}showBenches(e,t){if(this.head.showBenches(e,t),!t&&(this.clear(),this.options?.openDemo&&this.opened===void 0&&this.alerts.empty)){let i=this.resume;this.open(i?.model??null,i)}this.render()}clear(){this.state=null,this.cell=null,this.card.take(null),this.next.show(null),this.inspector.take(null),this.compare.take(null)}takeState(e){let t=e.bench.key!==this.state?.bench.key,i=e.base?.past&&e.base.id!==this.state?.base?.id;t&&this.clear(),(t&&(e.prompt||!this.prompt.value)||i)&&(this.prompt.value=e.prompt,this.prompt.grow()),this.state=e,e.base?.past&&this.next.show(null),e.stale&&this.asked!==e.plan.version&&(this.asked=e.plan.version,this.send("compute",{type:"recompute"}));let r=this.memory();r&&this.options?.remember?.(r),this.next.moved(e.selected),t?(this.render(),this.prompt.grow(),this.turnTo(this.tabs.current),this.query!==null&&this.ask(this.query)):this.renderState()}memory(){return this.state?{model:this.opened??this.resume?.model??null,prompt:this.state.prompt,plan:this.state.plan.text}:this.resume}open(e,t=null){this.opened=e,this.generating=!1,this.alerts.clear();let i=t?.prompt?{prompt:t.prompt,plan:t.plan}:{prompt:"",plan:null};this.send("compute",{type:"open",model:e,...i})}run(){this.generating=!1,this.inspector.take(null),this.alerts.clear(),this.send("compute",{type:"run",prompt:this.prompt.value})}select(e){this.strip.show(this.card.data,e.position),this.send("control",{type:"select",...e})}key(e){let t=e.target instanceof HTMLTextAreaElement||e.target instanceof HTMLInputElement,i=e.target instanceof HTMLInputElement&&["checkbox","range"].includes(e.target.type);(e.ctrlKey||e.metaKey)&&e.key.toLowerCase()==="z"&&(!t||i)&&(e.preventDefault(),e.stopPropagation(),this.send("control",{type:e.shiftKey?"redo":"undo"})),!e.ctrlKey&&!e.metaKey&&!e.altKey&&!e.shiftKey&&e.key.toLowerCase()==="b"&&!(t&&!i)&&!(e.target instanceof HTMLSelectElement)&&(e.preventDefault(),e.stopPropagation(),this.flip())}render(){this.body.hidden=this.state===null,this.renderWelcome(),this.renderState(),this.renderBusy()}renderWelcome(){this.welcome.hidden=this.state!==null;let e=[...this.pending.values()].includes("open")||this.options===null;this.welcome.replaceChildren(...wt(e,this.options?.openDemo??!1))}renderState(){let e=this.state;this.planList.show(e?.plan??null),this.live.show(e,this.generating),this.head.show(e?.bench??null),this.card.show(e),this.charts.show(e),this.compare.show(e);let t=e?.edited??e?.base;this.sql.show(t&&e?.base?{run:t.id,base:e.base.id}:null),this.runs.mark([e?.base?.id,e?.edited?.id].filter(i=>i!==void 0)),this.renderCell(),this.strip.show(this.card.data,e?.selected?.position)}renderCell(){let{plan:e=null,bench:t=null,base:i=null,edited:r=null}=this.state??{};this.inspector.show(this.cell,e,t,r??i,i?.id??null)}renderBusy(){let e=[...this.pending.values()],t=this.kernelBusy!==null||this.generating||e.length>0||this.channel===null;b(this.node,"data-wb-busy",String(t));let i=e.some(r=>ni.includes(r));this.status.textContent=this.kernelBusy??(i?s("waiting for the kernel"):""),this.runButton.classList.toggle("wb-working",t&&(i||this.kernelBusy!==null)),this.head.openButton.disabled=e.includes("open"),this.state===null&&this.renderWelcome()}};var gt="0.1.0";function li({model:a,el:e}){let t=document.createElement("style");t.textContent=Oe+Ie+je+Fe;let i=new Te;i.node.classList.add("wb-inline"),i.node.addEventListener("focusin",d=>{d.target.setAttribute("data-lm-suppress-shortcuts","true")}),e.append(t,i.node);let r=()=>{},o={send:(d,h)=>a.send({lane:d,message:h}),listen:d=>{r=d}};Ve(()=>di(a));let l=(d,h)=>r(d,h);return a.on("msg:custom",l),i.connect(o,{version:gt,openDemo:!1}),()=>a.off("msg:custom",l)}var vt=null;function di(a){return vt??=new Promise((e,t)=>{let i=(r,o)=>{if(r.type==="vega"){a.off("msg:custom",i);let l=new Blob([o[0]],{type:"text/javascript"}),d=URL.createObjectURL(l);import(d).then(e,t).finally(()=>URL.revokeObjectURL(d))}};a.on("msg:custom",i),a.send({vega:!0})}),vt}var an={render:li};export{an as default};
