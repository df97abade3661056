// Which clips are gone through, and in which order.

function hasClass(data, clip, wanted, entryFits) {
  for (let entry = data.first[clip]; entry < data.first[clip + 1]; entry++) {
    if ((wanted === null || data.entry_class[entry] === wanted) && entryFits(entry)) return true;
  }
  return false;
}

// Whether in some second the events of a class are heard alone, seen alone, or both, as one set says.
function happens(data, clip, entry, set, kind) {
  if (!there(data, set, clip)) return false;
  for (let second = 0; second < data.lengths[clip]; second++) {
    const heard = cell(data, set, entry, 0, second) >= HARD, seen = cell(data, set, entry, 1, second) >= HARD;
    if (kind === 'audio' ? heard && !seen : kind === 'visual' ? seen && !heard : heard && seen) return true;
  }
  return false;
}

function selected(data, state) {
  const found = [], text = state.id.toLowerCase();
  const fits = (clip) => (entry) => !state.events || happens(data, clip, entry, state.set, state.events);
  for (let clip = 0; clip < data.ids.length; clip++) {
    if (state.split !== null && data.split[clip] !== state.split) continue;
    if (text && !data.ids[clip].toLowerCase().includes(text)) continue;
    if ((state.cls !== null || state.events) && !hasClass(data, clip, state.cls, fits(clip))) continue;
    found.push(clip);
  }
  return sorted(data, found, state.order);
}

function measure(data, clip, order) {
  if (order === 'dispute') return share(data.dispute[clip]);
  return order === 'file' ? null : distanceOf(data, Number(order), clip);
}

// The largest distance first; clips of which it is not known last; otherwise as the dataset has them.
function sorted(data, clips, order) {
  if (order === 'file') return clips;
  const known = new Map(clips.map((clip) => [clip, measure(data, clip, order) ?? -1]));
  return clips.sort((one, other) => known.get(other) - known.get(one) || one - other);
}
