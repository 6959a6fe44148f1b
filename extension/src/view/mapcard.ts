/** The map with all that belongs to it: colours, zoom, load, legend, table, the marked box, and the tiles it asks for. */
import { Changed } from './changed';
import type { ControlRequest } from './channel';
import { button, choice, h, setAttr, setText, setTitle } from './dom';
import { wordsOf } from './edits';
import { savePicture } from './files';
import { MapLegend, nameOf } from './legend';
import { LoadStrip } from './loadstrip';
import { type Arrangement, type Box, type Place, RoutingMapView } from './map';
import { type Colour, MapData, type Want } from './mapdata';
import { MapTable } from './maptable';
import type { Load, RoutingMap, State, TileMessage } from './protocol';
import { __ } from './words';

/** Tiles asked for at a time: the view may have moved on by the time an answer comes. */
const UNDER_WAY = 3;

export interface MapCardActions {
  /** Sends a request; its number. */
  send: (request: ControlRequest) => number;
  select: (place: Place) => void;
  brush: (box: Box | null) => void;
  /** Opens a form for an edit of the marked box. */
  editBox: (box: Box) => void;
  flip: () => void;
  /** New texts of tokens are known. */
  texts: () => void;
}

export class MapCard {
  readonly node: HTMLElement;
  readonly map: RoutingMapView;
  data: MapData | null = null;
  private readonly legend = new MapLegend();
  private readonly table = new MapTable();
  private readonly load = new LoadStrip();
  private readonly colours: HTMLSelectElement;
  private readonly rows: HTMLSelectElement;
  private readonly side: HTMLButtonElement;
  private readonly picture: HTMLButtonElement;
  private readonly runLabel = h('span', { class: 'wb-quiet wb-run' });
  private readonly hint = h('p', { class: 'wb-note', text: __('Run a prompt: each of its tokens becomes a column here, each layer a row.') });
  private readonly boxBar: HTMLElement;
  private readonly boxText = h('span', { attrs: { role: 'status' } });
  private readonly asked = new Map<string, number>();
  private readonly offered = new Changed();
  private box: Box | null = null;
  private colour: Colour = 'expert';
  private wants: Want[] = [];
  private loadAsked = true;

  constructor(private readonly actions: MapCardActions) {
    this.map = new RoutingMapView({
      select: actions.select,
      brush: box => this.brushed(box),
      want: wants => this.want(wants),
      placed: geometry => this.load.place(geometry)
    });
    this.colours = choice(__('Colour by'), [], value => this.colourBy(value as Colour));
    this.rows = choice(
      __('Rows of the map'),
      [
        ['zoom', __('rows by zoom')],
        ['layers', __('one row a layer')],
        ['slots', __('every choice')],
        ['lanes', __('experts of the layer')]
      ],
      value => this.map.arrange(value as Arrangement)
    );
    this.side = button(__('Show base'), 'side', '', actions.flip);
    this.picture = button(__('Picture'), 'picture', __('Save the map in view as a PNG picture'), () =>
      savePicture(this.map.canvas, this.node, `routing-${this.data?.run ?? 'map'}.png`)
    );
    this.picture.disabled = true;
    const zoom = (label: string, action: string, title: string, factor: number): HTMLButtonElement => {
      const node = button(label, action, title, () => this.map.zoomBy(factor));
      node.setAttribute('aria-label', title);
      return node;
    };
    this.boxBar = h(
      'div',
      { class: 'wb-row wb-box-bar', attrs: { hidden: true } },
      this.boxText,
      button(__('Edit this box…'), 'edit-box', __('Choose what to do with these layers and tokens'), () => {
        if (this.box) {
          actions.editBox(this.box);
        }
      }),
      button(__('Unmark'), 'unmark', __('Forget the box (Escape)'), () => this.map.brush(null))
    );
    this.node = h(
      'section',
      { class: 'wb-card wb-map-card', attrs: { 'aria-label': __('Routing map') } },
      h(
        'div',
        { class: 'wb-row' },
        h('h3', { class: 'wb-title', text: __('Routing map') }),
        h('label', { class: 'wb-label' }, __('Colour'), ' ', this.colours),
        this.rows,
        zoom('−', 'zoom-out', __('Zoom out (−)'), 0.8),
        zoom('↔', 'fit', __('Fit to width (0)'), 0),
        zoom('+', 'zoom-in', __('Zoom in (+)'), 1.25),
        this.side,
        this.picture,
        h('span', { class: 'wb-grow' }),
        this.runLabel
      ),
      this.hint,
      h('div', { class: 'wb-map-row' }, this.map.node, this.load.node),
      this.boxBar,
      this.legend.node,
      this.table.node
    );
  }

  /** A new map, or none. */
  take(message: RoutingMap | null, buffers: DataView[] = []): void {
    const other = message?.run !== this.data?.run;
    this.data = message ? new MapData(message, buffers) : null;
    this.hint.hidden = this.data !== null;
    this.picture.disabled = this.data === null;
    this.asked.clear();
    this.wants = [];
    const colours = this.data?.colours ?? ['expert'];
    if (!colours.includes(this.colour)) {
      this.colour = colours[0] ?? 'expert';
    }
    if (this.offered.by(colours)) {
      this.colours.replaceChildren(...colours.map(value => h('option', { text: nameOf(value), attrs: { value } })));
    }
    this.rows.hidden = !this.data?.choices;
    this.map.show(this.data);
    this.colourBy(this.colour);
    if (!this.data?.choices) {
      this.load.show(null);
    } else if (other || this.load.run !== this.data.run) {
      this.loadAsked = false;
      if (this.data.whole) {
        this.askLoad();
      }
    }
  }

  /** A piece of a large map. */
  takeTile(message: TileMessage, buffers: DataView[]): void {
    const data = this.data;
    if (data && message.run === data.run && message.base === data.base && message.edited === data.edited) {
      data.take(message.tile, buffers);
      this.legend.show(data, this.colour);
      this.table.show(data, this.colour);
      this.map.draw();
      if (message.tile.bucket === 1) {
        this.actions.texts();
      }
    }
  }

  takeLoad(message: Load, buffers: DataView[]): void {
    if (message.run === this.data?.run) {
      this.load.show(message, buffers);
    }
  }

  /** The request with this number has been dealt with, well or badly. */
  finished(seq: number): void {
    for (const [key, asked] of this.asked) {
      if (asked === seq) {
        this.asked.delete(key);
        this.ask();
      }
    }
  }

  show(state: State | null): void {
    const ran = state?.edited ?? state?.base;
    setAttr(this.runLabel, 'data-wb-run', ran?.id);
    setAttr(this.runLabel, 'data-wb-base', state?.base?.id);
    const past = ran?.past ? ` · ${__('from the store')}` : '';
    setText(this.runLabel, ran ? (state?.edited ? __('edited %1', ran.id) : ran.past ? ran.id : __('base %1', ran.id)) + past : '');
    setTitle(this.runLabel, state?.edited && state.base ? __('run of the plan; the base run is %1', state.base.id) : __('run without a plan'));
    this.map.select(state?.selected ?? null);
    this.showSide(state);
  }

  showSide(state: State | null): void {
    const base = !this.data?.edited;
    this.side.disabled = !state?.edited;
    setText(this.side, base && state?.edited ? __('Show edited') : __('Show base'));
    setTitle(this.side, __('Flip the map between base and edited (B)'));
    setAttr(this.map.node, 'data-wb-side', base ? 'base' : 'edited');
  }

  /** The colour to begin with, as long as nobody has chosen one. */
  prefer(colour: Colour): void {
    this.colour = colour;
    if (this.data?.colours.includes(colour)) {
      this.colourBy(colour);
    }
  }

  colourBy(colour: Colour): void {
    this.colour = colour;
    this.colours.value = colour;
    this.map.colourBy(colour);
    this.legend.show(this.data, colour);
    this.table.show(this.data, colour);
  }

  restyle(): void {
    this.map.draw();
    this.load.draw();
    this.legend.show(this.data, this.colour);
  }

  private askLoad(): void {
    if (this.data && !this.loadAsked) {
      this.loadAsked = true;
      this.actions.send({ type: 'load_of', run: this.data.run });
    }
  }

  private want(wants: Want[]): void {
    this.wants = wants;
    this.ask();
    if (!wants.length && this.data?.choices) {
      this.askLoad(); // what is in sight comes first
    }
  }

  private ask(): void {
    const data = this.data;
    for (const want of this.wants) {
      if (!data || this.asked.size >= UNDER_WAY) {
        return;
      }
      if (!this.asked.has(want.key)) {
        const { colour, first, bucket, layer } = want;
        this.asked.set(
          want.key,
          this.actions.send({ type: 'tile', run: data.run, base: data.base, edited: data.edited, colour, first, bucket, layer })
        );
      }
    }
  }

  private brushed(box: Box | null): void {
    this.box = box;
    this.boxBar.hidden = box === null;
    if (box) {
      this.boxText.textContent = __('Marked: %1', wordsOf(box));
    }
    this.actions.brush(box);
  }
}
