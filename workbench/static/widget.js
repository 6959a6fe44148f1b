var te=`/* Colours come from JupyterLab's theme; the fallbacks serve hosts that have none. */
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
  grid-template-columns: minmax(0, 1fr) minmax(300px, 370px);
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
`;var ie=`/* Plan. Of a fixed height, so that the experts below stay under the pointer while edits come and go. */
.wb-plan {
  display: flex;
  flex-direction: column;
  height: 166px;
}

.wb-plan-body {
  flex: 1 1 0;
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
  grid-template-columns: 10px 1.6em minmax(40px, 1fr) 3.3em 3.7em 3.7em 4.2em 2.2em;
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
`;var ne=`/* Map */
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
`;function r(a,e={},...t){let i=document.createElement(a);e.class&&(i.className=e.class),e.text!==void 0&&(i.textContent=e.text),e.title!==void 0&&(i.title=e.title);for(let[s,o]of Object.entries(e.attrs??{}))c(i,s,o);for(let[s,o]of Object.entries(e.on??{}))i.addEventListener(s,o);return i.append(...t.filter(s=>s!==null)),i}function c(a,e,t){t===void 0||t===!1?a.removeAttribute(e):a.setAttribute(e,t===!0?"":t)}function b(a,e,t,i){return r("button",{class:"wb-button",text:a,title:t,attrs:{type:"button","data-wb-action":e},on:{click:i}})}function y(a){return a.replace(/ /g,"\xB7").replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205"}var G=(a,e)=>JSON.stringify(a)===JSON.stringify(e);function J(a){return a.scope==="all"?"all":[a.position]}function R(a,e,t,i){let s=o=>o.enabled&&e.includes(o.kind)&&o.phase==="all"&&G(o.layers,[t.layer])&&G(o.tokens,i===void 0?"all":J(t))&&G(o.experts,i===void 0?[]:[i]);return a.edits.findIndex(s)}function se(a,e,t,i){let s={kind:e,layers:[t.layer],experts:[i],tokens:J(t)},o=R(a,["reroute.ban","reroute.force"],t,i);return o<0?{type:"add",edit:{...s}}:a.edits[o].kind===e?{type:"remove",version:a.version,index:o}:{type:"replace",version:a.version,index:o,edit:{...s}}}function re(a,e,t,i){let s=R(a,["reroute.bias"],e,t),o=s>=0&&a.edits[s].delta===null?-1:s,l=(o<0?0:a.edits[o].delta)+i;if(o>=0&&l===0)return{type:"remove",version:a.version,index:o};let p={kind:"reroute.bias",layers:[e.layer],delta:{[t]:l},tokens:J(e)};return o<0?{type:"add",edit:{...p}}:{type:"replace",version:a.version,index:o,edit:{...p}}}function oe(a,e){let t={kind:"skip.block",layers:[e]},i=R(a,["skip.block"],{layer:e,position:0,scope:"all"});return i<0?{type:"add",edit:{...t}}:{type:"remove",version:a.version,index:i}}var Z=[[0,114,178],[230,159,0],[0,158,115],[204,121,167],[86,180,233],[213,94,0],[240,228,66]],ae=[0,-.42,.5,-.65,.72];function L(a){let e=Z[a%Z.length],t=ae[Math.floor(a/Z.length)%ae.length],i=t<0?0:255;return e.map(s=>Math.round(s+(i-s)*Math.abs(t)))}var z=[[68,1,84],[72,36,117],[65,68,135],[53,95,141],[42,120,142],[33,145,140],[34,168,132],[68,191,112],[122,209,81],[189,223,38],[253,231,37]];function $(a){let e=Math.min(1,Math.max(0,a))*(z.length-1),t=Math.min(z.length-2,Math.floor(e)),i=z[t],s=z[t+1];return i.map((o,l)=>Math.round(o+(s[l]-o)*(e-t)))}function C([a,e,t]){return`rgb(${a}, ${e}, ${t})`}function le(a){let[e,t,i]=a.map(s=>{let o=s/255;return o<=.04045?o/12.92:((o+.055)/1.055)**2.4});return .2126*e+.7152*t+.0722*i>.179?"#000":"#fff"}function m(a,e=4){return Number.isFinite(a)?a!==0&&(Math.abs(a)<1e-4||Math.abs(a)>=1e6)?a.toExponential(e-1):a.toPrecision(e):"\u2013"}function S(a,e=4){return(a>0?"+":a<0?"\u2212":"")+m(Math.abs(a),e)}var xe=(a,...e)=>a.replace(/%(\d)/g,(t,i)=>String(e[Number(i)-1]));var n=(a,...e)=>xe(a,...e);var A=class{constructor(e){this.send=e;let t=b("\xD7","close",n("Close the list of exchanges"),()=>this.take(null));c(t,"aria-label",n("Close the list of exchanges")),this.node=r("div",{class:"wb-trials",attrs:{hidden:!0}},r("div",{class:"wb-row"},this.title,r("span",{class:"wb-grow"}),t),this.list)}node;title=r("span",{class:"wb-quiet"});list=r("div",{class:"wb-trial-list",attrs:{role:"list",tabindex:"0","aria-label":n("Every exchange, best first")}});trials=null;drawn=null;take(e){this.trials=e,e===null&&this.show(null)}show(e){let t=this.trials,i=!!t&&!!e&&t.layer===e.layer&&t.position===e.position;if(this.node.hidden=!i,c(this.node,"data-wb-trials",i?`${t.layer},${t.position}`:void 0),!i||this.drawn===t)return;this.drawn=t,this.title.textContent=t.followed?n("Change of log-probability of the %1 tokens that followed, in nats; in brackets of the next, \u201C%2\u201D",t.followed,y(t.target)):n("Change of log-probability of the likeliest next token \u201C%1\u201D, in nats",y(t.target));let s=Math.max(1e-12,...t.rows.map(o=>Math.abs(o.change??0)));this.list.replaceChildren(...t.rows.map(o=>this.row(t,o,s)))}row(e,t,i){let s=t.change??0,o=r("span",{class:`wb-swing ${s<0?"wb-loss":"wb-gain"}`});o.style.width=`${(50*Math.abs(s)/i).toFixed(1)}%`;let l=d=>{let u=r("span",{class:"wb-swatch"});return u.style.background=C(L(d)),u},p=t.change===null?"\u2013":S(t.change,3),h=b("","exchange",n("Put this exchange into the plan, for this token alone"),()=>this.send({type:"exchange",layer:e.layer,position:e.position,removed:t.removed,expert:t.expert}));return c(h,"aria-label",n("Exchange expert %1 for %2: %3 nats",t.removed,t.expert,p)),h.append(l(t.removed),r("span",{class:"wb-number",text:`${t.removed} \u2192 ${t.expert}`}),l(t.expert),r("span",{class:"wb-swing-track"},o),r("span",{class:`wb-number ${s>0?"wb-up":s<0?"wb-down":"wb-quiet"}`,text:p}),r("span",{class:"wb-quiet",text:e.followed?`(${t.next_change===null?"\u2013":S(t.next_change,2)})`:"",title:t.next_change===null?"":n("next token %1 nats",m(t.next_change))})),r("div",{attrs:{role:"listitem","data-wb-trial":`${t.removed},${t.expert}`}},h)}};var N=class{constructor(e,t){this.send=e;this.trials=new A(e),this.attempt=b(n("Try every expert"),"try",n("What every other expert here would have done to the text that followed"),()=>{this.cell&&t({type:"try",layer:this.cell.layer,position:this.cell.position})}),this.scopes=T(n("Clicks act on"),[["all",n("all tokens")],["token",n("this token")]],i=>{this.scope=i,this.render()}),this.orders=T(n("Order"),[["score",n("by score")],["id",n("by number")]],i=>{this.order=i,this.render()}),this.skip=b(n("Skip block"),"skip","",()=>{this.cell&&this.plan&&this.send(oe(this.plan,this.cell.layer))}),this.tools=r("div",{class:"wb-tools"},r("label",{class:"wb-label"},n("Act on")," ",this.scopes),r("label",{class:"wb-label"},n("Sort")," ",this.orders),this.attempt),this.node=r("section",{class:"wb-card wb-inspector",attrs:{"aria-label":n("Cell inspector")}},r("div",{class:"wb-row"},this.title,r("span",{class:"wb-grow"}),this.skip),this.facts,this.tools,this.note,this.trials.node,this.list),this.render()}node;title=r("h3",{class:"wb-title"});facts=r("dl",{class:"wb-facts"});note=r("p",{class:"wb-note"});list=r("div",{class:"wb-experts",attrs:{role:"list","aria-label":n("Experts")}});tools;skip;attempt;trials;scopes;orders;rows=new Map;scope="all";order="score";cell=null;plan=null;bench=null;show(e,t,i){this.cell=e,this.plan=t,this.bench=i,this.render()}take(e){this.trials.take(e),this.trials.show(this.cell)}get target(){return{layer:this.cell.layer,position:this.cell.position,scope:this.scope}}render(){let e=this.cell,t=this.plan;if(c(this.node,"data-wb-cell",e?`${e.layer},${e.position}`:void 0),this.facts.replaceChildren(),this.trials.show(e),this.tools.hidden=!e?.experts.length,this.skip.hidden=!e,!e||!t){this.title.textContent=n("Inspector"),this.note.textContent=n("Run a prompt, then click a cell of the map to see how its token was routed."),this.list.replaceChildren(),this.rows.clear();return}this.title.replaceChildren(n("Layer %1",e.layer),r("span",{class:"wb-quiet",text:" \xB7 "}),n("token %1",e.position)," ",r("code",{class:"wb-token",text:y(e.text)})),this.fact(n("margin"),e.margin,n("k-th best score minus the next: how close the choice was")),this.fact(n("entropy"),e.entropy,n("of the routing distribution, in nats")),this.fact(n("influence"),e.facts.influence,n("1 \u2212 cosine of what enters and leaves the block")),e.experts.length||(this.fact(n("attention"),e.facts.attn_norm,n("norm of what attention adds, relative to the stream")),this.fact(n("MLP"),e.facts.mlp_norm,n("norm of what the MLP adds, relative to the stream")),this.fact(n("zeros"),e.facts.zero_share,n("share of activations that are exactly zero")));let i=this.bench?.refused[String(e.layer)];this.attempt.disabled=i!==void 0||!e.experts.some(s=>s.chosen),this.renderSkip(e,t),this.renderNote(e,i),this.renderRows(e,t,i!==void 0)}fact(e,t,i){t!=null&&this.facts.append(r("div",{title:i},r("dt",{text:e}),r("dd",{text:m(t)})))}renderSkip(e,t){let i=R(t,["skip.block"],{...this.target,scope:"all"})>=0;this.skip.textContent=i?n("Unskip block"):n("Skip block"),this.skip.title=i?n("Run block %1 again",e.layer):n("Leave block %1 out for all tokens",e.layer),c(this.skip,"aria-pressed",String(i))}renderNote(e,t){e.skipped?this.note.textContent=n("This block is skipped: nothing in it runs."):t!==void 0?this.note.textContent=n("This layer can be read but not re-routed: %1",t):e.experts.length?this.scope==="all"?this.note.textContent=n("Ban and force hold in layer %1 for all tokens. %2 of %3 experts are chosen per token.",e.layer,e.choices,e.experts.length):this.note.textContent=n("Ban and force hold in layer %1 for token %2 alone. %3 of %4 experts are chosen per token.",e.layer,e.position,e.choices,e.experts.length):this.note.textContent=n("This layer has no router: every token passes through the same MLP.")}renderRows(e,t,i){let s=d=>d.base??d.score??-1/0,o=[...e.experts].sort((d,u)=>this.order==="score"&&s(u)-s(d)||d.expert-u.expert),l=e.experts.map(d=>d.score??d.base).filter(d=>d!==null),p=Math.max(...l),h=Math.min(0,...l);for(let d of this.rows.keys())d>=o.length&&(this.rows.get(d).node.remove(),this.rows.delete(d));o.forEach((d,u)=>{let f=this.rows.get(d.expert)??this.makeRow(d.expert);this.fill(f,d,t,h,p,i),this.list.children[u]!==f.node&&this.list.insertBefore(f.node,this.list.children[u]??null)})}makeRow(e){let t=r("div",{class:"wb-bar"}),i=r("span",{class:"wb-number"}),s=r("span",{class:"wb-number wb-weight"}),o=r("span",{class:"wb-badge"}),l=g=>()=>{this.plan&&this.cell&&this.send(se(this.plan,g,this.target,e))},p=b(n("Ban"),"ban","",l("reroute.ban")),h=b(n("Force"),"force","",l("reroute.force")),d=b("+1","boost","",()=>{});d.addEventListener("click",g=>{this.plan&&this.cell&&this.send(re(this.plan,this.target,e,g.shiftKey?-1:1))});let u=r("span",{class:"wb-swatch"});u.style.background=C(L(e));let w={node:r("div",{class:"wb-expert",attrs:{role:"listitem","data-wb-expert":String(e)}},u,r("span",{class:"wb-expert-id",text:String(e)}),r("div",{class:"wb-track"},t,i),s,o,p,h,d),bar:t,score:i,weight:s,badge:o,ban:p,force:h,boost:d};return this.rows.set(e,w),w}fill(e,t,i,s,o,l){let p=t.score??t.base,h=p===null||o===s?0:(p-s)/(o-s);e.bar.style.width=`${(100*h).toFixed(1)}%`,e.score.textContent=p===null?"\u2013":m(p),e.score.title=t.base===null?"":n("base %1",m(t.base)),e.weight.textContent=t.weight===null?"":m(t.weight,3),e.weight.title=t.weight===null?"":n("combine weight");let d={"":"",chosen:n("chosen"),native:n("native"),banned:n("banned"),forced:n("forced")};e.badge.textContent=d[t.state],e.badge.title=t.state==="native"?n("chosen in the base run, not any more"):"",c(e.node,"data-wb-state",t.state),c(e.node,"data-wb-chosen",String(t.chosen)),c(e.node,"data-wb-native",String(t.native));let u=R(i,["reroute.ban","reroute.force"],this.target,t.expert),f=u<0?"":i.edits[u].kind,w=this.scope==="all"?n("all tokens"):n("this token");e.ban.textContent=f==="reroute.ban"?n("Unban"):n("Ban"),e.force.textContent=f==="reroute.force"?n("Unforce"):n("Force");let g=R(i,["reroute.bias"],this.target,t.expert),B=g<0?null:i.edits[g].delta;e.boost.disabled=l,c(e.boost,"aria-pressed",String(B!==null)),c(e.boost,"aria-label",n("Boost expert %1",t.expert)),e.boost.title=n("Raise the logit of expert %1 by 1 (Shift: lower) \xB7 %2 \xB7 now %3",t.expert,w,S(B??0,2));for(let[M,k]of[[e.ban,f==="reroute.ban"],[e.force,f==="reroute.force"]])M.disabled=l,c(M,"aria-pressed",String(k)),M.title=`${M.textContent} \xB7 ${n("expert %1",t.expert)} \xB7 ${w}`,c(M,"aria-label",n("%1 expert %2",M.textContent,t.expert))}};function T(a,e,t){let i=r("select",{class:"wb-select",attrs:{"aria-label":a}});return i.append(...e.map(([s,o])=>r("option",{text:o,attrs:{value:s}}))),i.addEventListener("change",()=>t(i.value)),i}var v=34,pe=Math.PI/3.4,de=9,he=34,ye=44,ke=3,D=class{constructor(e){this.onSelect=e;this.canvas=r("canvas",{class:"wb-map-canvas",attrs:{tabindex:"0",role:"application","aria-label":n("Routing map, empty")},on:{keydown:t=>this.key(t),pointermove:t=>this.hover(this.placeAt(t)),pointerleave:()=>this.hover(null),click:t=>this.press(this.placeAt(t)),focus:()=>this.draw(),blur:()=>this.draw()}}),this.context=this.canvas.getContext("2d"),this.spacer=r("div",{class:"wb-map-spacer"}),this.scroller=r("div",{class:"wb-map-scroll",on:{scroll:()=>this.draw(),wheel:t=>this.wheel(t)}},this.spacer),this.spacer.append(this.canvas),this.readout=r("div",{class:"wb-readout",attrs:{"aria-hidden":"true"}}),this.spoken=r("div",{class:"wb-hidden",attrs:{role:"status","aria-live":"polite"}}),this.node=r("div",{class:"wb-map",attrs:{"data-wb-map":""}},this.scroller,this.readout,this.spoken),new ResizeObserver(()=>this.layout()).observe(this.scroller)}node;scroller;spacer;canvas;context;readout;spoken;data=null;colour="expert";cursor={layer:0,position:0};selected=null;hovered=null;zoom=1;width=12;height=20;head=30;frame=0;show(e){let t=e?.tokens!==this.data?.tokens;this.data=e,e&&t&&(this.zoom=1,this.scroller.scrollLeft=0),e&&(this.cursor={layer:Math.min(this.cursor.layer,e.layers-1),position:Math.min(this.cursor.position,e.tokens-1)}),c(this.node,"data-wb-tokens",e?String(e.tokens):void 0),c(this.node,"data-wb-layers",e?String(e.layers):void 0),this.layout(),this.tell()}colourBy(e){this.colour=e,c(this.node,"data-wb-color",e),this.draw(),this.tell()}select(e){this.selected=e,e&&(this.cursor={...e},this.reveal(e.position)),this.draw(),this.tell()}zoomBy(e){let t=(this.scroller.scrollLeft+this.scroller.clientWidth/2-v)/this.width;this.zoom=e===0?1:Math.min(40,Math.max(.2,this.zoom*e)),this.layout(),this.scroller.scrollLeft=t*this.width+v-this.scroller.clientWidth/2}draw(){this.frame===0&&(this.frame=requestAnimationFrame(()=>{this.frame=0,this.paint()}))}layout(){let e=this.scroller.clientWidth;if(!this.data||e===0){this.draw();return}let t=this.data,{tokens:i,layers:s}=t,o=(e-v-he)/i;this.width=Math.max(ke,Math.min(ye,Math.max(13,o))*this.zoom),this.height=s<=12?24:s<=24?18:s<=40?13:9;let l=t.texts.reduce((d,u)=>Math.max(d,ce(u).length),0);this.head=Math.round(18+6.5*l*Math.sin(pe));let p=Math.ceil(v+i*this.width+he),h=this.head+s*this.height+2;this.spacer.style.width=`${p}px`,this.spacer.style.height=`${h}px`,this.canvas.style.width=`${Math.min(e,p)}px`,this.canvas.style.height=`${h}px`,this.draw()}reveal(e){let t=v+e*this.width,{scrollLeft:i,clientWidth:s}=this.scroller;t-v<i?this.scroller.scrollLeft=t-v:t+this.width>i+s&&(this.scroller.scrollLeft=t+this.width-s+2)}paint(){let e=window.devicePixelRatio||1,t=this.canvas.clientWidth,i=this.canvas.clientHeight;this.canvas.width=Math.round(t*e),this.canvas.height=Math.round(i*e);let s=this.context;s.setTransform(e,0,0,e,0,0),s.clearRect(0,0,t,i);let o=this.data;if(!o)return;let l=getComputedStyle(this.node),p=l.getPropertyValue("--wb-paper").trim()||"#fff",h=l.getPropertyValue("--wb-ink").trim()||"#000",d=l.getPropertyValue("--wb-ink-2").trim()||"#666",u=l.getPropertyValue("--wb-accent").trim()||"#1976d2",f=l.getPropertyValue("--wb-cell").trim()||"#eee",w=l.fontFamily,g=this.scroller.scrollLeft,B=Math.max(0,Math.floor((g-v)/this.width)),M=Math.min(o.tokens-1,Math.ceil((g+t-v)/this.width)),k=this.width>=8?1:0,ue=Ee(f);s.save(),s.beginPath(),s.rect(v,0,t-v,i),s.clip();let V=this.colour==="expert"&&this.width>=17&&this.height>=13,me=this.colour!=="expert"&&this.colour!=="flip"&&this.width>=34&&this.height>=18;s.textAlign="center",s.textBaseline="middle";for(let x=0;x<o.layers;x++){let H=this.head+x*this.height;for(let E=B;E<=M;E++){let P=v+E*this.width-g,q=o.fill(this.colour,x,E,ue);s.fillStyle=q?C(q):f,s.fillRect(P,H,this.width-k,this.height-k);let U=q?le(q):h;if(q&&(V||me)){let ee=o.value(this.colour,x,E);s.fillStyle=U,s.font=`${V?11:10}px ${w}`,s.fillText(V?String(ee):m(ee,2),P+(this.width-k)/2,H+(this.height-k)/2+.5)}o.skipped(x,E)?Me(s,P,H,this.width-k,this.height-k,d):(o.wasEdited(x,E)&&Te(s,P,H,Math.min(7,this.width-k),U),o.flipped(x,E)&&this.colour!=="flip"&&this.width>=8&&(s.fillStyle=U,s.fillRect(P+2,H+this.height-k-4,this.width-k-4,2)))}}this.paintHead(s,o,B,M,g,h,d,u,w);let Y=document.activeElement===this.canvas;this.hovered&&this.frameCell(s,this.hovered,g,h,1,[]),this.selected&&(this.frameCell(s,this.selected,g,p,4,[]),this.frameCell(s,this.selected,g,h,2,[])),Y&&(this.frameCell(s,this.cursor,g,p,4,[]),this.frameCell(s,this.cursor,g,u,2,[4,2])),s.restore(),s.font=`11px ${w}`,s.textAlign="right",s.textBaseline="middle";let we=this.height>=11?1:4,Q=this.hovered?.layer??(Y?this.cursor.layer:this.selected?.layer);for(let x=0;x<o.layers;x++)(x%we===0||x===Q)&&(s.fillStyle=x===Q?h:d,s.fillText(String(x),v-7,this.head+(x+.5)*this.height));s.fillStyle=d,s.fillText(n("layer"),v-5,this.head-9)}paintHead(e,t,i,s,o,l,p,h,d){let u=Math.max(1,Math.ceil(11/this.width)),f=this.hovered?.position??this.selected?.position;for(let w=i;w<=s;w++)w%u!==0&&w!==f||(e.save(),e.translate(v+(w+.5)*this.width-o-1,this.head-5),e.rotate(-pe),e.textAlign="left",e.textBaseline="middle",e.font=`${w===f?"600 ":""}11px ${d}`,e.fillStyle=w===this.selected?.position?h:w===f?l:p,e.fillText(ce(t.texts[w]),0,0),e.restore())}frameCell(e,t,i,s,o,l){e.strokeStyle=s,e.lineWidth=o,e.setLineDash(l),e.strokeRect(v+t.position*this.width-i-.5,this.head+t.layer*this.height-.5,this.width,this.height),e.setLineDash([])}placeAt(e){if(!this.data)return null;let t=this.canvas.getBoundingClientRect(),i=Math.floor((e.clientY-t.top-this.head)/this.height),s=Math.floor((e.clientX-t.left-v+this.scroller.scrollLeft)/this.width);return i>=0&&i<this.data.layers&&s>=0&&s<this.data.tokens&&e.clientX-t.left>=v?{layer:i,position:s}:null}hover(e){(e?.layer!==this.hovered?.layer||e?.position!==this.hovered?.position)&&(this.hovered=e,this.canvas.style.cursor=e?"pointer":"",this.draw(),this.tell())}press(e){e&&(this.cursor=e,this.selected=e,this.draw(),this.onSelect(e))}wheel(e){e.ctrlKey&&(e.preventDefault(),this.zoomBy(e.deltaY<0?1.15:1/1.15))}key(e){if(!this.data||e.ctrlKey||e.metaKey||e.altKey)return;let{tokens:t,layers:i}=this.data,{layer:s,position:o}=this.cursor,p={ArrowLeft:{layer:s,position:o-1},ArrowRight:{layer:s,position:o+1},ArrowUp:{layer:s-1,position:o},ArrowDown:{layer:s+1,position:o},Home:{layer:s,position:0},End:{layer:s,position:t-1},PageUp:{layer:0,position:o},PageDown:{layer:i-1,position:o}}[e.key];if(p)this.cursor={layer:Math.min(i-1,Math.max(0,p.layer)),position:Math.min(t-1,Math.max(0,p.position))},this.reveal(this.cursor.position),this.draw(),this.tell(),this.spoken.textContent=this.readout.textContent;else if(e.key==="Enter"||e.key===" ")this.press({...this.cursor});else if(e.key==="+"||e.key==="=")this.zoomBy(1.25);else if(e.key==="-")this.zoomBy(.8);else if(e.key==="0")this.zoomBy(0);else return;e.preventDefault(),e.stopPropagation()}tell(){let e=this.data,t=document.activeElement===this.canvas,i=this.hovered??(t?this.cursor:this.selected);if(!e||!i||i.position>=e.tokens){this.readout.textContent="";return}this.readout.textContent=Ce(e,i),this.canvas.setAttribute("aria-label",n("Routing map, %1 tokens, %2 layers, arrow keys move, Enter inspects.",e.tokens,e.layers))}};function ce(a){let e=[...y(a.replace(/^ (?=.)/,""))];return e.length>de?`${e.slice(0,de-1).join("")}\u2026`:e.join("")}function Ce(a,{layer:e,position:t}){let i=[n("layer %1",e),n("token %1 \u201C%2\u201D",t,y(a.texts[t]??""))];if(a.skipped(e,t))return i.push(n("block skipped")),i.join(" \xB7 ");let s=a.chosen(e,t);return s.length&&i.push(n("experts %1",s.map(({expert:o,weight:l})=>`${o} (${m(l,3)})`).join(", ")),n("margin %1",m(a.value("margin",e,t),3)),n("entropy %1 nats",m(a.value("entropy",e,t),3))),i.push(n("influence %1",m(a.value("influence",e,t),3))),a.wasEdited(e,t)&&i.push(n("re-routed by the plan")),a.flipped(e,t)&&i.push(n("flipped against base")),i.join(" \xB7 ")}function Me(a,e,t,i,s,o){a.save(),a.beginPath(),a.rect(e,t,i,s),a.clip(),a.strokeStyle=o,a.lineWidth=1,a.beginPath();for(let l=-s;l<i;l+=5)a.moveTo(e+l,t+s),a.lineTo(e+l+s,t);a.stroke(),a.restore()}function Te(a,e,t,i,s){a.fillStyle=s,a.beginPath(),a.moveTo(e,t),a.lineTo(e+i,t),a.lineTo(e,t+i),a.fill()}function Ee(a){let e=document.createElement("canvas").getContext("2d");e.fillStyle=a,e.fillRect(0,0,1,1);let[t,i,s]=e.getImageData(0,0,1,1).data;return[t,i,s]}var Le={uint8:Uint8Array,int16:Int16Array,float32:Float32Array},j=class{run;base;edited;texts;layers;tokens;experts;choices;arrays=new Map;ranges=new Map;constructor(e,t){this.run=e.run,this.base=e.base,this.edited=e.edited,this.texts=e.texts,this.layers=e.layers.length,this.tokens=e.texts.length,this.experts=e.experts,this.choices=e.arrays.find(i=>i.name==="experts")?.shape[0]??0,e.arrays.forEach((i,s)=>{let o=t[s],l=o.buffer.slice(o.byteOffset,o.byteOffset+o.byteLength);this.arrays.set(i.name,new Le[i.dtype](l))})}get colours(){return this.choices>0?["expert","weight","margin","entropy","flip","influence"]:["influence"]}at(e,t,i,s=0){return this.arrays.get(e)?.[(s*this.layers+t)*this.tokens+i]??NaN}chosen(e,t){let i=[];for(let s=0;s<this.choices;s++){let o=this.at("experts",e,t,s);o>=0&&i.push({expert:o,weight:this.at("weights",e,t,s)})}return i}wasEdited(e,t){return this.at("edited",e,t)===1}flipped(e,t){return this.at("flip",e,t)===1}skipped(e,t){return this.at("skipped",e,t)===1}value(e,t,i){if(this.skipped(t,i))return NaN;switch(e){case"expert":{let s=this.at("experts",t,i);return s<0?NaN:s}case"weight":return this.at("weights",t,i);case"flip":return this.at("experts",t,i)<0?NaN:this.at("flip",t,i);default:return this.at(e,t,i)}}range(e){let t=this.ranges.get(e);if(!t){t=[1/0,-1/0];for(let i=0;i<this.layers;i++)for(let s=0;s<this.tokens;s++){let o=this.value(e,i,s);Number.isFinite(o)&&(t=[Math.min(t[0],o),Math.max(t[1],o)])}t=t[0]>t[1]?[0,1]:t,this.ranges.set(e,t)}return t}fill(e,t,i,s){let o=this.value(e,t,i);if(!Number.isFinite(o))return null;if(e==="expert")return L(o);if(e==="flip")return o===1?[213,94,0]:s;let[l,p]=this.range(e);return $(p>l?(o-l)/(p-l):.5)}};var Re=32,_=class{node=r("div",{class:"wb-legend"});show(e,t){if(!e){this.node.replaceChildren();return}let i=t==="expert"?this.experts(e):t==="flip"?this.flips(e):this.scale(e,t),s=[];e.edited&&(e.choices>0&&s.push(["wb-mark-edited",n("re-routed by the plan")]),e.choices>0&&t!=="flip"&&s.push(["wb-mark-flip",n("flipped against base")]),s.push(["wb-mark-skip",n("skipped")])),i.push(...s.map(([o,l])=>r("span",{class:"wb-key"},r("span",{class:`wb-mark ${o}`}),l))),this.node.replaceChildren(...i)}experts(e){let t=Math.min(Re,e.experts),i=[r("span",{class:"wb-quiet",text:n("expert of the greatest weight")})];for(let s=0;s<t;s++){let o=r("span",{class:"wb-swatch"});o.style.background=C(L(s)),i.push(r("span",{class:"wb-key"},o,String(s)))}return e.experts>t&&i.push(r("span",{class:"wb-quiet",text:n("and so on to %1",e.experts-1)})),i}flips(e){if(!e.edited)return[r("span",{class:"wb-quiet",text:n("No edited run yet: ban or force an expert to see which choices flip.")})];let t=0,i=0;for(let o=0;o<e.layers;o++)for(let l=0;l<e.tokens;l++)t+=e.flipped(o,l)?1:0,i+=e.chosen(o,l).length?1:0;let s=r("span",{class:"wb-swatch"});return s.style.background=C([213,94,0]),[r("span",{class:"wb-key"},s,n("%1 of %2 choices differ from the base run",t,i))]}scale(e,t){let[i,s]=e.range(t),o=r("span",{class:"wb-gradient"});o.style.background=`linear-gradient(to right, ${[0,.2,.4,.6,.8,1].map(p=>C($(p))).join(", ")})`;let l={weight:n("combine weight of the first expert"),margin:n("k-th best score minus the next; low: nearly went elsewhere"),entropy:n("entropy of the routing distribution in nats"),influence:n("1 \u2212 cosine of what enters and leaves the block")};return[r("span",{class:"wb-number",text:m(i,3)}),o,r("span",{class:"wb-number",text:m(s,3)}),r("span",{class:"wb-quiet",text:l[t]??""})]}};var Se=256,I=class{node;holder=r("div",{class:"wb-map-table",attrs:{tabindex:"0",role:"region","aria-label":n("Routing map as a table")}});data=null;colour="expert";constructor(){this.node=r("details",{class:"wb-details"},r("summary",{text:n("The map as a table")}),this.holder),this.node.addEventListener("toggle",()=>this.render())}show(e,t){this.data=e,this.colour=t,this.render()}render(){let e=this.data;if(!this.node.open||!e){this.holder.replaceChildren();return}let t=Math.min(Se,e.tokens),i=[...Array(t).keys()],s=r("tr",{},r("th",{text:n("layer"),attrs:{scope:"col"}}));s.append(...i.map(l=>r("th",{attrs:{scope:"col"}},r("code",{text:y(e.texts[l])}))));let o=[...Array(e.layers).keys()].map(l=>{let p=r("tr",{},r("th",{text:String(l),attrs:{scope:"row"}}));return p.append(...i.map(h=>r("td",{class:"wb-number",text:this.text(e,l,h)}))),p});this.holder.replaceChildren(r("table",{class:"wb-table"},r("caption",{class:"wb-quiet",text:t<e.tokens?n("The first %1 of %2 tokens",t,e.tokens):n("All tokens")}),r("thead",{},s),r("tbody",{},...o)))}text(e,t,i){if(e.skipped(t,i))return n("skipped");let s=`${e.wasEdited(t,i)?` ${n("(edited)")}`:""}${e.flipped(t,i)?` ${n("(flipped)")}`:""}`;return this.colour==="expert"?e.chosen(t,i).map(({expert:o})=>o).join(" ")+s:this.colour==="flip"?e.flipped(t,i)?n("flipped"):n("same"):m(e.value(this.colour,t,i),3)+s}};var O=class{constructor(e){this.actions=e;let{compute:t,generate:i}=e;this.generate=b(n("Generate"),"generate",n("Go on token by token until paused"),()=>i(!0)),this.pause=b(n("Pause"),"pause",n("Stop after the token under way"),()=>i(!1)),this.step=b(n("Step"),"step",n("Generate one token"),()=>t({type:"step"})),this.rewind=b(n("Rewind"),"rewind","",()=>{let s=this.state?.selected?.position;s!==void 0&&t({type:"rewind",position:s})}),this.branch=b(n("Branch"),"branch",n("Keep this text and go on in a copy of it"),()=>t({type:"branch"})),this.branches=T(n("Branch in view"),[],s=>t({type:"timeline",index:Number(s)})),this.node=r("section",{class:"wb-card wb-live",attrs:{"aria-label":n("Live generation")}},r("div",{class:"wb-row"},r("h3",{class:"wb-title",text:n("Live")}),this.generate,this.pause,this.step,this.rewind,this.branch,this.branches),this.note,this.texts)}node;generate;pause;step;rewind;branch;branches;note=r("p",{class:"wb-note"});texts=r("div",{class:"wb-live-texts"});columns=new Map;state=null;show(e,t){this.state=e;let i=e?.live??null;this.node.hidden=!e?.base;let s=t?"running":i?i.ended?"ended":"paused":"";c(this.node,"data-wb-live",s),c(this.node,"data-wb-generated",String(i?.edited.length??0)),c(this.node,"data-wb-diverged",i?.diverged===null||!i?void 0:String(i.diverged)),this.generate.hidden=t,this.pause.hidden=!t,this.generate.disabled=this.step.disabled=!!i?.ended,this.step.disabled||=t;let o=e?.selected?.position??-1,l=i?i.prompt_tokens+i.edited.length-1:-1;this.rewind.disabled=t||!i||o<i.prompt_tokens-1||o>=l,this.rewind.title=this.rewind.disabled?n("Select the token that shall be the last one, from the end of the prompt on"):n("Take back what follows token %1",o),this.branch.disabled=t||!i,this.renderBranches(i?.timelines??[],i?.current??0,t),this.renderNote(e,s),this.renderTexts(e)}renderBranches(e,t,i){this.branches.hidden=e.length<2,this.branches.disabled=i,this.branches.replaceChildren(...e.map((s,o)=>r("option",{text:n("branch %1 \xB7 %2 tokens",o+1,s),attrs:{value:String(o)}}))),this.branches.value=String(t)}renderNote(e,t){let i=e?.live,s=[];i?(s.push(n("%1 tokens generated.",i.edited.length)),t==="ended"&&s.push(n("The text has ended: rewind to go on from an earlier token.")),i.pending&&s.push(n("The plan has changed: it acts from the next token on.")),i.diverged!==null?s.push(n("The two texts part at token %1 (\u2260).",i.diverged)):i.base&&s.push(n("The two texts agree so far.")),t==="paused"&&s.push(n("Run goes back to the prompt."))):s.push(n("Generate goes on from the prompt. Edits made meanwhile act from the next token on.")),this.note.textContent=s.join(" ")}renderTexts(e){let t=e?.live,i=[];t?.base?i.push(["base",n("without the plan"),t.base],["edited",n("with the plan"),t.edited]):t&&i.push(["base",n("without a plan"),t.edited]);let s=new Set(i.map(([o])=>o));for(let[o,l]of this.columns)s.has(o)||(l.node.remove(),this.columns.delete(o));for(let[o,l,p]of i){let h=this.columns.get(o)??this.makeColumn(o);h.node.firstElementChild.textContent=l,c(h.text,"aria-label",l),this.fill(h.text,p,t.prompt_tokens,t.diverged,e?.selected?.position)}}makeColumn(e){let t=r("div",{class:"wb-live-text",attrs:{tabindex:"0",role:"group","data-wb-text":e}}),i=r("div",{class:"wb-live-column"},r("div",{class:"wb-quiet"}),t),s={node:i,text:t};return this.columns.set(e,s),this.texts.append(i),s}fill(e,t,i,s,o){let l=t.length>e.childElementCount;for(;e.childElementCount>t.length;)e.lastElementChild.remove();t.forEach((p,h)=>{let d=e.children[h];d||(d=r("span",{class:"wb-chip-token",on:{click:()=>this.actions.select(i+h)}}),e.append(d)),d.getAttribute("data-text")!==p&&(d.textContent=p.replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205",c(d,"data-text",p)),d.title=n("token %1 \u201C%2\u201D",i+h,y(p)),d.classList.toggle("wb-on",i+h===o),d.classList.toggle("wb-diverged",i+h===s)}),l&&(e.scrollTop=e.scrollHeight)}};var F=class{constructor(e){this.ask=e;this.where=T(n("Next token after"),[["last",n("after the last token")],["selected",n("after the selected token")]],i=>{this.follow=i==="selected",this.ask(this.follow?this.selected?.position??null:null)});let t=(i,s)=>r("th",{text:i,title:s,attrs:{scope:"col"}});this.table=r("table",{class:"wb-table",attrs:{"data-wb-next":""}},r("caption",{class:"wb-hidden",text:n("Probability of the next token")}),r("thead",{},r("tr",{},t(n("token"),n("\xB7 is a space, \u23CE a line break")),t(n("base"),n("probability without the plan")),t(n("edited"),n("probability with the plan")),t(n("change"),n("edited minus base")),r("th",{attrs:{"aria-hidden":"true"}}))),this.body),this.node=r("section",{class:"wb-card wb-next",attrs:{"aria-label":n("Next token")}},r("div",{class:"wb-row"},r("h3",{class:"wb-title",text:n("Next token")}),this.where,r("span",{class:"wb-grow"}),this.summary),this.empty,this.table),this.show(null)}node;body=r("tbody");summary=r("span",{class:"wb-quiet"});empty=r("p",{class:"wb-note",text:n("Run a prompt to see what the model would say next.")});table;where;follow=!1;selected=null;moved(e){let t=e?.position!==this.selected?.position;this.selected=e,this.follow&&t&&this.ask(e?.position??null)}show(e){this.empty.hidden=e!==null,this.table.hidden=e===null,c(this.table,"data-wb-position",e?String(e.position):void 0),this.summary.textContent=e?.divergence===null||e?.divergence===void 0?"":n("KL %1 nats",m(e.divergence)),this.summary.title=n("Kullback-Leibler divergence of the edited distribution from the base one");let t=Math.max(1e-12,...(e?.rows??[]).flatMap(i=>[i.base,i.edited??0]));this.body.replaceChildren(...(e?.rows??[]).map(i=>{let s=i.edited===null?null:i.edited-i.base,o=(l,p)=>{let h=r("div",{class:`wb-bar ${p}`});return h.style.width=`${(100*l/t).toFixed(1)}%`,h};return r("tr",{attrs:{"data-wb-token":String(i.token)}},r("th",{attrs:{scope:"row"}},r("code",{class:"wb-token",text:y(i.text)})),r("td",{class:"wb-number",text:m(i.base)}),r("td",{class:"wb-number",text:i.edited===null?"\u2013":m(i.edited)}),r("td",{class:`wb-number ${s===null||s===0?"wb-quiet":s>0?"wb-up":"wb-down"}`,text:s===null?"\u2013":S(s)}),r("td",{class:"wb-bars",attrs:{"aria-hidden":"true"}},o(i.base,"wb-base"),i.edited===null?null:o(i.edited,"wb-edited")))}))}};var K=class{constructor(e,t){this.send=e;this.fail=t;this.undo=b(n("Undo"),"undo",n("Undo the last change of the plan (Ctrl+Z)"),()=>e({type:"undo"})),this.redo=b(n("Redo"),"redo",n("Redo it (Ctrl+Shift+Z)"),()=>e({type:"redo"})),this.clear=b(n("Clear"),"clear",n("Remove every edit"),()=>e({type:"clear"})),this.copy=b(n("Copy Python"),"copy",n("Copy the plan as Python code"),()=>this.toClipboard()),this.save=b(n("Save"),"save",n("Save the plan as a JSON file"),()=>this.download());let i=r("input",{attrs:{type:"file",accept:".json,application/json","aria-label":n("Plan file"),tabindex:"-1",hidden:!0},on:{change:()=>this.upload(i)}}),s=b(n("Load"),"load",n("Load a plan from a JSON file, in the place of this one"),()=>i.click());this.empty.textContent=n("No edits: the model routes as it was trained to. Ban or force an expert to change its mind."),this.node=r("section",{class:"wb-card wb-plan",attrs:{"aria-label":n("Plan")}},r("div",{class:"wb-row"},r("h3",{class:"wb-title",text:n("Plan")}),this.hash,r("span",{class:"wb-grow"}),this.undo,this.redo,this.clear),r("div",{class:"wb-row wb-plan-files"},this.copy,this.save,s,i),r("div",{class:"wb-plan-body",attrs:{tabindex:"0",role:"group","aria-label":n("Edits")}},this.empty,this.warnings,this.list)),this.show(null)}node;list=r("ol",{class:"wb-edits"});empty=r("p",{class:"wb-note"});warnings=r("div",{class:"wb-warnings"});hash=r("code",{class:"wb-quiet wb-hash"});undo;redo;clear;copy;save;plan=null;show(e){this.plan=e,this.copy.disabled=this.save.disabled=!e?.edits.length,c(this.node,"data-wb-plan",e?.hash??""),this.hash.textContent=e?.edits.length?e.hash.slice(0,8):"",this.hash.title=e?n("Hash of the plan: %1",e.hash):"",this.undo.disabled=!e?.undo,this.redo.disabled=!e?.redo,this.clear.disabled=!e?.edits.length,this.empty.hidden=!!e?.edits.length,this.list.replaceChildren(...(e?.edits??[]).map((t,i)=>{let s=e.version,o=r("input",{attrs:{type:"checkbox","aria-label":n("Enabled: %1",t.text)},on:{change:()=>this.send({type:"enable",version:s,index:i,enabled:o.checked})}});o.checked=t.enabled;let l=e.edits.length-1,p=(d,u,f,w)=>{let g=b(d,u,w,()=>this.send({type:"move",version:s,index:i,to:f}));return c(g,"aria-label",w),g.disabled=f<0||f>l,g},h=b("\xD7","remove",n("Remove: %1",t.text),()=>this.send({type:"remove",version:s,index:i}));return c(h,"aria-label",n("Remove: %1",t.text)),r("li",{attrs:{"data-wb-edit":t.kind,"data-wb-enabled":String(t.enabled)}},r("label",{class:"wb-edit"},o,r("span",{text:t.text})),l?p("\u2191","up",i-1,n("Earlier: %1",t.text)):null,l?p("\u2193","down",i+1,n("Later: %1",t.text)):null,h)})),this.warnings.replaceChildren(...(e?.warnings??[]).map(t=>r("p",{class:"wb-warning",text:t,attrs:{role:"status"}})))}async toClipboard(){try{await navigator.clipboard.writeText(`import workbench as wb

plan = ${this.plan?.python??""}
`),this.copy.textContent=n("Copied"),window.setTimeout(()=>this.copy.textContent=n("Copy Python"),1500)}catch{this.fail(n("The browser does not let this page write to the clipboard."),n("Save the plan as a file instead."))}}download(){let e=URL.createObjectURL(new Blob([this.plan?.text??""],{type:"application/json"}));r("a",{attrs:{href:e,download:`plan-${this.plan?.hash.slice(0,8)??""}.json`}}).click(),URL.revokeObjectURL(e)}async upload(e){let t=e.files?.[0];t&&this.send({type:"load",plan:await t.text()}),e.value=""}};var Be="The capital of France is",W=class{node;map;legend=new _;table=new I;inspector;planList;next;live;prompt;runButton;status=r("span",{class:"wb-status",attrs:{role:"status"}});model=r("div",{class:"wb-model"});picker;source;openButton;errors=r("div",{class:"wb-errors"});strip=r("div",{class:"wb-strip",attrs:{"aria-label":n("Tokens"),role:"group"}});runLabel=r("span",{class:"wb-quiet wb-run"});colours;welcome;body;channel=null;options=null;seq=0;pending=new Map;state=null;data=null;cell=null;colour="expert";kernelBusy=null;asked=-1;opened;resume=null;generating=!1;sideButton;constructor(){let e=i=>this.send("control",i);this.map=new D(i=>this.select(i));let t=i=>this.send("compute",i);this.inspector=new N(e,t),this.planList=new K(e,(i,s)=>this.fail(i,s)),this.live=new O({compute:t,generate:i=>this.generate(i),select:i=>this.select({layer:this.state?.selected?.layer??0,position:i})}),this.sideButton=b(n("Show base"),"side","",()=>this.flip()),this.next=new F(i=>e({type:"next",position:i})),this.prompt=r("textarea",{class:"wb-input wb-prompt",attrs:{"data-wb-prompt":"",rows:"2",spellcheck:"false","aria-label":n("Prompt"),placeholder:n("Type a prompt, for instance: %1",Be)},on:{keydown:i=>this.promptKey(i),input:()=>this.grow()}}),this.runButton=b(n("Run"),"run",n("Run the prompt (Enter; Shift+Enter for a new line)"),()=>this.run()),this.runButton.classList.add("wb-primary"),this.picker=T(n("Bench"),[],i=>{this.generate(!1),e({type:"use",key:i})}),this.source=r("input",{class:"wb-input",attrs:{"aria-label":n("Model to open"),placeholder:n("folder or hub id; empty: the demo model"),spellcheck:"false",autocomplete:"off"},on:{keydown:i=>{i.key==="Enter"&&this.open(this.source.value.trim()||null)}}}),this.openButton=b(n("Open"),"open",n("Open this model in the kernel"),()=>this.open(this.source.value.trim()||null)),this.colours=T(n("Colour by"),[],i=>this.colourBy(i)),this.welcome=r("section",{class:"wb-card wb-welcome"}),this.body=this.layout(),this.node=r("div",{class:"wb-panel",attrs:{"data-wb-panel":"","data-wb-busy":"true"},on:{keydown:i=>this.key(i)}},r("div",{class:"wb-head"},this.model,this.picker,r("span",{class:"wb-grow"}),r("div",{class:"wb-open"},this.source,this.openButton)),this.errors,this.welcome,this.body),this.render()}connect(e,t){this.channel=e,this.options=t,this.pending.clear(),this.asked=-1,this.opened=void 0,this.kernelBusy=null,this.generating=!1,this.resume=this.memory(),e.listen((i,s)=>this.receive(i,s)),this.send("control",{type:"hello",protocol:2,version:t.version})}disconnect(e){this.resume=this.memory(),this.channel=null,this.generating=!1,this.kernelBusy=e,this.renderBusy()}watch(e){e||this.generate(!1),this.channel&&this.send("control",{type:"watch",visible:e})}recall(e){this.resume=e,this.prompt.value=e.prompt}restyle(){this.map.draw(),this.legend.show(this.data,this.colour)}focus(){this.prompt.focus()}fail(e,t,i){let s=()=>o.remove(),o=r("div",{class:"wb-error",attrs:{role:"alert","data-wb-error":e}},r("span",{class:"wb-error-mark",text:"!",attrs:{"aria-hidden":"true"}}),r("div",{class:"wb-grow"},r("strong",{text:e})," ",r("span",{text:t})),i?b(n("Try again"),"retry",n("Try again"),()=>{s(),i()}):null,b("\xD7","dismiss",n("Dismiss"),s));o.lastElementChild.setAttribute("aria-label",n("Dismiss")),this.errors.replaceChildren(o)}layout(){let e=(i,s,o,l)=>{let p=b(i,s,o,()=>this.map.zoomBy(l));return p.setAttribute("aria-label",o),p},t=r("section",{class:"wb-card wb-map-card",attrs:{"aria-label":n("Routing map")}},r("div",{class:"wb-row"},r("h3",{class:"wb-title",text:n("Routing map")}),r("label",{class:"wb-label"},n("Colour")," ",this.colours),e("\u2212","zoom-out",n("Zoom out (\u2212)"),.8),e("\u2194","fit",n("Fit to width (0)"),0),e("+","zoom-in",n("Zoom in (+)"),1.25),this.sideButton,r("span",{class:"wb-grow"}),this.runLabel),this.map.node,this.legend.node,this.table.node);return r("div",{class:"wb-body"},r("div",{class:"wb-left"},r("section",{class:"wb-card",attrs:{"aria-label":n("Prompt")}},r("div",{class:"wb-row wb-prompt-row"},this.prompt,this.runButton),r("div",{class:"wb-row"},this.strip,this.status)),this.live.node,t,this.next.node),r("div",{class:"wb-right"},this.planList.node,this.inspector.node))}send(e,t){if(!this.channel){this.fail(n("The panel has no kernel."),n("Wait for it to come back, or start it from the Kernel menu."));return}let i=++this.seq;t.type!=="watch"&&t.type!=="seen"&&this.pending.set(i,t.type),this.channel.send(e,{...t,seq:i}),this.renderBusy()}receive(e,t){switch(e.type){case"benches":this.showBenches(e.benches,e.current);break;case"state":this.takeState(e);break;case"map":this.data=new j(e,t),this.send("control",{type:"seen"}),this.renderMap();break;case"cell":this.cell=e,this.renderCell();break;case"next":this.showNext(e);break;case"busy":this.kernelBusy=e.what;break;case"trials":this.inspector.take(e);break;case"done":this.finished(e.seq);break;case"error":this.showFailure(e);break}this.renderBusy()}showFailure(e){this.fail(e.problem,e.remedy),this.generating=!1,this.live.show(this.state,!1),e.seq!==null&&this.pending.get(e.seq)==="open"&&(this.opened=void 0,this.render())}finished(e){let t=this.pending.get(e);this.pending.delete(e),t==="step"&&this.generating&&(this.state?.live?.ended?this.generate(!1):requestAnimationFrame(()=>{this.generating&&this.send("compute",{type:"step"})}))}generate(e){e&&!this.generating&&(this.errors.replaceChildren(),this.send("compute",{type:"step"})),this.generating=e&&this.channel!==null,this.live.show(this.state,this.generating),this.renderBusy()}flip(){this.state?.edited&&this.data&&this.send("control",{type:"side",base:this.data.edited})}showNext(e){this.next.show(e)}showBenches(e,t){if(this.picker.replaceChildren(...e.map(i=>r("option",{text:i.variables.length?`${i.variables.join(", ")} \xB7 ${X(i.name)}`:X(i.name),attrs:{value:i.key}}))),this.picker.hidden=e.length<2,t)this.picker.value=t;else if(this.clear(),this.options?.openDemo&&this.opened===void 0&&!this.errors.childElementCount){let i=this.resume;this.open(i?.model??null,i)}this.render()}clear(){this.state=null,this.data=null,this.cell=null,this.next.show(null),this.inspector.take(null)}takeState(e){let t=e.bench.key!==this.state?.bench.key;t&&(this.clear(),(e.prompt||!this.prompt.value)&&(this.prompt.value=e.prompt)),this.state=e,e.stale&&this.asked!==e.plan.version&&(this.asked=e.plan.version,this.send("compute",{type:"recompute"}));let i=this.memory();i&&this.options?.remember?.(i),this.next.moved(e.selected),t?(this.render(),this.grow()):this.renderState()}memory(){return this.state?{model:this.opened??this.resume?.model??null,prompt:this.state.prompt,plan:this.state.plan.text}:this.resume}open(e,t=null){this.opened=e,this.generating=!1,this.errors.replaceChildren();let i=t?.prompt?{prompt:t.prompt,plan:t.plan}:{prompt:"",plan:null};this.send("compute",{type:"open",model:e,...i})}run(){this.generating=!1,this.inspector.take(null),this.errors.replaceChildren(),this.send("compute",{type:"run",prompt:this.prompt.value})}select(e){this.renderStrip(e.position),this.send("control",{type:"select",...e})}colourBy(e){this.colour=e,this.colours.value=e,this.map.colourBy(e),this.legend.show(this.data,e),this.table.show(this.data,e)}promptKey(e){e.key==="Enter"&&!e.shiftKey&&!e.isComposing&&(e.preventDefault(),e.stopPropagation(),this.run())}key(e){let t=e.target instanceof HTMLTextAreaElement||e.target instanceof HTMLInputElement,i=e.target instanceof HTMLInputElement&&e.target.type==="checkbox";(e.ctrlKey||e.metaKey)&&e.key.toLowerCase()==="z"&&(!t||i)&&(e.preventDefault(),e.stopPropagation(),this.send("control",{type:e.shiftKey?"redo":"undo"})),!e.ctrlKey&&!e.metaKey&&!e.altKey&&!e.shiftKey&&e.key.toLowerCase()==="b"&&!(t&&!i)&&!(e.target instanceof HTMLSelectElement)&&(e.preventDefault(),e.stopPropagation(),this.flip())}grow(){this.prompt.style.height="auto",this.prompt.style.height=`${Math.min(160,this.prompt.scrollHeight+2)}px`}render(){this.body.hidden=this.state===null,this.renderWelcome(),this.renderState(),this.renderMap(),this.renderCell(),this.renderBusy()}renderWelcome(){this.welcome.hidden=this.state!==null;let e=[...this.pending.values()].includes("open")||this.options===null;this.welcome.replaceChildren(...e?[r("h3",{class:"wb-title",text:n("Opening a model\u2026")}),r("p",{class:"wb-note",text:n("The first time this takes a few seconds: the kernel loads torch and the weights.")})]:[r("h3",{class:"wb-title",text:n("No bench in this kernel yet")}),...this.options?.openDemo?[]:[r("p",{},n("Run this in a cell of the notebook, and it appears here:")),r("pre",{class:"wb-code",text:`import workbench as wb
bench = wb.open()`})],r("p",{},n("To open a model from here, name it in the field above (a local folder or a hub id; empty for the demo model) and press Open."))])}renderState(){let e=this.state;this.planList.show(e?.plan??null),this.live.show(e,this.generating),this.renderSide(),this.inspector.show(this.cell,e?.plan??null,e?.bench??null);let t=e?.bench,i=t?.moe_layers.length?n("%1 layers \xB7 %2 experts, %3 per token",t.layers,t.experts,t.top_k):n("%1 layers \xB7 dense",t?.layers);this.model.replaceChildren(...t?[r("strong",{class:"wb-name",text:X(t.name),title:t.name}),r("span",{class:"wb-quiet",text:`${t.model_type} \xB7 ${i}`}),r("span",{class:"wb-chip",text:t.isa?`${t.kernels} \xB7 ${t.isa}`:t.kernels,title:n("kernel backend in use")})]:[r("strong",{text:n("Workbench")})]);let s=e?.edited??e?.base;c(this.runLabel,"data-wb-run",s?.id),c(this.runLabel,"data-wb-base",e?.base?.id),this.runLabel.textContent=s?e?.edited?n("edited %1",s.id):n("base %1",s.id):"",this.runLabel.title=e?.edited&&e.base?n("run of the plan; the base run is %1",e.base.id):n("run without a plan"),this.map.select(e?.selected??null),this.renderStrip(e?.selected?.position)}renderMap(){let e=this.data?.colours??["expert"];e.includes(this.colour)||(this.colour=e[0]);let t={expert:n("chosen expert"),weight:n("weight of the first expert"),margin:n("margin"),entropy:n("entropy"),flip:n("flip against base"),influence:n("block influence")};this.colours.replaceChildren(...e.map(i=>r("option",{text:t[i],attrs:{value:i}}))),this.map.show(this.data),this.renderSide(),this.colourBy(this.colour),this.map.select(this.state?.selected??null),this.renderStrip(this.state?.selected?.position)}renderSide(){let e=!this.data?.edited;this.sideButton.disabled=!this.state?.edited,this.sideButton.textContent=e&&this.state?.edited?n("Show edited"):n("Show base"),this.sideButton.title=n("Flip the map between base and edited (B)"),c(this.map.node,"data-wb-side",e?"base":"edited")}renderCell(){this.inspector.show(this.cell,this.state?.plan??null,this.state?.bench??null)}renderStrip(e){let t=this.data?.texts??[];(this.strip.childElementCount!==t.length||t.some((i,s)=>this.strip.children[s].getAttribute("data-text")!==i))&&this.strip.replaceChildren(...t.map((i,s)=>r("span",{class:"wb-chip-token",text:i.replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205",title:n("token %1 \u201C%2\u201D",s,y(i)),attrs:{"data-text":i},on:{click:()=>this.select({layer:this.state?.selected?.layer??0,position:s})}})));for(let[i,s]of[...this.strip.children].entries())s.classList.toggle("wb-on",i===e)}renderBusy(){let e=[...this.pending.values()],t=this.kernelBusy!==null||this.generating||e.length>0||this.channel===null;c(this.node,"data-wb-busy",String(t));let i=e.some(s=>["run","recompute","open","step","try"].includes(s));this.status.textContent=this.kernelBusy??(i?n("waiting for the kernel"):""),this.runButton.classList.toggle("wb-working",t&&(i||this.kernelBusy!==null)),this.openButton.disabled=e.includes("open"),this.state===null&&this.renderWelcome()}};function X(a){return/^(\/|[A-Za-z]:\\)/.test(a)?`\u2026/${a.split(/[/\\]/).filter(Boolean).pop()??a}`:a}var be="0.1.0";function He({model:a,el:e}){let t=document.createElement("style");t.textContent=te+ne+ie;let i=new W;i.node.classList.add("wb-inline"),i.node.addEventListener("focusin",p=>{p.target.setAttribute("data-lm-suppress-shortcuts","true")}),e.append(t,i.node);let s=()=>{},o={send:(p,h)=>a.send({lane:p,message:h}),listen:p=>{s=p}},l=(p,h)=>s(p,h);return a.on("msg:custom",l),i.connect(o,{version:be,openDemo:!1}),()=>a.off("msg:custom",l)}var jt={render:He};export{jt as default};
