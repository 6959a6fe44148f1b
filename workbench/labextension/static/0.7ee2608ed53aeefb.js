"use strict";(self.rspackChunkworkbench_lab=self.rspackChunkworkbench_lab||[]).push([[0],{26(e,t,a){var r=a(27),n=a.n(r),i=a(28),o=(a.n(i))()(n());o.push([e.id,`/* Colours come from JupyterLab's theme; the fallbacks serve hosts that have none. */
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
  content: ' ▲';
  font-size: 0.7em;
}

.wb-down::after {
  content: ' ▼';
  font-size: 0.7em;
}

.wb-quiet.wb-number::after {
  content: ' ▲';
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
  content: '≠';
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
`,""]),a.d(t,{},{A:o})},30(e,t,a){var r=a(27),n=a.n(r),i=a(28),o=(a.n(i))()(n());o.push([e.id,`/* Plan */
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
`,""]),a.d(t,{},{A:o})},29(e,t,a){var r=a(27),n=a.n(r),i=a(28),o=(a.n(i))()(n());o.push([e.id,`/* Map */
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
`,""]),a.d(t,{},{A:o})},31(e,t,a){var r=a(27),n=a.n(r),i=a(28),o=(a.n(i))()(n());o.push([e.id,`/* Tabs and the views behind them */
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
`,""]),a.d(t,{},{A:o})},28(e){e.exports=function(e){var t=[];return t.toString=function(){return this.map(function(t){var a="",r=void 0!==t[5];return t[4]&&(a+="@supports (".concat(t[4],") {")),t[2]&&(a+="@media ".concat(t[2]," {")),r&&(a+="@layer".concat(t[5].length>0?" ".concat(t[5]):""," {")),a+=e(t),r&&(a+="}"),t[2]&&(a+="}"),t[4]&&(a+="}"),a}).join("")},t.i=function(e,a,r,n,i){"string"==typeof e&&(e=[[null,e,void 0]]);var o={};if(r)for(var p=0;p<this.length;p++){var b=this[p][0];null!=b&&(o[b]=!0)}for(var l=0;l<e.length;l++){var w=[].concat(e[l]);r&&o[w[0]]||(void 0!==i&&(void 0===w[5]||(w[1]="@layer".concat(w[5].length>0?" ".concat(w[5]):""," {").concat(w[1],"}")),w[5]=i),a&&(w[2]&&(w[1]="@media ".concat(w[2]," {").concat(w[1],"}")),w[2]=a),n&&(w[4]?(w[1]="@supports (".concat(w[4],") {").concat(w[1],"}"),w[4]=n):w[4]="".concat(n)),t.push(w))}},t}},27(e){e.exports=function(e){return e[1]}},20(e){var t=[];function a(e){for(var a=-1,r=0;r<t.length;r++)if(t[r].identifier===e){a=r;break}return a}function r(e,r){for(var n={},i=[],o=0;o<e.length;o++){var p=e[o],b=r.base?p[0]+r.base:p[0],l=n[b]||0,w="".concat(b," ").concat(l);n[b]=l+1;var d=a(w),s={css:p[1],media:p[2],sourceMap:p[3],supports:p[4],layer:p[5]};if(-1!==d)t[d].references++,t[d].updater(s);else{var c=function(e,t){var a=t.domAPI(t);return a.update(e),function(t){t?(t.css!==e.css||t.media!==e.media||t.sourceMap!==e.sourceMap||t.supports!==e.supports||t.layer!==e.layer)&&a.update(e=t):a.remove()}}(s,r);r.byIndex=o,t.splice(o,0,{identifier:w,updater:c,references:1})}i.push(w)}return i}e.exports=function(e,n){var i=r(e=e||[],n=n||{});return function(e){e=e||[];for(var o=0;o<i.length;o++){var p=a(i[o]);t[p].references--}for(var b=r(e,n),l=0;l<i.length;l++){var w=a(i[l]);0===t[w].references&&(t[w].updater(),t.splice(w,1))}i=b}}},22(e){var t={};e.exports=function(e,a){var r=function(e){if(void 0===t[e]){var a=document.querySelector(e);if(window.HTMLIFrameElement&&a instanceof window.HTMLIFrameElement)try{a=a.contentDocument.head}catch(e){a=null}t[e]=a}return t[e]}(e);if(!r)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");r.appendChild(a)}},24(e){e.exports=function(e){var t=document.createElement("style");return e.setAttributes(t,e.attributes),e.insert(t,e.options),t}},23(e,t,a){e.exports=function(e){var t=a.nc;t&&e.setAttribute("nonce",t)}},21(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var t=e.insertStyleElement(e);return{update:function(a){var r,n,i;r="",a.supports&&(r+="@supports (".concat(a.supports,") {")),a.media&&(r+="@media ".concat(a.media," {")),(n=void 0!==a.layer)&&(r+="@layer".concat(a.layer.length>0?" ".concat(a.layer):""," {")),r+=a.css,n&&(r+="}"),a.media&&(r+="}"),a.supports&&(r+="}"),(i=a.sourceMap)&&"u">typeof btoa&&(r+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(i))))," */")),e.styleTagTransform(r,t,e.options)},remove:function(){var e;null===(e=t).parentNode||e.parentNode.removeChild(e)}}}},25(e){e.exports=function(e,t){if(t.styleSheet)t.styleSheet.cssText=e;else{for(;t.firstChild;)t.removeChild(t.firstChild);t.appendChild(document.createTextNode(e))}}},19(e,t,a){var r=a(20),n=a.n(r),i=a(21),o=a.n(i),p=a(22),b=a.n(p),l=a(23),w=a.n(l),d=a(24),s=a.n(d),c=a(25),x=a.n(c),m=a(26),f={};f.styleTagTransform=x(),f.setAttributes=w(),f.insert=b().bind(null,"head"),f.domAPI=o(),f.insertStyleElement=s(),n()(m.A,f),m.A&&m.A.locals&&m.A.locals;var g=a(29),u={};u.styleTagTransform=x(),u.setAttributes=w(),u.insert=b().bind(null,"head"),u.domAPI=o(),u.insertStyleElement=s(),n()(g.A,u),g.A&&g.A.locals&&g.A.locals;var h=a(30),v={};v.styleTagTransform=x(),v.setAttributes=w(),v.insert=b().bind(null,"head"),v.domAPI=o(),v.insertStyleElement=s(),n()(h.A,v),h.A&&h.A.locals&&h.A.locals;var y=a(31),k={};k.styleTagTransform=x(),k.setAttributes=w(),k.insert=b().bind(null,"head"),k.domAPI=o(),k.insertStyleElement=s(),n()(y.A,k),y.A&&y.A.locals&&y.A.locals}}]);