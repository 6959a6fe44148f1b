/** One cell of the map in words. No DOM. */
import { depthEvents } from './depth';
import { shown } from './dom';
import { nameOf } from './legend';
import type { Colour, MapData } from './mapdata';
import type { Place } from './paint';
import { digits } from './scale';
import { __ } from './words';

/** What is known of a place; where only columns of many tokens are, of such a column. */
export function describe(data: MapData, { layer, position }: Place, colour: Colour = 'expert', bucket = 1): string {
  const known = data.knows(position);
  if (!known) {
    const tile = bucket > 1 ? data.tile(colour, bucket, position) : null;
    const start = Math.floor(position / bucket) * bucket;
    const parts = [__('layer %1', layer), __('tokens %1 to %2', start, Math.min(data.tokens, start + bucket) - 1)];
    if (tile) {
      const column = Math.floor((position - tile.first) / bucket);
      if (colour === 'expert') {
        parts.push(__('mostly expert %1 (%2 %)', tile.at('experts', layer, column), Math.round(100 * tile.at('share', layer, column))));
      } else if (colour === 'flip') {
        parts.push(__('%1 % flipped', Math.round(100 * tile.at('flip', layer, column))));
      } else if (colour === 'depth') {
        const event = depthEvents()[tile.at('depth', layer, column)];
        parts.push(event?.sign ? __('%1 (%2 %)', event.name, Math.round(100 * tile.at('share', layer, column))) : __('ran once'));
      } else {
        parts.push(__('mean %1 %2', nameOf(colour), digits(tile.at(colour === 'weight' ? 'weights' : colour, layer, column), 3)));
      }
    }
    return parts.join(' · ');
  }
  const parts = [__('layer %1', layer), __('token %1 “%2”', position, shown(data.text(position) ?? ''))];
  const event = data.depth(layer, position);
  if (event) {
    parts.push(depthEvents()[event]?.name ?? '');
  }
  if (data.skipped(layer, position)) {
    return parts.join(' · ');
  }
  const chosen = data.chosen(layer, position);
  if (chosen.length) {
    parts.push(
      __('experts %1', chosen.map(({ expert, weight }) => `${expert} (${digits(weight, 3)})`).join(', ')),
      __('margin %1', digits(data.value('margin', layer, position), 3)),
      __('entropy %1 nats', digits(data.value('entropy', layer, position), 3))
    );
  }
  parts.push(__('influence %1', digits(data.value('influence', layer, position), 3)));
  if (data.wasEdited(layer, position)) {
    parts.push(__('re-routed by the plan'));
  }
  if (data.flipped(layer, position)) {
    parts.push(__('flipped against base'));
  }
  return parts.join(' · ');
}
