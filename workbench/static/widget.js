var rt=`/* Colours come from JupyterLab's theme; the fallbacks serve hosts that have none. */
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
  contain: layout paint; /* what grows in one card lays out and paints no other */
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
  color: var(--wb-ink);
  font-weight: 600;
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

/* Opacity on a layer of its own, in few steps: anything else would paint the page sixty times a second, while it is busy. */
.wb-panel button.wb-primary.wb-working {
  position: relative;
}

.wb-panel button.wb-primary.wb-working::after {
  position: absolute;
  inset: 0;
  border-radius: inherit;
  background-image: repeating-linear-gradient(-45deg, transparent 0 8px, rgb(255 255 255 / 30%) 8px 16px);
  pointer-events: none;
  animation: wb-working 0.9s steps(3, jump-none) infinite alternate;
  will-change: opacity;
  content: '';
}

.wb-panel button.wb-primary.wb-working.wb-steady::after {
  opacity: 0.6;
  animation: none;
}

@keyframes wb-working {
  from {
    opacity: 0.2;
  }
}

@media (prefers-reduced-motion: reduce) {
  .wb-panel button.wb-primary.wb-working::after {
    animation: none;
  }
}

.wb-panel :is(button, select, input, textarea, canvas, summary, [tabindex='0']):focus-visible {
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

.wb-busy-line {
  display: flex;
  align-items: center;
  justify-content: flex-end;
  gap: 8px;
  min-height: 24px;
}

.wb-status {
  min-width: 0;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
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
  padding-bottom: 4px;
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

/* The kernel's status in the toolbar: every icon is there, one is seen. */
.wb-kernel-status {
  display: flex;
  align-items: center;
}

.wb-kernel-status > * {
  display: none;
}

.wb-kernel-status[data-look='idle'] > .wb-kernel-idle,
.wb-kernel-status[data-look='busy'] > .wb-kernel-busy,
.wb-kernel-status[data-look='away'] > .wb-kernel-away {
  display: block;
}
`;var ot=`/* Plan */
.wb-plan {
  display: flex;
  flex-direction: column;
  min-height: 222px;
}

/* Of a fixed height, so that the experts below stay under the pointer while edits come and go. */
.wb-plan-body {
  flex: none;
  height: 118px;
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

/* Asked for; the kernel has not answered yet. */
.wb-edits .wb-pending .wb-edit span,
.wb-expert[data-wb-pending] .wb-badge,
.wb-plan[data-wb-pending] .wb-hash {
  font-style: italic;
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

.wb-panel .wb-expert button.wb-button[aria-pressed='true'] {
  padding-inline: 0;
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
  grid-template-columns: 10px 4.6em 10px minmax(24px, 1fr) 5.4em 5.2em;
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
  display: flex;
  flex-direction: column;
  gap: 4px;
  padding: 4px 0;
}

.wb-panel .wb-short {
  width: 6.5em;
}

.wb-panel .wb-percent {
  width: 4.2em;
}

.wb-adds {
  grid-column: 3 / -1;
  color: var(--wb-ink-2);
  font-size: 0.88em;
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

.wb-field input[type='checkbox'] {
  align-self: flex-start;
}

.wb-lines {
  white-space: pre-line;
}

.wb-meanings {
  margin: 4px 0;
  font-size: 0.94em;
}

.wb-meanings dt {
  color: var(--wb-ink);
  font-family: var(--wb-mono);
}

.wb-meanings dd {
  margin: 0 0 4px 12px;
  color: var(--wb-ink-2);
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
`;var at=`/* Map */
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
  max-width: 14em;
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

.wb-swatch-sign {
  width: 14px;
  height: 14px;
  font-size: 10px;
  font-weight: 600;
  line-height: 14px;
  text-align: center;
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

.wb-map-table caption {
  text-align: left;
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
`;var lt=`/* Tabs and the views behind them */
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

.wb-runs .wb-run-words {
  width: 100%;
  max-width: 0;
  font-weight: 400;
}

.wb-runs .wb-clip {
  display: block;
  max-width: 100%;
}

.wb-run-buttons {
  white-space: nowrap;
}

.wb-run-buttons .wb-button + .wb-button {
  margin-left: 3px;
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

/* Experiments */
.wb-experiment {
  margin-top: 8px;
  padding-top: 6px;
  border-top: 1px solid var(--wb-line);
}

.wb-experiment .wb-bars {
  width: 34%;
}

.wb-block {
  display: block;
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

.wb-panel .wb-layer-diff td.wb-bars + td {
  padding-left: 12px;
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
`;var H=class{drawn="";by(...e){let t=JSON.stringify(e),i=t!==this.drawn;return this.drawn=t,i}};function dt(o,e){let t=0;return o.messages.map((i,s)=>{let r=t+o.buffers[s],l={message:i,buffers:e.slice(t,r)};return t=r,l})}var pt=6;function a(o,e={},...t){let i=document.createElement(o);e.class&&(i.className=e.class),e.text!==void 0&&(i.textContent=e.text),e.title!==void 0&&(i.title=e.title);for(let[s,r]of Object.entries(e.attrs??{}))u(i,s,r);for(let[s,r]of Object.entries(e.on??{}))i.addEventListener(s,r);return i.append(...t.filter(s=>s!==null)),i}function u(o,e,t){let i=t===void 0||t===!1?null:t===!0?"":t;o.getAttribute(e)!==i&&(i===null?o.removeAttribute(e):o.setAttribute(e,i))}function y(o,e){o.textContent!==e&&(o.textContent=e)}function q(o,e){o.title!==e&&(o.title=e)}function b(o,e,t,i){return a("button",{class:"wb-button",text:o,title:t,attrs:{type:"button","data-wb-action":e},on:{click:i}})}function T(o){return o.replace(/ /g,"\xB7").replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205"}function E(o,e,t){let i=a("select",{class:"wb-select",attrs:{"aria-label":o}});return i.append(...e.map(([s,r])=>a("option",{text:r,attrs:{value:s}}))),i.addEventListener("change",()=>t(i.value)),i}function O(o,e,t){let i=URL.createObjectURL(new Blob([e],{type:t}));a("a",{attrs:{href:i,download:o}}).click(),window.setTimeout(()=>URL.revokeObjectURL(i),1e4)}function ht(o,e,t){let i=a("canvas",{attrs:{width:String(o.width),height:String(o.height)}}),s=i.getContext("2d");s.fillStyle=getComputedStyle(e).backgroundColor,s.fillRect(0,0,i.width,i.height),s.drawImage(o,0,0),i.toBlob(r=>{r&&O(t,r,"image/png")})}var te=class{due=new Map;waiting=!1;later(e,t){this.due.delete(e),this.due.set(e,t)}draw(){if(this.waiting||this.due.size===0)return;let e=[...this.due.values()];this.due.clear(),e.forEach(t=>t()),this.waiting=!0,requestAnimationFrame(()=>{this.waiting=!1,this.draw()})}clear(){this.due.clear()}};var ei=(o,...e)=>o.replace(/%(\d)/g,(t,i)=>String(e[Number(i)-1]));var n=(o,...e)=>ei(o,...e),J=(o,...e)=>({text:o,values:e});function C({text:o,values:e}){return e===null?o:n(o,...e.map(t=>typeof t=="object"?C(t):t))}function ie(o){return Array.isArray(o)?o.map(ie):o===null||typeof o!="object"?o:"$said"in o?C(o.$said):Object.fromEntries(Object.entries(o).map(([e,t])=>[e,ie(t)]))}var bt=["exchange","imitate","load","recall"];function mt(o,e){let t=r=>({...o,edits:r,version:o.version+1,undo:!0,redo:!1,earlier:o.edits,later:null,pending:!0}),i=o.edits,s="version"in e&&"index"in e&&e.version===o.version&&i[e.index]!==void 0;switch(e.type){case"add":return t([...i,ut(e.edit)]);case"clear":return i.length?t([]):o;case"remove":return s?t(i.filter((r,l)=>l!==e.index)):o;case"replace":return s?t(i.with(e.index,ut(e.edit))):o;case"enable":return s?t(i.with(e.index,{...i[e.index],enabled:e.enabled,pending:!0})):o;case"move":{let r=i[e.index];return s?t(i.toSpliced(e.index,1).toSpliced(e.to,0,{...r,pending:!0})):o}case"undo":return o.earlier?ct(o,o.earlier,!1):o;case"redo":return o.later?ct(o,o.later,!0):o;default:return bt.includes(e.type)?{...o,pending:!0}:o}}function ft(o){return["add","clear","remove","replace","enable","move","undo","redo",...bt].includes(o.type)}function ct(o,e,t){return{...o,edits:e,version:o.version+1,pending:!0,undo:t,redo:!t,earlier:t?o.edits:null,later:t?null:o.edits}}function ut(o){let e=o.delta,t=typeof e=="object"&&e!==null&&!Array.isArray(e)?Object.entries(e):[],i=o.experts??t.map(([p])=>Number(p)),s=Array.isArray(o.layers)?o.layers:null,r=String(o.kind),l=r.split(".").pop().replaceAll("_"," "),d=i.length?J("%1 expert %2",l,i.join(", ")):J("%1",l);return{kind:r,text:s?s.length>1?J("%1 in layers %2",d,s.join(", ")):J("%1 in layer %2",d,s.join()):d,enabled:o.enabled!==!1,layers:s,experts:i,delta:r==="reroute.bias"&&t.length===1&&(o.at??"logits")==="logits"?t[0][1]:null,tokens:o.tokens??"all",phase:String(o.phase??"all"),data:o,pending:!0}}function wt(o,e){let t=o.target,s=!(t instanceof HTMLInputElement&&["checkbox","range"].includes(t.type))&&(t instanceof HTMLTextAreaElement||t instanceof HTMLInputElement),r=o.ctrlKey||o.metaKey,l=o.key.toLowerCase(),d=null;r&&l==="z"&&!s?d=o.shiftKey?e.redo:e.undo:!r&&!o.altKey&&!o.shiftKey&&l==="b"&&!s&&!(t instanceof HTMLSelectElement)&&(d=e.flip),d&&(o.preventDefault(),o.stopPropagation(),d())}var ne=class{node=a("div",{class:"wb-errors"});get empty(){return this.node.childElementCount===0}clear(){this.node.replaceChildren()}show(e,t,i){let s=()=>r.remove(),r=a("div",{class:"wb-error",attrs:{role:"alert","data-wb-error":e}},a("span",{class:"wb-error-mark",text:"!",attrs:{"aria-hidden":"true"}}),a("div",{class:"wb-grow"},a("strong",{text:e})," ",a("span",{text:t})),i?b(n("Try again"),"retry",n("Try again"),()=>{s(),i()}):null,b("\xD7","dismiss",n("Dismiss"),s));r.lastElementChild.setAttribute("aria-label",n("Dismiss")),this.node.replaceChildren(r)}};var ze=null;function gt(o){ze=o}var K=class{constructor(e,t,i){this.pick=i;this.picture=b(n("SVG"),"figure",n("Save this chart as an SVG picture"),()=>{this.drawing?.svg().then(s=>O(`${e}.svg`,s,"image/svg+xml"))}),this.node=a("figure",{class:"wb-figure",attrs:{"data-wb-chart":e,"aria-label":t}},this.holder,this.note,this.picture),this.say(n("Nothing to draw yet."))}node;holder=a("div",{class:"wb-figure-holder"});note=a("p",{class:"wb-note"});picture;drawing=null;spec=null;turn=0;parameters=new Map;async show(e,t=""){let i=++this.turn;if(this.spec=e,!e){this.clear(),this.say(t);return}try{if(!ze)throw new Error(n("this host draws no charts"));let s=await ze();if(i!==this.turn)return;this.clear(),this.say("");let r=await s.draw(this.holder,e,ti(this.node),this.pick);if(i!==this.turn){r.dispose();return}this.drawing=r,this.picture.hidden=!1,this.node.dataset.wbDrawn="true",this.parameters.forEach((l,d)=>r.set(d,l))}catch(s){this.say(n("The chart could not be drawn: %1.",s.message))}}set(e,t){this.parameters.set(e,t),this.drawing?.set(e,t)}restyle(){this.spec&&this.drawing&&this.show(this.spec)}say(e){this.note.textContent=e,this.note.hidden=e===""}clear(){this.drawing?.dispose(),this.drawing=null,this.picture.hidden=!0,delete this.node.dataset.wbDrawn,this.holder.replaceChildren()}};function ti(o){let e=getComputedStyle(o),t=(i,s)=>e.getPropertyValue(i).trim()||s;return{ink:t("--wb-ink-1","#222"),faint:t("--wb-ink-2","#666"),line:t("--wb-line-strong","#bbb"),font:e.fontFamily}}var ii="layer_in_view",se=class{constructor(e){this.actions=e;let t=[["load",n("Expert load by layer")],["contribution",n("Contribution by layer")],["rank",n("Attention rank by layer")],["sparsity",n("Activation sparsity by layer")],["entropy",n("Router entropy by layer")],["affinity",n("Affinity of experts between layers")]],i=s=>{let r=Number(s.layer);s.layer!==void 0&&Number.isInteger(r)&&e.layer(r)};this.figures=new Map(t.map(([s,r])=>[s,new K(s,r,i)])),this.node=a("section",{class:"wb-card",attrs:{"data-wb-view":"charts"}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Charts of the run in view")}),this.run),a("p",{class:"wb-note",text:n("The dashed rule is the layer in view; a click on a mark selects its layer.")}),a("div",{class:"wb-figures"},...[...this.figures.values()].map(s=>s.node)))}node;figures;run=a("span",{class:"wb-quiet"});asked=new Map;state=null;open=!1;opened(e){this.open=e,this.ask()}show(e){this.state=e;let t=e?.edited??e?.base;y(this.run,t?e?.edited?n("edited %1",t.id):n("base %1",t.id):n("No prompt has been run yet.")),u(this.node,"data-wb-layer",e?.selected?String(e.selected.layer):void 0);let i=e?.selected?.layer;i!==void 0&&this.figures.forEach(s=>s.set(ii,i)),this.ask()}take(e){let t=this.state?.edited??this.state?.base;e.run===t?.id&&this.figures.get(e.chart)?.show(ie(e.spec),e.note?C(e.note):"")}restyle(){this.figures.forEach(e=>e.restyle())}ask(){let e=this.state?.edited??this.state?.base;if(!this.open||!e||this.state?.stale)return;let t=this.state?.selected?.layer??0;for(let i of this.figures.keys()){let s=i==="affinity"||i==="load"&&this.state.bench.layers*this.state.bench.experts>5e3?`${e.id}:${t}`:e.id;this.asked.get(i)!==s&&(this.asked.set(i,s),this.actions.send({type:"draw",chart:i,run:e.id,layer:t}))}}};var Ve=[[0,114,178],[230,159,0],[0,158,115],[204,121,167],[86,180,233],[213,94,0],[240,228,66]],vt=[0,-.42,.5,-.65,.72];function _(o){let e=Ve[o%Ve.length],t=vt[Math.floor(o/Ve.length)%vt.length],i=t<0?0:255;return e.map(s=>Math.round(s+(i-s)*Math.abs(t)))}var re=[[68,1,84],[72,36,117],[65,68,135],[53,95,141],[42,120,142],[33,145,140],[34,168,132],[68,191,112],[122,209,81],[189,223,38],[253,231,37]];function A(o){let e=Math.min(1,Math.max(0,o))*(re.length-1),t=Math.min(re.length-2,Math.floor(e)),i=re[t],s=re[t+1];return i.map((r,l)=>Math.round(r+(s[l]-r)*(e-t)))}function U(o,e,t){return o.map((i,s)=>Math.round(i+(e[s]-i)*t))}function B([o,e,t]){return`rgb(${o}, ${e}, ${t})`}function oe(o){let[e,t,i]=o.map(s=>{let r=s/255;return r<=.04045?r/12.92:((r+.055)/1.055)**2.4});return .2126*e+.7152*t+.0722*i>.179?"#000":"#fff"}function w(o,e=4){return Number.isFinite(o)?o!==0&&(Math.abs(o)<1e-4||Math.abs(o)>=1e6)?o.toExponential(e-1):o.toPrecision(e):"\u2013"}function N(o,e=4){return(o>0?"+":o<0?"\u2212":"")+w(Math.abs(o),e)}var ae=class{constructor(e){this.actions=e;this.pair=b(n("Base and edited"),"compare-view",n("Compare the two runs on the map"),()=>this.compareView()),this.node=a("section",{class:"wb-card",attrs:{"data-wb-view":"compare"}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Difference of two runs")}),a("span",{class:"wb-grow"}),this.pair,b(n("Choose runs\u2026"),"choose-runs",n("Tick two runs in the list"),e.list)),this.body),this.render()}node;body=a("div");pair;state=null;told=null;show(e){this.state=e,this.pair.disabled=!this.comparable,this.render()}opened(){this.told||this.compareView()}take(e){this.told=e,this.render()}get comparable(){return!!this.state?.base&&!!this.state.edited&&!this.state.live}compareView(){let{base:e,edited:t}=this.state??{};this.comparable&&e&&t&&this.actions.send({type:"compare",base:e.id,run:t.id})}render(){let e=this.told;if(u(this.node,"data-wb-compare",e?`${e.base.id},${e.run.id}`:void 0),u(this.node,"data-wb-flips",e?String(e.flips):void 0),!e){this.body.replaceChildren(a("p",{class:"wb-note",text:this.state?.live?n("This text is still being generated, and can be compared once it has ended: press Run, then tick it in the list of runs."):n("Nothing to compare yet: run a prompt under a plan, or tick two runs in the list of runs.")}));return}let t={edit:n("by an edit"),tie:n("by a tie"),upstream:n("because of what came before")},i=[[n("aligned tokens"),String(e.aligned)],[n("flips"),String(e.flips)],...Object.entries(e.causes).map(([r,l])=>[t[r]??r,String(l)]),[n("mean KL"),e.kl===null?n("\u2013 (the store keeps no logits)"):n("%1 nats",w(e.kl))],[n("loss"),`${e.base.loss===null?"\u2013":w(e.base.loss)} \u2192 ${e.run.loss===null?"\u2013":w(e.run.loss)}`]],s=b(n("Show on the map"),"show-pair",n("The second run, with the first as its base"),()=>{this.actions.send({type:"show",run:e.run.id,base:e.base.id,plan:!1}),this.actions.look()});this.body.replaceChildren(a("div",{class:"wb-pair"},this.card(n("base"),e.base),this.card(n("run"),e.run)),a("dl",{class:"wb-facts"},...i.map(([r,l])=>a("div",{},a("dt",{text:r}),a("dd",{text:l})))),a("div",{class:"wb-row"},e.first?a("span",{},n("It begins in layer %1 at token %2, \u201C%3\u201D.",e.first.layer,e.first.position,T(e.first.text))):a("span",{text:n("No choice differs at aligned tokens.")}),s),a("h4",{class:"wb-subtitle",text:n("Text")}),this.text(e),a("h4",{class:"wb-subtitle",text:n("Layers")}),this.layers(e),a("h4",{class:"wb-subtitle",text:e.rows.length<e.flips?n("The first %1 of %2 flips",e.rows.length,e.flips):n("Flips")}),a("div",{class:"wb-scroll",attrs:{tabindex:"0",role:"region","aria-label":n("Flips")}},this.flips(e.rows)))}card(e,t){return a("div",{class:"wb-pair-card"},a("strong",{text:e})," ",a("span",{class:"wb-quiet",text:`${t.id} \xB7 ${t.model}`}),a("div",{class:"wb-quiet",text:t.edits.join("; ")||n("no plan")}))}text(e){let t={both:"",base:n("only in base"),run:n("only in run")};return a("p",{class:"wb-diff-text"},...e.pieces.map(({side:i,text:s})=>i==="both"?a("span",{text:s}):a(i==="base"?"del":"ins",{class:`wb-${i}-only`,text:s||"\u2205",title:t[i],attrs:{"data-wb-side":i}})))}layers(e){let t=Math.max(1,...e.layers.map(r=>r.flips)),i=e.layers.some(r=>r.base_rank!==null&&r.run_rank!==null),s=[n("layer"),n("flips"),"",...i?[n("attention rank, base"),n("run")]:[]];return a("table",{class:"wb-table wb-layer-diff"},a("thead",{},a("tr",{},...s.map(r=>r?a("th",{text:r,attrs:{scope:"col"}}):a("td")))),a("tbody",{},...e.layers.map(r=>{let l=a("div",{class:"wb-bar wb-edited"});l.style.width=`${(100*r.flips/t).toFixed(1)}%`;let d=p=>p===null?"\u2013":w(p,3);return a("tr",{},a("th",{text:String(r.layer),attrs:{scope:"row"}}),a("td",{class:"wb-number",text:String(r.flips)}),a("td",{class:"wb-bars",attrs:{"aria-hidden":"true"}},l),...i?[r.base_rank,r.run_rank].map(p=>a("td",{class:"wb-number",text:d(p)})):[])})))}flips(e){let t=[n("cell"),n("token"),n("base"),n("run"),n("margin of base"),n("cause")];return a("table",{class:"wb-table"},a("thead",{},a("tr",{},...t.map(i=>a("th",{text:i,attrs:{scope:"col"}})))),a("tbody",{},...e.map(i=>a("tr",{},a("td",{},b(`${i.layer}, ${i.position}`,"goto",n("Inspect layer %1, token %2",i.layer,i.position),()=>this.actions.select(i.layer,i.position))),a("th",{attrs:{scope:"row"}},a("code",{class:"wb-token",text:T(i.text)})),a("td",{class:"wb-number",text:i.base_experts.join(" ")}),a("td",{class:"wb-number",text:i.run_experts.join(" ")}),a("td",{class:"wb-number",text:i.base_margin===null?"\u2013":w(i.base_margin,3)}),a("td",{text:i.cause})))))}};var ni=700,si=3e3,le=class{constructor(e){this.actions=e;this.node=a("section",{class:"wb-card",attrs:{"data-wb-view":"experiments"}},a("h3",{class:"wb-title",text:n("Experiments")}),this.empty,this.list)}node;list=a("div");empty=a("p",{class:"wb-note",text:n("No experiment is in this store. In a notebook, workbench.experiments.sweep(bench, prompts, plans) makes one; it is shown here while it runs.")});timer=0;open=!1;opened(e){let t=e&&!this.open;this.open=e,window.clearTimeout(this.timer),t&&this.ask()}take(e){this.empty.hidden=e.rows.length>0,this.list.replaceChildren(...e.rows.map(t=>this.row(t))),window.clearTimeout(this.timer),this.open&&(this.timer=window.setTimeout(()=>this.ask(),e.rows.some(t=>t.running)?ni:si))}ask(){this.open&&this.actions.send({type:"experiments_of"})}row(e){let t=e.expected===null?"":n(" of %1",e.expected),i=e.running?n("running"):e.expected===null?"":e.runs<e.expected?n("stopped"):n("complete"),s=a("progress",{class:"wb-progress",attrs:{max:String(e.expected??1),value:String(e.expected===null?0:e.runs),"aria-label":n("Runs of %1",e.name)}});s.hidden=e.expected===null;let r=[n("plan"),n("runs"),n("loss"),n("change of loss"),""],l=Math.max(1e-12,...e.plans.map(d=>Math.abs(d.change??0)));return a("article",{class:"wb-experiment",attrs:{"data-wb-experiment":e.id,"data-wb-done":String(e.runs),"data-wb-running":String(e.running),"aria-label":e.name}},a("div",{class:"wb-row"},a("strong",{text:e.name||n("unnamed")}),s,a("span",{class:"wb-number",text:n("%1%2 runs",e.runs,t)}),a("span",{class:"wb-chip",text:i}),a("span",{class:"wb-quiet",text:e.created,title:e.id}),a("span",{class:"wb-grow"}),b(n("Runs"),"experiment-runs",n("List the runs of this experiment"),()=>this.actions.runs(e.id))),a("table",{class:"wb-table"},a("thead",{},a("tr",{},...r.map(d=>d?a("th",{text:d,attrs:{scope:"col"}}):a("td")))),a("tbody",{},...e.plans.map(d=>this.plan(d,l)))))}plan(e,t){let i=e.change??0,s=a("span",{class:`wb-swing ${i>0?"wb-loss":"wb-gain"}`});s.style.width=`${(50*Math.abs(i)/t).toFixed(1)}%`;let r=a("span",{class:"wb-swing-track wb-block",attrs:{"aria-hidden":"true"}},s);return a("tr",{},a("th",{attrs:{scope:"row"}},e.control?n("%1, random controls",e.plan):e.plan||"\u2013"),a("td",{class:"wb-number",text:String(e.runs)}),a("td",{class:"wb-number",text:e.loss===null?"\u2013":w(e.loss)}),a("td",{class:"wb-number",text:e.change===null?"\u2013":N(e.change,3),title:n("mean over the prompts, against no plan; negative is better")}),a("td",{class:"wb-bars"},e.change===null?null:r))}};function z(o,e){if(o.$ref){let i=e[o.$ref.split("/").pop()];return i?z(i,e):[{}]}let t=o.anyOf??o.oneOf;return t?t.flatMap(i=>z(i,e)):[o]}function Ke(o,e){return z(o,e).flatMap(t=>(t.enum??(t.const===void 0?[]:[t.const])).filter(i=>typeof i=="string"))}function yt(o,e){return z(o,e).flatMap(t=>(t.enum??(t.const===void 0?[]:[t.const])).map(String))}function xt(o,e){return z(o,e).every(t=>t.enum!==void 0||t.const!==void 0)}function kt(o,e){return z(o,e).every(t=>t.type==="boolean")}function Ue(o,e){let t=z(o,e).map(i=>i.type==="null"?"":i.type==="array"&&oi(i.items)?i.items.type==="integer"?"0, 3, 5-8":"0.5, 0.25":Mt(i)?"4:9":i.type==="object"&&typeof i.additionalProperties=="object"?"5: 1.5, 7: -1":i.type==="integer"?"1":i.type==="number"?"0.5":"");return[...Ke(o,e).slice(0,2),...new Set(t)].filter(Boolean).join(" / ")}function Ct(o,e,t){let i=o.trim();if(!i)return;let s=z(e,t);for(let r of s){let l=(r.enum??(r.const===void 0?[]:[r.const])).find(d=>String(d)===i);if(l!==void 0)return l}for(let r of s){let l=ri(i,r);if(l!==void 0)return l}try{return JSON.parse(i)}catch{throw new Error(Ue(e,t))}}function ri(o,e){let t=o.split(/[,\s]+/).filter(Boolean);if(e.type==="integer"&&/^[+-]?\d+$/.test(o))return Number.isSafeInteger(Number(o))?Number(o):o;if(e.type==="number"&&We(o))return Number(o);if(e.type==="boolean"&&/^(true|false)$/.test(o))return o==="true";if(e.type==="array"&&e.items?.type==="integer"&&t.every(s=>/^\d+(-\d+)?$/.test(s)))return t.flatMap(s=>{let[r,l]=s.split("-").map(Number);return Array.from({length:Math.max(0,(l??r)-r+1)},(d,p)=>r+p)});if(e.type==="array"&&e.items?.type==="number"&&t.every(We))return t.map(Number);let i=/^(\d*):(\d*)$/.exec(o);if(Mt(e)&&i)return{start:Number(i[1]||0),stop:i[2]?Number(i[2]):null};if(e.type==="object"&&typeof e.additionalProperties=="object"&&!o.startsWith("{")){let s=o.split(",").map(r=>/^\s*([^:\s]+)\s*:\s*(\S+)\s*$/.exec(r));if(s.every(r=>r&&We(r[2])))return Object.fromEntries(s.map(r=>[r[1],Number(r[2])]))}return e.type==="string"&&e.enum===void 0&&e.const===void 0?o:void 0}function Ge(o){if(o==null)return"";if(Array.isArray(o))return o.every(e=>typeof e!="object")?o.join(", "):JSON.stringify(o);if(typeof o=="object"){let e=Object.entries(o);if("start"in o&&e.length<=2){let{start:t,stop:i}=o;return`${t||""}:${i??""}`}return e.every(([,t])=>typeof t=="number")?e.map(([t,i])=>`${t}: ${i}`).join(", "):JSON.stringify(o)}return String(o)}var We=o=>o!==""&&Number.isFinite(Number(o)),oi=o=>o?.type==="integer"||o?.type==="number",Mt=o=>o.type==="object"&&!!o.properties?.start;var ai=["layers","tokens","where","phase","rows","steps"],li=0,de=class{constructor(e){this.actions=e;this.kinds.addEventListener("change",()=>this.build(this.kinds.value,this.given)),this.submit=b(n("Add to the plan"),"add","",()=>{}),this.submit.classList.add("wb-primary"),this.node=a("form",{class:"wb-form",attrs:{"data-wb-form":"",hidden:!0},on:{submit:t=>{t.preventDefault(),this.add()},input:()=>this.changed(),keydown:t=>{t.key==="Escape"&&(t.stopPropagation(),this.close())}}},a("div",{class:"wb-row"},a("label",{class:"wb-label"},n("Edit")," ",this.kinds)),this.lead,this.more,this.fields,this.preview,a("div",{class:"wb-row"},this.submit,b(n("Cancel"),"cancel",n("Close the form (Escape)"),()=>this.close()))),this.submit.type="submit"}node;kinds=a("select",{class:"wb-select",attrs:{"aria-label":n("Kind of edit")}});lead=a("p",{class:"wb-note"});rest=a("div");more=a("details",{class:"wb-details"},a("summary",{text:n("More about it and its fields")}),this.rest);fields=a("div",{class:"wb-fields"});preview=a("p",{class:"wb-preview",attrs:{role:"status"}});submit;forms=null;made=[];plan=null;replacing=null;asked=-1;timer=0;given={};wanted=null;take(e){this.forms=e;let t=new Map;for(let i of e.kinds){let s=i.kind.includes(".")?i.kind.split(".")[0]:n("other"),r=t.get(s);r||(r=a("optgroup",{attrs:{label:s}}),t.set(s,r)),r.append(a("option",{text:i.kind,attrs:{value:i.kind}}))}this.kinds.replaceChildren(...t.values()),this.wanted!==null&&this.build(this.wanted,this.given)}show(e){this.replacing!==null&&e?.version!==this.plan?.version&&this.close(),this.plan=e}open(e,t={}){this.replacing=null,this.begin(e,t)}edit(e){let t=this.plan?.edits[e]?.data;t&&(this.replacing=e,this.begin(String(t.kind),t))}close(){this.node.hidden=!0,this.wanted=null,window.clearTimeout(this.timer)}previewed(e){if(e.seq!==this.asked)return;let t=e.refused.length>0,i=t?e.refused.map(C).join(" "):e.text?n("Will %1.",C(e.text)):"";this.say(i,t,t?"refused":"ready"),this.submit.disabled=t}begin(e,t){this.node.hidden=!1,this.wanted=e,this.given=t,this.submit.textContent=this.replacing===null?n("Add to the plan"):n("Change the edit"),this.kinds.disabled=this.replacing!==null,this.forms?this.build(e,t):(this.preview.textContent=n("Asking the kernel what there is\u2026"),this.actions.send({type:"forms_of"})),this.node.scrollIntoView({block:"nearest"})}build(e,t){let i=this.forms?.kinds.find(p=>p.kind===e)??this.forms?.kinds[0];if(!i)return;this.wanted=i.kind,this.kinds.value=i.kind,u(this.node,"data-wb-form",i.kind),this.explain(i);let{properties:s,required:r}=i.parameters,l=p=>2*ai.indexOf(p)-Number(r.includes(p)),d=Object.keys(s).sort((p,h)=>l(p)-l(h));this.fields.replaceChildren(),this.made=d.filter(p=>s[p].const===void 0).map(p=>this.field(p,s[p],i.hints[p],t[p],r.includes(p))),this.changed(),(this.made[0]?.input??this.kinds).focus()}explain(e){let[t,...i]=e.about.map(C);this.lead.textContent=t??"",this.more.open=!1,this.rest.replaceChildren(...i.map(s=>a("p",{class:"wb-note wb-lines",text:s})),a("dl",{class:"wb-meanings"},...Object.entries(e.hints).flatMap(([s,r])=>[a("dt",{text:s}),a("dd",{class:"wb-lines",text:C(r)})])))}field(e,t,i,s,r){let l=this.definitions,d=e.replaceAll("_"," "),p=s===void 0?t.default:s,h,c=null;if(kt(t,l))h=a("input",{attrs:{type:"checkbox",name:e}}),h.checked=p===!0;else if(xt(t,l))h=a("select",{class:"wb-select",attrs:{name:e}}),h.append(...yt(t,l).map(m=>a("option",{text:m,attrs:{value:m}}))),h.value=Ge(p);else{let m=Ke(t,l),f=`wb-words-${++li}`;c=m.length?a("datalist",{attrs:{id:f}},...m.map(g=>a("option",{attrs:{value:g}}))):null,h=a("input",{class:"wb-input",attrs:{name:e,placeholder:Ue(t,l),autocomplete:"off",spellcheck:"false",list:c?f:void 0,required:r}}),h.value=Ge(p)}return this.fields.append(a("label",{class:"wb-field",title:i?C(i):""},a("span",{class:"wb-label",text:d+(r?" *":"")}),h,c)),{name:e,required:r,schema:t,input:h}}get definitions(){return this.forms?.definitions??{}}data(){let e={kind:this.wanted};for(let{name:t,schema:i,input:s}of this.made){if(s instanceof HTMLInputElement&&s.type==="checkbox"){e[t]=s.checked;continue}let r;try{r=Ct(s.value,i,this.definitions)}catch(l){throw new Error(n("%1: type for instance %2",t.replaceAll("_"," "),l.message))}r!==void 0&&(e[t]=r)}return e}changed(){window.clearTimeout(this.timer),this.submit.disabled=!0;let e=this.made.filter(({required:i,input:s})=>i&&s.value.trim()==="").map(({name:i})=>i);if(e.length){this.say(n("Still to fill in: %1.",e.join(", ")),!1,"empty");return}let t;try{t=this.data()}catch(i){this.say(i.message,!0,"refused");return}u(this.preview,"data-wb-preview","asking"),this.timer=window.setTimeout(()=>{this.asked=this.actions.send({type:"preview",edit:t})},120)}say(e,t,i){this.preview.textContent=e,this.preview.classList.toggle("wb-refused",t),u(this.preview,"data-wb-preview",i)}add(){if(this.submit.disabled)return;let e=this.data();if(this.replacing===null)this.actions.send({type:"add",edit:e});else if(this.plan){let t=this.plan.edits[this.replacing]?.enabled??!0;this.actions.send({type:"replace",version:this.plan.version,index:this.replacing,edit:{...e,enabled:t}})}this.close()}};var di=0,pe=class{node;openButton;model=a("div",{class:"wb-model"});picker;source;models;listed=!1;changed=new H;constructor(e,t){this.picker=E(n("Bench"),[],e.use),this.picker.hidden=!0,this.models=a("datalist",{attrs:{id:`wb-models-${++di}`}});let i=()=>e.open(this.source.value.trim()||null);this.source=a("input",{class:"wb-input",attrs:{"aria-label":n("Model to open"),placeholder:n("folder or hub id (empty: demo)"),spellcheck:"false",autocomplete:"off",list:this.models.id},on:{keydown:r=>{r.key==="Enter"&&i()},focus:()=>{this.listed||(this.listed=!0,e.control({type:"models_of"}))}}}),this.openButton=b(n("Open"),"open",n("Open this model in the kernel"),i);let s=b("?","help",n("Show what is where"),e.help);s.setAttribute("aria-label",n("Help")),this.node=a("div",{class:"wb-head"},this.model,this.picker,t,a("div",{class:"wb-open"},this.source,this.models,this.openButton,s))}show(e){if(!this.changed.by(e))return;let t=e?.moe_layers.length?n("%1 layers \xB7 %2 experts, %3 per token",e.layers,e.experts,e.top_k):n("%1 layers \xB7 dense",e?.layers);this.model.replaceChildren(...e?[a("strong",{class:"wb-name",text:Ye(e.name),title:e.name}),a("span",{class:"wb-quiet",text:`${e.model_type} \xB7 ${t}`}),a("span",{class:"wb-chip",text:e.isa?`${e.kernels} \xB7 ${e.isa}`:e.kernels,title:n("kernel backend in use")})]:[a("strong",{text:n("Workbench")})])}showBenches(e,t){this.picker.replaceChildren(...e.map(i=>a("option",{text:i.variables.length?`${i.variables.join(", ")} \xB7 ${Ye(i.name)}`:Ye(i.name),attrs:{value:i.key}}))),this.picker.hidden=e.length<2,t&&(this.picker.value=t)}showModels(e){this.models.replaceChildren(...e.rows.map(({name:t,note:i})=>a("option",{text:C(i),attrs:{value:t}})))}};function Ye(o){return/^(\/|[A-Za-z]:\\)/.test(o)?`\u2026/${o.split(/[/\\]/).filter(Boolean).pop()??o}`:o}var pi=()=>[{title:n("Prompt"),at:".wb-prompt",text:n("Type text and press Enter. The model reads it once without a plan (base) and, if there is one, once with it (edited). Both are recorded in the store.")},{title:n("Routing map"),at:".wb-map-card",text:n("Tokens run across, layers down; the colour is the expert that got the greatest weight. Arrows move, Enter inspects, + and \u2212 zoom, B flips between base and edited. Drag, or Shift and arrows, marks a box; a click on a layer\u2019s or token\u2019s label marks all of it.")},{title:n("Inspector"),at:".wb-inspector",text:n("Every expert of the selected cell with its score. Ban, force or boost one: it acts at once. \u201CAct on\u201D says how far; the number of an expert tells what else it gets.")},{title:n("Plan"),at:".wb-plan",text:n("What you change is a plan: switch edits off, reorder, undo, keep it under a name, copy it as Python. \u201CAdd edit\u201D has a form for every kind of edit.")},{title:n("Live"),at:".wb-live",text:n("Generate goes on from the prompt token by token. Pause, step, rewind or branch; an edit acts at the next token.")},{title:n("Other views"),at:".wb-tabs",text:n("Charts of the run, the difference of two runs, all runs of the store, and SQL over them. A page of the runs in view opens without a kernel.")}],he=class{constructor(e){this.root=e;this.back=b(n("Back"),"help-back",n("The part before"),()=>this.go(this.at-1)),this.next=b(n("Next"),"help-next",n("The next part"),()=>this.go(this.at+1)),this.next.classList.add("wb-primary"),this.node=a("div",{class:"wb-help",attrs:{role:"dialog","aria-label":n("Help"),hidden:!0},on:{keydown:t=>{t.key==="Escape"&&(t.stopPropagation(),this.close())}}},a("div",{class:"wb-row"},this.title,this.count),this.text,a("div",{class:"wb-row"},this.back,this.next,a("span",{class:"wb-grow"}),b(n("Close"),"help-close",n("Close the help (Escape)"),()=>this.close())))}node;title=a("strong");count=a("span",{class:"wb-quiet"});text=a("p");back;next;at=-1;marked=null;before=null;open(){this.before=document.activeElement,this.go(0)}close(){this.marked?.classList.remove("wb-explained"),this.node.hidden=!0,this.at=-1,this.before?.focus()}go(e){let t=pi(),i=t[e];if(!i){this.close();return}this.at=e,this.marked?.classList.remove("wb-explained"),this.marked=this.root().querySelector(i.at),this.marked?.classList.add("wb-explained"),this.marked?.scrollIntoView({block:"nearest"}),this.title.textContent=i.title,this.count.textContent=n("%1 of %2",e+1,t.length),this.text.textContent=i.text,this.back.disabled=e===0,this.next.textContent=e+1<t.length?n("Next"):n("Done"),u(this.node,"data-wb-help",String(e)),this.node.hidden=!1,this.next.focus()}};var W=(o,e)=>JSON.stringify(o)===JSON.stringify(e);function j({scope:o,position:e,box:t}){return o==="box"&&t?{start:t.tokens[0],stop:t.tokens[1]+1}:o==="all"?"all":[e]}function I({scope:o,layer:e,box:t}){return o!=="box"||!t?[e]:Array.from({length:t.layers[1]-t.layers[0]+1},(i,s)=>t.layers[0]+s)}function Xe({enabled:o,phase:e,data:t}){let i=s=>s==null||s==="all";return o&&e==="all"&&i(t.where)&&i(t.rows)&&i(t.steps)}function F(o,e,t,i){let s=r=>Xe(r)&&e.includes(r.kind)&&W(r.layers,I(t))&&W(r.tokens,j(t))&&W(r.experts,i===void 0?[]:[i]);return o.edits.findIndex(s)}function Tt(o,e,t,i){let s={kind:e,layers:I(t),experts:[i],tokens:j(t)},r=F(o,["reroute.ban","reroute.force"],t,i);return r<0?{type:"add",edit:{...s}}:o.edits[r].kind===e?{type:"remove",version:o.version,index:r}:{type:"replace",version:o.version,index:r,edit:{...s}}}function Et(o,e,t,i){let s=F(o,["reroute.bias"],e,t),r=s>=0&&o.edits[s].delta===null?-1:s,l=(r<0?0:o.edits[r].delta)+i;if(r>=0&&l===0)return{type:"remove",version:o.version,index:r};let d={kind:"reroute.bias",layers:I(e),delta:{[t]:l},tokens:j(e)};return r<0?{type:"add",edit:{...d}}:{type:"replace",version:o.version,index:r,edit:{...d}}}function Lt(o,e,t){let i={kind:e,layers:I(t),tokens:j(t)},s=F(o,[e],t);return s<0?{type:"add",edit:{...i}}:{type:"remove",version:o.version,index:s}}function Je(o,e,t,i){let s={kind:"mask.neurons",layers:I(e),tokens:j(e),ratio:t,criterion:i},r=o.edits.findIndex(l=>l.data.ratio===t&&l.data.criterion===i&&F({...o,edits:[l]},["mask.neurons"],e)===0);return r<0?{type:"add",edit:{...s}}:{type:"remove",version:o.version,index:r}}function St(o,e,t){let i=Ht(o,e);return i<0?1:o.edits[i].data.scale[t]??1}function Rt(o,e,t,i){let s=Ht(o,e),r={...s<0?{}:o.edits[s].data.scale};if(delete r[t],i!==1&&(r[t]=i),!Object.keys(r).length)return s<0?null:{type:"remove",version:o.version,index:s};let l={kind:"reroute.weights",layers:I(e),tokens:j(e),scale:r};return s<0?{type:"add",edit:{...l}}:{type:"replace",version:o.version,index:s,edit:{...l}}}function Ht(o,e){return o.edits.findIndex(t=>Xe(t)&&t.kind==="reroute.weights"&&W(t.layers,I(e))&&W(t.tokens,j(e))&&typeof t.data.scale=="object"&&t.data.scale!==null)}function Qe(o,e,t){let i=o.edits.findIndex(r=>Xe(r)&&r.kind==="mask.heads"&&r.tokens==="all"&&W(r.layers,[e])&&W(r.data.heads,[t])),s={kind:"mask.heads",layers:[e],heads:[t]};return i<0?{type:"add",edit:{...s}}:{type:"remove",version:o.version,index:i}}function qt(o,e){return{type:"add",edit:{...{kind:"reroute.replay",layers:I(o),tokens:j(o)},run:e}}}function Pt(o,e){let[t,i]=[I(e),j(e)];return o.edits.find(s=>s.enabled&&s.kind.startsWith("reroute.")&&(s.layers===null||s.layers.some(r=>t.includes(r)))&&!(Array.isArray(s.tokens)&&Array.isArray(i)&&!s.tokens.some(r=>i.includes(r))))}function Q(o){return o.scope==="box"&&o.box?n("in the marked box: %1",Ze(o.box)):o.scope==="all"?n("in layer %1 for all tokens",o.layer):n("in layer %1 for token %2 alone",o.layer,o.position)}function Ze({layers:o,tokens:e}){let t=(i,s,[r,l])=>r===l?n(i,r):n(s,r,l);return`${t("layer %1","layers %1 to %2",o)}, ${t("token %1","tokens %1 to %2",e)}`}var ce=class{constructor(e,t,i,s){this.send=t;this.compute=i;let r=(h,c,m)=>[h,c,b(c,m,"",()=>this.sight&&t(Lt(this.sight.plan,h,this.sight.target)))];this.skips=[r("skip.block",n("block"),"skip"),r("skip.attention",n("attention"),"skip-attention"),r("skip.mlp",n("MLP"),"skip-mlp")],this.ratio=a("input",{class:"wb-input wb-percent",attrs:{type:"number",min:"1",max:"99",value:"50","aria-label":n("Percent of the neurons to mask")},on:{input:()=>this.render()}}),this.criteria=E(n("Which neurons"),[["magnitude",n("of least weight")],["activation",n("least active")],["random",n("at random")]],h=>{this.criterion=h,this.found=null,this.render()}),this.texts=E(n("Activity measured on"),[["prompt",n("on this prompt")],["runs",n("on runs of the store")]],()=>{this.found=null,this.render()}),this.neurons=b(n("Mask"),"mask-neurons","",()=>this.mask()),this.source=a("input",{class:"wb-input wb-percent",attrs:{type:"number",min:"0","aria-label":n("Token to take the route from"),placeholder:"0"},on:{input:()=>this.render()}}),this.imitate=b(n("Route like token"),"imitate",n("Give this token the experts and weights of another one in this layer"),()=>{if(this.sight&&this.source.value){let{layer:h,position:c}=this.sight.cell;t({type:"imitate",layer:h,position:c,source:Number(this.source.value)})}}),this.replayBase=b(n("Replay base"),"replay","",()=>this.sight?.base&&t(qt(this.sight.target,this.sight.base)));let l=b(n("Heads"),"heads",n("Show what each attention head of this layer looks at, and mask one"),()=>this.sight&&s(this.sight.cell.layer)),d=b(n("Contributions"),"contributions",n("What the experts, the attention and the MLP add to the next token here"),()=>{this.sight&&i({type:"contributions_of",layer:this.sight.cell.layer,position:this.sight.cell.position})});this.like=a("div",{class:"wb-row"},this.imitate,this.source,this.replayBase);let p=h=>a("span",{class:"wb-label",text:h});this.node=a("div",{class:"wb-more"},a("div",{class:"wb-row"},e,d,l),a("div",{class:"wb-row",attrs:{role:"group","aria-label":n("Skip")}},p(n("Skip")),...this.skips.map(([,,h])=>h)),a("div",{class:"wb-row",attrs:{role:"group","aria-label":n("Mask neurons")}},this.neurons,this.ratio,p(n("% of neurons")),this.criteria,this.texts),this.measured,this.like)}node;skips;ratio;criteria;neurons;source;imitate;replayBase;like;texts;measured=a("p",{class:"wb-note",attrs:{role:"status"}});criterion="magnitude";waiting=null;found=null;sight=null;show(e){this.sight=e,this.node.hidden=e===null,this.render()}take(e){this.waiting?.seq===e.seq&&(this.send({type:"add",edit:{...this.waiting.edit,source:e.source}}),this.waiting=null,this.found=e,this.render())}mask(){if(!this.sight)return;let e=Je(this.sight.plan,this.sight.target,this.share,this.criterion);e.type==="add"&&this.criterion==="activation"?this.waiting={seq:this.compute({type:"calibrate",texts:this.texts.value}),edit:e.edit}:this.send(e)}get share(){return Number(this.ratio.value)/100}get words(){if(this.found){let{runs:t,tokens:i}=this.found;return this.texts.value==="prompt"?n("Measured on the %1 tokens of the prompt.",i):n("Measured on %1 texts of the store, %2 tokens.",t,i)}return`${this.texts.value==="prompt"?n("Mask first reads the prompt once more, without the plan."):n("Mask first reads the newest texts of this model in the store once more, without a plan.")} ${n("Of an expert that no token chose there nothing is known: its first neurons are masked.")}`}render(){if(!this.sight)return;let{plan:e,target:t,base:i,cell:s,routed:r}=this.sight,l=Q(t);for(let[c,m,f]of this.skips){let g=F(e,[c],t)>=0;u(f,"aria-pressed",String(g)),u(f,"aria-label",g?n("Unskip %1",m):n("Skip %1",m)),q(f,g?n("Run the %1 again %2",m,l):n("Leave the %1 out %2",m,l))}let d=this.share>0&&this.share<1;this.neurons.disabled=!d;let p=d&&Je(e,t,this.share,this.criterion).type==="remove";u(this.neurons,"aria-pressed",String(p)),y(this.neurons,p?n("Unmask"):n("Mask")),u(this.neurons,"aria-label",p?n("Unmask neurons"):n("Mask neurons")),q(this.neurons,p?n("Let these neurons act again %1",l):n("Silence this share of the neurons %1",l)),this.texts.hidden=this.measured.hidden=this.criterion!=="activation",y(this.measured,this.words),this.like.hidden=!r,this.imitate.disabled=this.source.value===""||Number(this.source.value)===s.position;let h=Pt(e,t);this.replayBase.disabled=i===null||!!h,q(this.replayBase,i===null?n("There is no edited run yet: what is in view is the base run"):h?n("The plan re-routes this place itself: take out \u201C%1\u201D, or inspect another layer",C(h.text)):n("Use the routes of the base run %1, whatever the plan does in other layers",l))}};var D=()=>[{sign:"",name:n("ran once"),colour:null},{sign:"\u21BA",name:n("another layer\u2019s run in its place"),colour:[204,121,167]},{sign:"M",name:n("MLP skipped"),colour:[86,180,233]},{sign:"A",name:n("attention skipped"),colour:[230,159,0]},{sign:"\u27F3",name:n("repeated"),colour:[0,158,115]},{sign:"\xD7",name:n("block skipped"),colour:[213,94,0]}];function Bt(o){let e={"block skip":n("block skipped"),"attn skip":n("attention skipped"),"mlp skip":n("MLP skipped"),"block repeat":n("block repeated"),"block reuse":n("another layer\u2019s block in its place"),"attn reuse":n("another layer\u2019s attention in its place"),"mlp reuse":n("another layer\u2019s MLP in its place")};if(o.includes("block repeat")&&o.length===2){if(o.includes("attn skip"))return n("MLP repeated");if(o.includes("mlp skip"))return n("attention repeated")}return o.map(t=>e[t]??t).join(", ")}var At=256,ue=256,hi=80,ci=1.5,tt=[213,94,0],ui=D().map(({colour:o})=>o),bi={uint8:Uint8Array,int16:Int16Array,float32:Float32Array};function Z(o,e){let t=e.buffer.slice(e.byteOffset,e.byteOffset+e.byteLength);return new bi[o.dtype](t)}var be=class{constructor(e,t,i){this.layers=i;this.first=e.first,this.bucket=e.bucket,this.columns=e.columns,this.colour=e.colour,this.layer=e.layer,this.texts=e.texts,this.range=e.range,e.arrays.forEach((s,r)=>this.arrays.set(s.name,Z(s,t[r])))}first;bucket;columns;colour;layer;texts;range;picture=null;arrays=new Map;at(e,t,i,s=0){return this.arrays.get(e)?.[(s*this.layers+t)*this.columns+i]??NaN}lane(e,t){return this.arrays.get("lanes")?.[e*this.columns+t]??NaN}},me=class{run;base;edited;layers;tokens;experts;choices;colours;whole;tiles=new Map;ranges=new Map;constructor(e,t){this.run=e.run,this.base=e.base,this.edited=e.edited,this.layers=e.layers.length,this.tokens=e.tokens,this.experts=e.experts,this.choices=e.choices,this.colours=e.colours,this.whole=e.tile!==null,e.tile&&this.tiles.set("whole",new be(e.tile,t,this.layers))}take(e,t){let i=new be(e,t,this.layers);i.range&&this.ranges.set(i.colour,i.range),this.tiles.set(et(i.colour,i.bucket,i.first,i.layer),i),this.tiles.size>hi&&this.tiles.delete(this.tiles.keys().next().value)}bucket(e){return this.whole?1:2**Math.max(0,Math.ceil(Math.log2(ci/e)))}tile(e,t,i,s=null){if(this.whole)return this.tiles.get("whole");let r=et(e,t,this.start(t,i),s),l=this.tiles.get(r);return l&&(this.tiles.delete(r),this.tiles.set(r,l)),l??null}missing(e,t,i,s,r){if(this.whole)return[];let l=[],d=t*(t===1?At:ue);for(let p=this.start(t,Math.max(0,i));p<=Math.min(s,this.tokens-1);p+=d){let h=[[t===1?"":e,null]];r!==null&&t>1&&h.push(["lanes",r]);for(let[c,m]of h){let f=et(c,t,p,m);this.tiles.has(f)||l.push({key:f,colour:c||"expert",first:p,bucket:t,layer:m})}}return l}start(e,t){let i=e*(e===1?At:ue);return Math.floor(t/i)*i}fine(e){return this.tile("",1,e)}knows(e){return this.fine(e)!==null}text(e){let t=this.fine(e);return t?.texts[e-t.first]??null}read(e,t,i,s=0){let r=this.fine(i);return r?r.at(e,t,i-r.first,s):NaN}chosen(e,t){let i=[];for(let s=0;s<this.choices;s++){let r=this.read("experts",e,t,s);r>=0&&i.push({expert:r,weight:this.read("weights",e,t,s)})}return i}wasEdited(e,t){return this.read("edited",e,t)>0}flipped(e,t){return this.read("flip",e,t)>0}skipped(e,t){return this.read("skipped",e,t)>0}depth(e,t){return this.read("depth",e,t)||0}value(e,t,i){let s=this.fine(i);return s?$t(s,e,t,i-s.first):NaN}range(e){let t=this.ranges.get(e);if(!t){t=[1/0,-1/0];for(let i=0;this.whole&&i<this.layers;i++)for(let s=0;s<this.tokens;s++){let r=this.value(e,i,s);Number.isFinite(r)&&(t=[Math.min(t[0],r),Math.max(t[1],r)])}t=t[0]>t[1]?[0,1]:t,this.whole&&this.ranges.set(e,t)}return t}fill(e,t,i,s,r){let l=$t(e,t,i,s);if(!Number.isFinite(l))return null;if(t==="expert"){let h=e.bucket===1?1:e.at("share",i,s);return U(r,_(l),.25+.75*h)}if(t==="flip")return U(r,tt,Math.sqrt(l));if(t==="depth"){let h=ui[l]??null;return h&&U(r,h,e.bucket===1?1:.25+.75*e.at("share",i,s))}let[d,p]=this.range(t);return A(p>d?(l-d)/(p-d):.5)}};function $t(o,e,t,i){if(e!=="depth"&&o.at("skipped",t,i)>=1)return NaN;let s=o.bucket===1;if(e==="expert"||s&&e==="flip"){let r=o.at("experts",t,i);return r<0?NaN:e==="expert"?r:o.at("flip",t,i)}return o.at(e==="weight"?"weights":e,t,i)}function et(o,e,t,i){return`${e===1&&o!=="lanes"?"":o}:${e}:${t}:${i??""}`}var fe=class{constructor(e,t){this.send=e;this.compute=t;let i=b("\xD7","close-heads",n("Close the heads"),()=>this.take(null));u(i,"aria-label",n("Close the heads")),this.node=a("div",{class:"wb-trials",attrs:{hidden:!0}},a("div",{class:"wb-row"},this.title,a("span",{class:"wb-grow"}),i),this.list)}node;list=a("div",{class:"wb-heads"});title=a("span",{class:"wb-quiet"});told=null;plan=null;layer;ask(e){this.compute({type:"heads_of",layer:e})}show(e,t){this.plan=t,this.layer=e?.layer,this.told&&(e?.layer!==this.told.message.layer||e.run!==this.told.message.run)&&(e?.layer===this.told.message.layer?(this.told={message:{...this.told.message,run:e.run},values:this.told.values},this.ask(e.layer)):this.take(null)),this.render()}take(e,t=[]){this.told=e&&e.layer===this.layer?{message:e,values:Z(e.array,t[0])}:null,this.render()}render(){if(this.node.hidden=!this.told,u(this.node,"data-wb-heads",this.told?String(this.told.message.layer):void 0),!this.told||!this.plan){this.list.replaceChildren();return}let{message:e,values:t}=this.told,[i,s]=e.array.shape;this.title.textContent=n("Attention of layer %1, tokens %2 to %3: rows attend, columns are attended to",e.layer,e.first,e.first+s-1);let r=this.plan;this.list.replaceChildren(...Array.from({length:i},(l,d)=>{let h=Qe(r,e.layer,d).type==="remove",c=b(h?n("Unmask %1",d):n("Mask %1",d),"mask-head",n("Replace the output of head %1 by zero, for all tokens",d),()=>this.send(Qe(r,e.layer,d)));u(c,"aria-pressed",String(h));let m=this.picture(t,d,s);return u(m,"role","img"),u(m,"aria-label",n("Attention pattern of head %1",d)),a("div",{class:"wb-head-card",attrs:{"data-wb-head":String(d),"data-wb-masked":String(h)}},m,c)}))}picture(e,t,i){let s=a("canvas",{attrs:{width:String(i),height:String(i)}}),r=s.getContext("2d"),l=r.createImageData(i,i);for(let d=0;d<i*i;d++)l.data.set([...A(e[t*i*i+d]/255),255],4*d);return r.putImageData(l,0,0),s}};var we=class{node;body=a("div");wanted=null;constructor(){let e=b("\xD7","close-profile",n("Close the profile"),()=>this.close());u(e,"aria-label",n("Close the profile")),this.node=a("div",{class:"wb-trials wb-profile",attrs:{hidden:!0}},a("div",{class:"wb-row"},this.body,a("span",{class:"wb-grow"}),e))}want(e,t){this.wanted={layer:e,expert:t},this.node.hidden=!1,u(this.node,"data-wb-profile",void 0),this.body.replaceChildren(a("span",{class:"wb-quiet",text:n("Reading what the store knows of expert %1 \u2026",t)}))}close(){this.wanted=null,this.node.hidden=!0}inspect(e){this.wanted&&this.wanted.layer!==e&&this.close()}take(e){if(e.layer!==this.wanted?.layer||e.expert!==this.wanted.expert)return;u(this.node,"data-wb-profile",`${e.layer},${e.expert}`);let t=a("strong",{text:n("Expert %1 of layer %2",e.expert,e.layer)});if(!e.count){this.body.replaceChildren(t,a("p",{class:"wb-note",text:n("No token of this model was routed to it in this store.")}));return}this.body.replaceChildren(t,a("p",{class:"wb-note",text:n("tokens: %1 \xB7 runs: %2 \xB7 %3 % of the layer\u2019s choices \xB7 mean weight %4",e.count,e.runs,w(100*e.share,3),e.weight===null?"\u2013":w(e.weight,3))}),a("div",{class:"wb-profile-tokens"},...e.tokens.map(({text:i,count:s,lift:r})=>a("span",{class:"wb-key",title:n("%1 times; %2 \xD7 as often as other tokens",s,w(r,3))},a("code",{class:"wb-token",text:T(i)}),a("span",{class:"wb-quiet wb-number",text:r>=1.5?`${s} \u2191`:String(s)})))),e.peers.length?a("p",{class:"wb-note",text:n("chosen together with %1",e.peers.map(({expert:i,share:s})=>`${i} (${Math.round(100*s)} %)`).join(", "))}):"")}};var ge=class{constructor(e){this.send=e;let t=b("\xD7","close",n("Close the list of exchanges"),()=>this.take(null));u(t,"aria-label",n("Close the list of exchanges")),this.node=a("div",{class:"wb-trials",attrs:{hidden:!0}},a("div",{class:"wb-row"},this.title,a("span",{class:"wb-grow"}),t),this.list)}node;title=a("span",{class:"wb-quiet"});list=a("div",{class:"wb-trial-list",attrs:{role:"list",tabindex:"0","aria-label":n("Every exchange, best first")}});trials=null;drawn=null;take(e){this.trials=e,e===null&&this.show(null)}show(e){let t=this.trials,i=!!t&&!!e&&t.layer===e.layer&&t.position===e.position;if(this.node.hidden=!i,u(this.node,"data-wb-trials",i?`${t.layer},${t.position}`:void 0),!i||this.drawn===t)return;this.drawn=t,this.title.textContent=t.followed?n("Change of log-probability of the %1 tokens that followed, in nats; in brackets of the next, \u201C%2\u201D",t.followed,T(t.target)):n("Change of log-probability of the likeliest next token \u201C%1\u201D, in nats",T(t.target));let s=Math.max(1e-12,...t.rows.map(r=>Math.abs(r.change??0)));this.list.replaceChildren(...t.rows.map(r=>this.row(t,r,s)))}row(e,t,i){let s=t.change??0,r=a("span",{class:`wb-swing ${s<0?"wb-loss":"wb-gain"}`});r.style.width=`${(50*Math.abs(s)/i).toFixed(1)}%`;let l=h=>{let c=a("span",{class:"wb-swatch"});return c.style.background=B(_(h)),c},d=t.change===null?"\u2013":N(t.change,3),p=b("","exchange",n("Put this exchange into the plan, for this token alone"),()=>this.send({type:"exchange",layer:e.layer,position:e.position,removed:t.removed,expert:t.expert}));return u(p,"aria-label",n("Exchange expert %1 for %2: %3 nats",t.removed,t.expert,d)),p.append(l(t.removed),a("span",{class:"wb-number",text:`${t.removed} \u2192 ${t.expert}`}),l(t.expert),a("span",{class:"wb-swing-track"},r),a("span",{class:`wb-number ${s>0?"wb-up":s<0?"wb-down":"wb-quiet"}`,text:d}),a("span",{class:"wb-quiet",text:e.followed?`(${t.next_change===null?"\u2013":N(t.next_change,2)})`:"",title:t.next_change===null?"":n("next token %1 nats",w(t.next_change))})),a("div",{attrs:{role:"listitem","data-wb-trial":`${t.removed},${t.expert}`}},p)}};var ve=class{constructor(e,t){this.send=e;this.trials=new ge(e),this.heads=new fe(e,t),this.attempt=b(n("Try every expert"),"try",n("What every other expert here would have done to the text that followed"),()=>{this.cell&&t({type:"try",layer:this.cell.layer,position:this.cell.position})}),this.more=new ce(this.attempt,e,t,i=>this.heads.ask(i)),this.scopes=E(n("Clicks act on"),[["all",n("all tokens")],["token",n("this token")]],i=>{this.scope=i,this.render()}),this.orders=E(n("Order"),[["score",n("by score")],["id",n("by number")]],i=>{this.order=i,this.render()}),this.tools=a("div",{class:"wb-tools"},a("label",{class:"wb-label"},n("Act on")," ",this.scopes),a("label",{class:"wb-label"},n("Sort")," ",this.orders)),this.node=a("section",{class:"wb-card wb-inspector",attrs:{"aria-label":n("Cell inspector")}},a("div",{class:"wb-row"},this.title),this.facts,this.tools,this.note,this.more.node,this.trials.node,this.heads.node,this.profile.node,this.list),this.render()}node;title=a("h3",{class:"wb-title"});facts=a("dl",{class:"wb-facts"});note=a("p",{class:"wb-note"});list=a("div",{class:"wb-experts",attrs:{role:"list","aria-label":n("Experts")}});tools;attempt;trials;scopes;orders;rows=new Map;scope="all";order="score";cell=null;plan=null;bench=null;box=null;base=null;foreign=null;profile=new we;heads;more;effects=null;changed=new H;told=new H;boxScope=a("option",{text:n("the marked box"),attrs:{value:"box"}});show(e,t,i,s,r){this.changed.by(e,t,i,s?.model,r)&&(this.foreign=s&&i&&s.model!==i.name?s.model||n("another model"):null,this.cell=e,this.plan=t,this.bench=i,this.base=r,this.profile.inspect(e?.layer),this.heads.show(e,t),this.render())}mark(e){let t=e&&!this.box;this.box=e,e?(this.boxScope.isConnected||this.scopes.append(this.boxScope),t&&(this.scope="box")):(this.boxScope.remove(),this.scope==="box"&&(this.scope="all")),this.scopes.value=this.scope,this.render()}actOn(e){this.scope=e,this.scopes.value=e,this.render()}restyle(){this.render()}takeProfile(e){this.profile.take(e)}takeCalibrated(e){this.more.take(e)}takeHeads(e,t){this.heads.take(e,t)}takeContributions(e){this.effects=e,this.render()}take(e){this.trials.take(e),this.trials.show(this.cell),e===null&&(this.effects=null)}get target(){return{layer:this.cell.layer,position:this.cell.position,scope:this.scope,box:this.box}}render(){let e=this.cell,t=this.plan;if(u(this.node,"data-wb-cell",e?`${e.layer},${e.position}`:void 0),this.trials.show(e),this.tools.hidden=!e||this.foreign!==null,this.orders.parentElement.hidden=this.attempt.hidden=!e?.experts.length,this.renderFacts(e,t),!e||!t){y(this.note,n("Run a prompt, then click a cell of the map to see how its token was routed.")),this.list.replaceChildren(),this.rows.clear(),this.more.show(null);return}let i=this.foreign===null?this.bench?.refused[String(e.layer)]:"",s=e.experts.length>0&&i===void 0,r=this.base===e.run?null:this.base;this.more.show(this.foreign===null?{cell:e,plan:t,target:this.target,base:r,routed:s}:null),this.attempt.disabled=i!==void 0||!e.experts.some(l=>l.chosen),this.renderNote(e,i),this.renderRows(e,t,i!==void 0)}renderFacts(e,t){let i=this.here;if(u(this.node,"data-wb-contributions",i&&e?`${e.layer},${e.position}`:void 0),!!this.told.by(e&&t?{...e,experts:e.experts.length}:null,i)){if(this.facts.replaceChildren(),!e||!t){this.title.textContent=n("Inspector");return}if(this.title.replaceChildren(n("Layer %1",e.layer),a("span",{class:"wb-quiet",text:" \xB7 "}),n("token %1",e.position)," ",a("code",{class:"wb-token",text:T(e.text)})),this.fact(n("margin"),e.margin,n("k-th best score minus the next: how close the choice was")),this.fact(n("entropy"),e.entropy,n("of the routing distribution, in nats")),this.fact(n("influence"),e.facts.influence,n("1 \u2212 cosine of what enters and leaves the block")),e.experts.length||(this.fact(n("attention"),e.facts.attn_norm,n("norm of what attention adds, relative to the stream")),this.fact(n("MLP"),e.facts.mlp_norm,n("norm of what the MLP adds, relative to the stream")),this.fact(n("zeros"),e.facts.zero_share,n("share of activations that are exactly zero"))),e.events.length&&this.facts.append(a("div",{},a("dt",{text:n("depth")}),a("dd",{text:Bt(e.events)}))),i){let s=n("added to the logit of the token that follows, \u201C%1\u201D, directly",T(i.target));this.fact(n("attention \u2192 %1",T(i.target)),i.attention,s),this.fact(n("MLP \u2192 %1",T(i.target)),i.mlp,s)}}}get here(){let{effects:e,cell:t}=this;return e&&t&&e.run===t.run&&e.layer===t.layer&&e.position===t.position?e:null}fact(e,t,i){t!=null&&this.facts.append(a("div",{title:i},a("dt",{text:e}),a("dd",{text:w(t)})))}renderNote(e,t){this.foreign!==null?y(this.note,n("This run was recorded with %1, which is not the open model: it can be looked at. Press Run to read its prompt with the open model.",this.foreign)):e.skipped?y(this.note,n("This block is skipped: nothing in it runs.")):t!==void 0?y(this.note,n("This layer can be read but not re-routed: %1",t)):e.experts.length?y(this.note,n("What you click here acts %1. %2 of %3 experts are chosen per token.",Q(this.target),e.choices,e.experts.length)):y(this.note,n("This layer has no router: every token passes through the same MLP. What you click here acts %1.",Q(this.target)))}renderRows(e,t,i){let s=h=>h.base??h.score??(h.weight===null?-1/0:h.weight-1e9),r=[...e.experts].sort((h,c)=>this.order==="score"&&s(c)-s(h)||h.expert-c.expert),l=e.experts.map(h=>h.score??h.base).filter(h=>h!==null),d=Math.max(...l),p=Math.min(0,...l);for(let h of this.rows.keys())h>=r.length&&(this.rows.get(h).node.remove(),this.rows.delete(h));r.forEach((h,c)=>{let m=this.rows.get(h.expert)??this.makeRow(h.expert);this.fill(m,h,t,p,d,i),this.list.children[c]!==m.node&&this.list.insertBefore(m.node,this.list.children[c]??null)})}makeRow(e){let t=a("div",{class:"wb-bar"}),i=a("span",{class:"wb-number"}),s=a("span",{class:"wb-number wb-weight"}),r=a("span",{class:"wb-badge"}),l=a("span",{class:"wb-adds wb-number",attrs:{hidden:!0}}),d=M=>()=>{this.plan&&this.cell&&this.send(Tt(this.plan,M,this.target,e))},p=b(n("Ban"),"ban","",d("reroute.ban")),h=b(n("Force"),"force","",d("reroute.force")),c=b("+1","boost","",()=>{});c.addEventListener("click",M=>{this.plan&&this.cell&&this.send(Et(this.plan,this.target,e,M.shiftKey?-1:1))});let m=a("span",{class:"wb-swatch"});m.style.background=B(_(e));let f=a("input",{class:"wb-slider",attrs:{type:"range",min:"0",max:"3",step:"0.1","data-wb-action":"weight","aria-label":n("Factor of the weight of expert %1",e)},on:{change:()=>{let M=this.plan&&this.cell?Rt(this.plan,this.target,e,Number(f.value)):null;M&&this.send(M)},input:()=>f.title=n("weight \xD7 %1",f.value)}}),g=b(String(e),"profile",n("What else is routed to expert %1",e),()=>{this.cell&&(this.profile.want(this.cell.layer,e),this.send({type:"profile_of",layer:this.cell.layer,expert:e}))});g.classList.add("wb-expert-id");let v={node:a("div",{class:"wb-expert",attrs:{role:"listitem","data-wb-expert":String(e)}},m,g,a("div",{class:"wb-track"},t,i),a("div",{class:"wb-weight-cell"},s,f),r,p,h,c,l),bar:t,score:i,weight:s,badge:r,adds:l,ban:p,force:h,boost:c,slider:f,changed:new H};return this.rows.set(e,v),v}fill(e,t,i,s,r,l){let d=this.here?.experts.find(S=>S.expert===t.expert)?.effect??null,p=F(i,["reroute.ban","reroute.force"],this.target,t.expert),h=p<0?"":i.edits[p].kind,c=p>=0&&i.edits[p].pending===!0,m=F(i,["reroute.bias"],this.target,t.expert),f=m<0?null:i.edits[m].delta,g=St(i,this.target,t.expert);if(!e.changed.by(t,s,r,l,d,this.here?.target,h,c,f,g,this.scope))return;let k=t.score??t.base,v=k===null||r===s?0:(k-s)/(r-s);e.bar.style.width=`${(100*v).toFixed(1)}%`,y(e.score,k===null?"\u2013":w(k,3)),u(e.score,"data-wb-score",k===null?void 0:String(k)),q(e.score,t.base===null?"":n("base %1",w(t.base))),y(e.weight,t.weight===null?"":w(t.weight,3)),q(e.weight,t.weight===null?"":n("combine weight"));let M={"":"",chosen:n("chosen"),native:n("native"),banned:n("banned"),forced:n("forced")},R=h==="reroute.ban"?n("ban \u2026"):n("force \u2026");y(e.badge,c?R:M[t.state]),q(e.badge,c?n("asked for, not executed yet"):t.state==="native"?n("chosen in the base run, not any more"):""),u(e.node,"data-wb-pending",c?"true":void 0),u(e.node,"data-wb-state",t.state),u(e.node,"data-wb-chosen",String(t.chosen)),u(e.node,"data-wb-native",String(t.native));let P=[...t.output===null?[]:[n("output %1",w(t.output,3))],...d===null?[]:[n("logit of \u201C%1\u201D %2",T(this.here.target),N(d,3))]];e.adds.hidden=!P.length,y(e.adds,P.join(" \xB7 ")),q(e.adds,n("norm of what the expert adds to the stream; then what that adds to the logit of the token that follows, directly")),u(e.node,"data-wb-effect",d===null?void 0:String(d));let L=this.scope==="box"?n("the marked box"):this.scope==="all"?n("all tokens"):n("this token");y(e.ban,h==="reroute.ban"?n("Unban"):n("Ban")),y(e.force,h==="reroute.force"?n("Unforce"):n("Force")),e.boost.disabled=l,e.slider.hidden=l||!t.chosen&&g===1,e.slider.value=String(g),q(e.slider,n("weight \xD7 %1 \xB7 drag to change \xB7 %2",w(g,2),L)),u(e.boost,"aria-pressed",String(f!==null)),u(e.boost,"aria-label",n("Boost expert %1",t.expert)),q(e.boost,n("Raise the logit of expert %1 by 1 (Shift: lower) \xB7 %2 \xB7 now %3",t.expert,L,N(f??0,2)));for(let[S,$]of[[e.ban,h==="reroute.ban"],[e.force,h==="reroute.force"]])S.disabled=l,u(S,"aria-pressed",String($)),q(S,`${S.textContent} \xB7 ${n("expert %1",t.expert)} \xB7 ${L}`),u(S,"aria-label",n("%1 expert %2",S.textContent,t.expert))}};function mi(o,e,t,i){let s={ArrowLeft:e-1,ArrowRight:e+1,Home:t,End:i}[o];return s===void 0||i<t?null:Math.min(i,Math.max(t,s))}function ye(o,e,t,i,s){let r=o.ctrlKey||o.metaKey||o.altKey?null:mi(o.key,e,t,i);r!==null&&(o.preventDefault(),o.stopPropagation(),r!==e&&s(r))}var xe=class{constructor(e){this.actions=e;let{compute:t,generate:i}=e;this.generate=b(n("Generate"),"generate",n("Go on token by token until paused"),()=>i(!0)),this.pause=b(n("Pause"),"pause",n("Stop after the token under way"),()=>i(!1)),this.step=b(n("Step"),"step",n("Generate one token"),()=>t({type:"step"})),this.rewind=b(n("Rewind"),"rewind","",()=>{let s=this.state?.selected?.position;s!==void 0&&t({type:"rewind",position:s})}),this.branch=b(n("Branch"),"branch",n("Keep this text and go on in a copy of it"),()=>t({type:"branch"})),this.branches=E(n("Branch in view"),[],s=>t({type:"timeline",index:Number(s)})),this.node=a("section",{class:"wb-card wb-live",attrs:{"aria-label":n("Live generation")}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Live")}),this.generate,this.pause,this.step,this.rewind,this.branch,this.branches),this.note,this.texts)}node;generate;pause;step;rewind;branch;branches;note=a("p",{class:"wb-note"});texts=a("div",{class:"wb-live-texts"});columns=new Map;told={edited:[],base:[]};drawn={edited:0,base:0};state=null;changed=new H;take(e){for(let t of["edited","base"]){let{keep:i,tokens:s}=e?.[t]??{keep:0,tokens:[]};this.told[t].length=i,this.told[t].push(...s),this.drawn[t]=Math.min(this.drawn[t],i)}}show(e,t){this.state=e;let i=e?.live??null;this.node.hidden=!e?.base;let s=t?"running":i?i.ended?"ended":"paused":"";u(this.node,"data-wb-live",s),u(this.node,"data-wb-generated",String(i?this.told.edited.length:0)),u(this.node,"data-wb-diverged",i?.diverged===null||!i?void 0:String(i.diverged)),this.generate.hidden=t,this.pause.hidden=!t;let r=!i&&!!e?.base&&e.base.model!==e.bench.name;this.generate.disabled=this.step.disabled=r||!!i?.ended,this.step.disabled||=t;let l=e?.selected?.position??-1,d=i?i.prompt_tokens+this.told.edited.length-1:-1;this.rewind.disabled=t||!i||l<i.prompt_tokens-1||l>=d,this.rewind.title=this.rewind.disabled?n("Select the token that shall be the last one, from the end of the prompt on"):n("Take back what follows token %1",l),this.branch.disabled=t||!i,this.renderBranches(i?.timelines??[],i?.current??0,t),this.renderNote(e,s,r),this.renderTexts(e)}renderBranches(e,t,i){this.branches.hidden=e.length<2,this.branches.disabled=i,this.changed.by(e)&&this.branches.replaceChildren(...e.map((s,r)=>a("option",{text:n("branch %1 \xB7 %2 tokens",r+1,s),attrs:{value:String(r)}}))),this.branches.value=String(t)}renderNote(e,t,i){let s=e?.live,r=[];i?r.push(n("This run is of another model. Press Run to read its prompt with the open one, then generate.")):s?(r.push(n("%1 tokens generated.",this.told.edited.length)),t==="ended"&&r.push(n("The text has ended: rewind to go on from an earlier token.")),s.pending&&r.push(n("The plan has changed: it acts from the next token on.")),s.diverged!==null?r.push(n("The two texts part at token %1 (\u2260).",s.diverged)):s.base&&r.push(n("The two texts agree so far.")),t==="paused"&&r.push(n("Run goes back to the prompt."))):r.push(n("Generate goes on from the prompt. Edits made meanwhile act from the next token on.")),y(this.note,r.join(" "))}renderTexts(e){let t=e?.live,i=[];t?.base?i.push(["base",n("without the plan"),"base"],["edited",n("with the plan"),"edited"]):t&&i.push(["base",n("without a plan"),"edited"]);let s=new Set(i.map(([r])=>r));for(let[r,l]of this.columns)s.has(r)||(l.node.remove(),this.columns.delete(r));for(let[r,l,d]of i){let p=this.columns.get(r)??this.makeColumn(r);y(p.node.firstElementChild,l),u(p.text,"aria-label",l),this.fill(p,d,t.prompt_tokens),this.mark(p,(e?.selected?.position??-1)-t.prompt_tokens,(t.diverged??-1)-t.prompt_tokens)}for(let r of["edited","base"])this.drawn[r]=this.told[r].length}makeColumn(e){let t=a("div",{class:"wb-live-text",attrs:{tabindex:"0",role:"group","data-wb-text":e},on:{keydown:r=>{let{live:l,selected:d}=this.state??{};l&&ye(r,d?.position??0,l.prompt_tokens-1,l.prompt_tokens+t.childElementCount-1,this.actions.select)}}}),i=a("div",{class:"wb-live-column"},a("div",{class:"wb-quiet"}),t),s={node:i,text:t,source:null,on:-1,diverged:-1};return this.columns.set(e,s),this.texts.append(i),s}fill(e,t,i){let{text:s}=e,r=this.told[t],l=e.source===t?this.drawn[t]:0;for(e.source=t;s.childElementCount>r.length;)s.lastElementChild.remove();let d=r.length>s.childElementCount;for(let p=l;p<r.length;p++){let h=r[p],c=s.children[p];c||(c=a("span",{class:"wb-chip-token",on:{click:()=>this.actions.select(i+p)}}),s.append(c)),y(c,h.replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205"),q(c,n("token %1 \u201C%2\u201D",i+p,T(h)))}d&&requestAnimationFrame(()=>s.scrollTop=s.scrollHeight)}mark(e,t,i){let s=(r,l,d)=>{l!==d&&e.text.children[l]?.classList.remove(r);let p=e.text.children[d];p&&!p.classList.contains(r)&&p.classList.add(r)};s("wb-on",e.on,t),s("wb-diverged",e.diverged,i),e.on=t,e.diverged=i}};var fi=32,ke=class{node=a("div",{class:"wb-legend"});changed=new H;show(e,t){if(!e){this.node.replaceChildren(),this.changed.by(null);return}let i=t!=="expert"&&t!=="depth";if(!this.changed.by(t,e.whole,e.experts,e.choices,e.edited)&&!i)return;let s=t==="expert"?this.experts(e):t==="flip"?this.flips(e):t==="depth"?this.depths(e):this.scale(e,t),r=[];e.edited&&(e.choices>0&&r.push(["wb-mark-edited",n("re-routed by the plan")]),e.choices>0&&t!=="flip"&&r.push(["wb-mark-flip",n("flipped against base")]),t!=="depth"&&r.push(["wb-mark-skip",n("skipped")])),s.push(...r.map(([l,d])=>a("span",{class:"wb-key"},a("span",{class:`wb-mark ${l}`}),d))),this.node.replaceChildren(...s)}experts(e){let t=Math.min(fi,e.experts),i=[a("span",{class:"wb-quiet",text:e.whole?n("expert of the greatest weight"):n("most frequent expert; paler: of fewer tokens")})];for(let s=0;s<t;s++){let r=a("span",{class:"wb-swatch"});r.style.background=B(_(s)),i.push(a("span",{class:"wb-key"},r,String(s)))}return e.experts>t&&i.push(a("span",{class:"wb-quiet",text:n("and so on to %1",e.experts-1)})),i}flips(e){if(!e.edited)return[a("span",{class:"wb-quiet",text:n("No edited run yet: ban or force an expert to see which choices flip.")})];let t=a("span",{class:"wb-swatch"});if(t.style.background=B(tt),!e.whole)return[a("span",{class:"wb-key"},t,n("choices that differ from the base run; paler: fewer of a column"))];let i=0,s=0;for(let r=0;r<e.layers;r++)for(let l=0;l<e.tokens;l++)i+=e.flipped(r,l)?1:0,s+=e.chosen(r,l).length?1:0;return[a("span",{class:"wb-key"},t,n("%1 of %2 choices differ from the base run",i,s))]}depths(e){let t=D().map(({sign:i,name:s,colour:r})=>{let l=a("span",{class:"wb-swatch wb-swatch-sign",text:i,attrs:{"aria-hidden":"true"}});return l.style.background=r?B(r):"var(--wb-cell)",l.style.color=r?oe(r):"",a("span",{class:"wb-key"},l,s)});return e.whole?t:[...t,a("span",{class:"wb-quiet",text:n("paler: fewer of a column")})]}scale(e,t){let[i,s]=e.range(t),r=a("span",{class:"wb-gradient"});r.style.background=`linear-gradient(to right, ${[0,.2,.4,.6,.8,1].map(d=>B(A(d))).join(", ")})`;let l={weight:n("combine weight of the first expert"),margin:n("k-th best score minus the next; low: nearly went elsewhere"),entropy:n("entropy of the routing distribution in nats"),influence:n("1 \u2212 cosine of what enters and leaves the block"),contribution:n("norm of what the block adds, relative to the stream"),sparsity:n("share of activations that are exactly zero")};return[a("span",{class:"wb-number",text:w(i,3)}),r,a("span",{class:"wb-number",text:w(s,3)}),a("span",{class:"wb-quiet",text:(l[t]??"")+(e.whole?"":` \xB7 ${n("1st to 99th percentile")}`)})]}};function Ce(o){return{expert:n("chosen expert"),weight:n("weight of the first expert"),margin:n("margin"),entropy:n("entropy"),flip:n("flip against base"),influence:n("block influence"),contribution:n("contribution of the block"),sparsity:n("zero activations"),depth:n("depth events")}[o]}var Me=132,Te=class{node;canvas;note=a("div",{class:"wb-quiet wb-load-note"});geometry=null;load=null;layers=0;experts=0;run="";constructor(){this.canvas=a("canvas",{attrs:{role:"img","aria-label":n("Load of every expert by layer")},on:{pointermove:e=>this.tell(e),pointerleave:()=>this.note.textContent=""}}),this.node=a("div",{class:"wb-load",attrs:{hidden:!0}},this.canvas,this.note)}show(e,t=[]){this.run=e?.run??"",this.load=e?Z(e.array,t[0]):null,[this.layers,this.experts]=e?.array.shape??[0,0],this.node.hidden=!this.load||this.experts===0,u(this.node,"data-wb-load",e?e.run:void 0),this.draw()}place(e){let{head:t,height:i}=e,s=t!==this.geometry?.head||i!==this.geometry?.height;this.geometry={...e},s&&this.draw()}draw(){if(!this.load||!this.geometry)return;let{head:e,height:t}=this.geometry,i=window.devicePixelRatio||1,s=e+this.layers*t+2;this.canvas.width=Me*i,this.canvas.height=s*i,this.canvas.style.width=`${Me}px`,this.canvas.style.height=`${s}px`;let r=this.canvas.getContext("2d");r.setTransform(i,0,0,i,0,0);let l=getComputedStyle(this.node);r.fillStyle=l.getPropertyValue("--wb-ink-2").trim()||"#666",r.font=`11px ${l.fontFamily}`,r.textBaseline="middle",r.fillText(n("expert load"),0,e-9);let d=Me/this.experts;for(let p=0;p<this.layers;p++)for(let h=0;h<this.experts;h++){let c=this.load[p*this.experts+h];Number.isFinite(c)&&(r.fillStyle=B(A(Math.min(1,c*this.experts/3))),r.fillRect(h*d,e+p*t,Math.max(d-(d>5?1:0),.6),t-1))}}tell(e){if(!this.load||!this.geometry)return;let t=this.canvas.getBoundingClientRect(),i=Math.floor((e.clientY-t.top-this.geometry.head)/this.geometry.height),s=Math.floor((e.clientX-t.left)/Me*this.experts),r=i>=0&&i<this.layers?this.load[i*this.experts+s]:void 0;this.note.textContent=r===void 0||!Number.isFinite(r)?"":n("layer %1 \xB7 expert %2: %3 % of the choices, %4 \xD7 even",i,s,w(100*r,3),w(r*this.experts,2))}};function Dt(o,{layer:e,position:t},i="expert",s=1){if(!o.knows(t)){let h=s>1?o.tile(i,s,t):null,c=Math.floor(t/s)*s,m=[n("layer %1",e),n("tokens %1 to %2",c,Math.min(o.tokens,c+s)-1)];if(h){let f=Math.floor((t-h.first)/s);if(i==="expert")m.push(n("mostly expert %1 (%2 %)",h.at("experts",e,f),Math.round(100*h.at("share",e,f))));else if(i==="flip")m.push(n("%1 % flipped",Math.round(100*h.at("flip",e,f))));else if(i==="depth"){let g=D()[h.at("depth",e,f)];m.push(g?.sign?n("%1 (%2 %)",g.name,Math.round(100*h.at("share",e,f))):n("ran once"))}else m.push(n("mean %1 %2",Ce(i),w(h.at(i==="weight"?"weights":i,e,f),3)))}return m.join(" \xB7 ")}let l=[n("layer %1",e),n("token %1 \u201C%2\u201D",t,T(o.text(t)??""))],d=o.depth(e,t);if(d&&l.push(D()[d]?.name??""),o.skipped(e,t))return l.join(" \xB7 ");let p=o.chosen(e,t);return p.length&&l.push(n("experts %1",p.map(({expert:h,weight:c})=>`${h} (${w(c,3)})`).join(", ")),n("margin %1",w(o.value("margin",e,t),3)),n("entropy %1 nats",w(o.value("entropy",e,t),3))),l.push(n("influence %1",w(o.value("influence",e,t),3))),o.wasEdited(e,t)&&l.push(n("re-routed by the plan")),o.flipped(e,t)&&l.push(n("flipped against base")),l.join(" \xB7 ")}var x=34,it=Math.PI/3.4,_t=9,Ot=20;function Ee(o,e){return o.head+e.layers*o.height+Ot}function jt(o,e,t,i){let s=window.devicePixelRatio||1,r=o.clientWidth,l=o.clientHeight;if(o.width=Math.round(r*s),o.height=Math.round(l*s),e.setTransform(s,0,0,s,0,0),e.clearRect(0,0,r,l),!i)return;let d=getComputedStyle(t),p=(k,v)=>d.getPropertyValue(k).trim()||v,h=p("--wb-cell","#eee"),c={paper:p("--wb-paper","#fff"),text:p("--wb-ink","#000"),faint:p("--wb-ink-2","#666"),accent:p("--wb-accent","#1976d2"),empty:h,none:Li(h),family:d.fontFamily},m=Math.max(0,Math.floor((i.scroll-x)/i.width)),f=Math.min(i.data.tokens-1,Math.ceil((i.scroll+r-x)/i.width));e.save(),e.beginPath(),e.rect(x,0,r-x,l),e.clip();let g=i.data.bucket(i.width);g===1?wi(e,i,c,m,f):vi(e,i,c,m,f,g),i.rows==="lanes"&&yi(e,i,c,m,f,g),Ci(e,i,c),e.restore(),e.save(),e.beginPath(),e.rect(x-8,0,r,l),e.clip(),xi(e,i,c,m,f),e.restore(),Mi(e,i,c)}function wi(o,e,t,i,s){let{data:r,colour:l,width:d,height:p,scroll:h}=e,c=d>=8?1:0,m=e.rows==="slots"&&r.choices>0?r.choices:1,f=(p-c)/m,g=l==="expert"&&d>=17&&f>=12,k=D(),v=l!=="expert"&&l!=="flip"&&l!=="depth"&&d>=34&&f>=15;o.textAlign="center",o.textBaseline="middle",o.font=l==="depth"?`600 11px ${t.family}`:`${g?11:10}px ${t.family}`;for(let M=i;M<=s;M++){let R=r.tile("",1,M),P=x+M*d-h;for(let L=0;L<r.layers;L++){let S=e.head+L*p;if(!R){o.fillStyle=t.empty,o.fillRect(P,S,d-c,p-c);continue}let $=M-R.first,Y=t.text;for(let V=0;V<m;V++){let X=m===1?r.fill(R,l,L,$,t.none):gi(r,R,l,L,$,V,t.none);if(o.fillStyle=X?B(X):t.empty,o.fillRect(P,S+V*f,d-c,f-(m>1&&f>6?1:0)),Y=X?oe(X):t.text,X&&(g||v)){let st=m===1?r.value(l,L,M):l==="expert"?R.at("experts",L,$,V):R.at("weights",L,$,V);o.fillStyle=Y,o.fillText(g?String(st):w(st,2),P+(d-c)/2,S+(V+.5)*f+.5)}}let Fe=l==="depth"?k[R.at("depth",L,$)]:void 0;Fe?.sign&&d>=11&&p>=11?(o.fillStyle=Y,o.fillText(Fe.sign,P+(d-c)/2,S+(p-c)/2+.5)):R.at("skipped",L,$)>0&&Ti(o,P,S,d-c,p-c,t.faint),!(Fe?.sign||R.at("skipped",L,$)>0)&&(R.at("edited",L,$)>0&&d>=4&&Ei(o,P,S,Math.min(7,d-c),Y),R.at("flip",L,$)>0&&l!=="flip"&&d>=8&&(o.fillStyle=Y,o.fillRect(P+2,S+p-c-4,d-c-4,2)))}}}function gi(o,e,t,i,s,r,l){let d=e.at("experts",i,s,r);if(!(d>=0)||e.at("skipped",i,s)>0)return null;if(t==="expert")return _(d);if(t==="weight"){let[p,h]=o.range("weight");return A((e.at("weights",i,s,r)-Math.min(0,p))/(h||1))}return o.fill(e,t,i,s,l)}function vi(o,e,t,i,s,r){let{data:l,colour:d}=e;o.imageSmoothingEnabled=!1;for(let[p,h,c]of It(l,d,i,s,r)){let m=e.head,f=l.layers*e.height;if(!p){o.fillStyle=t.empty,o.fillRect(x+h*e.width-e.scroll,m,(c-h)*e.width,f);continue}let g=zt(p,l.layers,`${d} ${t.empty} ${l.range(d).join()}`,(k,v)=>l.fill(p,d,k,v,t.none)??t.none);Ft(o,e,g,p,h,c,m,f,l.tokens)}}function yi(o,e,t,i,s,r){let{data:l}=e,d=e.selected?.layer??0,p=Ee(e,l);if(o.fillStyle=t.faint,o.font=`11px ${t.family}`,o.textAlign="left",o.textBaseline="middle",o.fillText(n("Experts of layer %1: bright where a token chose them",d),x,p-Ot/2+1),o.fillStyle=t.empty,o.fillRect(x,p,o.canvas.clientWidth,l.experts*e.lane),r===1){let h=l.range("weight")[1]||1;for(let c=i;c<=s;c++)for(let{expert:m,weight:f}of l.chosen(d,c))o.fillStyle=B(A(Math.min(1,f/h))),o.fillRect(x+c*e.width-e.scroll,p+m*e.lane,Math.max(1,e.width-(e.width>=8?1:0)),e.lane-(e.lane>=6?1:0));return}o.imageSmoothingEnabled=!1;for(let[h,c,m]of It(l,"lanes",i,s,r,d))if(h){let f=zt(h,l.experts,`lanes ${t.empty}`,(g,k)=>{let v=h.lane(g,k);return v>0?U(t.none,A(Math.sqrt(v)),.35+.65*Math.sqrt(v)):t.none});Ft(o,e,f,h,c,m,p,l.experts*e.lane,l.tokens)}}function*It(o,e,t,i,s,r=null){let l=t;for(;l<=i;){let d=null;for(let c=s;!d&&c<=o.tokens*2;c*=2)d=o.tile(e,c,l,r);let p=s*ue,h=Math.min(i+1,(Math.floor(l/p)+1)*p);yield[d,l,h],l=h}}function Ft(o,e,t,i,s,r,l,d,p){let h=Math.max(0,Math.floor((s-i.first)/i.bucket)),c=Math.min(i.columns,Math.ceil((r-i.first)/i.bucket)),m=i.first+h*i.bucket,f=Math.min(p,i.first+c*i.bucket);o.drawImage(t,h,0,c-h,t.height,x+m*e.width-e.scroll,l,(f-m)*e.width,d)}function zt(o,e,t,i){let s=o.picture;if(s?.name===t)return s.canvas;let r=document.createElement("canvas");r.width=o.columns,r.height=e;let l=r.getContext("2d"),d=l.createImageData(o.columns,e),{data:p}=d,h=0;for(let c=0;c<e;c++)for(let m=0;m<o.columns;m++){let[f,g,k]=i(c,m);p[h++]=f,p[h++]=g,p[h++]=k,p[h++]=255}return l.putImageData(d,0,0),o.picture={name:t,canvas:r},r}function xi(o,e,t,i,s){let{data:r,width:l,head:d,scroll:p}=e,h=e.hovered?.position??e.selected?.position,c=o.getTransform(),m=`11px ${t.family}`;o.font=m,o.textAlign="left",o.textBaseline="middle";let f=(v,M,R,P)=>{o.translate(x+(v+.5)*l-p-1,d-5),o.rotate(-it),o.fillStyle=P,R&&(o.font=`600 ${m}`),o.fillText(M,0,0),R&&(o.font=m),o.setTransform(c)},g=v=>v===e.selected?.position||v===h?t.text:t.faint;if(l<4){let v=ki(64/l);for(let M=Math.ceil(i/v)*v;M<=s;M+=v)f(M,M.toLocaleString(),!1,t.faint);return}let k=Math.max(1,Math.ceil(11/l));for(let v=i;v<=s;v++)(v%k===0||v===h)&&f(v,nt(r.text(v)??"\u2026"),v===h||v===e.selected?.position,g(v))}function ki(o){let e=10**Math.floor(Math.log10(o));return e*([1,2,5].find(t=>t*e>=o)??10)}function Ci(o,e,t){let i=(r,l,d,p,h)=>{o.strokeStyle=d,o.lineWidth=p,o.setLineDash(h),o.strokeRect(x+l[0]*e.width-e.scroll-.5,e.head+r[0]*e.height-.5,Math.max(3,(l[1]-l[0]+1)*e.width),(r[1]-r[0]+1)*e.height),o.setLineDash([])},s=({layer:r,position:l},d,p,h)=>i([r,r],[l,l],d,p,h);e.hovered&&s(e.hovered,t.text,1,[]),e.box&&(i(e.box.layers,e.box.tokens,t.paper,4,[]),i(e.box.layers,e.box.tokens,t.accent,2,[6,3])),e.selected&&(s(e.selected,t.paper,4,[]),s(e.selected,t.text,2,[])),e.focused&&(s(e.cursor,t.paper,4,[]),s(e.cursor,t.accent,2,[4,2]))}function Mi(o,e,t){let{data:i,height:s,head:r}=e;o.font=`11px ${t.family}`,o.textAlign="right",o.textBaseline="middle";let l=s>=11?1:4,d=e.hovered?.layer??(e.focused?e.cursor.layer:e.selected?.layer);for(let p=0;p<i.layers;p++)(p%l===0||p===d)&&(o.fillStyle=p===d?t.text:t.faint,o.fillText(String(p),x-7,r+(p+.5)*s));if(e.rows==="lanes"){let p=Math.max(1,Math.ceil(11/e.lane));o.fillStyle=t.faint;for(let h=0;h<i.experts;h+=p)o.fillText(String(h),x-7,Ee(e,i)+(h+.5)*e.lane)}o.fillStyle=t.faint,o.fillText(n("layer"),x-5,r-9)}function nt(o){let e=[...T(o.replace(/^ (?=.)/,""))];return e.length>_t?`${e.slice(0,_t-1).join("")}\u2026`:e.join("")}function Ti(o,e,t,i,s,r){o.save(),o.beginPath(),o.rect(e,t,i,s),o.clip(),o.strokeStyle=r,o.lineWidth=1,o.beginPath();for(let l=-s;l<i;l+=5)o.moveTo(e+l,t+s),o.lineTo(e+l+s,t);o.stroke(),o.restore()}function Ei(o,e,t,i,s){o.fillStyle=s,o.beginPath(),o.moveTo(e,t),o.lineTo(e+i,t),o.lineTo(e,t+i),o.fill()}var Nt=new Map;function Li(o){let e=Nt.get(o);if(!e){let t=document.createElement("canvas").getContext("2d");t.fillStyle=o,t.fillRect(0,0,1,1);let[i,s,r]=t.getImageData(0,0,1,1).data;e=[i,s,r],Nt.set(o,e)}return e}var Vt=34,Si=60,Ri=3,Hi=1500,qi=30,Wt=4,Se=class{constructor(e){this.actions=e;this.canvas=a("canvas",{class:"wb-map-canvas",attrs:{tabindex:"0",role:"application","aria-label":n("Routing map, empty")},on:{keydown:i=>this.key(i),pointermove:i=>this.move(i),pointerleave:()=>this.hover(null),pointerdown:i=>this.down(i),pointerup:i=>this.up(i),focus:()=>this.draw(),blur:()=>this.draw()}}),this.context=this.canvas.getContext("2d"),this.spacer=a("div",{class:"wb-map-spacer"}),this.scroller=a("div",{class:"wb-map-scroll",on:{scroll:()=>this.draw(),wheel:i=>this.wheel(i)}},this.spacer),this.spacer.append(this.canvas),this.readout=a("div",{class:"wb-readout",attrs:{"aria-hidden":"true"}}),this.spoken=a("div",{class:"wb-hidden",attrs:{role:"status","aria-live":"polite"}}),this.node=a("div",{class:"wb-map",attrs:{"data-wb-map":""}},this.scroller,this.readout,this.spoken);let t=new ResizeObserver(()=>this.layout());t.observe(this.scroller),t.observe(this.canvas)}node;canvas;scroller;spacer;context;readout;spoken;data=null;colour="expert";arrangement="zoom";cursor={layer:0,position:0};selected=null;revealed=null;hovered=null;wanted=null;box=null;press=null;fitted=!0;width=12;height=20;lane=8;head=30;frame=0;show(e){let t=e?.tokens!==this.data?.tokens;this.data=e,e&&t&&(this.fitted=!0,this.scroller.scrollLeft=0),e&&(this.cursor=ee(this.cursor,e),this.box&&(this.box.tokens[1]>=e.tokens||this.box.layers[1]>=e.layers)&&this.brush(null)),u(this.node,"data-wb-tokens",e?String(e.tokens):void 0),u(this.node,"data-wb-layers",e?String(e.layers):void 0),this.layout(),this.tell()}colourBy(e){this.colour=e,u(this.node,"data-wb-color",e),this.draw(),this.tell()}arrange(e){this.arrangement=e,this.layout()}get rows(){return this.arrangement!=="zoom"?this.arrangement:!this.fitted&&this.width>=qi&&(this.data?.choices??0)>1?"slots":"layers"}select(e){e?.layer===this.selected?.layer&&e?.position===this.selected?.position&&this.revealed===this.data||(this.selected=e,this.revealed=this.data,e&&this.data&&(this.cursor=ee(e,this.data),this.reveal(this.cursor.position)),this.draw(),this.tell())}brush(e){this.box=e,u(this.node,"data-wb-box",e?`${e.layers.join("-")},${e.tokens.join("-")}`:void 0),this.actions.brush(e),this.draw()}zoomBy(e,t=this.scroller.clientWidth/2){if(!this.data)return;let i=(this.scroller.scrollLeft+t-x)/this.width,s=Math.min(Ri,this.whole());this.fitted=!1,this.width=e===0?this.whole():Math.min(Si,Math.max(s,this.width*e)),this.layout(),this.scroller.scrollLeft=i*this.width+x-t}draw(){this.frame===0&&(this.frame=requestAnimationFrame(()=>{this.frame=0,this.paint()}))}whole(){let e=Math.max(50,this.scroller.clientWidth-x-Vt);return Math.min(44,e/Math.max(1,this.data?.tokens??1))}fit(){return(this.data?.tokens??0)>Hi?this.whole():Math.max(13,this.whole())}layout(){let e=this.scroller.clientWidth;if(!this.data||e===0){this.draw();return}let t=this.data,{tokens:i,layers:s}=t;this.fitted&&(this.width=this.fit());let r=s<=12?24:s<=24?18:s<=40?13:9;this.height=this.rows==="slots"&&t.choices>1?Math.max(r,t.choices*(s<=12?13:5)):r,u(this.node,"data-wb-rows",this.rows),this.lane=t.experts<=16?12:t.experts<=64?6:3;let l=6;if(t.whole){l=0;for(let c=0;c<i;c++)l=Math.max(l,nt(t.text(c)??"").length)}this.head=Math.round(18+6.5*l*Math.sin(it));let d=Math.ceil(x+i*this.width+Vt),p=this.rows==="lanes"?Ee(this.geometry(),t)-this.head-s*this.height+t.experts*this.lane:0,h=this.head+s*this.height+2+p;this.spacer.style.width=`${d}px`,this.spacer.style.height=`${h}px`,this.canvas.style.width=`${Math.min(e,d)}px`,this.canvas.style.height=`${h}px`,this.actions.placed(this.geometry()),this.draw()}geometry(){return{width:this.width,height:this.height,head:this.head,lane:this.lane,scroll:this.scroller.scrollLeft}}reveal(e){this.wanted=e}scrollTo(e){let t=x+e*this.width,{scrollLeft:i,clientWidth:s}=this.scroller;t-x<i?this.scroller.scrollLeft=t-x:t+this.width>i+s&&(this.scroller.scrollLeft=t+this.width-s+2)}paint(){if(!this.canvas.clientWidth)return;let e=this.data;this.wanted!==null&&(this.scrollTo(this.wanted),this.wanted=null);let t=document.activeElement===this.canvas;if(jt(this.canvas,this.context,this.node,e&&{...this.geometry(),data:e,colour:this.colour,rows:this.rows,cursor:this.cursor,selected:this.selected,hovered:this.hovered,box:this.box,focused:t}),e&&!e.whole){let i=e.bucket(this.width),s=Math.floor((this.scroller.scrollLeft-x)/this.width),r=Math.ceil((this.scroller.scrollLeft+this.canvas.clientWidth)/this.width),l=e.missing(this.colour,i,s,r,this.rows==="lanes"?this.selected?.layer??0:null);this.selected&&l.push(...e.missing(this.colour,1,this.selected.position,this.selected.position,null)),u(this.node,"data-wb-missing",String(l.length)),this.actions.want(l)}}placeAt(e){if(!this.data)return null;let t=this.canvas.getBoundingClientRect(),i=Math.floor((e.clientY-t.top-this.head)/this.height),s=Math.floor((e.clientX-t.left-x+this.scroller.scrollLeft)/this.width);return i>=0&&i<this.data.layers&&s>=0&&s<this.data.tokens&&e.clientX-t.left>=x?{layer:i,position:s}:null}move(e){let t=this.press,i=this.data;if(t&&i&&Math.hypot(e.clientX-t.x,e.clientY-t.y)>Wt&&!t.header){let s=this.canvas.getBoundingClientRect(),r=ee({layer:Math.floor((e.clientY-s.top-this.head)/this.height),position:Math.floor((e.clientX-s.left-x+this.scroller.scrollLeft)/this.width)},i);this.brush(Le(t.at,r))}this.hover(this.placeAt(e))}down(e){let t=this.data;if(!t||e.button!==0)return;let i=this.canvas.getBoundingClientRect(),s=this.placeAt(e),r=e.clientY-i.top,l=e.clientX-i.left,d=ee({layer:Math.floor((r-this.head)/this.height),position:Math.floor((l-x+this.scroller.scrollLeft)/this.width)},t),p=s?null:l<x&&r>=this.head?"row":r<this.head&&l>=x?"column":null;(s||p)&&(this.press={at:d,x:e.clientX,y:e.clientY,header:p},this.canvas.setPointerCapture(e.pointerId))}up(e){let t=this.press;this.press=null;let i=this.data;!t||!i||(t.header==="row"?this.brush({layers:[t.at.layer,t.at.layer],tokens:[0,i.tokens-1]}):t.header==="column"?this.brush({layers:[0,i.layers-1],tokens:[t.at.position,t.at.position]}):Math.hypot(e.clientX-t.x,e.clientY-t.y)<=Wt&&(e.shiftKey&&this.selected?this.brush(Le(this.selected,t.at)):this.choose(t.at)))}hover(e){(e?.layer!==this.hovered?.layer||e?.position!==this.hovered?.position)&&(this.hovered=e,this.canvas.style.cursor=e?"pointer":"",this.draw(),this.tell())}choose(e){this.cursor=e,this.selected=e,this.box&&this.brush(null),this.draw(),this.actions.select(e)}wheel(e){e.ctrlKey&&(e.preventDefault(),this.zoomBy(e.deltaY<0?1.15:1/1.15,e.clientX-this.scroller.getBoundingClientRect().left))}key(e){let t=this.data;if(!t||e.ctrlKey||e.metaKey||e.altKey)return;let{layer:i,position:s}=this.cursor,r=Math.max(1,t.bucket(this.width)),d={ArrowLeft:{layer:i,position:s-r},ArrowRight:{layer:i,position:s+r},ArrowUp:{layer:i-1,position:s},ArrowDown:{layer:i+1,position:s},Home:{layer:i,position:0},End:{layer:i,position:t.tokens-1},PageUp:{layer:0,position:s},PageDown:{layer:t.layers-1,position:s}}[e.key];if(d){let p=this.cursor;this.cursor=ee(d,t),e.shiftKey&&this.brush(this.box?Pi(this.box,p,this.cursor):Le(p,this.cursor)),this.reveal(this.cursor.position),this.draw(),this.tell(),this.spoken.textContent=this.readout.textContent}else if(e.key==="Escape"&&this.box)this.brush(null);else if(e.key==="Enter"||e.key===" ")this.choose({...this.cursor});else if(e.key==="+"||e.key==="=")this.zoomBy(1.25);else if(e.key==="-")this.zoomBy(.8);else if(e.key==="0")this.zoomBy(0);else return;e.preventDefault(),e.stopPropagation()}tell(){let e=this.data,t=document.activeElement===this.canvas,i=this.hovered??(t?this.cursor:this.selected);if(!e||!i||i.position>=e.tokens||i.layer>=e.layers){this.readout.textContent="";return}this.readout.textContent=Dt(e,i,this.colour,e.bucket(this.width)),this.canvas.setAttribute("aria-label",n("Routing map, %1 tokens, %2 layers, arrow keys move, Enter inspects, Shift and arrows mark a box.",e.tokens,e.layers))}};function ee({layer:o,position:e},t){return{layer:Math.min(t.layers-1,Math.max(0,o)),position:Math.min(t.tokens-1,Math.max(0,e))}}function Le(o,e){let t=(i,s)=>[Math.min(i,s),Math.max(i,s)];return{layers:t(o.layer,e.layer),tokens:t(o.position,e.position)}}function Pi(o,e,t){let i=(s,r)=>r===s[1]?s[0]:s[1];return Le({layer:i(o.layers,e.layer),position:i(o.tokens,e.position)},t)}var Bi=256,Re=class{node;holder=a("div",{class:"wb-map-table",attrs:{tabindex:"0",role:"region","aria-label":n("Routing map as a table")}});data=null;colour="expert";constructor(){this.node=a("details",{class:"wb-details"},a("summary",{text:n("The map as a table")}),this.holder),this.node.addEventListener("toggle",()=>this.render())}show(e,t){this.data=e,this.colour=t,this.render()}render(){let e=this.data;if(!this.node.open||!e){this.holder.replaceChildren();return}let i=[...Array(e.tokens).keys()].filter(l=>e.knows(l)).slice(0,Bi),s=a("tr",{},a("th",{text:n("layer"),attrs:{scope:"col"}}));s.append(...i.map(l=>a("th",{attrs:{scope:"col"}},a("code",{text:T(e.text(l)??"")}))));let r=[...Array(e.layers).keys()].map(l=>{let d=a("tr",{},a("th",{text:String(l),attrs:{scope:"row"}}));return d.append(...i.map(p=>a("td",{class:"wb-number",text:this.text(e,l,p)}))),d});this.holder.replaceChildren(a("table",{class:"wb-table"},a("caption",{class:"wb-quiet",text:i.length<e.tokens?n("%1 of %2 tokens, from token %3 on",i.length,e.tokens,i[0]??0):n("All tokens")}),a("thead",{},s),a("tbody",{},...r)))}text(e,t,i){let s=D()[e.depth(t,i)];if(this.colour==="depth")return s?.name??"";if(e.skipped(t,i))return n("skipped");let r=`${e.wasEdited(t,i)?` ${n("(edited)")}`:""}${e.flipped(t,i)?` ${n("(flipped)")}`:""}`;return this.colour==="expert"?e.chosen(t,i).map(({expert:l})=>l).join(" ")+r:this.colour==="flip"?e.flipped(t,i)?n("flipped"):n("same"):w(e.value(this.colour,t,i),3)+r}};var Ai=3,He=class{constructor(e){this.actions=e;this.map=new Se({select:e.select,brush:i=>this.brushed(i),want:i=>this.want(i),placed:i=>this.load.place(i)}),this.colours=E(n("Colour by"),[],i=>this.colourBy(i)),this.rows=E(n("Rows of the map"),[["zoom",n("rows by zoom")],["layers",n("one row a layer")],["slots",n("every choice")],["lanes",n("experts of the layer")]],i=>this.map.arrange(i)),this.side=b(n("Show base"),"side","",e.flip),this.picture=b(n("Picture"),"picture",n("Save the map in view as a PNG picture"),()=>ht(this.map.canvas,this.node,`routing-${this.data?.run??"map"}.png`)),this.picture.disabled=!0;let t=(i,s,r,l)=>{let d=b(i,s,r,()=>this.map.zoomBy(l));return d.setAttribute("aria-label",r),d};this.boxBar=a("div",{class:"wb-row wb-box-bar",attrs:{hidden:!0}},this.boxText,b(n("Edit this box\u2026"),"edit-box",n("Choose what to do with these layers and tokens"),()=>{this.box&&e.editBox(this.box)}),b(n("Unmark"),"unmark",n("Forget the box (Escape)"),()=>this.map.brush(null))),this.node=a("section",{class:"wb-card wb-map-card",attrs:{"aria-label":n("Routing map")}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Routing map")}),a("label",{class:"wb-label"},n("Colour")," ",this.colours),this.rows,t("\u2212","zoom-out",n("Zoom out (\u2212)"),.8),t("\u2194","fit",n("Fit to width (0)"),0),t("+","zoom-in",n("Zoom in (+)"),1.25),this.side,this.picture,a("span",{class:"wb-grow"}),this.runLabel),this.hint,a("div",{class:"wb-map-row"},this.map.node,this.load.node),this.boxBar,this.legend.node,this.table.node)}node;map;data=null;legend=new ke;table=new Re;load=new Te;colours;rows;side;picture;runLabel=a("span",{class:"wb-quiet wb-run"});hint=a("p",{class:"wb-note",text:n("Run a prompt: each of its tokens becomes a column here, each layer a row.")});boxBar;boxText=a("span",{attrs:{role:"status"}});asked=new Map;offered=new H;box=null;colour="expert";wants=[];loadAsked=!0;take(e,t=[]){let i=e?.run!==this.data?.run;this.data=e?new me(e,t):null,this.hint.hidden=this.data!==null,this.picture.disabled=this.data===null,this.asked.clear(),this.wants=[];let s=this.data?.colours??["expert"];s.includes(this.colour)||(this.colour=s[0]??"expert"),this.offered.by(s)&&this.colours.replaceChildren(...s.map(r=>a("option",{text:Ce(r),attrs:{value:r}}))),this.rows.hidden=!this.data?.choices,this.map.show(this.data),this.colourBy(this.colour),this.data?.choices?(i||this.load.run!==this.data.run)&&(this.loadAsked=!1,this.data.whole&&this.askLoad()):this.load.show(null)}takeTile(e,t){let i=this.data;i&&e.run===i.run&&e.base===i.base&&e.edited===i.edited&&(i.take(e.tile,t),this.legend.show(i,this.colour),this.table.show(i,this.colour),this.map.draw(),e.tile.bucket===1&&this.actions.texts())}takeLoad(e,t){e.run===this.data?.run&&this.load.show(e,t)}finished(e){for(let[t,i]of this.asked)i===e&&(this.asked.delete(t),this.ask())}show(e){let t=e?.edited??e?.base;u(this.runLabel,"data-wb-run",t?.id),u(this.runLabel,"data-wb-base",e?.base?.id);let i=t?.past?` \xB7 ${n("from the store")}`:"";y(this.runLabel,t?(e?.edited?n("edited %1",t.id):t.past?t.id:n("base %1",t.id))+i:""),q(this.runLabel,e?.edited&&e.base?n("run of the plan; the base run is %1",e.base.id):n("run without a plan")),this.map.select(e?.selected??null),this.showSide(e)}showSide(e){let t=!this.data?.edited;this.side.disabled=!e?.edited,y(this.side,t&&e?.edited?n("Show edited"):n("Show base")),q(this.side,n("Flip the map between base and edited (B)")),u(this.map.node,"data-wb-side",t?"base":"edited")}prefer(e){this.colour=e,this.data?.colours.includes(e)&&this.colourBy(e)}colourBy(e){this.colour=e,this.colours.value=e,this.map.colourBy(e),this.legend.show(this.data,e),this.table.show(this.data,e)}restyle(){this.map.draw(),this.load.draw(),this.legend.show(this.data,this.colour)}askLoad(){this.data&&!this.loadAsked&&(this.loadAsked=!0,this.actions.send({type:"load_of",run:this.data.run}))}want(e){this.wants=e,this.ask(),!e.length&&this.data?.choices&&this.askLoad()}ask(){let e=this.data;for(let t of this.wants){if(!e||this.asked.size>=Ai)return;if(!this.asked.has(t.key)){let{colour:i,first:s,bucket:r,layer:l}=t;this.asked.set(t.key,this.actions.send({type:"tile",run:e.run,base:e.base,edited:e.edited,colour:i,first:s,bucket:r,layer:l}))}}}brushed(e){this.box=e,this.boxBar.hidden=e===null,e&&(this.boxText.textContent=n("Marked: %1",Ze(e))),this.actions.brush(e)}};var qe=class{constructor(e){this.ask=e;this.where=E(n("Next token after"),[["last",n("after the last token")],["selected",n("after the selected token")]],i=>{this.follow=i==="selected",this.ask(this.follow?this.selected?.position??null:null)});let t=(i,s)=>a("th",{text:i,title:s,attrs:{scope:"col"}});this.table=a("table",{class:"wb-table",attrs:{"data-wb-next":""}},a("caption",{class:"wb-hidden",text:n("Probability of the next token")}),a("thead",{},a("tr",{},t(n("token"),n("\xB7 is a space, \u23CE a line break")),t(n("base"),n("probability without the plan")),t(n("edited"),n("probability with the plan")),t(n("change"),n("edited minus base")),a("th",{attrs:{"aria-hidden":"true"}}))),this.body),this.node=a("section",{class:"wb-card wb-next",attrs:{"aria-label":n("Next token")}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Next token")}),this.where,a("span",{class:"wb-grow"}),this.summary),this.empty,this.table),this.show(null)}node;body=a("tbody");rows=[];summary=a("span",{class:"wb-quiet"});empty=a("p",{class:"wb-note",text:n("Run a prompt to see what the model would say next.")});table;where;follow=!1;selected=null;moved(e){let t=e?.position!==this.selected?.position;this.selected=e,this.follow&&t&&this.ask(e?.position??null)}show(e){this.empty.hidden=e!==null,this.table.hidden=e===null,u(this.table,"data-wb-position",e?String(e.position):void 0),y(this.summary,e?.divergence===null||e?.divergence===void 0?"":n("KL %1 nats",w(e.divergence))),this.summary.title=n("Kullback-Leibler divergence of the edited distribution from the base one");let t=Math.max(1e-12,...(e?.rows??[]).flatMap(s=>[s.base,s.edited??0])),i=e?.rows??[];for(;this.rows.length>i.length;)this.rows.pop().node.remove();i.forEach((s,r)=>this.fill(this.rows[r]??this.makeRow(),s,t))}makeRow(){let e=()=>a("td",{class:"wb-number"}),t={node:a("tr"),token:a("code",{class:"wb-token"}),base:e(),edited:e(),change:e(),bars:[a("div",{class:"wb-bar wb-base"}),a("div",{class:"wb-bar wb-edited"})]};return t.node.append(a("th",{attrs:{scope:"row"}},t.token),t.base,t.edited,t.change,a("td",{class:"wb-bars",attrs:{"aria-hidden":"true"}},...t.bars)),this.rows.push(t),this.body.append(t.node),t}fill(e,t,i){let s=t.edited===null?null:t.edited-t.base;u(e.node,"data-wb-token",String(t.token)),y(e.token,T(t.text)),y(e.base,w(t.base)),y(e.edited,t.edited===null?"\u2013":w(t.edited)),y(e.change,s===null?"\u2013":N(s)),u(e.change,"class",`wb-number ${s===null||s===0?"wb-quiet":s>0?"wb-up":"wb-down"}`),[t.base,t.edited].forEach((r,l)=>{e.bars[l].hidden=r===null,e.bars[l].style.width=`${(100*(r??0)/i).toFixed(1)}%`})}};var Pe=class{constructor(e,t,i,s){this.send=e;this.form=i;this.fail=s;let r=b(n("Add edit\u2026"),"form",n("A form for every kind of edit"),()=>i.open("reroute.ban"));this.effect=b(n("Effects"),"effects",n("What each edit does: run the prompt again without it"),()=>t({type:"effects_of"})),this.name=a("input",{class:"wb-input wb-short",attrs:{"aria-label":n("Name to keep the plan under"),placeholder:n("name")},on:{input:()=>this.keep.disabled=!this.name.value.trim(),keydown:p=>{p.key==="Enter"&&this.keep.click()}}}),this.keep=b(n("Keep"),"keep",n("Keep this plan under a name and go on from it"),()=>{e({type:"keep",name:this.name.value}),this.name.value="",this.keep.disabled=!0}),this.kept=E(n("Kept plans"),[],p=>{p&&e({type:"recall",name:p}),this.forget.disabled=!p}),this.forget=b("\xD7","forget",n("Forget the kept plan"),()=>e({type:"forget",name:this.kept.value})),u(this.forget,"aria-label",n("Forget the kept plan")),this.undo=b(n("Undo"),"undo",n("Undo the last change of the plan (Ctrl+Z)"),()=>e({type:"undo"})),this.redo=b(n("Redo"),"redo",n("Redo it (Ctrl+Shift+Z)"),()=>e({type:"redo"})),this.clear=b(n("Clear"),"clear",n("Remove every edit"),()=>e({type:"clear"})),this.copy=b(n("Copy Python"),"copy",n("Copy the plan as Python code"),()=>this.toClipboard()),this.save=b(n("Save"),"save",n("Save the plan as a JSON file"),()=>this.download());let l=a("input",{attrs:{type:"file",accept:".json,application/json","aria-label":n("Plan file"),tabindex:"-1",hidden:!0},on:{change:()=>this.upload(l)}}),d=b(n("Load"),"load",n("Load a plan from a JSON file, in the place of this one"),()=>l.click());this.empty.textContent=n("No edits: the model routes as it was trained to. Ban or force an expert to change its mind."),this.node=a("section",{class:"wb-card wb-plan",attrs:{"aria-label":n("Plan")}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Plan")}),this.hash,a("span",{class:"wb-grow"}),this.undo,this.redo,this.clear),a("div",{class:"wb-row wb-plan-files"},r,this.effect,this.copy,this.save,d,l,this.name,this.keep,this.kept,this.forget),i.node,a("div",{class:"wb-plan-body",attrs:{tabindex:"0",role:"group","aria-label":n("Edits")}},this.empty,this.warnings,this.list)),this.show(null)}node;list=a("ol",{class:"wb-edits"});empty=a("p",{class:"wb-note"});warnings=a("div",{class:"wb-warnings"});hash=a("code",{class:"wb-quiet wb-hash"});undo;redo;clear;copy;save;kept;keep;forget;name;effect;plan=null;effects=null;changed=new H;take(e){this.effects=e,this.show(this.plan)}show(e){if(this.plan=e,this.form.show(e),!this.changed.by(e,this.effects))return;let t=e?.kept??[];t.join(`
`)!==[...this.kept.options].slice(1).map(r=>r.value).join(`
`)&&(this.kept.replaceChildren(a("option",{text:n("kept plans\u2026"),attrs:{value:""}}),...t.map(r=>a("option",{text:r,attrs:{value:r}}))),this.forget.disabled=!0),this.kept.hidden=this.forget.hidden=!t.length,this.keep.disabled=!this.name.value.trim(),this.effect.disabled=!e?.edits.some(r=>r.enabled);let i=this.effects?.version===e?.version?this.effects:null,s=Math.max(1e-12,...(i?.rows??[]).map(r=>r.kl));this.copy.disabled=this.save.disabled=!e?.edits.length,u(this.node,"data-wb-plan",e?.hash??""),u(this.node,"data-wb-pending",e?.pending?"true":void 0),this.hash.textContent=e?.pending?n("asked\u2026"):e?.edits.length?e.hash.slice(0,8):"",this.hash.title=e?.pending?n("The kernel has not answered yet"):e?n("Hash of the plan: %1",e.hash):"",this.undo.disabled=!e?.undo,this.redo.disabled=!e?.redo,this.clear.disabled=!e?.edits.length,this.empty.hidden=!!e?.edits.length,this.list.replaceChildren(...(e?.edits??[]).map((r,l)=>{let d=e.version,p=C(r.text),h=a("input",{attrs:{type:"checkbox","aria-label":n("Enabled: %1",p)},on:{change:()=>this.send({type:"enable",version:d,index:l,enabled:h.checked})}});h.checked=r.enabled;let c=e.edits.length-1,m=(M,R,P,L)=>{let S=b(M,R,L,()=>this.send({type:"move",version:d,index:l,to:P}));return u(S,"aria-label",L),S.disabled=P<0||P>c,S},f=b("\xD7","remove",n("Remove: %1",p),()=>this.send({type:"remove",version:d,index:l}));u(f,"aria-label",n("Remove: %1",p));let g=b("\u2026","change",n("Change: %1",p),()=>this.form.edit(l));u(g,"aria-label",n("Change: %1",p));let k=i?.rows.find(M=>M.index===l),v=a("span",{class:"wb-effect-bar"});return v.style.width=`${(40*(k?.kl??0)/s).toFixed(1)}px`,a("li",{class:r.pending?"wb-pending":"",attrs:{"data-wb-edit":r.kind,"data-wb-enabled":String(r.enabled),"data-wb-effect":k?String(k.kl):void 0}},a("label",{class:"wb-edit"},h,a("span",{text:p})),k?a("span",{class:"wb-number wb-quiet wb-effect",title:n("KL to the plan without this edit: mean %1, last token %2 nats%3",w(k.kl),w(k.last),k.changed?n("; the likeliest next token is another one"):"")},v,`${w(k.kl,2)}${k.changed?" \u2260":""}`):null,g,c?m("\u2191","up",l-1,n("Earlier: %1",p)):null,c?m("\u2193","down",l+1,n("Later: %1",p)):null,f)})),this.warnings.replaceChildren(...(e?.warnings??[]).map(r=>a("p",{class:"wb-warning",text:C(r),attrs:{role:"status"}})))}async toClipboard(){try{await navigator.clipboard.writeText(`import workbench as wb

plan = ${this.plan?.python??""}
`),this.copy.textContent=n("Copied"),window.setTimeout(()=>this.copy.textContent=n("Copy Python"),1500)}catch{this.fail(n("The browser does not let this page write to the clipboard."),n("Save the plan as a file instead."))}}download(){O(`plan-${this.plan?.hash.slice(0,8)??""}.json`,this.plan?.text??"","application/json")}async upload(e){let t=e.files?.[0];t&&this.send({type:"load",plan:await t.text()}),e.value=""}};var $i="The capital of France is",Di=160,Be=class{node;constructor(e){this.node=a("textarea",{class:"wb-input wb-prompt",attrs:{"data-wb-prompt":"",rows:"2",spellcheck:"false","aria-label":n("Prompt"),placeholder:n("Type a prompt, for instance: %1",$i)},on:{input:()=>this.grow(),keydown:t=>{t.key==="Enter"&&!t.shiftKey&&!t.isComposing&&(t.preventDefault(),t.stopPropagation(),e())}}})}get value(){return this.node.value}set value(e){this.node.value=e}grow(){this.node.style.height="auto",this.node.style.height=`${Math.min(Di,this.node.scrollHeight+2)}px`}};var Ae=class{constructor(e){this.actions=e;this.search=a("input",{class:"wb-input wb-grow",attrs:{type:"search","aria-label":n("Find runs"),placeholder:n("find by prompt, model or label")},on:{input:()=>{window.clearTimeout(this.timer),this.timer=window.setTimeout(()=>this.ask(),200)}}}),this.both=b(n("Compare"),"compare",n("Compare the two ticked runs: the older is the base"),()=>{let[i,s]=[...this.chosen].sort((r,l)=>BigInt(r)<BigInt(l)?-1:1);i&&s&&e.compare(i,s)}),this.more=b(n("Older runs"),"more",n("List more"),()=>this.ask(this.rows.at(-1)?.id));let t=(i,s="")=>a("th",{text:i,title:s,attrs:{scope:"col"}});this.table=a("table",{class:"wb-table wb-runs",attrs:{"data-wb-runs":""}},a("caption",{class:"wb-hidden",text:n("Recorded runs, newest first")}),a("thead",{},a("tr",{},t(n("compare")),t(n("text, plan and labels")),t(n("tokens")),t(n("loss"),n("mean negative log-likelihood of its tokens, nats")),t(n("when")),t(n("look")))),this.body),this.node=a("section",{class:"wb-card",attrs:{"data-wb-view":"runs"}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Runs in the store")}),this.search,b(n("Refresh"),"refresh",n("List again"),()=>this.ask()),this.both),this.empty,a("div",{class:"wb-scroll",attrs:{tabindex:"0",role:"region","aria-label":n("Runs in the store")}},this.table),this.more),this.render()}node;search;body=a("tbody");empty=a("p",{class:"wb-note"});table;more;both;chosen=[];rows=[];inView=[];timer=0;find(e){this.search.value=e,this.ask()}ask(e=void 0){this.actions.send({type:"runs_of",text:this.search.value,before:e??null})}take(e){e.text===this.search.value&&(this.rows=e.before===null?e.rows:[...this.rows,...e.rows],this.more.hidden=!e.more,this.render())}mark(e){e.join()!==this.inView.join()&&(this.inView=e,this.render())}render(){this.empty.textContent=this.search.value?n("No run matches. Clear the field to see all of them."):n("No run has been recorded yet. Run a prompt, or call bench.run(...) in a notebook."),this.empty.hidden=this.rows.length>0,this.table.hidden=this.rows.length===0,this.body.replaceChildren(...this.rows.map(e=>this.row(e))),this.both.disabled=this.chosen.length!==2}replay(e){let t=b(n("Replay"),"replay-run",n("Put this run\u2019s routes into the plan: the prompt in view is routed as it was"),()=>{this.actions.send({type:"add",edit:{kind:"reroute.replay",run:e.id}}),this.actions.look()});return u(t,"aria-label",n("Replay the routes of run %1",e.id)),t}row(e){let t=a("input",{attrs:{type:"checkbox","aria-label":n("Compare run %1",e.id)}});t.checked=this.chosen.includes(e.id),t.addEventListener("change",()=>{let l=this.chosen.indexOf(e.id);l>=0&&this.chosen.splice(l,1),t.checked&&(this.chosen.push(e.id),this.chosen.length>2&&(this.chosen.shift(),this.render())),this.both.disabled=this.chosen.length!==2});let i=(l,d,p,h,c)=>{let m=b(l,d,p,()=>{this.actions.send({type:"show",run:e.id,base:c,plan:h}),this.actions.look()});return u(m,"aria-label",`${p}: ${e.id}`),m},s=e.edits.length?e.edits.map(C).join("; "):e.plan,r=Object.entries(e.labels).map(([l,d])=>`${l}: ${d}`);return a("tr",{attrs:{"data-wb-run-row":e.id,"aria-current":this.inView.includes(e.id)?"true":void 0}},a("td",{},t),a("th",{class:"wb-run-words",attrs:{scope:"row"},title:`${e.model} \xB7 ${e.kind} \xB7 ${e.id}`},a("span",{class:"wb-clip",text:e.text||"\u2205"}),s||r.length?a("span",{class:"wb-clip wb-quiet",text:[s,...r].filter(Boolean).join(" \xB7 "),title:[s,...r].join(`
`)}):null),a("td",{class:"wb-number",text:String(e.tokens)}),a("td",{class:"wb-number",text:e.loss===null?"\u2013":w(e.loss,4)}),a("td",{class:"wb-number wb-nowrap",text:e.started.slice(5,16)||"\u2013",title:e.started}),a("td",{class:"wb-run-buttons"},i(n("Open"),"show",n("Show this run on the map"),!1,null),e.plan?i(n("With plan"),"show-plan",n("Show it and take up its plan"),!0,null):null,e.parent?i(n("On parent"),"show-parent",n("Show it against the run it came from"),!1,e.parent):null,this.replay(e)))}};var Kt="FROM expert_load($run)",$e=class{constructor(e){this.actions=e;this.text=a("textarea",{class:"wb-input wb-sql",attrs:{rows:"5",spellcheck:"false","aria-label":n("Query"),"data-wb-query":"",placeholder:Kt},on:{keydown:l=>{l.key==="Enter"&&(l.ctrlKey||l.metaKey)&&(l.preventDefault(),l.stopPropagation(),this.run())}}}),this.text.value=Kt,this.runButton=b(n("Ask"),"ask",n("Run the query (Ctrl+Enter)"),()=>this.run()),this.runButton.classList.add("wb-primary"),this.stop=b(n("Stop"),"stop",n("Stop the query"),()=>e.send({type:"cancel",request:this.asked})),this.stop.hidden=!0,this.macros=E(n("Macros and tables"),[],l=>this.explain(l));let t=a("input",{attrs:{type:"file",accept:".sql,text/plain","aria-label":n("Query file"),tabindex:"-1",hidden:!0},on:{change:()=>void t.files?.[0]?.text().then(l=>{this.text.value=l,t.value=""})}}),i=b(n("Copy link"),"link",n("Copy an address that opens this query here"),()=>void this.copy(i));this.share=i,this.offerLink();let s=l=>E(l,[],()=>this.plot());this.axes={x:s(n("across")),y:s(n("upwards")),colour:s(n("colour"))},this.mark=E(n("Mark"),[["bar",n("bars")],["line",n("lines")],["point",n("points")],["grid",n("grid")]],()=>this.plot()),this.chartBar=a("div",{class:"wb-row",attrs:{hidden:!0}},a("label",{class:"wb-label"},n("Draw")," ",this.mark),...Object.entries({x:n("across"),y:n("up"),colour:n("colour")}).map(([l,d])=>a("label",{class:"wb-label"},d," ",this.axes[l])),b(n("Draw"),"plot",n("Draw the answer as a chart"),()=>this.plot()));let r=(l,d)=>b(d,l,n("Save the whole answer as a %1 file",d),()=>{e.send({type:"export",format:l,sql:this.filled()})});this.figure.node.hidden=!0,this.node=a("section",{class:"wb-card",attrs:{"data-wb-view":"sql"}},a("div",{class:"wb-row"},a("h3",{class:"wb-title",text:n("Ask the store")}),this.macros),this.about,this.text,a("div",{class:"wb-row"},this.runButton,this.stop,this.summary,a("span",{class:"wb-grow"}),i,b(n("Save"),"save-sql",n("Save the query as a file"),()=>O("query.sql",this.text.value,"application/sql")),b(n("Load"),"load-sql",n("Load a query from a file"),()=>t.click()),t,r("csv","CSV"),r("parquet","Parquet")),a("p",{class:"wb-note",text:n("One SELECT, read-only. $run stands for the run in view and $base for its base.")}),this.error,this.chartBar,this.figure.node,this.table),this.fail("","")}node;text;runButton;stop;error=a("div",{class:"wb-sql-error",attrs:{role:"alert"}});summary=a("span",{class:"wb-quiet",attrs:{role:"status"}});table=a("div",{class:"wb-scroll wb-answer",attrs:{tabindex:"0",role:"region","aria-label":n("Answer")}});chartBar;mark;axes;figure=new K("query",n("Chart of the answer"),()=>{});macros;about=a("div",{class:"wb-macro"});share;catalogue=null;answered=null;runs=null;asked=-1;opened(){this.catalogue||this.actions.send({type:"catalogue_of"})}offerLink(){this.share.hidden=this.actions.link()===null}fill(e){this.text.value=e,this.text.focus()}show(e){this.runs=e}takeCatalogue(e){this.catalogue=e;let t=new Map;e.macros.forEach(i=>t.set(i.subject,[...t.get(i.subject)??[],i])),this.macros.replaceChildren(a("option",{text:n("%1 macros, %2 tables\u2026",e.macros.length,e.tables.length),attrs:{value:""}}),...[...t].map(([i,s])=>a("optgroup",{attrs:{label:i}},...s.map(({name:r})=>a("option",{text:r,attrs:{value:r}})))),a("optgroup",{attrs:{label:n("tables")}},...e.tables.map(({name:i})=>a("option",{text:i,attrs:{value:i}}))))}take(e){this.answered=e;let t=e.rows.length;this.summary.textContent=n("%1 rows, %2 s",e.more?`${t}+`:t,w(e.seconds,2)),u(this.table,"data-wb-answer",String(t));let i=e.columns.map(({type:r})=>/INT|FLOAT|DOUBLE|DECIMAL/.test(r)&&!r.endsWith("]")),s=(r,l)=>a("td",{class:i[l]?"wb-number":r===null?"wb-quiet":"",text:r===null?"NULL":typeof r=="number"&&!Number.isInteger(r)?w(r,6):String(r)});this.table.replaceChildren(a("table",{class:"wb-table"},a("caption",{class:"wb-hidden",text:n("Answer")}),a("thead",{},a("tr",{},...e.columns.map(({name:r,type:l})=>a("th",{text:r,title:l,attrs:{scope:"col"}})))),a("tbody",{},...e.rows.map(r=>a("tr",{},...r.map(s))))),...e.more?[a("p",{class:"wb-note",text:n("Only the first %1 rows are shown; CSV and Parquet hold all of them.",t)})]:[]),this.offerChart(e,i)}takeChart(e){this.figure.node.hidden=!1,this.figure.show(e.spec,e.note?C(e.note):"")}finished(e){e===this.asked&&(this.stop.hidden=!0,this.runButton.classList.remove("wb-working"))}fail(e,t){this.error.hidden=!e,u(this.error,"data-wb-error",e||void 0),this.error.replaceChildren(a("strong",{text:e})," ",a("span",{text:t})),e&&(this.summary.textContent="")}restyle(){this.figure.restyle()}filled(){let{run:e,base:t}=this.runs??{};return this.text.value.replace(/\$run\b/g,e??"0").replace(/\$base\b/g,t??"0")}run(){this.fail("",""),this.summary.textContent=n("asking\u2026"),this.stop.hidden=!1,this.runButton.classList.add("wb-working"),this.asked=this.actions.send({type:"query",sql:this.filled()})}plot(){let e=this.answered?.sql;if(e){let{x:t,y:i,colour:s}=this.axes;this.fail("",""),this.actions.send({type:"plot",sql:e,mark:this.mark.value,x:t.value,y:i.value,colour:s.value||null})}}offerChart(e,t){let i=e.columns.map(({name:p})=>p);this.chartBar.hidden=i.length<2||!e.rows.length,this.figure.node.hidden=!0;let s=p=>[...p?[a("option",{text:n("none"),attrs:{value:""}})]:[],...i.map(h=>a("option",{text:h,attrs:{value:h}}))],{x:r,y:l,colour:d}=this.axes;r.replaceChildren(...s(!1)),l.replaceChildren(...s(!1)),d.replaceChildren(...s(!0)),r.value=i[0]??"",l.value=i.filter((p,h)=>t[h]&&h>0).pop()??i[1]??"",d.value=i.length>2?i.find((p,h)=>h>0&&p!==l.value)??"":""}explain(e){let t=this.catalogue?.macros.find(r=>r.name===e),i=this.catalogue?.tables.find(r=>r.name===e),s=t?`FROM ${t.name}(${_i(t.arguments)})`:i?`FROM ${i.name} LIMIT 100`:"";this.about.replaceChildren(...t?[a("div",{},a("code",{text:`${t.name}(${t.arguments})`})," ",t.answers),a("pre",{class:"wb-code",text:t.formula}),a("div",{class:"wb-quiet",text:t.source})]:i?[a("div",{},a("code",{text:i.name}),": ",i.columns.map(r=>`${r.name} ${r.type}`).join(", "))]:[],...s?[b(n("Use"),"use-macro",n("Put this into the query box"),()=>this.fill(s))]:[])}async copy(e){try{await navigator.clipboard.writeText(this.actions.link()?.(this.text.value)??this.text.value),e.textContent=n("Copied"),window.setTimeout(()=>e.textContent=n("Copy link"),1500)}catch{this.actions.fail(n("The browser does not let this page write to the clipboard."),n("Save the query as a file instead."))}}};function _i(o){let e={run:"$run",new_run:"$run",base:"$base",base_run:"$base",ids:"$run",others:"[$base]"};return o.split(",").map(t=>t.trim()).filter(t=>t&&!t.includes(":=")).map(t=>e[t]??t).join(", ")}var G=400,De=class{constructor(e){this.select=e;this.node=a("div",{class:"wb-strip",attrs:{"aria-label":n("Tokens; arrow keys select"),role:"group",tabindex:"0"},on:{keydown:t=>ye(t,this.at,0,this.tokens-1,e)}})}node;first=0;data=null;at=-1;tokens=0;show(e,t){if(e===this.data&&t===this.at&&e?.whole)return;this.data=e;let i=e?.tokens??0,s=t??0;this.at=s,this.tokens=i,i<=G?this.first=0:(s<this.first||s>=this.first+G||this.first+G>i)&&(this.first=Math.max(0,Math.min(i-G,s-G/2)));let r=[];for(let d=this.first;d<Math.min(i,this.first+G);d++)e.knows(d)&&r.push(d);let l=r.length;for(;this.node.childElementCount>l;)this.node.lastElementChild.remove();for(let d=0;d<l;d++){let p=r[d],h=e.text(p)??"",c=this.node.children[d];c||(c=a("span",{class:"wb-chip-token",on:{click:m=>this.select(Number(m.currentTarget.getAttribute("data-token")))}}),this.node.append(c)),(c.getAttribute("data-text")!==h||c.getAttribute("data-token")!==String(p))&&(c.textContent=h.replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205",u(c,"data-text",h),u(c,"data-token",String(p)),c.title=n("token %1 \u201C%2\u201D",p,T(h))),c.classList.toggle("wb-on",p===t)}}};var Ni=0,_e=class{constructor(e,t,i){this.tabs=t;this.chosen=i;let s=++Ni;this.current=t[0].key,this.buttons=t.map(({key:r,label:l,title:d,panel:p})=>(p.id=`wb-tab-${s}-${r}`,u(p,"role","tabpanel"),u(p,"aria-label",l),a("button",{class:"wb-tab",text:l,title:d,attrs:{type:"button",role:"tab","aria-controls":p.id,"data-wb-tab":r},on:{click:()=>this.choose(r),keydown:h=>this.key(h)}}))),this.node=a("div",{class:"wb-tabs",attrs:{role:"tablist","aria-label":e}},...this.buttons),this.render()}node;buttons;current;choose(e){let t=e!==this.current;this.current=e,this.render(),t&&this.chosen(e)}render(){this.tabs.forEach(({key:e,panel:t},i)=>{let s=e===this.current;t.hidden=!s,u(this.buttons[i],"aria-selected",String(s)),this.buttons[i].tabIndex=s?0:-1})}key(e){let t=this.tabs.findIndex(({key:r})=>r===this.current),s={ArrowLeft:t-1,ArrowRight:t+1,Home:0,End:this.tabs.length-1}[e.key];if(s!==void 0){e.preventDefault(),e.stopPropagation();let r=(s+this.tabs.length)%this.tabs.length;this.choose(this.tabs[r].key),this.buttons[r].focus()}}};var Ne=class{form;card;inspector;planList;next;live;charts;compare;runs;sql;experiments;head;help=new he(()=>this.body.parentElement);strip;tabs;prompt;runButton;status=a("span",{class:"wb-status",attrs:{role:"status"}});progress=a("progress",{class:"wb-progress",attrs:{max:"1","aria-label":n("Progress"),hidden:!0}});alerts=new ne;welcome=a("section",{class:"wb-card wb-welcome"});body;constructor(e){let{control:t,compute:i,select:s,place:r}=e,l=()=>this.tabs.choose("map");this.form=new de({send:t}),this.strip=new De(c=>s({...r(),position:c})),this.prompt=new Be(e.run),this.card=new He({send:t,select:s,brush:c=>this.inspector.mark(c),editBox:({layers:c,tokens:m})=>this.form.open("reroute.ban",{layers:Array.from({length:c[1]-c[0]+1},(f,g)=>c[0]+g),tokens:{start:m[0],stop:m[1]+1}}),flip:e.flip,texts:()=>this.strip.show(this.card.data,r().position)}),this.inspector=new ve(t,i),this.planList=new Pe(t,i,this.form,e.fail),this.live=new xe({compute:i,generate:e.generate,select:c=>s({...r(),position:c})}),this.next=new qe(c=>t({type:"next",position:c})),this.charts=new se({send:t,layer:c=>s({...r(),layer:c})}),this.compare=new ae({send:t,look:l,list:()=>this.tabs.choose("runs"),select:(c,m)=>{s({layer:c,position:m}),l()}}),this.runs=new Ae({send:t,look:l,compare:(c,m)=>{this.compare.take(null),t({type:"compare",base:c,run:m}),this.tabs.choose("compare")}}),this.sql=new $e({send:t,link:e.link,fail:e.fail}),this.experiments=new le({send:t,runs:c=>{this.tabs.choose("runs"),this.runs.find(c)}}),this.head=new pe({control:t,use:c=>{e.generate(!1),t({type:"use",key:c})},open:e.open,help:()=>this.help.open()},a("div",{class:"wb-grow wb-busy-line"},this.progress,this.status)),this.runButton=b(n("Run"),"run",n("Run the prompt (Enter; Shift+Enter for a new line)"),e.run),this.runButton.classList.add("wb-primary");let d=(...c)=>a("div",{class:"wb-view"},...c),p=[{key:"map",label:n("Map"),title:n("The routing map of the run in view"),panel:d(this.card.node,this.next.node)},{key:"charts",label:n("Charts"),title:n("Attention rank, contribution, sparsity, load and affinity"),panel:d(this.charts.node)},{key:"compare",label:n("Difference"),title:n("Two runs side by side"),panel:d(this.compare.node)},{key:"runs",label:n("Runs"),title:n("All runs of the store"),panel:d(this.runs.node)},{key:"experiments",label:n("Experiments"),title:n("Experiments of the store, while they run"),panel:d(this.experiments.node)},{key:"sql",label:n("SQL"),title:n("Ask the store"),panel:d(this.sql.node)}];this.tabs=new _e(n("Views"),p,e.turned);let h=b(n("Save as page"),"page",n("One HTML file of the runs in view that opens without a kernel"),()=>t({type:"export",format:"html",sql:""}));this.body=a("div",{class:"wb-body"},a("div",{class:"wb-left"},a("section",{class:"wb-card",attrs:{"aria-label":n("Prompt")}},a("div",{class:"wb-row wb-prompt-row"},this.prompt.node,this.runButton),a("div",{class:"wb-row"},this.strip.node)),this.live.node,a("div",{class:"wb-row wb-tab-row"},this.tabs.node,a("span",{class:"wb-grow"}),h),...p.map(({panel:c})=>c)),a("div",{class:"wb-right"},this.planList.node,this.inspector.node))}get nodes(){return[this.head.node,this.alerts.node,this.help.node,this.welcome,this.body]}take(e,t){switch(e.type){case"tile":return this.card.takeTile(e,t),!0;case"load":return this.card.takeLoad(e,t),!0;case"trials":return this.inspector.take(e),!0;case"heads":return this.inspector.takeHeads(e,t),!0;case"profile":return this.inspector.takeProfile(e),!0;case"contributions":return this.inspector.takeContributions(e),!0;case"calibrated":return this.inspector.takeCalibrated(e),!0;case"effects":return this.planList.take(e),!0;case"forms":return this.form.take(e),!0;case"previewed":return this.form.previewed(e),!0;case"runs":return this.runs.take(e),!0;case"comparison":return this.compare.take(e),!0;case"experiments":return this.experiments.take(e),!0;case"catalogue":return this.sql.takeCatalogue(e),!0;case"table":return this.sql.take(e),!0;case"chart":return e.chart==="query"?this.sql.takeChart(e):this.charts.take(e),!0;case"models":return this.head.showModels(e),!0;default:return!1}}};var Oi=["run","recompute","open","step","try","effects_of","heads_of","contributions_of","calibrate"],ji=["watch","seen","cancel","models_of","experiments_of"],Ii=["query","plot","catalogue_of"],Oe=class{channel=null;seq=0;pending=new Map;get connected(){return this.channel!==null}get waiting(){return this.pending.size>0}get computing(){return[...this.pending.values()].some(e=>Oi.includes(e))}get opening(){return[...this.pending.values()].includes("open")}use(e){this.channel=e,e&&this.pending.clear()}send(e,t){if(!this.channel)return;let i=++this.seq;return ji.includes(t.type)||this.pending.set(i,t.type),this.channel.send(e,{...t,seq:i}),i}kind(e){return e===null?void 0:this.pending.get(e)}ofQuery(e){return e!==void 0&&Ii.includes(e)}finish(e){let t=this.pending.get(e);return this.pending.delete(e),t}};var je=class{constructor(e,t){this.tell=t;new IntersectionObserver(i=>{this.within=i.at(-1).isIntersecting,this.look()}).observe(e),document.addEventListener("visibilitychange",this.look)}seen=!0;within=!0;dispose(){document.removeEventListener("visibilitychange",this.look)}look=()=>{let e=this.within&&document.visibilityState==="visible";e!==this.seen&&(this.seen=e,this.tell(e))}};function Ut(o,e){if(o)return[a("h3",{class:"wb-title",text:n("Opening a model\u2026")}),a("p",{class:"wb-note",text:n("Torch and the weights are loaded. The first time on a machine the compute kernels are compiled too, which takes up to half a minute.")})];let t=[a("p",{},n("Run this in a cell of the notebook, and it appears here:")),a("pre",{class:"wb-code",text:`import workbench as wb
bench = wb.open()`})];return[a("h3",{class:"wb-title",text:n("No bench in this kernel yet")}),...e?[]:t,a("p",{},n("To open a model from here, name it in the field above (a local folder or a hub id; empty for the demo model) and press Open."))]}var Fi=2,Ie=class{node;parts;options=null;preferences={colour:"expert",scope:"all",link:null};requests=new Oe;frames=new te;sight;state=null;cell=null;kernelBusy=null;asked=-1;opened;resume=null;generating=!1;steps=new Set;hopes=new Map;remembered=new H;query=null;visible=!0;constructor(){let e=s=>this.request(s),t=s=>this.send("compute",s);this.parts=new Ne({control:e,compute:t,run:()=>this.run(),open:s=>this.open(s),generate:s=>this.generate(s),flip:()=>this.flip(),select:s=>this.select(s),place:()=>this.state?.selected??{layer:0,position:0},turned:s=>this.turnTo(s),link:()=>this.preferences.link,fail:(s,r)=>this.fail(s,r)});let i={undo:()=>e({type:"undo"}),redo:()=>e({type:"redo"}),flip:()=>this.flip()};this.node=a("div",{class:"wb-panel",attrs:{"data-wb-panel":"","data-wb-busy":"true","data-wb-view-now":"map"},on:{keydown:s=>wt(s,i)}},...this.parts.nodes),this.sight=new je(this.node,s=>this.watch(s)),this.render()}connect(e,t){this.requests.use(e),this.options=t,this.asked=-1,this.opened=void 0,this.kernelBusy=null,this.generating=!1,this.steps.clear(),this.hopes.clear(),this.resume=this.memory(),e.listen(i=>{i.forEach(({message:s,buffers:r})=>this.receive(s,r)),this.frames.later("busy",()=>this.renderBusy()),this.frames.draw()}),this.send("control",{type:"hello",protocol:pt,version:t.version}),this.visible||this.send("control",{type:"watch",visible:!1})}disconnect(e){this.resume=this.memory(),this.requests.use(null),this.generating=!1,this.steps.clear(),this.hopes.clear(),this.kernelBusy=e,this.renderBusy()}dispose(){this.sight.dispose(),this.parts.experiments.opened(!1)}watch(e){this.visible=e,e||this.generate(!1),this.requests.connected&&this.send("control",{type:"watch",visible:e}),this.parts.experiments.opened(e&&this.parts.tabs.current==="experiments")}recall(e){this.resume=e,this.parts.prompt.value=e.prompt}prefer(e){this.preferences=e,this.parts.inspector.actOn(e.scope),this.parts.card.prefer(e.colour),this.parts.sql.offerLink()}ask(e){this.query=this.state?null:e,this.parts.tabs.choose("sql"),this.parts.sql.fill(e)}restyle(){this.parts.card.restyle(),this.parts.charts.restyle(),this.parts.sql.restyle(),this.parts.inspector.restyle()}focus(){this.node.contains(document.activeElement)||this.parts.prompt.node.focus({preventScroll:!0})}fail(e,t,i){this.parts.alerts.show(e,t,i)}turnTo(e){u(this.node,"data-wb-view-now",e),this.parts.experiments.opened(e==="experiments"&&this.state!==null&&this.visible),this.requests.connected&&this.state&&(this.parts.charts.opened(e==="charts"),e==="compare"?this.parts.compare.opened():e==="runs"?this.parts.runs.ask():e==="sql"&&this.parts.sql.opened())}send(e,t){let i=this.requests.send(e,t);return i===void 0?(this.fail(n("The panel has no kernel."),n("Wait for it to come back, or start it from the Kernel menu.")),-1):(this.renderBusy(),i)}request(e){let t=this.send("control",e),i=this.plan;return t>=0&&i&&ft(e)&&(this.hopes.set(t,{request:e,version:i.version}),this.frames.later("plan",()=>this.renderPlan()),this.frames.draw()),t}get plan(){if(!this.state)return null;let e=this.state.plan;return[...this.hopes.values()].filter(({version:i})=>i>=e.version).reduce((i,{request:s})=>mt(i,s),e)}receive(e,t){switch(e.type){case"benches":this.showBenches(e.benches,e.current);break;case"state":this.takeState(e);break;case"map":this.send("control",{type:"seen"}),this.frames.later("map",()=>{this.parts.card.take(e,t),this.parts.card.show(this.state),this.parts.strip.show(this.parts.card.data,this.state?.selected?.position)});break;case"cell":this.cell=e,this.frames.later("cell",()=>this.renderCell());break;case"next":this.frames.later("next",()=>this.parts.next.show(e));break;case"busy":this.kernelBusy=e.what&&C(e.what),this.parts.progress.hidden=e.share===null,this.parts.progress.value=e.share??0;break;case"file":O(e.name,t[0],e.mime);break;case"done":this.finished(e.seq);break;case"error":this.showFailure(e);break;default:this.parts.take(e,t)}}showFailure(e){let t=this.requests.kind(e.seq);if(this.requests.ofQuery(t)){this.parts.sql.fail(C(e.problem),C(e.remedy));return}this.fail(C(e.problem),C(e.remedy)),this.generate(!1),t==="open"&&(this.opened=void 0,this.render())}finished(e){let t=this.requests.finish(e);this.hopes.delete(e)&&this.frames.later("plan",()=>this.renderPlan()),this.parts.card.finished(e),this.parts.sql.finished(e),this.steps.delete(e)&&this.generating&&(this.state?.live?.ended?this.generate(!1):this.askSteps()),(t==="run"||t==="recompute")&&this.parts.tabs.current==="runs"&&this.visible&&this.parts.runs.ask()}generate(e){let t=e&&!this.generating;this.generating=e&&this.requests.connected,t?(this.parts.alerts.clear(),this.askSteps()):!e&&this.requests.connected&&this.steps.forEach(i=>this.send("control",{type:"cancel",request:i})),this.parts.live.show(this.state,this.generating),this.renderBusy()}askSteps(){for(;this.generating&&this.steps.size<Fi;)this.steps.add(this.send("compute",{type:"step",ahead:this.steps.size>0}))}flip(){this.state?.edited&&this.parts.card.data&&this.send("control",{type:"side",base:this.parts.card.data.edited})}showBenches(e,t){if(this.parts.head.showBenches(e,t),!t&&(this.clear(),this.options?.openDemo&&this.opened===void 0&&this.parts.alerts.empty)){let i=this.resume;this.open(i?.model??null,i)}this.render()}clear(){this.frames.clear(),this.hopes.clear(),this.state=null,this.cell=null,this.parts.card.take(null),this.parts.next.show(null),this.parts.inspector.take(null),this.parts.compare.take(null)}takeState(e){this.parts.live.take(e.live);let t=e.bench.key!==this.state?.bench.key,i=e.base?.past&&e.base.id!==this.state?.base?.id;t&&this.clear(),(t&&(e.prompt||!this.parts.prompt.value)||i)&&(this.parts.prompt.value=e.prompt,this.parts.prompt.grow()),this.state=e,e.base?.past&&this.parts.next.show(null),e.stale&&this.asked!==e.plan.version&&(this.asked=e.plan.version,this.send("compute",{type:"recompute"}));let s=this.memory();s&&this.remembered.by(s)&&this.options?.remember?.(s),this.parts.next.moved(e.selected),t?(this.render(),this.parts.prompt.grow(),this.turnTo(this.parts.tabs.current),this.query!==null&&this.ask(this.query)):this.frames.later("state",()=>this.renderState())}memory(){return this.state?{model:this.opened??this.resume?.model??null,prompt:this.state.prompt,plan:this.state.plan.text}:this.resume}open(e,t=null){this.opened=e,this.generate(!1),this.parts.alerts.clear();let i=t?.prompt?{prompt:t.prompt,plan:t.plan}:{prompt:"",plan:null};this.send("compute",{type:"open",model:e,...i})}run(){this.generate(!1),this.parts.inspector.take(null),this.parts.alerts.clear(),this.send("compute",{type:"run",prompt:this.parts.prompt.value})}select(e){this.parts.strip.show(this.parts.card.data,e.position),this.send("control",{type:"select",...e})}render(){this.parts.body.hidden=this.state===null,this.renderWelcome(),this.renderState(),this.renderBusy()}renderWelcome(){this.parts.welcome.hidden=this.state!==null;let e=this.requests.opening||this.options===null;this.parts.welcome.replaceChildren(...Ut(e,this.options?.openDemo??!1))}renderState(){let e=this.state;this.parts.live.show(e,this.generating),this.parts.head.show(e?.bench??null),this.parts.card.show(e),this.parts.charts.show(e),this.parts.compare.show(e);let t=e?.edited??e?.base;this.parts.sql.show(t&&e?.base?{run:t.id,base:e.base.id}:null),this.parts.runs.mark([e?.base?.id,e?.edited?.id].filter(i=>i!==void 0)),this.renderPlan(),this.parts.strip.show(this.parts.card.data,e?.selected?.position)}renderPlan(){this.parts.planList.show(this.plan),this.renderCell()}renderCell(){let{bench:e=null,base:t=null,edited:i=null}=this.state??{};this.parts.inspector.show(this.cell,this.plan,e,i??t,t?.id??null)}renderBusy(){let{computing:e,waiting:t,connected:i,opening:s}=this.requests,r=this.kernelBusy!==null||this.generating||t||!i;u(this.node,"data-wb-busy",String(r)),y(this.parts.status,this.kernelBusy??(e?n("waiting for the kernel"):"")),this.parts.runButton.classList.toggle("wb-working",r&&(e||this.kernelBusy!==null));let l=!!this.state?.live&&!this.state.live.ended&&!e;this.parts.runButton.classList.toggle("wb-steady",this.generating||l),this.parts.head.openButton.disabled=s,this.state===null&&this.renderWelcome()}};var Gt="0.1.0";function zi({model:o,el:e}){let t=document.createElement("style");t.textContent=rt+at+ot+lt;let i=new Ie;i.node.classList.add("wb-inline"),i.node.addEventListener("focusin",d=>{d.target.setAttribute("data-lm-suppress-shortcuts","true")}),e.append(t,i.node);let s=()=>{},r={send:(d,p)=>o.send({lane:d,message:p}),listen:d=>{s=d}};gt(()=>Vi(o));let l=(d,p)=>{"messages"in d&&s(dt(d,p))};return o.on("msg:custom",l),i.connect(r,{version:Gt,openDemo:!1}),()=>{o.off("msg:custom",l),i.dispose()}}var Yt=null;function Vi(o){return Yt??=new Promise((e,t)=>{let i=(s,r)=>{if("type"in s){o.off("msg:custom",i);let l=new Blob([r[0]],{type:"text/javascript"}),d=URL.createObjectURL(l);import(d).then(e,t).finally(()=>URL.revokeObjectURL(d))}};o.on("msg:custom",i),o.send({vega:!0})}),Yt}var jo={render:zi};export{jo as default};
