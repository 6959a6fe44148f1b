var Y=`/* Colours come from JupyterLab's theme; the fallbacks serve hosts that have none. */
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
`;var G=`/* Plan. Of a fixed height, so that the experts below stay under the pointer while edits come and go. */
.wb-plan {
  display: flex;
  flex-direction: column;
  height: 134px;
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
  grid-template-columns: 10px 1.6em minmax(40px, 1fr) 3.7em 4em 3.8em 4.5em;
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

.wb-panel button.wb-button:is([data-wb-action='ban'], [data-wb-action='force']) {
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
`;var Q=`/* Map */
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
`;function s(a,e={},...t){let i=document.createElement(a);e.class&&(i.className=e.class),e.text!==void 0&&(i.textContent=e.text),e.title!==void 0&&(i.title=e.title);for(let[r,o]of Object.entries(e.attrs??{}))c(i,r,o);for(let[r,o]of Object.entries(e.on??{}))i.addEventListener(r,o);return i.append(...t.filter(r=>r!==null)),i}function c(a,e,t){t===void 0||t===!1?a.removeAttribute(e):a.setAttribute(e,t===!0?"":t)}function x(a,e,t,i){return s("button",{class:"wb-button",text:a,title:t,attrs:{type:"button","data-wb-action":e},on:{click:i}})}function y(a){return a.replace(/ /g,"\xB7").replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205"}var K=(a,e)=>JSON.stringify(a)===JSON.stringify(e);function ee(a){return a.scope==="all"?"all":[a.position]}function B(a,e,t,i){let r=o=>o.enabled&&e.includes(o.kind)&&o.phase==="all"&&K(o.layers,[t.layer])&&K(o.tokens,i===void 0?"all":ee(t))&&K(o.experts,i===void 0?[]:[i]);return a.edits.findIndex(r)}function te(a,e,t,i){let r={kind:e,layers:[t.layer],experts:[i],tokens:ee(t)},o=B(a,["reroute.ban","reroute.force"],t,i);return o<0?{type:"add",edit:{...r}}:a.edits[o].kind===e?{type:"remove",version:a.version,index:o}:{type:"replace",version:a.version,index:o,edit:{...r}}}function ie(a,e){let t={kind:"skip.block",layers:[e]},i=B(a,["skip.block"],{layer:e,position:0,scope:"all"});return i<0?{type:"add",edit:{...t}}:{type:"remove",version:a.version,index:i}}var W=[[0,114,178],[230,159,0],[0,158,115],[204,121,167],[86,180,233],[213,94,0],[240,228,66]],re=[0,-.42,.5,-.65,.72];function T(a){let e=W[a%W.length],t=re[Math.floor(a/W.length)%re.length],i=t<0?0:255;return e.map(r=>Math.round(r+(i-r)*Math.abs(t)))}var H=[[68,1,84],[72,36,117],[65,68,135],[53,95,141],[42,120,142],[33,145,140],[34,168,132],[68,191,112],[122,209,81],[189,223,38],[253,231,37]];function z(a){let e=Math.min(1,Math.max(0,a))*(H.length-1),t=Math.min(H.length-2,Math.floor(e)),i=H[t],r=H[t+1];return i.map((o,l)=>Math.round(o+(r[l]-o)*(e-t)))}function M([a,e,t]){return`rgb(${a}, ${e}, ${t})`}function ne(a){let[e,t,i]=a.map(r=>{let o=r/255;return o<=.04045?o/12.92:((o+.055)/1.055)**2.4});return .2126*e+.7152*t+.0722*i>.179?"#000":"#fff"}function b(a,e=4){return Number.isFinite(a)?a!==0&&(Math.abs(a)<1e-4||Math.abs(a)>=1e6)?a.toExponential(e-1):a.toPrecision(e):"\u2013"}function se(a,e=4){return(a>0?"+":a<0?"\u2212":"")+b(Math.abs(a),e)}var fe=(a,...e)=>a.replace(/%(\d)/g,(t,i)=>String(e[Number(i)-1]));var n=(a,...e)=>fe(a,...e);var D=class{constructor(e){this.send=e;this.scopes=E(n("Clicks act on"),[["all",n("all tokens")],["token",n("this token")]],t=>{this.scope=t,this.render()}),this.orders=E(n("Order"),[["score",n("by score")],["id",n("by number")]],t=>{this.order=t,this.render()}),this.skip=x(n("Skip block"),"skip","",()=>{this.cell&&this.plan&&this.send(ie(this.plan,this.cell.layer))}),this.tools=s("div",{class:"wb-tools"},s("label",{class:"wb-label"},n("Act on")," ",this.scopes),s("label",{class:"wb-label"},n("Sort")," ",this.orders)),this.node=s("section",{class:"wb-card wb-inspector",attrs:{"aria-label":n("Cell inspector")}},s("div",{class:"wb-row"},this.title,s("span",{class:"wb-grow"}),this.skip),this.facts,this.tools,this.note,this.list),this.render()}node;title=s("h3",{class:"wb-title"});facts=s("dl",{class:"wb-facts"});note=s("p",{class:"wb-note"});list=s("div",{class:"wb-experts",attrs:{role:"list","aria-label":n("Experts")}});tools;skip;scopes;orders;rows=new Map;scope="all";order="score";cell=null;plan=null;bench=null;show(e,t,i){this.cell=e,this.plan=t,this.bench=i,this.render()}get target(){return{layer:this.cell.layer,position:this.cell.position,scope:this.scope}}render(){let e=this.cell,t=this.plan;if(c(this.node,"data-wb-cell",e?`${e.layer},${e.position}`:void 0),this.facts.replaceChildren(),this.tools.hidden=!e?.experts.length,this.skip.hidden=!e,!e||!t){this.title.textContent=n("Inspector"),this.note.textContent=n("Run a prompt, then click a cell of the map to see how its token was routed."),this.list.replaceChildren(),this.rows.clear();return}this.title.replaceChildren(n("Layer %1",e.layer),s("span",{class:"wb-quiet",text:" \xB7 "}),n("token %1",e.position)," ",s("code",{class:"wb-token",text:y(e.text)})),this.fact(n("margin"),e.margin,n("k-th best score minus the next: how close the choice was")),this.fact(n("entropy"),e.entropy,n("of the routing distribution, in nats")),this.fact(n("influence"),e.facts.influence,n("1 \u2212 cosine of what enters and leaves the block")),e.experts.length||(this.fact(n("attention"),e.facts.attn_norm,n("norm of what attention adds, relative to the stream")),this.fact(n("MLP"),e.facts.mlp_norm,n("norm of what the MLP adds, relative to the stream")),this.fact(n("zeros"),e.facts.zero_share,n("share of activations that are exactly zero")));let i=this.bench?.refused[String(e.layer)];this.renderSkip(e,t),this.renderNote(e,i),this.renderRows(e,t,i!==void 0)}fact(e,t,i){t!=null&&this.facts.append(s("div",{title:i},s("dt",{text:e}),s("dd",{text:b(t)})))}renderSkip(e,t){let i=B(t,["skip.block"],{...this.target,scope:"all"})>=0;this.skip.textContent=i?n("Unskip block"):n("Skip block"),this.skip.title=i?n("Run block %1 again",e.layer):n("Leave block %1 out for all tokens",e.layer),c(this.skip,"aria-pressed",String(i))}renderNote(e,t){e.skipped?this.note.textContent=n("This block is skipped: nothing in it runs."):t!==void 0?this.note.textContent=n("This layer can be read but not re-routed: %1",t):e.experts.length?this.scope==="all"?this.note.textContent=n("Ban and force hold in layer %1 for all tokens. %2 of %3 experts are chosen per token.",e.layer,e.choices,e.experts.length):this.note.textContent=n("Ban and force hold in layer %1 for token %2 alone. %3 of %4 experts are chosen per token.",e.layer,e.position,e.choices,e.experts.length):this.note.textContent=n("This layer has no router: every token passes through the same MLP.")}renderRows(e,t,i){let r=h=>h.base??h.score??-1/0,o=[...e.experts].sort((h,m)=>this.order==="score"&&r(m)-r(h)||h.expert-m.expert),l=e.experts.map(h=>h.score??h.base).filter(h=>h!==null),p=Math.max(...l),d=Math.min(0,...l);for(let h of this.rows.keys())h>=o.length&&(this.rows.get(h).node.remove(),this.rows.delete(h));o.forEach((h,m)=>{let u=this.rows.get(h.expert)??this.makeRow(h.expert);this.fill(u,h,t,d,p,i),this.list.children[m]!==u.node&&this.list.insertBefore(u.node,this.list.children[m]??null)})}makeRow(e){let t=s("div",{class:"wb-bar"}),i=s("span",{class:"wb-number"}),r=s("span",{class:"wb-number wb-weight"}),o=s("span",{class:"wb-badge"}),l=f=>()=>{this.plan&&this.cell&&this.send(te(this.plan,f,this.target,e))},p=x(n("Ban"),"ban","",l("reroute.ban")),d=x(n("Force"),"force","",l("reroute.force")),h=s("span",{class:"wb-swatch"});h.style.background=M(T(e));let u={node:s("div",{class:"wb-expert",attrs:{role:"listitem","data-wb-expert":String(e)}},h,s("span",{class:"wb-expert-id",text:String(e)}),s("div",{class:"wb-track"},t,i),r,o,p,d),bar:t,score:i,weight:r,badge:o,ban:p,force:d};return this.rows.set(e,u),u}fill(e,t,i,r,o,l){let p=t.score??t.base,d=p===null||o===r?0:(p-r)/(o-r);e.bar.style.width=`${(100*d).toFixed(1)}%`,e.score.textContent=p===null?"\u2013":b(p),e.score.title=t.base===null?"":n("base %1",b(t.base)),e.weight.textContent=t.weight===null?"":b(t.weight,3),e.weight.title=t.weight===null?"":n("combine weight");let h={"":"",chosen:n("chosen"),native:n("native"),banned:n("banned"),forced:n("forced")};e.badge.textContent=h[t.state],e.badge.title=t.state==="native"?n("chosen in the base run, not any more"):"",c(e.node,"data-wb-state",t.state),c(e.node,"data-wb-chosen",String(t.chosen)),c(e.node,"data-wb-native",String(t.native));let m=B(i,["reroute.ban","reroute.force"],this.target,t.expert),u=m<0?"":i.edits[m].kind,f=this.scope==="all"?n("all tokens"):n("this token");e.ban.textContent=u==="reroute.ban"?n("Unban"):n("Ban"),e.force.textContent=u==="reroute.force"?n("Unforce"):n("Force");for(let[g,P]of[[e.ban,u==="reroute.ban"],[e.force,u==="reroute.force"]])g.disabled=l,c(g,"aria-pressed",String(P)),g.title=`${g.textContent} \xB7 ${n("expert %1",t.expert)} \xB7 ${f}`,c(g,"aria-label",n("%1 expert %2",g.textContent,t.expert))}};function E(a,e,t){let i=s("select",{class:"wb-select",attrs:{"aria-label":a}});return i.append(...e.map(([r,o])=>s("option",{text:o,attrs:{value:r}}))),i.addEventListener("change",()=>t(i.value)),i}var w=34,oe=Math.PI/3.4,ae=9,le=34,ge=44,ve=3,N=class{constructor(e){this.onSelect=e;this.canvas=s("canvas",{class:"wb-map-canvas",attrs:{tabindex:"0",role:"application","aria-label":n("Routing map, empty")},on:{keydown:t=>this.key(t),pointermove:t=>this.hover(this.placeAt(t)),pointerleave:()=>this.hover(null),click:t=>this.press(this.placeAt(t)),focus:()=>this.draw(),blur:()=>this.draw()}}),this.context=this.canvas.getContext("2d"),this.spacer=s("div",{class:"wb-map-spacer"}),this.scroller=s("div",{class:"wb-map-scroll",on:{scroll:()=>this.draw(),wheel:t=>this.wheel(t)}},this.spacer),this.spacer.append(this.canvas),this.readout=s("div",{class:"wb-readout",attrs:{"aria-hidden":"true"}}),this.spoken=s("div",{class:"wb-hidden",attrs:{role:"status","aria-live":"polite"}}),this.node=s("div",{class:"wb-map",attrs:{"data-wb-map":""}},this.scroller,this.readout,this.spoken),new ResizeObserver(()=>this.layout()).observe(this.scroller)}node;scroller;spacer;canvas;context;readout;spoken;data=null;colour="expert";cursor={layer:0,position:0};selected=null;hovered=null;zoom=1;width=12;height=20;head=30;frame=0;show(e){let t=e?.tokens!==this.data?.tokens;this.data=e,e&&t&&(this.zoom=1,this.scroller.scrollLeft=0),e&&(this.cursor={layer:Math.min(this.cursor.layer,e.layers-1),position:Math.min(this.cursor.position,e.tokens-1)}),c(this.node,"data-wb-tokens",e?String(e.tokens):void 0),c(this.node,"data-wb-layers",e?String(e.layers):void 0),this.layout(),this.tell()}colourBy(e){this.colour=e,c(this.node,"data-wb-color",e),this.draw(),this.tell()}select(e){this.selected=e,e&&(this.cursor={...e},this.reveal(e.position)),this.draw(),this.tell()}zoomBy(e){let t=(this.scroller.scrollLeft+this.scroller.clientWidth/2-w)/this.width;this.zoom=e===0?1:Math.min(40,Math.max(.2,this.zoom*e)),this.layout(),this.scroller.scrollLeft=t*this.width+w-this.scroller.clientWidth/2}draw(){this.frame===0&&(this.frame=requestAnimationFrame(()=>{this.frame=0,this.paint()}))}layout(){let e=this.scroller.clientWidth;if(!this.data||e===0){this.draw();return}let t=this.data,{tokens:i,layers:r}=t,o=(e-w-le)/i;this.width=Math.max(ve,Math.min(ge,Math.max(13,o))*this.zoom),this.height=r<=12?24:r<=24?18:r<=40?13:9;let l=t.texts.reduce((h,m)=>Math.max(h,pe(m).length),0);this.head=Math.round(18+6.5*l*Math.sin(oe));let p=Math.ceil(w+i*this.width+le),d=this.head+r*this.height+2;this.spacer.style.width=`${p}px`,this.spacer.style.height=`${d}px`,this.canvas.style.width=`${Math.min(e,p)}px`,this.canvas.style.height=`${d}px`,this.draw()}reveal(e){let t=w+e*this.width,{scrollLeft:i,clientWidth:r}=this.scroller;t-w<i?this.scroller.scrollLeft=t-w:t+this.width>i+r&&(this.scroller.scrollLeft=t+this.width-r+2)}paint(){let e=window.devicePixelRatio||1,t=this.canvas.clientWidth,i=this.canvas.clientHeight;this.canvas.width=Math.round(t*e),this.canvas.height=Math.round(i*e);let r=this.context;r.setTransform(e,0,0,e,0,0),r.clearRect(0,0,t,i);let o=this.data;if(!o)return;let l=getComputedStyle(this.node),p=l.getPropertyValue("--wb-paper").trim()||"#fff",d=l.getPropertyValue("--wb-ink").trim()||"#000",h=l.getPropertyValue("--wb-ink-2").trim()||"#666",m=l.getPropertyValue("--wb-accent").trim()||"#1976d2",u=l.getPropertyValue("--wb-cell").trim()||"#eee",f=l.fontFamily,g=this.scroller.scrollLeft,P=Math.max(0,Math.floor((g-w)/this.width)),U=Math.min(o.tokens-1,Math.ceil((g+t-w)/this.width)),k=this.width>=8?1:0,de=Ce(u);r.save(),r.beginPath(),r.rect(w,0,t-w,i),r.clip();let _=this.colour==="expert"&&this.width>=17&&this.height>=13,ce=this.colour!=="expert"&&this.colour!=="flip"&&this.width>=34&&this.height>=18;r.textAlign="center",r.textBaseline="middle";for(let v=0;v<o.layers;v++){let L=this.head+v*this.height;for(let C=P;C<=U;C++){let R=w+C*this.width-g,S=o.fill(this.colour,v,C,de);r.fillStyle=S?M(S):u,r.fillRect(R,L,this.width-k,this.height-k);let F=S?ne(S):d;if(S&&(_||ce)){let X=o.value(this.colour,v,C);r.fillStyle=F,r.font=`${_?11:10}px ${f}`,r.fillText(_?String(X):b(X,2),R+(this.width-k)/2,L+(this.height-k)/2+.5)}o.skipped(v,C)?ye(r,R,L,this.width-k,this.height-k,h):(o.wasEdited(v,C)&&ke(r,R,L,Math.min(7,this.width-k),F),o.flipped(v,C)&&this.colour!=="flip"&&this.width>=8&&(r.fillStyle=F,r.fillRect(R+2,L+this.height-k-4,this.width-k-4,2)))}}this.paintHead(r,o,P,U,g,d,h,m,f);let Z=document.activeElement===this.canvas;this.hovered&&this.frameCell(r,this.hovered,g,d,1,[]),this.selected&&(this.frameCell(r,this.selected,g,p,4,[]),this.frameCell(r,this.selected,g,d,2,[])),Z&&(this.frameCell(r,this.cursor,g,p,4,[]),this.frameCell(r,this.cursor,g,m,2,[4,2])),r.restore(),r.font=`11px ${f}`,r.textAlign="right",r.textBaseline="middle";let be=this.height>=11?1:4,J=this.hovered?.layer??(Z?this.cursor.layer:this.selected?.layer);for(let v=0;v<o.layers;v++)(v%be===0||v===J)&&(r.fillStyle=v===J?d:h,r.fillText(String(v),w-7,this.head+(v+.5)*this.height));r.fillStyle=h,r.fillText(n("layer"),w-5,this.head-9)}paintHead(e,t,i,r,o,l,p,d,h){let m=Math.max(1,Math.ceil(11/this.width)),u=this.hovered?.position??this.selected?.position;for(let f=i;f<=r;f++)f%m!==0&&f!==u||(e.save(),e.translate(w+(f+.5)*this.width-o-1,this.head-5),e.rotate(-oe),e.textAlign="left",e.textBaseline="middle",e.font=`${f===u?"600 ":""}11px ${h}`,e.fillStyle=f===this.selected?.position?d:f===u?l:p,e.fillText(pe(t.texts[f]),0,0),e.restore())}frameCell(e,t,i,r,o,l){e.strokeStyle=r,e.lineWidth=o,e.setLineDash(l),e.strokeRect(w+t.position*this.width-i-.5,this.head+t.layer*this.height-.5,this.width,this.height),e.setLineDash([])}placeAt(e){if(!this.data)return null;let t=this.canvas.getBoundingClientRect(),i=Math.floor((e.clientY-t.top-this.head)/this.height),r=Math.floor((e.clientX-t.left-w+this.scroller.scrollLeft)/this.width);return i>=0&&i<this.data.layers&&r>=0&&r<this.data.tokens&&e.clientX-t.left>=w?{layer:i,position:r}:null}hover(e){(e?.layer!==this.hovered?.layer||e?.position!==this.hovered?.position)&&(this.hovered=e,this.canvas.style.cursor=e?"pointer":"",this.draw(),this.tell())}press(e){e&&(this.cursor=e,this.selected=e,this.draw(),this.onSelect(e))}wheel(e){e.ctrlKey&&(e.preventDefault(),this.zoomBy(e.deltaY<0?1.15:1/1.15))}key(e){if(!this.data||e.ctrlKey||e.metaKey||e.altKey)return;let{tokens:t,layers:i}=this.data,{layer:r,position:o}=this.cursor,p={ArrowLeft:{layer:r,position:o-1},ArrowRight:{layer:r,position:o+1},ArrowUp:{layer:r-1,position:o},ArrowDown:{layer:r+1,position:o},Home:{layer:r,position:0},End:{layer:r,position:t-1},PageUp:{layer:0,position:o},PageDown:{layer:i-1,position:o}}[e.key];if(p)this.cursor={layer:Math.min(i-1,Math.max(0,p.layer)),position:Math.min(t-1,Math.max(0,p.position))},this.reveal(this.cursor.position),this.draw(),this.tell(),this.spoken.textContent=this.readout.textContent;else if(e.key==="Enter"||e.key===" ")this.press({...this.cursor});else if(e.key==="+"||e.key==="=")this.zoomBy(1.25);else if(e.key==="-")this.zoomBy(.8);else if(e.key==="0")this.zoomBy(0);else return;e.preventDefault(),e.stopPropagation()}tell(){let e=this.data,t=document.activeElement===this.canvas,i=this.hovered??(t?this.cursor:this.selected);if(!e||!i||i.position>=e.tokens){this.readout.textContent="";return}this.readout.textContent=xe(e,i),this.canvas.setAttribute("aria-label",n("Routing map, %1 tokens, %2 layers, arrow keys move, Enter inspects.",e.tokens,e.layers))}};function pe(a){let e=[...y(a.replace(/^ (?=.)/,""))];return e.length>ae?`${e.slice(0,ae-1).join("")}\u2026`:e.join("")}function xe(a,{layer:e,position:t}){let i=[n("layer %1",e),n("token %1 \u201C%2\u201D",t,y(a.texts[t]??""))];if(a.skipped(e,t))return i.push(n("block skipped")),i.join(" \xB7 ");let r=a.chosen(e,t);return r.length&&i.push(n("experts %1",r.map(({expert:o,weight:l})=>`${o} (${b(l,3)})`).join(", ")),n("margin %1",b(a.value("margin",e,t),3)),n("entropy %1 nats",b(a.value("entropy",e,t),3))),i.push(n("influence %1",b(a.value("influence",e,t),3))),a.wasEdited(e,t)&&i.push(n("re-routed by the plan")),a.flipped(e,t)&&i.push(n("flipped against base")),i.join(" \xB7 ")}function ye(a,e,t,i,r,o){a.save(),a.beginPath(),a.rect(e,t,i,r),a.clip(),a.strokeStyle=o,a.lineWidth=1,a.beginPath();for(let l=-r;l<i;l+=5)a.moveTo(e+l,t+r),a.lineTo(e+l+r,t);a.stroke(),a.restore()}function ke(a,e,t,i,r){a.fillStyle=r,a.beginPath(),a.moveTo(e,t),a.lineTo(e+i,t),a.lineTo(e,t+i),a.fill()}function Ce(a){let e=document.createElement("canvas").getContext("2d");e.fillStyle=a,e.fillRect(0,0,1,1);let[t,i,r]=e.getImageData(0,0,1,1).data;return[t,i,r]}var Me={uint8:Uint8Array,int16:Int16Array,float32:Float32Array},A=class{run;base;edited;texts;layers;tokens;experts;choices;arrays=new Map;ranges=new Map;constructor(e,t){this.run=e.run,this.base=e.base,this.edited=e.edited,this.texts=e.texts,this.layers=e.layers.length,this.tokens=e.texts.length,this.experts=e.experts,this.choices=e.arrays.find(i=>i.name==="experts")?.shape[0]??0,e.arrays.forEach((i,r)=>{let o=t[r],l=o.buffer.slice(o.byteOffset,o.byteOffset+o.byteLength);this.arrays.set(i.name,new Me[i.dtype](l))})}get colours(){return this.choices>0?["expert","weight","margin","entropy","flip","influence"]:["influence"]}at(e,t,i,r=0){return this.arrays.get(e)?.[(r*this.layers+t)*this.tokens+i]??NaN}chosen(e,t){let i=[];for(let r=0;r<this.choices;r++){let o=this.at("experts",e,t,r);o>=0&&i.push({expert:o,weight:this.at("weights",e,t,r)})}return i}wasEdited(e,t){return this.at("edited",e,t)===1}flipped(e,t){return this.at("flip",e,t)===1}skipped(e,t){return this.at("skipped",e,t)===1}value(e,t,i){if(this.skipped(t,i))return NaN;switch(e){case"expert":{let r=this.at("experts",t,i);return r<0?NaN:r}case"weight":return this.at("weights",t,i);case"flip":return this.at("experts",t,i)<0?NaN:this.at("flip",t,i);default:return this.at(e,t,i)}}range(e){let t=this.ranges.get(e);if(!t){t=[1/0,-1/0];for(let i=0;i<this.layers;i++)for(let r=0;r<this.tokens;r++){let o=this.value(e,i,r);Number.isFinite(o)&&(t=[Math.min(t[0],o),Math.max(t[1],o)])}t=t[0]>t[1]?[0,1]:t,this.ranges.set(e,t)}return t}fill(e,t,i,r){let o=this.value(e,t,i);if(!Number.isFinite(o))return null;if(e==="expert")return T(o);if(e==="flip")return o===1?[213,94,0]:r;let[l,p]=this.range(e);return z(p>l?(o-l)/(p-l):.5)}};var Ee=32,$=class{node=s("div",{class:"wb-legend"});show(e,t){if(!e){this.node.replaceChildren();return}let i=t==="expert"?this.experts(e):t==="flip"?this.flips(e):this.scale(e,t),r=[];e.edited&&(e.choices>0&&r.push(["wb-mark-edited",n("re-routed by the plan")]),e.choices>0&&t!=="flip"&&r.push(["wb-mark-flip",n("flipped against base")]),r.push(["wb-mark-skip",n("skipped")])),i.push(...r.map(([o,l])=>s("span",{class:"wb-key"},s("span",{class:`wb-mark ${o}`}),l))),this.node.replaceChildren(...i)}experts(e){let t=Math.min(Ee,e.experts),i=[s("span",{class:"wb-quiet",text:n("expert of the greatest weight")})];for(let r=0;r<t;r++){let o=s("span",{class:"wb-swatch"});o.style.background=M(T(r)),i.push(s("span",{class:"wb-key"},o,String(r)))}return e.experts>t&&i.push(s("span",{class:"wb-quiet",text:n("and so on to %1",e.experts-1)})),i}flips(e){if(!e.edited)return[s("span",{class:"wb-quiet",text:n("No edited run yet: ban or force an expert to see which choices flip.")})];let t=0,i=0;for(let o=0;o<e.layers;o++)for(let l=0;l<e.tokens;l++)t+=e.flipped(o,l)?1:0,i+=e.chosen(o,l).length?1:0;let r=s("span",{class:"wb-swatch"});return r.style.background=M([213,94,0]),[s("span",{class:"wb-key"},r,n("%1 of %2 choices differ from the base run",t,i))]}scale(e,t){let[i,r]=e.range(t),o=s("span",{class:"wb-gradient"});o.style.background=`linear-gradient(to right, ${[0,.2,.4,.6,.8,1].map(p=>M(z(p))).join(", ")})`;let l={weight:n("combine weight of the first expert"),margin:n("k-th best score minus the next; low: nearly went elsewhere"),entropy:n("entropy of the routing distribution in nats"),influence:n("1 \u2212 cosine of what enters and leaves the block")};return[s("span",{class:"wb-number",text:b(i,3)}),o,s("span",{class:"wb-number",text:b(r,3)}),s("span",{class:"wb-quiet",text:l[t]??""})]}};var Te=256,q=class{node;holder=s("div",{class:"wb-map-table",attrs:{tabindex:"0",role:"region","aria-label":n("Routing map as a table")}});data=null;colour="expert";constructor(){this.node=s("details",{class:"wb-details"},s("summary",{text:n("The map as a table")}),this.holder),this.node.addEventListener("toggle",()=>this.render())}show(e,t){this.data=e,this.colour=t,this.render()}render(){let e=this.data;if(!this.node.open||!e){this.holder.replaceChildren();return}let t=Math.min(Te,e.tokens),i=[...Array(t).keys()],r=s("tr",{},s("th",{text:n("layer"),attrs:{scope:"col"}}));r.append(...i.map(l=>s("th",{attrs:{scope:"col"}},s("code",{text:y(e.texts[l])}))));let o=[...Array(e.layers).keys()].map(l=>{let p=s("tr",{},s("th",{text:String(l),attrs:{scope:"row"}}));return p.append(...i.map(d=>s("td",{class:"wb-number",text:this.text(e,l,d)}))),p});this.holder.replaceChildren(s("table",{class:"wb-table"},s("caption",{class:"wb-quiet",text:t<e.tokens?n("The first %1 of %2 tokens",t,e.tokens):n("All tokens")}),s("thead",{},r),s("tbody",{},...o)))}text(e,t,i){if(e.skipped(t,i))return n("skipped");let r=`${e.wasEdited(t,i)?` ${n("(edited)")}`:""}${e.flipped(t,i)?` ${n("(flipped)")}`:""}`;return this.colour==="expert"?e.chosen(t,i).map(({expert:o})=>o).join(" ")+r:this.colour==="flip"?e.flipped(t,i)?n("flipped"):n("same"):b(e.value(this.colour,t,i),3)+r}};var I=class{constructor(e){this.ask=e;this.where=E(n("Next token after"),[["last",n("after the last token")],["selected",n("after the selected token")]],i=>{this.follow=i==="selected",this.ask(this.follow?this.selected?.position??null:null)});let t=(i,r)=>s("th",{text:i,title:r,attrs:{scope:"col"}});this.table=s("table",{class:"wb-table",attrs:{"data-wb-next":""}},s("caption",{class:"wb-hidden",text:n("Probability of the next token")}),s("thead",{},s("tr",{},t(n("token"),n("\xB7 is a space, \u23CE a line break")),t(n("base"),n("probability without the plan")),t(n("edited"),n("probability with the plan")),t(n("change"),n("edited minus base")),s("th",{attrs:{"aria-hidden":"true"}}))),this.body),this.node=s("section",{class:"wb-card wb-next",attrs:{"aria-label":n("Next token")}},s("div",{class:"wb-row"},s("h3",{class:"wb-title",text:n("Next token")}),this.where,s("span",{class:"wb-grow"}),this.summary),this.empty,this.table),this.show(null)}node;body=s("tbody");summary=s("span",{class:"wb-quiet"});empty=s("p",{class:"wb-note",text:n("Run a prompt to see what the model would say next.")});table;where;follow=!1;selected=null;moved(e){let t=e?.position!==this.selected?.position;this.selected=e,this.follow&&t&&this.ask(e?.position??null)}show(e){this.empty.hidden=e!==null,this.table.hidden=e===null,c(this.table,"data-wb-position",e?String(e.position):void 0),this.summary.textContent=e?.divergence===null||e?.divergence===void 0?"":n("KL %1 nats",b(e.divergence)),this.summary.title=n("Kullback-Leibler divergence of the edited distribution from the base one");let t=Math.max(1e-12,...(e?.rows??[]).flatMap(i=>[i.base,i.edited??0]));this.body.replaceChildren(...(e?.rows??[]).map(i=>{let r=i.edited===null?null:i.edited-i.base,o=(l,p)=>{let d=s("div",{class:`wb-bar ${p}`});return d.style.width=`${(100*l/t).toFixed(1)}%`,d};return s("tr",{attrs:{"data-wb-token":String(i.token)}},s("th",{attrs:{scope:"row"}},s("code",{class:"wb-token",text:y(i.text)})),s("td",{class:"wb-number",text:b(i.base)}),s("td",{class:"wb-number",text:i.edited===null?"\u2013":b(i.edited)}),s("td",{class:`wb-number ${r===null||r===0?"wb-quiet":r>0?"wb-up":"wb-down"}`,text:r===null?"\u2013":se(r)}),s("td",{class:"wb-bars",attrs:{"aria-hidden":"true"}},o(i.base,"wb-base"),i.edited===null?null:o(i.edited,"wb-edited")))}))}};var j=class{constructor(e){this.send=e;this.undo=x(n("Undo"),"undo",n("Undo the last change of the plan (Ctrl+Z)"),()=>e({type:"undo"})),this.redo=x(n("Redo"),"redo",n("Redo it (Ctrl+Shift+Z)"),()=>e({type:"redo"})),this.clear=x(n("Clear"),"clear",n("Remove every edit"),()=>e({type:"clear"})),this.empty.textContent=n("No edits: the model routes as it was trained to. Ban or force an expert to change its mind."),this.node=s("section",{class:"wb-card wb-plan",attrs:{"aria-label":n("Plan")}},s("div",{class:"wb-row"},s("h3",{class:"wb-title",text:n("Plan")}),this.hash,s("span",{class:"wb-grow"}),this.undo,this.redo,this.clear),s("div",{class:"wb-plan-body",attrs:{tabindex:"0",role:"group","aria-label":n("Edits")}},this.empty,this.warnings,this.list)),this.show(null)}node;list=s("ol",{class:"wb-edits"});empty=s("p",{class:"wb-note"});warnings=s("div",{class:"wb-warnings"});hash=s("code",{class:"wb-quiet wb-hash"});undo;redo;clear;show(e){c(this.node,"data-wb-plan",e?.hash??""),this.hash.textContent=e?.edits.length?e.hash.slice(0,8):"",this.hash.title=e?n("Hash of the plan: %1",e.hash):"",this.undo.disabled=!e?.undo,this.redo.disabled=!e?.redo,this.clear.disabled=!e?.edits.length,this.empty.hidden=!!e?.edits.length,this.list.replaceChildren(...(e?.edits??[]).map((t,i)=>{let r=e.version,o=s("input",{attrs:{type:"checkbox","aria-label":n("Enabled: %1",t.text)},on:{change:()=>this.send({type:"enable",version:r,index:i,enabled:o.checked})}});o.checked=t.enabled;let l=x("\xD7","remove",n("Remove: %1",t.text),()=>this.send({type:"remove",version:r,index:i}));return c(l,"aria-label",n("Remove: %1",t.text)),s("li",{attrs:{"data-wb-edit":t.kind,"data-wb-enabled":String(t.enabled)}},s("label",{class:"wb-edit"},o,s("span",{text:t.text})),l)})),this.warnings.replaceChildren(...(e?.warnings??[]).map(t=>s("p",{class:"wb-warning",text:t,attrs:{role:"status"}})))}};var Le="The capital of France is",O=class{node;map;legend=new $;table=new q;inspector;planList;next;prompt;runButton;status=s("span",{class:"wb-status",attrs:{role:"status"}});model=s("div",{class:"wb-model"});picker;source;openButton;errors=s("div",{class:"wb-errors"});strip=s("div",{class:"wb-strip",attrs:{"aria-label":n("Tokens"),role:"group"}});runLabel=s("span",{class:"wb-quiet wb-run"});colours;welcome;body;channel=null;options=null;seq=0;pending=new Map;state=null;data=null;cell=null;colour="expert";kernelBusy=null;asked=-1;opened;resume=null;constructor(){let e=t=>this.send("control",t);this.map=new N(t=>this.select(t)),this.inspector=new D(e),this.planList=new j(e),this.next=new I(t=>e({type:"next",position:t})),this.prompt=s("textarea",{class:"wb-input wb-prompt",attrs:{"data-wb-prompt":"",rows:"2",spellcheck:"false","aria-label":n("Prompt"),placeholder:n("Type a prompt, for instance: %1",Le)},on:{keydown:t=>this.promptKey(t),input:()=>this.grow()}}),this.runButton=x(n("Run"),"run",n("Run the prompt (Enter; Shift+Enter for a new line)"),()=>this.run()),this.runButton.classList.add("wb-primary"),this.picker=E(n("Bench"),[],t=>e({type:"use",key:t})),this.source=s("input",{class:"wb-input",attrs:{"aria-label":n("Model to open"),placeholder:n("folder or hub id; empty: the demo model"),spellcheck:"false",autocomplete:"off"},on:{keydown:t=>{t.key==="Enter"&&this.open(this.source.value.trim()||null)}}}),this.openButton=x(n("Open"),"open",n("Open this model in the kernel"),()=>this.open(this.source.value.trim()||null)),this.colours=E(n("Colour by"),[],t=>this.colourBy(t)),this.welcome=s("section",{class:"wb-card wb-welcome"}),this.body=this.layout(),this.node=s("div",{class:"wb-panel",attrs:{"data-wb-panel":"","data-wb-busy":"true"},on:{keydown:t=>this.key(t)}},s("div",{class:"wb-head"},this.model,this.picker,s("span",{class:"wb-grow"}),s("div",{class:"wb-open"},this.source,this.openButton)),this.errors,this.welcome,this.body),this.render()}connect(e,t){this.channel=e,this.options=t,this.pending.clear(),this.asked=-1,this.opened=void 0,this.kernelBusy=null,this.resume=this.memory(),e.listen((i,r)=>this.receive(i,r)),this.send("control",{type:"hello",protocol:1,version:t.version})}disconnect(e){this.resume=this.memory(),this.channel=null,this.kernelBusy=e,this.renderBusy()}watch(e){this.channel&&this.send("control",{type:"watch",visible:e})}recall(e){this.resume=e,this.prompt.value=e.prompt}restyle(){this.map.draw(),this.legend.show(this.data,this.colour)}focus(){this.prompt.focus()}fail(e,t,i){let r=()=>o.remove(),o=s("div",{class:"wb-error",attrs:{role:"alert","data-wb-error":e}},s("span",{class:"wb-error-mark",text:"!",attrs:{"aria-hidden":"true"}}),s("div",{class:"wb-grow"},s("strong",{text:e})," ",s("span",{text:t})),i?x(n("Try again"),"retry",n("Try again"),()=>{r(),i()}):null,x("\xD7","dismiss",n("Dismiss"),r));o.lastElementChild.setAttribute("aria-label",n("Dismiss")),this.errors.replaceChildren(o)}layout(){let e=(i,r,o,l)=>{let p=x(i,r,o,()=>this.map.zoomBy(l));return p.setAttribute("aria-label",o),p},t=s("section",{class:"wb-card wb-map-card",attrs:{"aria-label":n("Routing map")}},s("div",{class:"wb-row"},s("h3",{class:"wb-title",text:n("Routing map")}),s("label",{class:"wb-label"},n("Colour")," ",this.colours),e("\u2212","zoom-out",n("Zoom out (\u2212)"),.8),e("\u2194","fit",n("Fit to width (0)"),0),e("+","zoom-in",n("Zoom in (+)"),1.25),s("span",{class:"wb-grow"}),this.runLabel),this.map.node,this.legend.node,this.table.node);return s("div",{class:"wb-body"},s("div",{class:"wb-left"},s("section",{class:"wb-card",attrs:{"aria-label":n("Prompt")}},s("div",{class:"wb-row wb-prompt-row"},this.prompt,this.runButton),s("div",{class:"wb-row"},this.strip,this.status)),t,this.next.node),s("div",{class:"wb-right"},this.planList.node,this.inspector.node))}send(e,t){if(!this.channel){this.fail(n("The panel has no kernel."),n("Wait for it to come back, or start it from the Kernel menu."));return}let i=++this.seq;t.type!=="watch"&&t.type!=="seen"&&this.pending.set(i,t.type),this.channel.send(e,{...t,seq:i}),this.renderBusy()}receive(e,t){switch(e.type){case"benches":this.showBenches(e.benches,e.current);break;case"state":this.takeState(e);break;case"map":this.data=new A(e,t),this.send("control",{type:"seen"}),this.renderMap();break;case"cell":this.cell=e,this.renderCell();break;case"next":this.showNext(e);break;case"busy":this.kernelBusy=e.what;break;case"done":this.pending.delete(e.seq);break;case"error":this.showFailure(e);break}this.renderBusy()}showFailure(e){this.fail(e.problem,e.remedy),e.seq!==null&&this.pending.get(e.seq)==="open"&&(this.opened=void 0,this.render())}showNext(e){this.next.show(e)}showBenches(e,t){if(this.picker.replaceChildren(...e.map(i=>s("option",{text:i.variables.length?`${i.variables.join(", ")} \xB7 ${V(i.name)}`:V(i.name),attrs:{value:i.key}}))),this.picker.hidden=e.length<2,t)this.picker.value=t;else if(this.clear(),this.options?.openDemo&&this.opened===void 0&&!this.errors.childElementCount){let i=this.resume;this.open(i?.model??null,i)}this.render()}clear(){this.state=null,this.data=null,this.cell=null,this.next.show(null)}takeState(e){let t=e.bench.key!==this.state?.bench.key;t&&(this.clear(),(e.prompt||!this.prompt.value)&&(this.prompt.value=e.prompt)),this.state=e,e.stale&&this.asked!==e.plan.version&&(this.asked=e.plan.version,this.send("compute",{type:"recompute"}));let i=this.memory();i&&this.options?.remember?.(i),this.next.moved(e.selected),t?(this.render(),this.grow()):this.renderState()}memory(){return this.state?{model:this.opened??this.resume?.model??null,prompt:this.state.prompt,plan:this.state.plan.text}:this.resume}open(e,t=null){this.opened=e,this.errors.replaceChildren();let i=t?.prompt?{prompt:t.prompt,plan:t.plan}:{prompt:"",plan:null};this.send("compute",{type:"open",model:e,...i})}run(){this.errors.replaceChildren(),this.send("compute",{type:"run",prompt:this.prompt.value})}select(e){this.renderStrip(e.position),this.send("control",{type:"select",...e})}colourBy(e){this.colour=e,this.colours.value=e,this.map.colourBy(e),this.legend.show(this.data,e),this.table.show(this.data,e)}promptKey(e){e.key==="Enter"&&!e.shiftKey&&!e.isComposing&&(e.preventDefault(),e.stopPropagation(),this.run())}key(e){let t=e.target instanceof HTMLTextAreaElement||e.target instanceof HTMLInputElement,i=e.target instanceof HTMLInputElement&&e.target.type==="checkbox";(e.ctrlKey||e.metaKey)&&e.key.toLowerCase()==="z"&&(!t||i)&&(e.preventDefault(),e.stopPropagation(),this.send("control",{type:e.shiftKey?"redo":"undo"}))}grow(){this.prompt.style.height="auto",this.prompt.style.height=`${Math.min(160,this.prompt.scrollHeight+2)}px`}render(){this.body.hidden=this.state===null,this.renderWelcome(),this.renderState(),this.renderMap(),this.renderCell(),this.renderBusy()}renderWelcome(){this.welcome.hidden=this.state!==null;let e=[...this.pending.values()].includes("open")||this.options===null;this.welcome.replaceChildren(...e?[s("h3",{class:"wb-title",text:n("Opening a model\u2026")}),s("p",{class:"wb-note",text:n("The first time this takes a few seconds: the kernel loads torch and the weights.")})]:[s("h3",{class:"wb-title",text:n("No bench in this kernel yet")}),...this.options?.openDemo?[]:[s("p",{},n("Run this in a cell of the notebook, and it appears here:")),s("pre",{class:"wb-code",text:`import workbench as wb
bench = wb.open()`})],s("p",{},n("To open a model from here, name it in the field above (a local folder or a hub id; empty for the demo model) and press Open."))])}renderState(){let e=this.state;this.planList.show(e?.plan??null),this.inspector.show(this.cell,e?.plan??null,e?.bench??null);let t=e?.bench,i=t?.moe_layers.length?n("%1 layers \xB7 %2 experts, %3 per token",t.layers,t.experts,t.top_k):n("%1 layers \xB7 dense",t?.layers);this.model.replaceChildren(...t?[s("strong",{class:"wb-name",text:V(t.name),title:t.name}),s("span",{class:"wb-quiet",text:`${t.model_type} \xB7 ${i}`}),s("span",{class:"wb-chip",text:t.isa?`${t.kernels} \xB7 ${t.isa}`:t.kernels,title:n("kernel backend in use")})]:[s("strong",{text:n("Workbench")})]);let r=e?.edited??e?.base;c(this.runLabel,"data-wb-run",r?.id),c(this.runLabel,"data-wb-base",e?.base?.id),this.runLabel.textContent=r?e?.edited?n("edited %1",r.id):n("base %1",r.id):"",this.runLabel.title=e?.edited&&e.base?n("run of the plan; the base run is %1",e.base.id):n("run without a plan"),this.map.select(e?.selected??null),this.renderStrip(e?.selected?.position)}renderMap(){let e=this.data?.colours??["expert"];e.includes(this.colour)||(this.colour=e[0]);let t={expert:n("chosen expert"),weight:n("weight of the first expert"),margin:n("margin"),entropy:n("entropy"),flip:n("flip against base"),influence:n("block influence")};this.colours.replaceChildren(...e.map(i=>s("option",{text:t[i],attrs:{value:i}}))),this.map.show(this.data),this.colourBy(this.colour),this.map.select(this.state?.selected??null),this.renderStrip(this.state?.selected?.position)}renderCell(){this.inspector.show(this.cell,this.state?.plan??null,this.state?.bench??null)}renderStrip(e){let t=this.data?.texts??[];(this.strip.childElementCount!==t.length||t.some((i,r)=>this.strip.children[r].getAttribute("data-text")!==i))&&this.strip.replaceChildren(...t.map((i,r)=>s("span",{class:"wb-chip-token",text:i.replace(/\r?\n/g,"\u23CE").replace(/\t/g,"\u21E5")||"\u2205",title:n("token %1 \u201C%2\u201D",r,y(i)),attrs:{"data-text":i},on:{click:()=>this.select({layer:this.state?.selected?.layer??0,position:r})}})));for(let[i,r]of[...this.strip.children].entries())r.classList.toggle("wb-on",i===e)}renderBusy(){let e=[...this.pending.values()],t=this.kernelBusy!==null||e.length>0||this.channel===null;c(this.node,"data-wb-busy",String(t));let i=e.some(r=>r==="run"||r==="recompute"||r==="open");this.status.textContent=this.kernelBusy??(i?n("waiting for the kernel"):""),this.runButton.classList.toggle("wb-working",t&&(i||this.kernelBusy!==null)),this.openButton.disabled=e.includes("open"),this.state===null&&this.renderWelcome()}};function V(a){return/^(\/|[A-Za-z]:\\)/.test(a)?`\u2026/${a.split(/[/\\]/).filter(Boolean).pop()??a}`:a}var he="0.1.0";function Re({model:a,el:e}){let t=document.createElement("style");t.textContent=Y+Q+G;let i=new O;i.node.classList.add("wb-inline"),i.node.addEventListener("focusin",p=>{p.target.setAttribute("data-lm-suppress-shortcuts","true")}),e.append(t,i.node);let r=()=>{},o={send:(p,d)=>a.send({lane:p,message:d}),listen:p=>{r=p}},l=(p,d)=>r(p,d);return a.on("msg:custom",l),i.connect(o,{version:he,openDemo:!1}),()=>a.off("msg:custom",l)}var Tt={render:Re};export{Tt as default};
